package upstream

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

func mustParseRules(t *testing.T, text string) Rules {
	t.Helper()
	rules, err := ParseRules([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func replyOf(t *testing.T, line string) Reply {
	t.Helper()
	r, _, err := read(line + "\r\n")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheFirstOwnRuleThatFitsWins(t *testing.T) {
	rules := mustParseRules(t, `
- {stage: data, code: 4xx, class: temp}
- stage: [rcpt, dot]
  text: 'RP:ORQ|HL:ITC'
  class: quota
  retry_after: 2h
- {code: 450, text: 'mi:dmc', class: conn-cap}
- {enhanced: 4.7.x, text: slow, class: rate}
- {enhanced: x.5.3, stage: rcpt, class: split}
- {code: 55x, stage: mail, class: perm}
- {text: "said: 421", class: pressure}
- {stage: connect, class: conc-source}
`)
	for _, tc := range []struct {
		stage flowctl.Stage
		reply string
		word  string // "": what the built-in rules say
		wait  time.Duration
	}{
		{flowctl.StageData, "421 RP:ORQ", "temp", 0},
		{flowctl.StageRcpt, "550 RP:ORQ", "quota", 2 * time.Hour},
		{flowctl.StageDot, "554 hl:itc, try again in 5 minutes", "quota", 2 * time.Hour},
		{flowctl.StageMail, "550 RP:ORQ", "perm", 0},
		{flowctl.StageDot, "450 MI:DMC", "conn-cap", 0},
		{flowctl.StageDot, "451 MI:DMC", "", 0},
		{flowctl.StageDot, "451 4.7.1 slow, retry in 30 seconds", "rate", 30 * time.Second},
		{flowctl.StageDot, "451 slow", "", 0},
		{flowctl.StageDot, "451 4.17.1 slow", "", 0},
		{flowctl.StageRcpt, "550 5.5.3 so many", "split", 0},
		{flowctl.StageMail, "560 5.1.8 no", "", 0},
		{flowctl.StageDot, "451 host x said: 421 no", "pressure", 0},
		{flowctl.StageGreeting, "554 no", "conc-source", 0},
		{flowctl.StageEHLO, "554 no", "", 0},
		{flowctl.StageDot, "250 RP:ORQ", "", 0},
		{flowctl.StageRcpt, "250 2.5.3 said: 421", "", 0},
		{flowctl.StageData, "354 RP:ORQ", "", 0},
	} {
		r := replyOf(t, tc.reply)
		want := Classify(tc.stage, r.Code, r.Enhanced, r.Text)
		if tc.word != "" {
			want = mean(tc.word)
			want.RetryAfter, want.Split = tc.wait, tc.word == "split"
		}
		if got := rules.Classify(tc.stage, r); got != want {
			t.Errorf("stage %d, %s: %+v, want %+v", tc.stage, tc.reply, got, want)
		}
	}
}

func TestOneRuleForEveryRefusalTouchesNoSuccess(t *testing.T) {
	for word := range classes {
		rules := mustParseRules(t, "- {text: '.*', class: "+word+"}")
		for st := flowctl.StageConnect; st <= flowctl.StageIdle; st++ {
			for code := 200; code < 600; code++ {
				m := rules.Classify(st, Reply{Code: code, Text: "x"})
				if (m.Class == flowctl.OK) != (code < 400) {
					t.Fatalf("%s, stage %d, %d: %+v", word, st, code, m)
				}
				if (m.Class == flowctl.PerMessage || m.Class == flowctl.Permanent) && word != "temp" && (st < flowctl.StageMail || st > flowctl.StageDot) {
					if built := Classify(st, code, [3]uint16{}, "x"); m != built {
						t.Fatalf("%s, stage %d, %d: %+v: a session needs a class of its own", word, st, code, m)
					}
				}
			}
		}
	}
}

func TestEveryFaultOfARuleIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"- {code: 454}":                                              "rule 1: class: is missing",
		"- {class: rate}":                                            "rule 1: has no condition: one of stage, code, enhanced, text",
		"- {code: 454, class: rat}":                                  `rule 1: class: "rat" is not one of auth-churn, auth-temp, conc-`,
		"- {code: 250, class: rate}":                                 `rule 1: code: "250" is no refusal such as 454, 45x or 4xx`,
		"- {code: 4x4, class: rate}":                                 `rule 1: code: "4x4"`,
		"- {code: 4544, class: rate}":                                `rule 1: code: "4544"`,
		"- {enhanced: 2.7.0, class: rate}":                           `rule 1: enhanced: "2.7.0" is no refusal`,
		"- {enhanced: 4.7, class: rate}":                             `rule 1: enhanced: "4.7" is no refusal`,
		"- {text: '(', class: rate}":                                 "rule 1: text: is no RE2 pattern: missing closing ): `(?i)(`",
		"- {text: '" + strings.Repeat("x", 1025) + "', class: rate}": "rule 1: text: has 1025 octets, more than 1024",
		"- {stage: dots, class: rate}":                               `rule 1: stage: "dots" is not one of auth, connect, data, dot,`,
		"- {stage: [dot, [mail]], class: rate}":                      `rule 1: stage: "" is not one of`,
		"- {stage: [], class: rate}":                                 "rule 1: stage: is neither a stage nor a list of them",
		"- {stage: {dot: 1}, class: rate}":                           `rule 1: stage: is neither a stage nor a list of them`,
		"- {stage: connect, class: perm}":                            "rule 1: class: perm makes no sense at a stage that is named",
		"- {stage: [mail, dot], class: idle}":                        "rule 1: class: idle makes no sense at a stage that is named",
		"- {code: 454, class: rate, retry_after: 30}":                `rule 1: retry_after: "30" is no duration such as 30s or 2h`,
		"- {code: 454, class: rate, retry_after: 25h}":               `rule 1: retry_after: "25h" is no duration`,
		"- {code: 454, class: rate, retry_after: -1s}":               `rule 1: retry_after: "-1s" is no duration`,
		"- {code: 454, class: rate, retry: 3s}":                      "rule 1: retry: is no field; there are class, code, enhanced, retry_after, stage, text",
		"- {code: 454, class: [rate]}":                               "rule 1: class: is no text",
		"- {code: 454, code: 455, class: rate}":                      "rule 1: code: stands twice",
		"- {code: 454, class: rate}\n- x":                            "rule 2: is no mapping of class, code,",
		"code: 454":                                                  "are no YAML list",
		"- {code: 454":                                               "are no YAML list",
		strings.Repeat("- {code: 454, class: rate}\n", 101):          "are 101, more than 100",
		"#" + strings.Repeat(" ", RulesTextMax):                      "are 65537 octets, more than 65536",
	} {
		if _, err := ParseRules([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
	}
	_, err := ParseRules([]byte("- {code: 1, class: x}\n- {text: ok, class: rate}\n- {text: '['}"))
	if n := len(strings.Split(fmt.Sprint(err), "\n")); n != 4 {
		t.Errorf("not all at once: %v", err)
	}
	for _, none := range []string{"", "# nothing yet\n", "[]", "null"} {
		if rules, err := ParseRules([]byte(none)); err != nil || len(rules) != 0 {
			t.Errorf("%q: %v, %v", none, rules, err)
		}
	}
}

// The rules of the configuration are asked wherever a reply is given its meaning.
func TestOwnRulesReachEveryStage(t *testing.T) {
	const odd = "459 4.9.9 zap"
	rules := mustParseRules(t, "- {code: 459, text: ZAP, class: rate, retry_after: 7s}")
	for _, at := range []string{"GREETING 1", "EHLO 1", "MAIL 1", "RCPT 1", "DATA 1", "DOT 1"} {
		r := &relay{offers: pipelining, script: map[string]act{at: {reply: odd}}}
		inBubble(t, r, func(t *testing.T) {
			conn, out := r.client(t, Config{Rules: rules}).Connect(t.Context(), "")
			if conn != nil {
				results, _ := send(conn, letters(1, 1)...)
				if len(results) != 1 {
					t.Fatalf("%s: %+v", at, results)
				}
				out = results[0].Signal
			}
			if out.Class != flowctl.RateLimited || out.RetryAfter != 7*time.Second {
				t.Errorf("%s: %+v", at, out)
			}
		})
	}
}

func FuzzParseRules(f *testing.F) {
	for _, s := range []string{"- {code: 4xx, class: rate}", "- stage: [dot]\n  text: x\n  class: quota\n  retry_after: 1h", "a: &a [*a]", "- <<: {}", "- !!binary x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rules, err := ParseRules(b)
		if err != nil && rules != nil {
			t.Fatal("rules and an error")
		}
		for i := range rules {
			if len(rules[i].stages) == 0 || classes[rules[i].word] == flowctl.OK {
				t.Fatalf("%+v", rules[i])
			}
		}
	})
}
