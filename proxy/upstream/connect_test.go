package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

const canary = "c4nary-S3cret/word"

// certificate returns one for the names, signed by itself, and its PEM.
func certificate(t *testing.T, notAfter time.Time, names ...string) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: notAfter.Add(-time.Hour), NotAfter: notAfter, DNSNames: names, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, file
}

// bubbleTime is when the clock of a bubble starts.
var bubbleTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// TestOpening walks through all that can happen before MAIL.
func TestOpening(t *testing.T) {
	good, ca := certificate(t, bubbleTime.Add(time.Hour), "relay.example")
	expired, expiredCA := certificate(t, bubbleTime.Add(-time.Second), "relay.example")
	other, otherCA := certificate(t, bubbleTime.Add(time.Hour), "other.example")
	withTLS := []string{"STARTTLS"}
	withAuth := []string{"starttls", "Auth PLAIN LOGIN"}
	login := Config{Username: "app", Password: canary, CAFile: ca}
	clear := Config{Username: "app", Password: canary, TLS: tlsNone, PlaintextAuth: true}
	smtps := Config{URL: "smtps://relay.example", CAFile: ca}
	smtpsLogin := login
	smtpsLogin.URL = smtps.URL
	type want struct {
		class flowctl.Class
		stage flowctl.Stage
	}
	ok := func(st flowctl.Stage) want { return want{flowctl.OK, st} }
	for _, tc := range []struct {
		name  string
		cfg   Config
		relay *relay
		want  want
		check func(t *testing.T, c *Conn, r *relay)
	}{
		{"plain", Config{}, &relay{}, ok(flowctl.StageEHLO), nil},
		{"greeting without text", Config{}, &relay{greeting: "220"}, ok(flowctl.StageEHLO), nil},
		{"greeting of two lines", Config{}, &relay{greeting: "220-hello\n220 there"}, ok(flowctl.StageEHLO), nil},
		{"greeting 421", Config{}, &relay{script: map[string]act{"GREETING 1": {reply: "421 4.3.2 too many connections from your host", then: "close"}}}, want{flowctl.Busy, flowctl.StageGreeting}, nil},
		{"greeting 554", Config{}, &relay{script: map[string]act{"GREETING 1": {reply: "554 no", then: "close"}}}, want{flowctl.Misconfigured, flowctl.StageGreeting}, nil},
		{"greeting 354", Config{}, &relay{script: map[string]act{"GREETING 1": {reply: "354 no"}}}, want{flowctl.Unavailable, flowctl.StageGreeting}, nil},
		{"greeting closes", Config{}, &relay{script: map[string]act{"GREETING 1": {then: "close"}}}, want{flowctl.Unavailable, flowctl.StageGreeting}, nil},
		{"greeting resets", Config{}, &relay{script: map[string]act{"GREETING 1": {then: "reset"}}}, want{flowctl.Unavailable, flowctl.StageGreeting}, nil},
		{"greeting stalls", Config{}, &relay{script: map[string]act{"GREETING 1": {then: "stall"}}}, want{flowctl.Unavailable, flowctl.StageGreeting}, nil},
		{"greeting is HTTP", Config{}, &relay{greeting: "HTTP/1.1 400 Bad Request"}, want{flowctl.Unavailable, flowctl.StageGreeting}, nil},
		{"greeting with more behind", Config{}, &relay{greeting: "220 a\n250 b"}, want{flowctl.Unavailable, flowctl.StageGreeting}, nil},
		{"EHLO stalls", Config{}, &relay{script: map[string]act{"EHLO 1": {then: "stall"}}}, want{flowctl.Overload, flowctl.StageEHLO}, nil},
		{"EHLO 421", Config{}, &relay{script: map[string]act{"EHLO 1": {reply: "421 4.7.0 Try again later, closing connection.", then: "close"}}}, want{flowctl.Overload, flowctl.StageEHLO}, nil},
		{"EHLO unknown", Config{}, &relay{offers: pipelining, script: map[string]act{"EHLO 1": {reply: "502 what?"}}}, ok(flowctl.StageEHLO), func(t *testing.T, c *Conn, r *relay) {
			if c.level != L0 || r.lines[1] != "HELO localhost" {
				t.Errorf("L%d, %q", c.level, r.lines)
			}
		}},
		{"HELO refused too", Config{}, &relay{script: map[string]act{"EHLO 1": {reply: "550 no"}, "HELO 1": {reply: "550 no"}}}, want{flowctl.Misconfigured, flowctl.StageEHLO}, nil},
		{"masked banner", Config{}, &relay{greeting: "220 ****2*0*", offers: pipelining}, ok(flowctl.StageEHLO), func(t *testing.T, c *Conn, _ *relay) {
			if c.level != L0 {
				t.Errorf("L%d", c.level)
			}
		}},
		{"our own listener", Config{Forbidden: func(net.Addr) bool { return true }}, &relay{}, want{flowctl.Misconfigured, flowctl.StageConnect}, nil},

		{"opportunistic, any certificate", Config{}, &relay{offers: withTLS, tls: other}, ok(flowctl.StageEHLO), isTLS(true)},
		{"opportunistic, not offered", Config{}, &relay{}, ok(flowctl.StageEHLO), isTLS(false)},
		{"opportunistic, with roots", Config{CAFile: otherCA}, &relay{offers: withTLS, tls: other}, want{flowctl.Misconfigured, flowctl.StageTLS}, nil},
		{"opportunistic, refused", Config{}, &relay{offers: withTLS, script: map[string]act{"STARTTLS 1": {reply: "454 4.7.0 TLS not available"}}}, want{flowctl.Unavailable, flowctl.StageTLS}, nil},
		{"opportunistic, broken", Config{}, &relay{offers: withTLS, script: map[string]act{"STARTTLS 1": {reply: "220 go", later: "no TLS at all", then: "close"}}}, want{flowctl.Unavailable, flowctl.StageTLS}, onlyBefore("STARTTLS")},
		{"none", Config{TLS: tlsNone}, &relay{offers: withTLS}, ok(flowctl.StageEHLO), isTLS(false)},
		{"required", Config{TLS: tlsRequire, CAFile: ca}, &relay{offers: withTLS, tls: good}, ok(flowctl.StageEHLO), isTLS(true)},
		{"required, system roots", Config{TLS: tlsRequire}, &relay{offers: withTLS, tls: good}, want{flowctl.Misconfigured, flowctl.StageTLS}, onlyBefore("STARTTLS")},
		{"required, expired", Config{TLS: tlsRequire, CAFile: expiredCA}, &relay{offers: withTLS, tls: expired}, want{flowctl.Misconfigured, flowctl.StageTLS}, nil},
		{"required, other name", Config{TLS: tlsRequire, CAFile: otherCA}, &relay{offers: withTLS, tls: other}, want{flowctl.Misconfigured, flowctl.StageTLS}, nil},
		{"required, not offered", Config{TLS: tlsRequire}, &relay{}, want{flowctl.Misconfigured, flowctl.StageTLS}, nil},
		{"required, stalls", Config{TLS: tlsRequire}, &relay{offers: withTLS, script: map[string]act{"STARTTLS 1": {reply: "220 go", then: "stall"}}}, want{flowctl.Unavailable, flowctl.StageTLS}, nil},
		{"required, TLS rate", Config{TLS: tlsRequire}, &relay{offers: withTLS, script: map[string]act{"STARTTLS 1": {reply: "454 4.7.0 Cannot accept TLS as maximum TLS rate exceeded for server"}}}, want{flowctl.Overload, flowctl.StageTLS}, nil},
		{"injected before the handshake", Config{}, &relay{offers: withTLS, tls: good, script: map[string]act{"STARTTLS 1": {reply: "220 go\n250-injected\n250 PIPELINING"}}}, want{flowctl.Misconfigured, flowctl.StageTLS}, onlyBefore("STARTTLS")},
		{"what was learnt before is forgotten", Config{}, &relay{offers: withTLS, tls: good, script: map[string]act{"EHLO 1": {reply: "250-x\n250-STARTTLS\n250 PIPELINING"}}}, ok(flowctl.StageEHLO), func(t *testing.T, c *Conn, _ *relay) {
			if c.Extensions().Pipelining {
				t.Error("PIPELINING was believed in clear text")
			}
		}},
		{"forgotten also where HELO follows", Config{}, &relay{offers: append(withTLS, "PIPELINING"), tls: good, script: map[string]act{"EHLO 2": {reply: "502 what?"}}}, ok(flowctl.StageEHLO), func(t *testing.T, c *Conn, _ *relay) {
			if c.Extensions().Pipelining {
				t.Error("PIPELINING was believed in clear text")
			}
		}},
		{"smtps", smtps, &relay{tls: good, implicit: true}, ok(flowctl.StageEHLO), isTLS(true)},
		{"smtps, refused in plain text", smtps, &relay{greeting: "421 4.3.2 too many concurrent connections from your host"}, want{flowctl.Busy, flowctl.StageConnect}, nil},
		{"smtps to a plain port", smtps, &relay{}, want{flowctl.Misconfigured, flowctl.StageConnect}, nil},
		{"smtps, other", smtps, &relay{greeting: "SSH-2.0-OpenSSH_9.2"}, want{flowctl.Unavailable, flowctl.StageTLS}, nil},
		{"smtps, system roots", Config{URL: smtps.URL}, &relay{tls: good, implicit: true}, want{flowctl.Misconfigured, flowctl.StageTLS}, nil},

		{"PLAIN", login, &relay{offers: withAuth, tls: good}, ok(flowctl.StageAuth), loggedIn},
		{"PLAIN over smtps", smtpsLogin, &relay{offers: withAuth, tls: good, implicit: true}, ok(flowctl.StageAuth), loggedIn},
		{"LOGIN", login, &relay{offers: []string{"STARTTLS", "AUTH=LOGIN"}, tls: good}, ok(flowctl.StageAuth), loggedIn},
		{"PLAIN in clear", clear, &relay{offers: withAuth}, ok(flowctl.StageAuth), loggedIn},
		{"no TLS, so no password", login, &relay{offers: []string{"AUTH PLAIN"}}, want{flowctl.Misconfigured, flowctl.StageTLS}, neverSent},
		{"wrong certificate, so no password", login, &relay{offers: withAuth, tls: other}, want{flowctl.Misconfigured, flowctl.StageTLS}, neverSent},
		{"no mechanism", login, &relay{offers: []string{"STARTTLS", "AUTH GSSAPI NTLM"}, tls: good}, want{flowctl.Misconfigured, flowctl.StageEHLO}, neverSent},
		{"AUTH not offered", login, &relay{offers: withTLS, tls: good}, want{flowctl.Misconfigured, flowctl.StageEHLO}, neverSent},
		{"password refused", login, &relay{offers: withAuth, tls: good, secret: "another"}, want{flowctl.Misconfigured, flowctl.StageAuth}, nil},
		{"password repeated", login, &relay{offers: withAuth, tls: good, script: map[string]act{"PLAIN 1": {reply: "535 no " + canary + " today"}}}, want{flowctl.Misconfigured, flowctl.StageAuth}, nil},
		{"too many logins", login, &relay{offers: withAuth, tls: good, script: map[string]act{"PLAIN 1": {reply: "454 4.7.0 Too many login attempts, please try again later."}}}, want{flowctl.AuthThrottle, flowctl.StageAuth}, nil},
		{"asks without end", login, &relay{offers: []string{"STARTTLS", "AUTH LOGIN"}, tls: good, script: map[string]act{"LOGIN 1": {reply: "334 more"}}}, want{flowctl.Misconfigured, flowctl.StageAuth}, nil},
		{"AUTH stalls", login, &relay{offers: withAuth, tls: good, script: map[string]act{"PLAIN 1": {then: "stall"}}}, want{flowctl.Overload, flowctl.StageAuth}, nil},
		{"no password file", Config{Username: "app", PasswordFile: "/nonexistent", CAFile: ca}, &relay{offers: withAuth, tls: good}, want{flowctl.Misconfigured, flowctl.StageAuth}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.relay.user = "app"
			if tc.relay.secret == "" {
				tc.relay.secret = canary
			}
			inBubble(t, tc.relay, func(t *testing.T) {
				c, out := tc.relay.client(t, tc.cfg).Connect(t.Context(), "")
				if got := (want{out.Class, out.Stage}); got != tc.want {
					t.Errorf("class %v stage %v, want %v: %s", out.Class, out.Stage, tc.want, out.Text)
				}
				if (c != nil) != (out.Class == flowctl.OK) {
					t.Errorf("connection %v", c)
				}
				if strings.Contains(out.Text, canary) || strings.Contains(out.Text, base64.StdEncoding.EncodeToString([]byte(canary))[:8]) {
					t.Errorf("the secret is in %q", out.Text)
				}
				if out.Took > 6*time.Minute {
					t.Errorf("took %v", out.Took)
				}
				if c != nil {
					jobs := letters(2, 1)
					results, _ := send(c, jobs...)
					tc.relay.checkTruth(t, jobs, results)
				}
				tc.relay.wg.Wait()
				if tc.check != nil {
					tc.check(t, c, tc.relay)
				}
			})
		})
	}
}

func isTLS(want bool) func(*testing.T, *Conn, *relay) {
	return func(t *testing.T, c *Conn, r *relay) {
		t.Helper()
		if c == nil {
			t.Fatal("no connection")
		}
		if got := strings.HasPrefix(c.TLS(), "TLS 1.3 "); got != want || slices.Contains(r.lines, "STARTTLS") != want && !r.implicit {
			t.Errorf("TLS %q, %q", c.TLS(), r.lines)
		}
	}
}

func onlyBefore(last string) func(*testing.T, *Conn, *relay) {
	return func(t *testing.T, _ *Conn, r *relay) {
		t.Helper()
		if got := r.lines[len(r.lines)-1]; got != last {
			t.Errorf("the last command is %q", got)
		}
	}
}

func loggedIn(t *testing.T, _ *Conn, r *relay) {
	t.Helper()
	if r.logins != 1 || len(r.accepted) != 2 {
		t.Errorf("%d logins, %d taken", r.logins, len(r.accepted))
	}
}

func neverSent(t *testing.T, _ *Conn, r *relay) {
	t.Helper()
	for _, l := range r.lines {
		if strings.HasPrefix(l, "AUTH") {
			t.Errorf("%q was sent", l)
		}
	}
}

// The initial response of PLAIN may be passed over by the server, who then asks for it.
func TestPlainWithoutInitialResponse(t *testing.T) {
	r := &relay{offers: []string{"AUTH PLAIN"}, user: "app", secret: canary, script: map[string]act{"PLAIN 1": {reply: "334 "}}}
	inBubble(t, r, func(t *testing.T) {
		cl := r.client(t, Config{Username: "app", Password: canary, TLS: tlsNone, PlaintextAuth: true})
		c, out := cl.Connect(t.Context(), "")
		if c != nil || out.Class != flowctl.Misconfigured {
			t.Errorf("the relay takes the line for a command and refuses: %+v", out)
		}
		want := base64.StdEncoding.EncodeToString([]byte("\x00app\x00" + canary))
		if last := r.lines[len(r.lines)-1]; last != want {
			t.Errorf("the last line is %q", last)
		}
	})
}

// A rotated secret acts at the next login, without a reload.
func TestPasswordFileIsReadAtEachLogin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	r := &relay{offers: []string{"AUTH PLAIN"}, user: "app", secret: canary}
	inBubble(t, r, func(t *testing.T) {
		cl := r.client(t, Config{Username: "app", PasswordFile: file, TLS: tlsNone, PlaintextAuth: true})
		for _, step := range []struct {
			content string
			class   flowctl.Class
		}{{"old\n", flowctl.Misconfigured}, {canary + "\n", flowctl.OK}, {canary + "\r\n", flowctl.OK}, {canary, flowctl.OK}, {canary + "\n\n", flowctl.Misconfigured}, {"\n", flowctl.Misconfigured}} {
			if err := os.WriteFile(file, []byte(step.content), 0o600); err != nil {
				t.Fatal(err)
			}
			c, out := cl.Connect(t.Context(), "")
			if out.Class != step.class || strings.Contains(out.Text, canary) {
				t.Errorf("%q: %+v", step.content, out)
			}
			if c != nil {
				c.Cut()
			}
		}
	})
}

func TestConnectEndsWithItsContext(t *testing.T) {
	r := &relay{script: map[string]act{"EHLO 1": {then: "stall"}}}
	inBubble(t, r, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, cancel)
		c, out := r.client(t, Config{}).Connect(ctx, "")
		if c != nil || out.Class != flowctl.IdleClose || out.Took != 3*time.Second {
			t.Errorf("%+v", out)
		}
	})
}

func TestDialFailures(t *testing.T) {
	for _, tc := range []struct {
		err   error
		class flowctl.Class
	}{
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, flowctl.Unavailable},
		{&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, flowctl.Unavailable},
		{&net.DNSError{Err: "no such host", Name: "relay.example", IsNotFound: true}, flowctl.Unavailable},
		{context.DeadlineExceeded, flowctl.Unavailable},
	} {
		cl, err := New(Config{URL: "smtp://relay.example:2525", Dial: func(_ context.Context, network, address string) (net.Conn, error) {
			if network != "tcp" || address != "relay.example:2525" {
				t.Errorf("dials %s %s", network, address)
			}
			return nil, tc.err
		}})
		if err != nil {
			t.Fatal(err)
		}
		c, out := cl.Connect(t.Context(), "")
		if c != nil || out.Class != tc.class || out.Stage != flowctl.StageConnect || !strings.Contains(out.Text, tc.err.Error()) {
			t.Errorf("%v: %+v", tc.err, out)
		}
	}
}

func TestNewReadsItsRoots(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"/nonexistent": "no such file", empty: "holds no PEM certificate"} {
		_, err := New(Config{URL: "smtp://relay.example", CAFile: file})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, err := New(Config{URL: "smtp://relay.example", CAFile: "/nonexistent"}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
