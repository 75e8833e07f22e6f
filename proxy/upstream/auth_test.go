package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
	server "github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/flowctl"
)

// logIn connects once to a relay of the bench, in clear, and returns what came of it and the mechanisms that were tried.
func logIn(t *testing.T, rc server.Config, cfg Config) (out flowctl.Outcome, tried []string) {
	t.Helper()
	script := rc.Reply
	rc.Reply = func(e server.Event) server.Action {
		tried = append(tried, strings.TrimPrefix(e.Line, "AUTH "))
		if script != nil {
			return script(e)
		}
		return server.Action{}
	}
	logInAll(t, rc, cfg, func(connect func() flowctl.Outcome, _ *int) { out = connect() })
	return out, tried
}

// logInAll lets f connect as often as it likes. tried counts the logins; rc.Reply is asked about these only.
func logInAll(t *testing.T, rc server.Config, cfg Config, f func(connect func() flowctl.Outcome, tried *int)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		tried, script := 0, rc.Reply
		rc.Reply = func(e server.Event) server.Action {
			if e.Stage != server.StageAuth {
				return server.Action{}
			}
			mu.Lock()
			defer mu.Unlock()
			tried++
			if script == nil {
				return server.Action{}
			}
			return script(e)
		}
		r, l := server.New(rc), memconn.Listen()
		served := make(chan error, 1)
		go func() { served <- r.Serve(l) }()
		cfg.URL, cfg.TLS, cfg.PlaintextAuth, cfg.Dial = "smtp://relay.example", tlsNone, true, l.Dial
		cl, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		f(func() flowctl.Outcome {
			conn, out := cl.Connect(t.Context(), "")
			if conn != nil {
				conn.Cut()
			}
			return out
		}, &tried)
		r.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if v := r.Violations(); len(v) > 0 {
			t.Errorf("rules broken: %v", v)
		}
	})
}

// tokens gives one token after the other, each as long as real ones are.
func tokens(names ...string) func(context.Context, string) (string, error) {
	var mu sync.Mutex
	now := ""
	return func(_ context.Context, rejected string) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if (now == "" || rejected == now) && len(names) > 0 {
			now, names = names[0]+strings.Repeat("A", 1500), names[1:]
		}
		return now, nil
	}
}

func takes(name string) func(string) bool {
	return func(token string) bool { return strings.TrimRight(token, "A") == name }
}

func TestTheStrongestMechanismOfferedIsTaken(t *testing.T) {
	everything := []string{"LOGIN", "PLAIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "NTLM"}
	for _, tc := range []struct {
		name    string
		offered []string
		auth    string
		oauth   bool
		want    string
	}{
		{"all", everything, "", false, "SCRAM-SHA-256"},
		{"all, auto", everything, "auto", false, "SCRAM-SHA-256"},
		{"no SCRAM", everything[:3], "", false, "CRAM-MD5"},
		{"clear ones", everything[:2], "", false, "PLAIN"},
		{"LOGIN", everything[:1], "", false, "LOGIN"},
		{"chosen PLAIN", everything, "plain", false, "PLAIN"},
		{"chosen LOGIN", everything, "login", false, "LOGIN"},
		{"chosen CRAM-MD5", everything, "cram-md5", false, "CRAM-MD5"},
		{"token", everything, "", true, "OAUTHBEARER"},
		{"token, Microsoft", []string{"LOGIN", "XOAUTH2"}, "", true, "XOAUTH2"},
		{"token, chosen", everything, "xoauth2", true, "XOAUTH2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := Config{Username: "a=p,p@x.example", Password: canary, Auth: tc.auth}
			if tc.oauth {
				cfg.Password, cfg.OAuth, cfg.Token = "", true, tokens("good")
			}
			out, tried := logIn(t, server.Config{Username: "a=p,p@x.example", Password: canary, Mechanisms: tc.offered, TakesToken: takes("good")}, cfg)
			if out.Class != flowctl.OK || !slices.Equal(tried, []string{tc.want}) {
				t.Errorf("%v %s, tried %q", out.Class, out.Text, tried)
			}
		})
	}
}

func TestAMechanismThatIsNotOfferedNamesWhatIs(t *testing.T) {
	for _, tc := range []struct {
		offered []string
		auth    string
		oauth   bool
		want    string
	}{
		{[]string{"PLAIN", "LOGIN"}, "scram-sha-256", false, `server offers AUTH ["PLAIN" "LOGIN"], and the settings need SCRAM-SHA-256: `},
		{[]string{"XOAUTH2"}, "", false, "SCRAM-SHA-256 or CRAM-MD5 or PLAIN or LOGIN; it wants OAuth tokens in place of a password"},
		{[]string{"PLAIN"}, "", true, "OAUTHBEARER or XOAUTH2; it takes no OAuth tokens"},
		{[]string{}, "", true, "AUTH"},
	} {
		cfg := Config{Username: "u", Password: canary, Auth: tc.auth}
		if tc.oauth {
			cfg.Password, cfg.OAuth, cfg.Token = "", true, tokens("good")
		}
		out, tried := logIn(t, server.Config{Username: "u", Mechanisms: tc.offered}, cfg)
		if out.Class != flowctl.Misconfigured || out.Stage != flowctl.StageEHLO || !strings.Contains(out.Text, tc.want) || tried != nil {
			t.Errorf("%v at %v: %s; tried %q", out.Class, out.Stage, out.Text, tried)
		}
	}
}

func TestAWrongPasswordIsRefusedByEachMechanism(t *testing.T) {
	for _, m := range byPassword {
		out, _ := logIn(t, server.Config{Username: "u", Password: "another", Mechanisms: []string{m}}, Config{Username: "u", Password: canary})
		if out.Class != flowctl.Misconfigured || out.Stage != flowctl.StageAuth || !strings.Contains(out.Text, "535 5.7.8") {
			t.Errorf("%s: %v %s", m, out.Class, out.Text)
		}
	}
}

func TestAServerThatDoesNotKnowThePasswordIsNotBelieved(t *testing.T) {
	rc := server.Config{Username: "u", Password: canary, Mechanisms: []string{"SCRAM-SHA-256"}, Impostor: true}
	if out, _ := logIn(t, rc, Config{Username: "u", Password: canary}); out.Class != flowctl.Misconfigured {
		t.Errorf("a wrong proof: %v %s", out.Class, out.Text)
	}
	r := &relay{offers: []string{"AUTH SCRAM-SHA-256"}, script: map[string]act{"SCRAM-SHA-256 1": {reply: "235 come in"}}, user: "u"}
	inBubble(t, r, func(t *testing.T) {
		cl := r.client(t, Config{Username: "u", Password: canary, TLS: tlsNone, PlaintextAuth: true})
		if c, out := cl.Connect(t.Context(), ""); c != nil || !strings.Contains(out.Text, "did not prove") {
			t.Errorf("no proof at all: %+v", out)
		}
	})
}

func TestAServerCannotMakeUsWorkForEver(t *testing.T) {
	c := &scramClient{}
	if _, err := c.Next([]byte("r=x,s=QQ==,i=2000000000")); !errors.Is(err, errIterations) {
		t.Error(err)
	}
}

// A token that worked is replaced at once when it is refused, once; one that is new is not, since another new one says no more.
func TestATokenThatWorkedIsReplacedOnceOnAFreshConnection(t *testing.T) {
	for _, m := range byToken {
		good := "first"
		cfg := Config{Username: "u", OAuth: true, Token: tokens("first", "second", "third", "fourth", "fifth", "last")}
		logInAll(t, server.Config{Username: "u", Mechanisms: []string{m}, TakesToken: func(token string) bool { return takes(good)(token) }}, cfg,
			func(connect func() flowctl.Outcome, tried *int) {
				for _, step := range []struct {
					good   string
					logins int
					class  flowctl.Class
				}{{"first", 1, flowctl.OK}, {"second", 2, flowctl.OK}, {"none", 2, flowctl.Misconfigured}, {"none", 1, flowctl.Misconfigured},
					{"none", 1, flowctl.Misconfigured}, {"last", 1, flowctl.OK},
					{"none", 1, flowctl.Misconfigured}} { // the last time there is no other token
					good, *tried = step.good, 0
					time.Sleep(time.Second)
					out := connect()
					if out.Class != step.class || *tried != step.logins {
						t.Errorf("%s, %s is good: %v %s after %d logins", m, step.good, out.Class, out.Text, *tried)
					}
					if strings.Contains(out.Text, "AAAA") {
						t.Errorf("the token is in %q", out.Text)
					}
				}
			})
	}
}

// Dials under way at the same time try a secret once while nobody knows whether it is good, and at once when it is.
func TestASecretThatIsRefusedIsTriedOnceByAllWhoDial(t *testing.T) {
	good := "first"
	for _, tc := range []struct {
		name   string
		cfg    Config
		rc     server.Config
		logins int // when the secret that worked is withdrawn
	}{
		{"password", Config{Username: "u", Password: canary}, server.Config{Username: "u", Password: canary, Mechanisms: []string{"PLAIN"}}, 1},
		{"SCRAM", Config{Username: "u", Password: canary}, server.Config{Username: "u", Password: canary}, 1},
		{"token", Config{Username: "u", OAuth: true, Token: tokens("first", "second", "third")},
			server.Config{Username: "u", Mechanisms: []string{"XOAUTH2"}, TakesToken: takes("first")}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good = "first"
			tc.rc.RTT = 20 * time.Millisecond
			tc.rc.Reply = func(e server.Event) server.Action {
				if good == "none" {
					return server.Action{Reply: "535 5.7.8 no"}
				}
				return server.Action{}
			}
			logInAll(t, tc.rc, tc.cfg, func(connect func() flowctl.Outcome, tried *int) {
				all := func(want flowctl.Class) (took time.Duration) {
					began := time.Now()
					var wg sync.WaitGroup
					for range 8 {
						wg.Go(func() {
							if out := connect(); out.Class != want || out.Stage != flowctl.StageAuth {
								t.Errorf("%v at %v: %s", out.Class, out.Stage, out.Text)
							}
						})
					}
					wg.Wait()
					return time.Since(began)
				}
				alone := all(flowctl.OK)
				if together := all(flowctl.OK); *tried != 16 || together >= alone {
					t.Errorf("%d logins; eight alone take %s, once the secret is proven %s", *tried, alone, together)
				}
				time.Sleep(2 * provenFor)
				good, *tried = "none", 0
				all(flowctl.Misconfigured)
				if *tried != tc.logins {
					t.Errorf("%d logins with what is refused, want %d", *tried, tc.logins)
				}
			})
		})
	}
}

// A login that hangs keeps others for turnWait only.
func TestALoginThatHangsKeepsNobodyForLong(t *testing.T) {
	hang := true
	rc := server.Config{Username: "u", Password: canary, Mechanisms: []string{"PLAIN"}, Reply: func(e server.Event) server.Action {
		if hang {
			hang = false
			return server.Action{Delay: time.Hour}
		}
		return server.Action{}
	}}
	logInAll(t, rc, Config{Username: "u", Password: canary}, func(connect func() flowctl.Outcome, _ *int) {
		var wg sync.WaitGroup
		wg.Go(func() { connect() })
		synctest.Wait()
		began := time.Now()
		if out := connect(); out.Class != flowctl.OK || time.Since(began) > turnWait+time.Second {
			t.Errorf("%v %s after %s", out.Class, out.Text, time.Since(began))
		}
		wg.Wait()
	})
}

type tokenFault struct {
	permanent bool
	wait      time.Duration
}

func (f tokenFault) Error() string             { return "no token today" }
func (f tokenFault) Permanent() bool           { return f.permanent }
func (f tokenFault) RetryAfter() time.Duration { return f.wait }

// Without a token nothing is dialled.
func TestNoTokenNoDial(t *testing.T) {
	for _, tc := range []struct {
		err   error
		class flowctl.Class
	}{
		{tokenFault{}, flowctl.Unavailable},
		{tokenFault{wait: time.Minute}, flowctl.AuthThrottle},
		{tokenFault{permanent: true}, flowctl.Misconfigured},
		{fmt.Errorf("x: %w", context.Canceled), flowctl.IdleClose},
		{errors.New("another"), flowctl.Unavailable},
	} {
		cl, err := New(Config{URL: "smtps://relay.example", Username: "u", OAuth: true,
			Token: func(context.Context, string) (string, error) { return "", tc.err }})
		if err != nil {
			t.Fatal(err)
		}
		out := func() flowctl.Outcome { _, out := cl.Connect(t.Context(), ""); return out }()
		if f, ok := tc.err.(tokenFault); out.Class != tc.class || out.Stage != flowctl.StageAuth || ok && out.RetryAfter != f.wait {
			t.Errorf("%v: %+v", tc.err, out)
		}
	}
	if _, err := New(Config{URL: "smtps://relay.example", Username: "u", OAuth: true}); err == nil {
		t.Error("nothing gives tokens, and nobody minds")
	}
}

func TestAnOperatorIsToldWhatToDo(t *testing.T) {
	for _, tc := range []struct {
		reply string
		oauth bool
		want  string
	}{
		{"535 5.7.3 Authentication unsuccessful [AM0PR01CA0001.eurprd01.prod.exchangelabs.com]", true, "SMTP.SendAsApp with admin consent"},
		{"535 5.7.3 Authentication unsuccessful", true, "New-ServicePrincipal"},
		{"535 5.7.3 Authentication unsuccessful", false, "then use OAuth"},
		{"535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [x]", false, "no longer takes passwords: use OAuth"},
		{"550 5.7.30 Basic authentication is not supported for Client Submission.", false, "no longer takes passwords: use OAuth"},
		{"535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled", true, "Set-CASMailbox"},
		{"535 5.7.139 Authentication unsuccessful, the user credentials were incorrect.", false, "sign-in log"},
		{"534 5.7.9 Application-specific password required.", false, "application password"},
		{"535 5.7.8 Error: authentication failed", false, ""},
	} {
		m, cfg := []string{"PLAIN"}, Config{Username: "u", Password: canary}
		if tc.oauth {
			m, cfg = []string{"XOAUTH2"}, Config{Username: "u", OAuth: true, Token: tokens("good")}
		}
		rc := server.Config{Username: "u", Password: canary, Mechanisms: m, TakesToken: takes("good"),
			Reply: func(server.Event) server.Action { return server.Action{Reply: tc.reply} }}
		out, _ := logIn(t, rc, cfg)
		if out.Class != flowctl.Misconfigured || !strings.HasPrefix(out.Text, tc.reply[:20]) || !strings.Contains(out.Text, tc.want) || tc.want == "" && strings.Contains(out.Text, "(") {
			t.Errorf("%v: %s", out.Class, out.Text)
		}
	}
}

// Some servers repeat what they were sent, in any of its forms, in part, or broken over lines.
func TestNothingThatWasSentIsShown(t *testing.T) {
	long := canary
	for n := range 200 {
		long += fmt.Sprint("+", n*n)
	}
	for _, secret := range []string{canary, long} {
		plain := "\x00u.name.of.many.letters\x00" + secret
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawStdEncoding.EncodeToString([]byte(plain))} {
			for name, said := range map[string]string{
				"whole":  form + " and " + strings.Repeat("x", 200) + form,
				"cut":    strings.Repeat("x", 150) + form,
				"part":   "..." + form[len(form)/3:] + "...",
				"broken": "\n535-5.7.8 " + form[:len(form)/2] + "\n535 5.7.8 " + form[len(form)/2:],
			} {
				rc := server.Config{Username: "u", Password: "another", Reply: func(server.Event) server.Action {
					return server.Action{Reply: strings.Replace("535 5.7.8 u.name.of.many.letters: not with "+said, "535 ", "535-", strings.Count(said, "\n")/2)}
				}}
				out, _ := logIn(t, rc, Config{Username: "u.name.of.many.letters", Password: secret})
				for at := range len(form) - redactRun {
					if strings.Contains(out.Text, form[at:at+redactRun]) {
						t.Errorf("%s: %q in %q", name, form[at:at+redactRun], out.Text)
						break
					}
				}
				if !strings.Contains(out.Text, "u.name.of.many.letters: not with ") || !strings.Contains(out.Text, "[secret]") {
					t.Errorf("%s: %q", name, out.Text)
				}
			}
		}
	}
}

// A file without end is no secret, and no reason to fill the memory.
func TestAFileOfTheSettingsIsBounded(t *testing.T) {
	if _, err := readPassword("/dev/zero"); !errors.Is(err, errSettings) || !strings.Contains(err.Error(), "larger") {
		t.Error(err)
	}
}
