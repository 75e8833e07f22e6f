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
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
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

// spoil is what a handshake meets in place of an answer.
type spoil int

const (
	nothing spoil = iota
	garbage
	theEnd
	silence
)

func (c *tap) Write(p []byte) (int, error) {
	c.seen(p)
	if c.spoil != nothing && len(p) > 0 && p[0] == 0x16 {
		c.spilt, c.noise = true, []byte("\x00\x01\x02 this is no TLS\r\n")
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *tap) Read(p []byte) (int, error) {
	switch {
	case c.spilt && c.spoil == theEnd:
		return 0, io.EOF
	case c.spilt && c.spoil == garbage && len(c.noise) > 0:
		n := copy(p, c.noise)
		c.noise = c.noise[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func TestWhereTLSIsRequiredNothingGoesInClear(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	self := (&authority{t: t}).issue(nil)
	good := &tls.Config{Certificates: []tls.Certificate{*ca.issue(nil)}}
	with := func(c *tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{*c}} }
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	offers := "250-relay.example\n250-PIPELINING\n250 AUTH PLAIN"
	for _, tc := range []struct {
		name  string
		tls   *tls.Config // nil: good
		reply map[relay.Stage]string
		spoil spoil
	}{
		{name: "expired", tls: with(ca.issue(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) }))},
		{name: "not yet valid", tls: with(ca.issue(func(c *x509.Certificate) { c.NotBefore = c.NotAfter.Add(-time.Hour) }))},
		{name: "wrong name", tls: with(ca.issue(func(c *x509.Certificate) { c.DNSNames = []string{"other.example"} }))},
		{name: "unknown authority", tls: with(stranger.issue(nil))},
		{name: "self-signed", tls: with(self)},
		{name: "without SAN", tls: with(ca.issue(func(c *x509.Certificate) { c.DNSNames = nil }))},
		{name: "TLS 1.1 only", tls: old},
		{name: "not offered", reply: map[relay.Stage]string{relay.StageEHLO: offers}},
		{name: "refused", reply: map[relay.Stage]string{relay.StageStartTLS: "454 4.7.0 TLS not available due to temporary reason"}},
		{name: "injected", reply: map[relay.Stage]string{relay.StageStartTLS: "220 go\n250-relay.example\n250 AUTH PLAIN"}},
		{name: "handshake is garbage", spoil: garbage},
		{name: "handshake is closed", spoil: theEnd},
		{name: "handshake hangs", spoil: silence},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				var cured atomic.Bool
				var mu sync.Mutex
				var clear bytes.Buffer
				core, logs := observer.New(zap.ErrorLevel)
				serverTLS := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
					if tc.tls != nil && !cured.Load() {
						return tc.tls, nil
					}
					return good, nil
				}, MinVersion: tls.VersionTLS10}
				rc := relay.Config{TLS: serverTLS, Username: "app", Password: "right-" + canaryWord, Reply: func(e relay.Event) relay.Action {
					if cured.Load() {
						return relay.Action{}
					}
					return relay.Action{Reply: tc.reply[e.Stage]}
				}}
				var w *world
				w = newWorld(t, rc, func(c *config.Config) {
					c.Upstream.TLS, c.Upstream.CAFile = "require", ca.file()
					c.Upstream.Username, c.Upstream.Password = rc.Username, rc.Password
					c.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						conn, err := w.dial(ctx, network, addr)
						if err != nil || cured.Load() {
							return conn, err
						}
						return &tap{Conn: conn, spoil: tc.spoil, seen: func(p []byte) {
							mu.Lock()
							defer mu.Unlock()
							clear.Write(p)
						}}, nil
					}
				})
				w.finish()
				w.log = zap.New(core)
				w.start()
				ledger := w.send(5, 1)
				time.Sleep(time.Hour)
				q := w.proxy.Status().Queue
				if q.Held == "" || q.Pending != 5 || q.Dead != 0 || logs.FilterMessage("upstream held, mail waits until it is cured").Len() != 1 {
					t.Errorf("held %q, pending %d, dead %d, %d alarms", q.Held, q.Pending, q.Dead, logs.Len())
				}
				mu.Lock()
				for _, word := range []string{"MAIL FROM", "AUTH", canaryWord, base64.StdEncoding.EncodeToString([]byte("\x00app\x00" + rc.Password))} {
					if bytes.Contains(clear.Bytes(), []byte(word)) {
						t.Errorf("%q was sent in clear", word)
					}
				}
				mu.Unlock()
				cured.Store(true)
				w.settle(time.Minute + time.Second)
				w.arrived(ledger)
			})
		})
	}
}

const canaryWord = "c4naryWord"
