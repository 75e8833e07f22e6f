package upstream

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

func TestMessagesArriveWholeAtEachLevel(t *testing.T) {
	for _, level := range []Level{L0, L1, L2} {
		r := &relay{offers: pipelining}
		inBubble(t, r, func(t *testing.T) {
			cl := r.client(t, Config{})
			stand(cl, level, 1)
			jobs := letters(20, 3)
			c := r.connect(t, cl)
			results, out := send(c, jobs...)
			r.checkTruth(t, jobs, results)
			if len(results) != 20 || len(r.accepted) != 20 || c.Messages() != 20 || out.Class != flowctl.OK {
				t.Errorf("L%d: %d results, %d taken, %d counted, %+v", level, len(results), len(r.accepted), c.Messages(), out)
			}
			if last := r.lines[len(r.lines)-1]; last != "QUIT" {
				t.Errorf("L%d: the last command is %q", level, last)
			}
			for k, res := range results {
				if res.Reused != (k > 0) || res.Signal.Class != flowctl.OK {
					t.Errorf("L%d: message %d: reused %v, signal %+v", level, k+1, res.Reused, res.Signal)
				}
			}
		})
	}
}

// A round trip of 40 ms: at L0 a message to one recipient costs four, at L2 one.
func TestOneRoundTripPerMessage(t *testing.T) {
	took := func(level Level) time.Duration {
		var d time.Duration
		r := &relay{offers: pipelining, oneWay: 20 * time.Millisecond}
		inBubble(t, r, func(t *testing.T) {
			cl := r.client(t, Config{})
			stand(cl, level, 1)
			c := r.connect(t, cl)
			start := time.Now()
			var end time.Time
			feed := make(chan *Job, 100)
			for _, j := range letters(100, 1) {
				feed <- j
			}
			close(feed)
			c.Run(feed, func(*Result) { end = time.Now() })
			d = end.Sub(start)
			if len(r.accepted) != 100 {
				t.Errorf("L%d: %d taken", level, len(r.accepted))
			}
		})
		return d
	}
	l0, l1, l2 := took(L0), took(L1), took(L2)
	t.Logf("100 messages: L0 %v (%.1f/s), L1 %v (%.1f/s), L2 %v (%.1f/s)", l0, 100/l0.Seconds(), l1, 100/l1.Seconds(), l2, 100/l2.Seconds())
	if l0 < 3*l2 {
		t.Errorf("L2 is only %.1f times as fast as L0", float64(l0)/float64(l2))
	}
	if l2 > 101*40*time.Millisecond {
		t.Errorf("L2 takes more than a round trip per message: %v", l2)
	}
}

// Every fault in every phase, on a fresh and on a used connection. What is said before the dot is decided or handed back, what
// is not said after it is uncertain, and it is never another message's.
func TestNoFaultConfusesMessages(t *testing.T) {
	faults := map[string]act{
		"close":     {then: "close"},
		"reset":     {then: "reset"},
		"stall":     {then: "stall"},
		"421":       {reply: "421 4.3.2 shutting down", then: "close"},
		"451":       {reply: "451 4.3.0 not now"},
		"550":       {reply: "550 5.7.0 no"},
		"503":       {reply: "503 5.5.1 bad sequence"},
		"extra":     {reply: "250 2.0.0 ok\n250 2.0.0 ok again"},
		"354":       {reply: "354 send"},
		"garbage":   {reply: "\x00\x01?"},
		"bomb":      {reply: strings.Repeat("250-more\n", replyLinesMax) + "250 end"},
		"long line": {reply: "250 " + strings.Repeat("x", 2*replyLineMax)},
		"other":     {reply: "250-one\n550 two"},
	}
	for _, level := range []Level{L0, L1, L2} {
		for _, phase := range []string{"RSET", "MAIL", "RCPT", "DATA", "BODY", "DOT"} {
			for name, fault := range faults {
				for nth := 1; nth <= 3; nth++ {
					if phase == "RSET" && (level == L0 || nth == 3) {
						continue
					}
					t.Run(fmt.Sprintf("L%d %s %s %d", level, phase, name, nth), func(t *testing.T) {
						faultIn(t, level, phase, nth, name, fault)
					})
				}
			}
		}
	}
}

func faultIn(t *testing.T, level Level, phase string, nth int, name string, fault act) {
	r := &relay{offers: pipelining, script: map[string]act{fmt.Sprintf("%s %d", phase, nth): fault}}
	inBubble(t, r, func(t *testing.T) {
		cl := r.client(t, Config{})
		stand(cl, level, 1)
		jobs := letters(4, 1)
		if phase == "BODY" { // the dot must not be on the wire yet
			jobs[nth-1].Env.Size = 400_000
			jobs[nth-1].Open = func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x\r\n", writeBuffer)), waits{}, strings.NewReader(strings.Repeat("x\r\n", writeBuffer)))), nil
			}
		}
		results, out := send(r.connect(t, cl), jobs...)
		r.checkTruth(t, jobs[:len(results)], results)
		if len(results) < nth {
			t.Fatalf("%d results", len(results))
		}
		hit := results[nth-1]
		if phase == "RSET" {
			hit = results[nth]
		}
		breaks := fault.then != "" && name != "421"
		dotted := phase == "DOT" || phase == "BODY" && name == "stall" // which goes on reading
		if breaks && !dotted && !hit.HandedBack {
			t.Errorf("the connection ended before the dot: %+v", hit)
		}
		if breaks && dotted && (!hit.Uncertain || hit.Err == nil) {
			t.Errorf("the connection ended after the dot: %+v", hit)
		}
		if breaks && hit.Reused != (phase == "RSET" || nth > 1) {
			t.Errorf("reused: %v", hit.Reused)
		}
		if name == "421" && (hit.HandedBack || hit.Verdicts[0].Reply.Code != 421 || out.Class != flowctl.Unavailable) {
			t.Errorf("421: %+v, ended with %+v", hit, out)
		}
		late := flowctl.Overload
		if phase == "RSET" && level == L2 {
			late = flowctl.IdleClose // that it went with the content is blamed first
		}
		if name == "stall" && out.Class != late {
			t.Errorf("a reply that does not come is %+v", out)
		}
		whole := name == "451" || name == "550"
		if whole && phase != "RSET" && phase != "BODY" && (len(results) != 4 || out.Class != flowctl.OK) {
			t.Errorf("a refused message ended the connection: %d results, %+v", len(results), out)
		}
		if (name == "451" || name == "550") && phase == "BODY" && hit.Verdicts == nil {
			t.Errorf("a refusal amid the content is no verdict: %+v", hit)
		}
	})
}

// Each recipient has its own verdict, whatever the others have.
func TestEachRecipientHasItsVerdict(t *testing.T) {
	replies := []act{{reply: "250 2.1.5 ok"}, {reply: "450 4.2.1 later"}, {reply: "550 5.1.1 unknown"}}
	classes := []flowctl.Class{flowctl.OK, flowctl.PerMessage, flowctl.Permanent}
	for _, level := range []Level{L0, L1, L2} {
		for n := range 27 * 3 {
			mix, final := []int{n % 3, n / 3 % 3, n / 9 % 3}, n/27
			r := &relay{offers: pipelining, script: map[string]act{}}
			for i, m := range mix {
				r.script[fmt.Sprintf("RCPT %d", 3+i+1)] = replies[m] // the second message
			}
			r.script["DOT 2"] = replies[final]
			inBubble(t, r, func(t *testing.T) {
				cl := r.client(t, Config{})
				stand(cl, level, 1)
				jobs := letters(3, 3)
				noneTaken := !slices.Contains(mix, 0)
				if noneTaken {
					r.script["DOT 2"] = replies[0] // of the third
				}
				results, out := send(r.connect(t, cl), jobs...)
				r.checkTruth(t, jobs, results)
				if len(results) != 3 || out.Class != flowctl.OK {
					t.Fatalf("L%d %v: %d results, %+v", level, mix, len(results), out)
				}
				worst := flowctl.OK
				for i, m := range mix {
					want := classes[m]
					if m == 0 && !noneTaken {
						want = classes[final]
					}
					worst = max(worst, want)
					if got := results[1].Verdicts[i].Class; got != want {
						t.Errorf("L%d %v, then %d: recipient %d has class %d, want %d", level, mix, final, i+1, got, want)
					}
				}
				if results[1].Signal.Class != worst {
					t.Errorf("L%d %v, then %d: signal %d, want %d", level, mix, final, results[1].Signal.Class, worst)
				}
				data := 0
				for _, l := range r.lines {
					if l == "DATA" {
						data++
					}
				}
				if level == L0 && noneTaken && data != 2 {
					t.Errorf("L0 %v: DATA was sent without a recipient", mix)
				}
			})
		}
	}
}

// 354 after a refused MAIL, or with no recipient taken: the server's own mistake must not make us end a content.
func TestNoContentWhereNobodyWasTaken(t *testing.T) {
	for _, verb := range []string{"MAIL", "RCPT"} {
		for _, level := range []Level{L1, L2} {
			r := &relay{offers: pipelining, script: map[string]act{verb + " 1": {reply: "550 5.1.3 no"}, "DATA 1": {reply: "354 go on"}}}
			inBubble(t, r, func(t *testing.T) {
				cl := r.client(t, Config{})
				stand(cl, level, 1)
				jobs := letters(2, 1)
				results, _ := send(r.connect(t, cl), jobs...)
				if len(results) != 1 || results[0].Verdicts == nil || results[0].Verdicts[0].Class != flowctl.Permanent {
					t.Errorf("L%d %s: %+v", level, verb, results)
				}
				if last := r.lines[len(r.lines)-1]; last != "DATA" {
					t.Errorf("L%d %s: after the 354 came %q", level, verb, last)
				}
			})
		}
	}
}

// A server that loses count at L2 is spoken to more slowly from then on, one step per event.
func TestLosingCountStepsDownOnce(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"MAIL 2": {reply: "503 5.5.1 nested MAIL"}}}
	inBubble(t, r, func(t *testing.T) {
		cl := r.client(t, Config{})
		a, b := r.connect(t, cl), r.connect(t, cl)
		results, _ := send(a, letters(3, 1)...)
		if len(results) != 2 || !results[1].HandedBack || cl.Standing().Level != L1 {
			t.Fatalf("%d results, level %d", len(results), cl.Standing().Level)
		}
		send(b, letters(3, 1)...)
		if cl.Standing().Level != L0 { // it was the same at L1
			t.Errorf("level %d", cl.Standing().Level)
		}
		cl.ladder.lostCount(time.Now(), L2, "") // somebody who began at L2 and finds out late
		results, out := send(r.connect(t, cl), letters(1, 1)...)
		if cl.Standing().Level != L0 || len(results) != 1 || out.Class != flowctl.OK {
			t.Errorf("level %d, %+v", cl.Standing().Level, out)
		}
	})
}

// Haraka refuses whatever came with a content, but takes the content: nobody is to get that twice. A refused RSET with anything else
// behind it may be the content's own verdict.
func TestContentStandsWhereAllBehindItIsTurnedAway(t *testing.T) {
	const turned = "503 Bad sequence of commands - pipelined after end of DATA"
	for _, but := range []map[string]act{nil, {"MAIL 2": {}}, {"DATA 2": {}}, {"MAIL 2": {reply: turned, then: "stall"}}, {"DATA 2": {reply: turned, then: "close"}},
		{"DATA 2": {reply: turned + "\n250 2.0.0 ok"}}} {
		script := map[string]act{}
		for _, verb := range []string{"RSET 1", "MAIL 2", "RCPT 2", "DATA 2"} {
			script[verb] = act{reply: turned}
		}
		maps.Copy(script, but)
		r := &relay{offers: pipelining, script: script}
		inBubble(t, r, func(t *testing.T) {
			cl := r.client(t, Config{})
			results, _ := send(r.connect(t, cl), letters(2, 1)...)
			sound := but == nil || but["DATA 2"].then == "close"
			if len(results) != 2 || results[0].Uncertain == sound || !results[1].HandedBack || cl.Standing().Level != L1 {
				t.Fatalf("but %+v: %+v, level %d", but, results, cl.Standing().Level)
			}
			if sound && results[0].Verdicts[0].Reply.Code != 250 {
				t.Errorf("%+v", results[0].Verdicts)
			}
		})
	}
}

// Two connections that find out the same are one event, though the second comes to it a step further down.
func TestLateFinderDoesNotStepDownAgain(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"DOT 2": {reply: "354 what?"}}}
	inBubble(t, r, func(t *testing.T) {
		cl := r.client(t, Config{})
		jobs := letters(2, 1)
		open := jobs[1].Open
		jobs[1].Open = func() (io.ReadCloser, error) {
			cl.ladder.lostCount(time.Now(), L2, "") // by another connection
			return open()
		}
		results, _ := send(r.connect(t, cl), jobs...)
		if !results[1].Uncertain || cl.Standing().Level != L1 {
			t.Errorf("level %d, %+v", cl.Standing().Level, results[1])
		}
	})
}

// One restart of the server cuts all connections, two messages on each: that is not L2's fault. Again and again is.
func TestOnlyRepeatedCutsBlameL2(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"DOT 1": {then: "close"}}}
	inBubble(t, r, func(t *testing.T) {
		cl := r.client(t, Config{})
		for i := range cutsMax {
			if cl.Standing().Level != L2 {
				t.Fatalf("stepped down after %d", i)
			}
			results, _ := send(r.connect(t, cl), letters(2, 1)...)
			if !results[0].Uncertain || !results[1].HandedBack {
				t.Fatalf("%+v", results)
			}
		}
		if cl.Standing().Level != L1 {
			t.Errorf("level %d after %d cuts", cl.Standing().Level, cutsMax)
		}
	})
}

func TestStaleConnectionCostsNothing(t *testing.T) {
	for _, quiet := range []act{{then: "close"}, {then: "reset"}, {reply: "421 4.4.2 timeout", then: "close"}} {
		// It is closed just when the second message is sent.
		r := &relay{offers: pipelining, script: map[string]act{"RSET 1": quiet}}
		inBubble(t, r, func(t *testing.T) {
			cl := r.client(t, Config{})
			stand(cl, L1, 1)
			results, _ := send(r.connect(t, cl), letters(2, 1)...)
			if len(results) != 2 || !results[1].HandedBack || !results[1].Reused || results[1].Signal.Class != flowctl.IdleClose {
				t.Errorf("%+v: %+v", quiet, results[1])
			}
		})
	}
}

// On a connection that has served nobody the same reply is no idle close: replacing it at once would go on for ever.
func TestFreshConnectionIsNotStale(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"MAIL 1": {reply: "421 4.4.2 timeout", then: "close"}}}
	inBubble(t, r, func(t *testing.T) {
		results, out := send(r.connect(t, r.client(t, Config{})), letter(1, 1))
		res := results[0]
		if res.HandedBack || res.Verdicts[0].Class != flowctl.Unavailable || res.Signal.Class != flowctl.Unavailable || out.Class != flowctl.Unavailable {
			t.Errorf("%+v, %+v", res, out)
		}
	})
}

// feedOpen starts Run with a feed that stays open, and returns the feed, the results and the end.
func feedOpen(c *Conn) (chan *Job, chan *Result, chan flowctl.Outcome) {
	feed, results, ended := make(chan *Job, 1), make(chan *Result, 10), make(chan flowctl.Outcome, 1)
	go func() { ended <- c.Run(feed, func(r *Result) { results <- r }) }()
	return feed, results, ended
}

// Whatever comes while nothing is under way ends the connection at once, and at a price that fits.
func TestIdleConnectionEndsAtOnce(t *testing.T) {
	for _, tc := range []struct {
		act   act
		class flowctl.Class
	}{
		{act{then: "close"}, flowctl.IdleClose},
		{act{later: "421 4.4.2 idle too long", then: "close"}, flowctl.IdleClose},
		{act{later: "421 too many messages in this connection", then: "close"}, flowctl.SessionCap},
		{act{later: "421 4.3.2 shutting down", then: "close"}, flowctl.Unavailable},
		{act{later: "421 4.3.2 shutting down"}, flowctl.Unavailable},
		{act{later: "250 what you did not ask for"}, flowctl.Unavailable},
		{act{later: "not SMTP"}, flowctl.Unavailable},
	} {
		tc.act.reply = "250 2.0.0 queued"
		r := &relay{offers: pipelining, script: map[string]act{"DOT 1": tc.act}}
		inBubble(t, r, func(t *testing.T) {
			feed, results, ended := feedOpen(r.connect(t, r.client(t, Config{})))
			feed <- letter(1, 1)
			if res := <-results; res.Signal.Class != flowctl.OK {
				t.Errorf("%+v: %+v", tc.act, res)
			}
			start := time.Now()
			if out := <-ended; out.Class != tc.class || out.Stage != flowctl.StageIdle {
				t.Errorf("%+v: %+v", tc.act, out)
			}
			if d := time.Since(start); d > time.Second {
				t.Errorf("%+v: noticed after %v", tc.act, d)
			}
		})
	}
}

// The last messages of a session may be taken and the session closed in one breath.
func TestTakenAndClosedIsTaken(t *testing.T) {
	for _, level := range []Level{L0, L1, L2} {
		r := &relay{offers: pipelining, script: map[string]act{"DOT 2": {reply: "250 ok\n421 Maximum message count per session reached", then: "close"}}}
		inBubble(t, r, func(t *testing.T) {
			cl := r.client(t, Config{})
			stand(cl, level, 1)
			jobs := letters(4, 1)
			results, out := send(r.connect(t, cl), jobs...)
			r.checkTruth(t, jobs, results)
			if len(r.accepted) != 2 || results[1].Verdicts[0].Class != flowctl.OK || out.Class != flowctl.SessionCap {
				t.Errorf("L%d: %d taken, %+v, %+v", level, len(r.accepted), results[1], out)
			}
		})
	}
}

// Around the dot a server says something unasked, or leaves its reply out: with the next message on the wire every reply
// behind stands one place off. That shows before a verdict counts.
func TestShiftedRepliesAreNobodysVerdict(t *testing.T) {
	for name, script := range map[string]map[string]act{
		"early 250, then refused":  {"DOT 1": {reply: "250 ok\n554 5.6.0 refused"}},
		"early 550, then taken":    {"DOT 1": {reply: "550 5.6.0 refused\n250 ok"}},
		"two, next refused":        {"DOT 1": {reply: "250 ok\n554 5.6.0 refused"}, "RCPT 2": {reply: "550 5.1.1 unknown"}},
		"two, next refused, mixed": {"DOT 1": {reply: "250 ok\n250 ok"}, "RCPT 2": {reply: "550 5.1.1 unknown"}},
		"none":                     {"DOT 1": {}},
	} {
		r := &relay{offers: pipelining, script: script}
		inBubble(t, r, func(t *testing.T) {
			jobs := letters(3, 1)
			results, _ := send(r.connect(t, r.client(t, Config{})), jobs...)
			nobodys := len(results) == 2 && results[0].Uncertain && results[1].HandedBack
			// Where all replies look alike the last one alone shows it, and that may come in a packet of its own, too late. The first
			// was the message's then.
			late := name == "two, next refused, mixed" && results[0].Signal.Class == flowctl.OK && r.took(jobs[0], 0) == 1
			if !nobodys && !late {
				t.Errorf("%s: %+v", name, results[0])
			}
			if got := r.took(jobs[1], 0); got != 0 {
				t.Errorf("%s: the next was taken", name)
			}
		})
	}
}

// A 250 that nobody asked for is no verdict at any level: neither amid the content, nor in front of the answer that is meant.
func TestAnEarly250DeliversNothing(t *testing.T) {
	for name, script := range map[string]map[string]act{
		"amid the content": {"BODY 1": {reply: "250 2.0.0 ok"}, "DOT 1": {reply: "554 5.6.0 refused"}},
		"before a refusal": {"DOT 1": {reply: "250 2.0.0 ok\n554 5.6.0 refused"}},
	} {
		for _, level := range []Level{L0, L1, L2} {
			r := &relay{offers: pipelining, script: script}
			inBubble(t, r, func(t *testing.T) {
				cl := r.client(t, Config{})
				stand(cl, level, 1)
				j := letter(1, 1)
				j.Env.Size = 400_000
				j.Open = func() (io.ReadCloser, error) { // the dot comes later than the first octets
					begin := strings.NewReader(strings.Repeat("x\r\n", writeBuffer))
					return io.NopCloser(io.MultiReader(begin, waits{}, strings.NewReader("x\r\n"))), nil
				}
				results, out := send(r.connect(t, cl), j)
				if res := results[0]; !res.HandedBack && !res.Uncertain || out.Class == flowctl.OK {
					t.Errorf("L%d, %s: %+v, ended with %+v", level, name, res, out)
				}
			})
		}
	}
}

// But a verdict does not wait long for its confirmation: a crash meanwhile would send the message again.
func TestSlowRecipientDoesNotDelayTheVerdictBeforeIt(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"MAIL 2": {reply: "250", then: "stall"}}}
	inBubble(t, r, func(t *testing.T) {
		feed := make(chan *Job, 2)
		for _, j := range letters(2, 1) {
			feed <- j
		}
		close(feed)
		start := time.Now()
		var at []time.Duration
		r.connect(t, r.client(t, Config{})).Run(feed, func(*Result) { at = append(at, time.Since(start)) })
		if len(at) != 2 || at[0] != confirmMax || at[1] < time.Minute {
			t.Errorf("done after %v", at)
		}
	})
}

// A connection that the server closed while its last verdict was being written takes no further job.
func TestClosedConnectionTakesNoJob(t *testing.T) {
	for range 20 { // without care it would be chance
		r := &relay{offers: pipelining, script: map[string]act{"DOT 1": {reply: "250 ok", then: "close"}}}
		inBubble(t, r, func(t *testing.T) {
			cl := r.client(t, Config{})
			stand(cl, L1, 1)
			feed := make(chan *Job, 2)
			for _, j := range letters(2, 1) {
				feed <- j
			}
			n := 0
			out := r.connect(t, cl).Run(feed, func(*Result) { n++; <-time.After(time.Second) })
			if n != 1 || len(feed) != 1 || out.Class != flowctl.IdleClose {
				t.Errorf("%d done, %d left, %+v", n, len(feed), out)
			}
		})
	}
}

func TestConnectionIsReplaced(t *testing.T) {
	refuse := map[string]act{}
	for n := range 10 {
		refuse[fmt.Sprintf("RCPT %d", n+1)] = act{reply: "550 5.1.1 unknown"}
	}
	for _, tc := range []struct {
		name  string
		cfg   Config
		r     *relay
		count int
	}{
		{"messages", Config{MessagesMax: 7}, &relay{offers: pipelining}, 7},
		{"refusals", Config{}, &relay{offers: pipelining, script: refuse}, failuresMax},
		{"none", Config{MessagesMax: 10}, &relay{offers: pipelining}, 10},
	} {
		inBubble(t, tc.r, func(t *testing.T) {
			cl := tc.r.client(t, tc.cfg)
			feed := make(chan *Job, 10)
			for _, j := range letters(10, 1) {
				feed <- j
			}
			n := 0
			out := tc.r.connect(t, cl).Run(feed, func(*Result) { n++ })
			if n != tc.count || len(feed) != 10-tc.count || out.Class != flowctl.OK {
				t.Errorf("%s: %d done, %d left, %+v", tc.name, n, len(feed), out)
			}
			if last := tc.r.lines[len(tc.r.lines)-1]; last != "QUIT" {
				t.Errorf("%s: the last command is %q", tc.name, last)
			}
		})
	}
}

func TestIdleConnectionIsReplacedByAge(t *testing.T) {
	r := &relay{offers: pipelining}
	inBubble(t, r, func(t *testing.T) {
		start := time.Now()
		_, _, ended := feedOpen(r.connect(t, r.client(t, Config{AgeMax: 10 * time.Minute})))
		out := <-ended
		if d := time.Since(start); out.Class != flowctl.OK || d != 10*time.Minute {
			t.Errorf("after %v: %+v", d, out)
		}
	})
}

func TestQuitDoesNotWaitLong(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"QUIT 1": {then: "stall"}}}
	inBubble(t, r, func(t *testing.T) {
		c := r.connect(t, r.client(t, Config{}))
		start := time.Now()
		_, out := send(c)
		if d := time.Since(start); out.Class != flowctl.OK || d != quitLimit {
			t.Errorf("after %v: %+v", d, out)
		}
	})
}

// The next message's commands go with this one's content; its content waits for done.
func TestNextContentWaitsForDone(t *testing.T) {
	r := &relay{offers: pipelining}
	inBubble(t, r, func(t *testing.T) {
		opened := make([]bool, 3)
		jobs := letters(2, 1)
		for i, j := range jobs {
			open := j.Open
			j.Open = func() (io.ReadCloser, error) { opened[i] = true; return open() }
		}
		feed := make(chan *Job, 2)
		feed <- jobs[0]
		feed <- jobs[1]
		close(feed)
		n := 0
		r.connect(t, r.client(t, Config{})).Run(feed, func(*Result) {
			n++
			if n == 2 {
				return
			}
			<-time.After(time.Minute) // a slow journal
			synctest.Wait()
			if opened[1] {
				t.Error("the second content was opened before the first verdict was written")
			}
			if got := r.lines[len(r.lines)-4:]; !slices.Equal(verbs(got), []string{"RSET", "MAIL", "RCPT", "DATA"}) {
				t.Errorf("on the wire are %q", got)
			}
		})
		if n != 2 || len(r.accepted) != 2 {
			t.Errorf("%d done, %d taken", n, len(r.accepted))
		}
	})
}

func verbs(lines []string) (v []string) {
	for _, l := range lines {
		v = append(v, strings.Fields(l)[0])
	}
	return v
}

// A job taken back while its commands are on the wire is not sent, and no dot ends what the server waits for.
func TestWithdrawnJobIsNotSent(t *testing.T) {
	r := &relay{offers: pipelining}
	inBubble(t, r, func(t *testing.T) {
		jobs := letters(3, 1)
		feed := make(chan *Job, 3)
		for _, j := range jobs {
			feed <- j
		}
		close(feed)
		var results []*Result
		c := r.connect(t, r.client(t, Config{}))
		c.Run(feed, func(res *Result) {
			results = append(results, res)
			if len(results) == 1 && !jobs[1].Withdraw() {
				t.Error("it could not be withdrawn")
			}
		})
		if len(results) != 2 || !results[1].HandedBack || len(r.accepted) != 1 || len(feed) != 1 {
			t.Errorf("%d results, %d taken, %d left", len(results), len(r.accepted), len(feed))
		}
		if jobs[0].Withdraw() {
			t.Error("a delivered job was withdrawn")
		}
	})
}

// Withdrawn before anything was sent for it, a job costs no connection.
func TestWithdrawnInTheFeedCostsNothing(t *testing.T) {
	r := &relay{offers: pipelining}
	inBubble(t, r, func(t *testing.T) {
		jobs := letters(3, 1)
		jobs[1].Withdraw()
		results, out := send(r.connect(t, r.client(t, Config{})), jobs...)
		r.checkTruth(t, jobs, results)
		if len(results) != 3 || !results[1].HandedBack || out.Class != flowctl.OK || len(r.accepted) != 2 {
			t.Errorf("%d results, %+v", len(results), out)
		}
	})
}

// A verdict and a withdrawal exclude each other also where it comes to no content.
func TestRefusedJobCannotBeWithdrawnTwice(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"MAIL 1": {reply: "550 5.7.0 no"}, "RCPT 2": {reply: "550 no"}}}
	inBubble(t, r, func(t *testing.T) {
		jobs := letters(2, 1)
		feed := make(chan *Job, 2)
		feed <- jobs[0]
		feed <- jobs[1]
		close(feed)
		r.connect(t, r.client(t, Config{})).Run(feed, func(res *Result) {
			if res.Job.Withdraw() {
				t.Error("withdrawn after its verdict")
			}
			if res.HandedBack {
				t.Errorf("%+v", res)
			}
		})
	})
}

type brokenBody struct {
	io.Reader
	closed *bool
	fail   error
}

func (b brokenBody) Close() error { *b.closed = true; return b.fail }

// Content that cannot be had whole is never ended by a dot.
func TestTruncatedContentIsNeverFinished(t *testing.T) {
	boom := errors.New("checksum")
	half := "Subject: half\r\n\r\n" + strings.Repeat("x", 100_000)
	for name, open := range map[string]func(closed *bool) (io.ReadCloser, error){
		"open": func(closed *bool) (io.ReadCloser, error) { *closed = true; return nil, boom },
		"read": func(c *bool) (io.ReadCloser, error) {
			return brokenBody{io.MultiReader(strings.NewReader(half), failing{boom}), c, nil}, nil
		},
		"close": func(c *bool) (io.ReadCloser, error) { return brokenBody{strings.NewReader("x\r\n"), c, boom}, nil },
		"stuck": func(c *bool) (io.ReadCloser, error) { return brokenBody{failing{nil}, c, nil}, nil },
	} {
		r := &relay{offers: pipelining, script: map[string]act{"RCPT 3": {reply: "550 5.1.1 unknown"}}}
		inBubble(t, r, func(t *testing.T) {
			jobs := letters(3, 1)
			jobs[1] = letter(2, 2)
			var closed bool
			jobs[1].Open = func() (io.ReadCloser, error) { return open(&closed) }
			results, out := send(r.connect(t, r.client(t, Config{})), jobs...)
			if len(results) != 2 || len(r.accepted) != 1 || !closed {
				t.Fatalf("%s: %d results, %d taken, closed %v", name, len(results), len(r.accepted), closed)
			}
			res := results[1]
			if res.HandedBack || res.Uncertain || res.Err == nil || res.Verdicts[0].Class != flowctl.PerMessage || res.Verdicts[1].Class != flowctl.Permanent {
				t.Errorf("%s: %+v", name, res)
			}
			if name != "stuck" && !errors.Is(res.Err, boom) {
				t.Errorf("%s: %v", name, res.Err)
			}
			if out.Class != flowctl.IdleClose || res.Signal.Class != flowctl.IdleClose {
				t.Errorf("%s: our own fault is held against the upstream: %+v", name, out)
			}
		})
	}
}

// waits is an empty reader; it gives the relay time to speak up.
type waits struct{}

func (waits) Read([]byte) (int, error) {
	synctest.Wait()
	return 0, io.EOF
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestCutEndsWhatIsUnderWay(t *testing.T) {
	for phase, uncertain := range map[string]bool{"MAIL": false, "DATA": false, "DOT": true} {
		r := &relay{offers: pipelining, script: map[string]act{phase + " 1": {then: "stall"}}}
		inBubble(t, r, func(t *testing.T) {
			c := r.connect(t, r.client(t, Config{}))
			feed, results, ended := feedOpen(c)
			feed <- letter(1, 1)
			synctest.Wait()
			c.Cut()
			if res := <-results; res.Uncertain != uncertain || res.HandedBack == uncertain {
				t.Errorf("%s: %+v", phase, res)
			}
			if out := <-ended; out.Class != flowctl.IdleClose {
				t.Errorf("%s: %+v", phase, out)
			}
		})
	}
}

func large(size int) *Job {
	j := letter(1, 1)
	j.Env.Size = int64(size)
	j.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(strings.Repeat("x\r\n", size/3))), nil
	}
	return j
}

// A server that no longer reads is given up after one write's time, without waiting for the reply to a dot it never got.
func TestServerThatStopsReading(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"BODY 1": {then: "freeze"}}}
	inBubble(t, r, func(t *testing.T) {
		c := r.connect(t, r.client(t, Config{Timeouts: Timeouts{Block: 20 * time.Second}}))
		start := time.Now()
		results, out := send(c, large(900_000))
		if d := time.Since(start); d != 20*time.Second+lastWordsMax {
			t.Errorf("after %v", d)
		}
		if res := results[0]; !res.HandedBack || !errors.Is(res.Err, os.ErrDeadlineExceeded) || !strings.Contains(res.Err.Error(), "write") || out.Class != flowctl.Overload {
			t.Errorf("%+v, %+v", res, out)
		}
	})
}

// The same where all but the end of the content fits into the buffers between us: the dot may have gone out, or not.
func TestServerThatStopsReadingAtTheEnd(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"BODY 1": {then: "freeze"}}}
	inBubble(t, r, func(t *testing.T) {
		c := r.connect(t, r.client(t, Config{Timeouts: Timeouts{Block: 20 * time.Second}}))
		start := time.Now()
		results, _ := send(c, large(256<<10+4<<10+16<<10)) // the connection's buffer, the relay's, and half of ours
		if d := time.Since(start); d != 20*time.Second+lastWordsMax || !results[0].Uncertain {
			t.Errorf("after %v: %+v", d, results[0])
		}
	})
}

// One that reads slowly, block by block, is given up as well.
func TestServerThatReadsSlowly(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"BODY 1": {then: "trickle"}}}
	inBubble(t, r, func(t *testing.T) {
		c := r.connect(t, r.client(t, Config{}))
		start := time.Now()
		results, out := send(c, large(900_000))
		if d := time.Since(start); d < 30*time.Minute || d > 40*time.Minute {
			t.Errorf("after %v", d) // 900,000 octets at 500 a second, and a block
		}
		if res := results[0]; !res.HandedBack || out.Class != flowctl.Overload {
			t.Errorf("%+v, %+v", res, out)
		}
	})
}

// What a server says before it closes is heard, although our writing to it fails first.
func TestLastWordsAreHeard(t *testing.T) {
	for _, reply := range []string{"552 5.3.4 too big", "421 4.3.2 shutting down"} {
		r := &relay{offers: pipelining, script: map[string]act{"BODY 1": {reply: reply, then: "close"}}}
		inBubble(t, r, func(t *testing.T) {
			results, _ := send(r.connect(t, r.client(t, Config{})), large(900_000))
			if v := results[0].Verdicts; v == nil || v[0].Reply.String() != reply {
				t.Errorf("%s: %+v", reply, results[0])
			}
		})
	}
}

func TestManyRecipientsGoInSeveralGroups(t *testing.T) {
	for _, level := range []Level{L0, L1, L2} {
		r := &relay{offers: pipelining, script: map[string]act{"RCPT 300": {reply: "452 4.5.3 too many recipients"}}}
		inBubble(t, r, func(t *testing.T) {
			cl := r.client(t, Config{})
			stand(cl, level, 1)
			jobs := letters(3, 500)
			results, out := send(r.connect(t, cl), jobs...)
			r.checkTruth(t, jobs, results)
			if v := results[0].Verdicts[299]; len(results) != 3 || out.Class != flowctl.OK || !v.Split || v.Class != flowctl.PerMessage {
				t.Errorf("L%d: %d results, %+v, %+v", level, len(results), out, v)
			}
		})
	}
}

// 452 4.5.3 for the very first recipient leaves nothing to split.
func TestSplitNeedsSomebodyTaken(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"RCPT 1": {reply: "552 too many recipients"}}}
	inBubble(t, r, func(t *testing.T) {
		results, _ := send(r.connect(t, r.client(t, Config{})), letter(1, 1))
		if v := results[0].Verdicts[0]; v.Split || v.Class != flowctl.PerMessage {
			t.Errorf("%+v", v)
		}
	})
}

// Some servers forget what they had read behind the content. That costs one wait, and no message and no width.
func TestAServerThatForgetsWhatFollowsTheContentStepsDown(t *testing.T) {
	r := &relay{offers: pipelining, forgets: true}
	inBubble(t, r, func(t *testing.T) {
		cl := r.client(t, Config{})
		jobs := letters(5, 2)
		began := time.Now()
		results, out := send(r.connect(t, cl), jobs...)
		if len(results) != 2 || results[0].HandedBack || !results[1].HandedBack || results[1].Signal.Class != flowctl.IdleClose || out.Class != flowctl.IdleClose {
			t.Fatalf("%d results, %+v", len(results), out)
		}
		if took := time.Since(began); took > aheadMax+2*confirmMax || cl.Standing().Level != L1 {
			t.Errorf("after %s: level %d", took, cl.Standing().Level)
		}
		again := letters(5, 2)[1:]
		more, out := send(r.connect(t, cl), again...)
		if out.Class != flowctl.OK || cl.Standing().Level != L1 {
			t.Errorf("%+v, level %d", out, cl.Standing().Level)
		}
		r.checkTruth(t, again, more)
		r.checkTruth(t, jobs[:2], results[:1])
	})
}

// Dialled for a message that others were quicker to take, and given up by the server meanwhile: as stale as one that has served.
func TestAConnectionThatWaitedUnusedMayBeStale(t *testing.T) {
	for _, wait := range []time.Duration{0, 2 * freshFor} {
		r := &relay{offers: pipelining, script: map[string]act{"MAIL 1": {then: "close"}}}
		inBubble(t, r, func(t *testing.T) {
			c := r.connect(t, r.client(t, Config{}))
			time.Sleep(wait)
			results, _ := send(c, letters(1, 1)...)
			if len(results) != 1 || !results[0].HandedBack || results[0].Reused != (wait > 0) {
				t.Errorf("after %v: %+v", wait, results)
			}
		})
	}
}
