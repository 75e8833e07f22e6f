package proxy

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/proxy/config"
)

// Stories of what goes wrong with TLS, and of its cure.

// authority issues certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	pair := a.issue(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid, c.DNSNames = true, true, nil })
	a.cert, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// issue makes a certificate for relay.example, good for ten days of the bubble, but for what set changes. One without an authority
// signs itself.
func (a *authority) issue(set func(*x509.Certificate)) *tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	bubble := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relay.example"}, DNSNames: []string{"relay.example"},
		NotBefore: bubble.Add(-time.Hour), NotAfter: bubble.Add(240 * time.Hour)}
	if set != nil {
		set(c)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// file writes the authority's certificate.
func (a *authority) file() string {
	a.t.Helper()
	name := filepath.Join(a.t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return name
}

// tap sees what is written to the relay, and may spoil what comes after the first octet of a handshake.
type tap struct {
	net.Conn
	seen  func([]byte)
	spoil spoil
	spilt bool // the handshake has begun
	noise []byte
}

// spoil is what a handshake meets in place of an answer, or of the rest of one: the words of somebody, if it is none of these.
type spoil string

const (
	nothing spoil = ""
	theEnd  spoil = "end"
	silence spoil = "silence"
	half    spoil = "half" // of the server's first flight, then the end
)

func (c *tap) Write(p []byte) (int, error) {
	c.seen(p)
	if c.spoil != nothing && len(p) > 0 && p[0] == 0x16 {
		c.spilt = true
		if c.spoil == half {
			return c.Conn.Write(p)
		}
		c.noise = []byte(c.spoil)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *tap) Read(p []byte) (int, error) {
	switch {
	case !c.spilt || c.spoil == silence:
		return c.Conn.Read(p)
	case c.spoil == theEnd:
		return 0, io.EOF
	case c.spoil == half && c.noise == nil:
		c.noise = []byte{}
		return c.Conn.Read(p[:min(len(p), 40)])
	case c.spoil == half:
		return 0, io.EOF
	case len(c.noise) > 0:
		n := copy(p, c.noise)
		c.noise = c.noise[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// wire is what was written on all connections until the cure, connection by connection.
type wire struct {
	mu    sync.Mutex
	conns []*bytes.Buffer
}

func (w *wire) add() func([]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := new(bytes.Buffer)
	w.conns = append(w.conns, b)
	return func(p []byte) {
		w.mu.Lock()
		defer w.mu.Unlock()
		b.Write(p)
	}
}

// harmless wants nothing but what a session says before TLS and records of TLS, and no secret anywhere.
func (w *wire) harmless(t *testing.T, secrets ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.conns) == 0 {
		t.Error("nothing was dialled")
	}
	for _, b := range w.conns {
		for _, word := range secrets {
			if bytes.Contains(b.Bytes(), []byte(word)) {
				t.Errorf("%q was sent in clear", word)
			}
		}
		rest := b.Bytes()
		for len(rest) > 0 && rest[0] > 0x17 {
			line, after, _ := bytes.Cut(rest, []byte("\r\n"))
			verb, _, _ := strings.Cut(string(line), " ")
			if !slices.Contains([]string{"EHLO", "HELO", "STARTTLS", "QUIT"}, verb) {
				t.Errorf("%q was sent in clear", line)
			}
			rest = after
		}
		for len(rest) > 0 {
			if len(rest) < 5 || rest[0] < 0x14 || rest[0] > 0x17 || rest[1] != 3 {
				t.Fatalf("not of TLS: %q", rest)
			}
			rest = rest[min(5+int(binary.BigEndian.Uint16(rest[3:])), len(rest)):]
		}
	}
}

func TestWhereTLSIsRequiredNothingGoesInClear(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	self := (&authority{t: t}).issue(nil)
	good := &tls.Config{Certificates: []tls.Certificate{*ca.issue(nil)}}
	with := func(c *tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{*c}} }
	expired := with(ca.issue(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) }))
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	wantsOurs := good.Clone()
	wantsOurs.ClientAuth = tls.RequireAnyClientCert
	offers := func(keyword string) map[relay.Stage]string {
		return map[relay.Stage]string{relay.StageEHLO: "250-relay.example\n250-PIPELINING\n" + keyword + "250 AUTH PLAIN"}
	}
	answers := func(reply string) map[relay.Stage]string { return map[relay.Stage]string{relay.StageStartTLS: reply} }
	for _, tc := range []struct {
		name     string
		tls      *tls.Config // nil: good
		reply    map[relay.Stage]string
		spoil    spoil
		implicit bool
		waits    bool // it may pass by itself: the mail waits, but nobody is called
	}{
		{name: "expired", tls: expired},
		{name: "not yet valid", tls: with(ca.issue(func(c *x509.Certificate) { c.NotBefore = c.NotAfter.Add(-time.Hour) }))},
		{name: "wrong name", tls: with(ca.issue(func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }))},
		{name: "unknown authority", tls: with(stranger.issue(nil))},
		{name: "self-signed", tls: with(self)},
		{name: "without SAN", tls: with(ca.issue(func(c *x509.Certificate) { c.DNSNames = nil }))},
		{name: "TLS 1.1 only", tls: old},
		{name: "it wants a certificate of ours", tls: wantsOurs},
		{name: "not offered", reply: offers("")},
		{name: "stripped on the way", reply: offers("250-XXXXXXXA\n")},
		{name: "EHLO not known", reply: map[relay.Stage]string{relay.StageEHLO: "502 5.5.1 not known"}},
		{name: "refused for now", reply: answers("454 4.7.0 TLS not available due to temporary reason")},
		{name: "refused for good", reply: answers("502 5.5.1 not implemented")},
		{name: "injected", reply: answers("220 go\n250-relay.example\n250 AUTH PLAIN")},
		{name: "injected later", spoil: "250-relay.example\r\n250 AUTH PLAIN\r\n"},
		{name: "refused after 220", spoil: "554 5.7.0 no TLS for you\r\n"},
		{name: "handshake is garbage", spoil: "\x00\x01\x02 this is no TLS\r\n"},
		{name: "handshake is closed", spoil: theEnd},
		{name: "handshake is cut", spoil: half},
		{name: "handshake hangs", spoil: silence},
		{name: "implicit, expired", tls: expired, implicit: true},
		{name: "implicit, TLS 1.1 only", tls: old, implicit: true},
		{name: "implicit, plain SMTP", spoil: "220 relay.example ESMTP\r\n", implicit: true},
		{name: "implicit, plain 421", spoil: "421 4.3.2 Service not available, come back later\r\n", implicit: true, waits: true},
		{name: "implicit, plain 554", spoil: "554 5.7.1 no service for you\r\n", implicit: true},
		{name: "implicit, cut", spoil: half, implicit: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				var cured atomic.Bool
				wire := new(wire)
				core, logs := observer.New(zap.DebugLevel)
				serverTLS := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
					if tc.tls != nil && !cured.Load() {
						return tc.tls, nil
					}
					return good, nil
				}, MinVersion: tls.VersionTLS10}
				rc := relay.Config{TLS: serverTLS, ImplicitTLS: tc.implicit, Username: "app", Password: "right-" + canaryWord, Reply: func(e relay.Event) relay.Action {
					if cured.Load() {
						return relay.Action{}
					}
					return relay.Action{Reply: tc.reply[e.Stage]}
				}}
				var w *world
				w = newWorld(t, rc, func(c *config.Config) {
					c.Queue.ExpireAfter = 30 * time.Minute
					c.Upstream.TLS, c.Upstream.CAFile = "require", ca.file()
					c.Upstream.Username, c.Upstream.Password = rc.Username, rc.Password
					if tc.implicit {
						c.Upstream.URL = "smtps://relay.example"
					}
					c.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						conn, err := w.dial(ctx, network, addr)
						if err != nil || cured.Load() {
							return conn, err
						}
						return &tap{Conn: conn, spoil: tc.spoil, seen: wire.add()}, nil
					}
				})
				w.finish()
				w.log = zap.New(core)
				w.start()
				ledger := w.send(5, 1)
				time.Sleep(time.Hour) // longer than a message may wait
				q := w.proxy.Status().Queue
				alarms := logs.FilterLevelExact(zap.ErrorLevel).FilterMessage("upstream held, mail waits until it is cured").Len()
				if (q.Held == "") != tc.waits || (alarms == 1) == tc.waits || q.Pending != 5 || q.Dead != 0 {
					t.Errorf("held %q, pending %d, dead %d, %d alarms", q.Held, q.Pending, q.Dead, alarms)
				}
				wire.harmless(t, canaryWord, base64.StdEncoding.EncodeToString([]byte("\x00app\x00"+rc.Password)))
				cured.Store(true)
				w.settle(time.Minute + time.Second)
				w.arrived(ledger)
				for _, e := range logs.All() {
					if line := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(line, canaryWord) {
						t.Errorf("in the log: %s", line)
					}
				}
			})
		})
	}
}

const canaryWord = "c4naryWord"
