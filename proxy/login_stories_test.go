package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
)

// Stories of logins: refused, cured, with passwords and with tokens.

// issuer is a token endpoint in memory. Each token is a word and a number.
type issuer struct {
	mu     sync.Mutex
	answer func(w http.ResponseWriter, form url.Values) // in place of a token; nil: a token
	down   error                                        // in place of an answer
	word   string
	count  int
}

// RoundTrip implements http.RoundTripper.
func (i *issuer) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.count++
	if i.down != nil {
		return nil, i.down
	}
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	if i.answer != nil {
		i.answer(w, form)
		return w.Result(), nil
	}
	err = json.NewEncoder(w).Encode(map[string]any{"access_token": fmt.Sprintf("%s.%d", i.word, i.count), "expires_in": 3600})
	return w.Result(), err
}

func (i *issuer) set(down error, answer func(http.ResponseWriter, url.Values)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down, i.answer = down, answer
}

func (i *issuer) requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.count
}

func oauthError(status int, code, description string) func(http.ResponseWriter, url.Values) {
	return func(w http.ResponseWriter, _ url.Values) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":%q,"error_description":%q}`, code, description)
	}
}

// withTokens lets the Proxy log in with tokens of i.
func withTokens(i *issuer, secretFile string) func(*config.Config) {
	return func(c *config.Config) {
		c.Upstream.Username, c.Upstream.OAuth, c.Upstream.PlaintextAuth = "app", true, true
		c.OAuth.Tenant, c.OAuth.ClientID, c.OAuth.ClientSecretFile, c.OAuth.Transport = "t.example", "id", secretFile, i
	}
}

func tempFile(t *testing.T, name, text string) string {
	t.Helper()
	if !filepath.IsAbs(name) {
		name = filepath.Join(t.TempDir(), name)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// named gives the n-th batch of a story's messages a name of its own.
func named(n int) func(*source.Config) {
	return func(c *source.Config) { c.Name = fmt.Sprintf("batch%d", n) }
}

func TestANewPasswordFileIsTriedAtOnce(t *testing.T) {
	in(t, func(t *testing.T) {
		file := tempFile(t, "password", "wrong")
		var mu sync.Mutex
		logins := 0
		rc := relay.Config{Username: "app", Password: "right", Reply: func(e relay.Event) relay.Action {
			mu.Lock()
			defer mu.Unlock()
			if e.Stage == relay.StageAuth {
				logins++
			}
			return relay.Action{}
		}}
		count := func() int { mu.Lock(); defer mu.Unlock(); return logins }
		w := newWorld(t, rc, func(c *config.Config) {
			c.Upstream.Username, c.Upstream.PasswordFile, c.Upstream.PlaintextAuth = "app", file, true
		})
		ledger := w.send(20, 4)
		time.Sleep(time.Minute)
		if q := w.proxy.Status().Queue; q.Held == "" || count() > 1 {
			t.Fatalf("held %q after %d logins", q.Held, count())
		}
		time.Sleep(55 * time.Minute)
		if n := count(); n > 5 {
			t.Errorf("%d logins in an hour", n)
		}
		n := count()
		tempFile(t, file, "wrong too")
		time.Sleep(10 * time.Second)
		if q := w.proxy.Status().Queue; count() != n+1 || q.Held == "" || q.Dead > 0 {
			t.Errorf("%d logins for one change, held %q, dead %d", count()-n, q.Held, q.Dead)
		}
		time.Sleep(5 * time.Minute)
		if count() != n+1 {
			t.Errorf("%d logins after a change that did not help", count()-n)
		}
		tempFile(t, file, "right\n")
		w.settle(10 * time.Second)
		w.arrived(ledger)
	})
}

// The mail stays held while a changed secret is tried, and an upstream that is away meanwhile is not pestered.
func TestAChangeWhileTheUpstreamIsAwayIsTriedAsSeldomAsEver(t *testing.T) {
	in(t, func(t *testing.T) {
		file := tempFile(t, "password", "wrong")
		w := newWorld(t, relay.Config{Username: "app", Password: "right"}, func(c *config.Config) {
			c.Upstream.Username, c.Upstream.PasswordFile, c.Upstream.PlaintextAuth = "app", file, true
		})
		w.send(1, 1)
		time.Sleep(time.Minute)
		w.setDown(errors.New("no route to host"))
		before := w.dialled()
		tempFile(t, file, "right")
		time.Sleep(10 * time.Minute)
		if n := w.dialled() - before; n > 12 {
			t.Errorf("%d dials in ten minutes", n)
		}
		w.setDown(nil)
		w.settle(3 * time.Minute)
	})
}

func TestRefusalsBeforeMailHoldTheBacklog(t *testing.T) {
	for name, tc := range map[string]struct {
		stage  relay.Stage
		reply  string
		within time.Duration
	}{
		"535":             {relay.StageAuth, "535 5.7.8 Authentication credentials invalid", loginProbe},
		"530":             {relay.StageMail, "530 5.7.0 Authentication required", faultProbe},
		"554 greeting":    {relay.StageConnect, "554 5.7.1 No SMTP service here for you", faultProbe},
		"530 at AUTH":     {relay.StageAuth, "530 5.7.0 Must issue a STARTTLS command first", loginProbe},
		"550 5.7.30":      {relay.StageAuth, "550 5.7.30 Basic authentication is not supported for Client Submission.", loginProbe},
		"535 5.7.139":     {relay.StageAuth, "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", loginProbe},
		"no AUTH offered": {relay.StageEHLO, "250 relay.example", faultProbe},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				var broken atomic.Bool
				broken.Store(true)
				w := newWorld(t, relay.Config{Username: "app", Password: "right", Reply: func(e relay.Event) relay.Action {
					if e.Stage == tc.stage && broken.Load() {
						return relay.Action{Reply: tc.reply}
					}
					return relay.Action{}
				}}, creds)
				ledger := w.send(30, 5)
				time.Sleep(120 * time.Hour) // longer than a message may wait
				if q := w.proxy.Status().Queue; q.Held == "" || q.Dead > 0 || q.Pending != 30 {
					t.Fatalf("held %q, pending %d, dead %d", q.Held, q.Pending, q.Dead)
				}
				broken.Store(false)
				w.until(tc.within+10*time.Second, "resumed", func() bool { return w.proxy.Status().Queue.Held == "" })
				w.settle(2 * time.Minute) // what heard the refusal itself waits for its own time
				w.arrived(ledger)
			})
		})
	}
}

func TestMailGoesOutWithTokens(t *testing.T) {
	in(t, func(t *testing.T) {
		i := &issuer{word: "good"}
		w := newWorld(t, relay.Config{Username: "app", Mechanisms: []string{"LOGIN", "XOAUTH2"}, IdleTimeout: 10 * time.Second,
			TakesToken: func(token string) bool { return strings.HasPrefix(token, "good.") }}, withTokens(i, tempFile(t, "s", "secret")))
		if s := w.proxy.Status().Upstream; s.Token != "not asked for yet" || !s.TokenExpiry.IsZero() {
			t.Errorf("%+v", s)
		}
		for n := range 24 {
			w.send(20, 4, named(n))
			w.settle(time.Minute)
			time.Sleep(30 * time.Minute)
		}
		if n := i.requests(); n < 10 || n > 24 {
			t.Errorf("%d tokens in 12 hours", n)
		}
		if s := w.proxy.Status(); s.Upstream.Token != "good" || time.Until(s.Upstream.TokenExpiry) > time.Hour || s.Queue.Dead > 0 {
			t.Errorf("%+v", s.Upstream)
		}
	})
}

func TestATokenThatIsWithdrawnIsReplacedUnnoticed(t *testing.T) {
	in(t, func(t *testing.T) {
		i := &issuer{word: "good"}
		var least atomic.Int64
		w := newWorld(t, relay.Config{Username: "app", Mechanisms: []string{"XOAUTH2"}, IdleTimeout: 10 * time.Second, TakesToken: func(token string) bool {
			var n int64
			_, err := fmt.Sscanf(token, "good.%d", &n)
			return err == nil && n > least.Load()
		}}, withTokens(i, tempFile(t, "s", "secret")))
		w.send(10, 2, named(0))
		w.settle(time.Minute)
		time.Sleep(time.Minute) // connections are gone
		least.Store(1)
		w.send(10, 2, named(1))
		w.settle(20 * time.Second)
		if n := i.requests(); n != 2 {
			t.Errorf("%d tokens", n)
		}
		// One that no token of ours satisfies is a fault of the login: seldom tried, and never bounced.
		least.Store(1 << 40)
		time.Sleep(time.Minute)
		before, dials := i.requests(), w.proxy.Status().Upstream.Dials
		w.send(10, 2, named(2))
		time.Sleep(time.Hour)
		s := w.proxy.Status()
		asked, dialled := i.requests()-before, s.Upstream.Dials-dials
		if s.Queue.Held == "" || s.Queue.Dead > 0 || dialled > 4+4 || asked > int(dialled) { // those begun together, then one a quarter of an hour
			t.Errorf("held %q, dead %d, %d tokens for %d dials in an hour", s.Queue.Held, s.Queue.Dead, asked, dialled)
		}
		least.Store(0)
		w.settle(loginProbe + time.Minute)
	})
}

func TestTheTokenEndpointsFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		down   error
		answer func(http.ResponseWriter, url.Values)
		held   string        // what the hold says; "": no hold
		within time.Duration // to resume
		change bool          // the secret's file, as the cure
	}{
		"away":          {down: errors.New("connection refused"), within: time.Minute},
		"500":           {answer: oauthError(500, "server_error", ""), within: time.Minute},
		"429":           {answer: oauthError(429, "slow_down", ""), within: 46 * time.Minute},
		"secret":        {answer: oauthError(401, "invalid_client", "AADSTS7000222: expired."), held: "create a new one", within: 10 * time.Second, change: true},
		"consent":       {answer: oauthError(400, "invalid_grant", "AADSTS65001: no consent."), held: "SMTP.SendAsApp", within: loginProbe},
		"tenant":        {answer: oauthError(400, "invalid_request", "AADSTS90002: no tenant."), held: "no such tenant", within: loginProbe},
		"unknown to it": {answer: oauthError(400, "unauthorized_client", "AADSTS700016: not found."), held: "does not know the application", within: loginProbe},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				i, file := &issuer{word: "good"}, tempFile(t, "s", "secret")
				i.set(tc.down, tc.answer)
				w := newWorld(t, relay.Config{Username: "app", Mechanisms: []string{"XOAUTH2"}, TakesToken: func(string) bool { return true }}, withTokens(i, file))
				ledger := w.send(20, 4)
				time.Sleep(3 * time.Hour)
				s := w.proxy.Status()
				if s.Queue.Dead > 0 || s.Queue.Pending != 20 || (s.Queue.Held != "") != (tc.held != "") || !strings.Contains(s.Queue.Held, tc.held) {
					t.Errorf("held %q, pending %d, dead %d", s.Queue.Held, s.Queue.Pending, s.Queue.Dead)
				}
				if s.Upstream.Token == "good" || w.dialled() > 0 {
					t.Errorf("token %q, %d dials", s.Upstream.Token, w.dialled())
				}
				if n := i.requests(); n > 400 {
					t.Errorf("%d requests in three hours", n)
				}
				i.set(nil, nil)
				if tc.change {
					tempFile(t, file, "another")
				}
				w.settle(tc.within + 2*time.Second)
				w.arrived(ledger)
			})
		})
	}
}

// tokenRepeater refuses each token and repeats it.
func tokenRepeater() relay.Config {
	var last atomic.Value
	return relay.Config{
		TakesToken: func(token string) bool { last.Store(token); return false },
		Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageAuth {
				return relay.Action{Reply: fmt.Sprint("535 5.7.3 you said ", last.Load())}
			}
			return relay.Action{}
		},
	}
}

// The canary: whatever secret is planted anywhere is in no log line, no status and no row.
func TestNoSecretIsEverShown(t *testing.T) {
	password := "pw-" + canaryWord
	repeat := func(code, secret string) func(relay.Event) relay.Action {
		return func(e relay.Event) relay.Action {
			if e.Stage == relay.StageAuth {
				return relay.Action{Reply: code + " you said " + secret}
			}
			return relay.Action{}
		}
	}
	passwordly := func(c *config.Config) { creds(c); c.Upstream.Password = password }
	for name, tc := range map[string]struct {
		rc     relay.Config
		answer func(http.ResponseWriter, url.Values)
		tokens bool
	}{
		"password":              {rc: relay.Config{Password: password}},
		"password, SCRAM":       {rc: relay.Config{Password: password, Mechanisms: []string{"SCRAM-SHA-256"}}},
		"wrong password":        {rc: relay.Config{Password: "x", Mechanisms: []string{"LOGIN"}}},
		"password repeated":     {rc: relay.Config{Password: password, Reply: repeat("535 5.7.8", password)}},
		"repeated, temporarily": {rc: relay.Config{Password: password, Reply: repeat("454 4.7.0", password)}},
		"token":                 {rc: relay.Config{TakesToken: func(string) bool { return true }}, tokens: true},
		"token refused":         {tokens: true},
		"token repeated":        {rc: tokenRepeater(), tokens: true},
		"issuer repeats": {tokens: true, answer: func(w http.ResponseWriter, form url.Values) {
			oauthError(401, "invalid_client", "AADSTS7000215: not "+form.Get("client_secret"))(w, form)
		}},
		"issuer is no issuer": {tokens: true, answer: func(w http.ResponseWriter, form url.Values) {
			w.WriteHeader(500)
			fmt.Fprint(w, "<html>", form)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				core, logs := observer.New(zap.DebugLevel)
				tc.rc.Username, tc.rc.RTT = "app", time.Millisecond
				set := passwordly
				if tc.tokens {
					tc.rc.Mechanisms = []string{"XOAUTH2"}
					i := &issuer{word: "good-" + canaryWord, answer: tc.answer}
					set = func(c *config.Config) {
						withTokens(i, tempFile(t, "s", "cs-"+canaryWord))(c)
					}
				}
				w := newWorld(t, tc.rc, set)
				w.finish()
				w.log = zap.New(core)
				w.start()
				w.send(5, 1)
				time.Sleep(time.Hour)
				rows, err := w.proxy.pendingRows(10)
				status := w.proxy.Status()
				w.finish()
				shown := fmt.Sprintf("%+v %+v %v %+v", status, rows, err, w.cfg)
				for _, e := range logs.All() {
					shown += fmt.Sprint("\n", e.Message, e.ContextMap())
				}
				if at := strings.Index(shown, canaryWord); at >= 0 {
					t.Errorf("...%s...", shown[max(0, at-200):at+20])
				}
				if logs.Len() < 5 {
					t.Errorf("%d lines", logs.Len())
				}
			})
		})
	}
}
