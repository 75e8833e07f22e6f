package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// keyPair makes a certificate for a client and writes it and its key to files.
func keyPair(t *testing.T, name, certFile, keyFile string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: bubbleTime.Add(-time.Hour), NotAfter: bubbleTime.Add(time.Hour), DNSNames: []string{name},
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheClientsCertificateIsReadAtEachHandshake(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		dir := t.TempDir()
		certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		good, ca := certificate(t, bubbleTime.Add(time.Hour), "relay.example")
		keyPair(t, "app.example", certFile, keyFile)
		right := keyPair(t, "app.example", certFile+"2", keyFile+"2")
		pool := x509.NewCertPool()
		pool.AddCert(right)
		good.ClientCAs, good.ClientAuth, good.MaxVersion = pool, tls.RequireAndVerifyClientCert, version
		r := &relay{offers: []string{"STARTTLS"}, tls: good}
		inBubble(t, r, func(t *testing.T) {
			cl := r.client(t, Config{TLS: tlsRequire, CAFile: ca, CertFile: certFile, KeyFile: keyFile})
			step := func(what string, want flowctl.Class, text string) {
				t.Helper()
				c, out := cl.Connect(t.Context(), "")
				if out.Class != want || !strings.Contains(out.Text, text) {
					t.Errorf("TLS %x, %s: %v at %v: %s", version, what, out.Class, out.Stage, out.Text)
				}
				if c != nil {
					c.Cut()
				}
			}
			step("unknown authority", flowctl.Misconfigured, "remote error: tls: ")
			cert, _ := os.ReadFile(certFile + "2")
			key, _ := os.ReadFile(keyFile + "2")
			write(t, certFile, string(cert))
			step("half replaced", flowctl.Misconfigured, "cert_file and key_file")
			write(t, keyFile, string(key))
			step("replaced", flowctl.OK, "")
			step("again", flowctl.OK, "")
			write(t, certFile, "")
			step("emptied", flowctl.Misconfigured, "cert_file")
			if err := os.Remove(certFile); err != nil {
				t.Fatal(err)
			}
			step("gone", flowctl.Misconfigured, "no such file")
		})
	}
}

// laggard writes a second late, when a server that has refused us is gone.
type laggard struct{ net.Conn }

func (c laggard) Write(p []byte) (int, error) {
	time.Sleep(time.Second)
	return c.Conn.Write(p)
}

// With TLS 1.3 the server's word about our certificate comes after the handshake, and the server may be gone by then.
func TestWhyOurCertificateWasRefusedIsHeardAlsoWhenTheServerIsGone(t *testing.T) {
	good, ca := certificate(t, bubbleTime.Add(time.Hour), "relay.example")
	good.ClientAuth, good.MinVersion = tls.RequireAnyClientCert, tls.VersionTLS13
	r := &relay{offers: []string{"STARTTLS"}, tls: good}
	inBubble(t, r, func(t *testing.T) {
		cl := r.client(t, Config{TLS: tlsRequire, CAFile: ca})
		dial := cl.cfg.Dial
		cl.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return laggard{conn}, err
		}
		if _, out := cl.Connect(t.Context(), ""); out.Class != flowctl.Misconfigured || !strings.Contains(out.Text, "certificate required") {
			t.Errorf("%v at %v: %s", out.Class, out.Stage, out.Text)
		}
	})
}

func TestTheRootsAreReadAtEachHandshake(t *testing.T) {
	good, ca := certificate(t, bubbleTime.Add(time.Hour), "relay.example")
	_, other := certificate(t, bubbleTime.Add(time.Hour), "relay.example")
	file := filepath.Join(t.TempDir(), "ca.pem")
	r := &relay{offers: []string{"STARTTLS"}, tls: good}
	inBubble(t, r, func(t *testing.T) {
		var cl *Client
		for i, step := range []struct {
			roots string
			class flowctl.Class
		}{{other, flowctl.Misconfigured}, {ca, flowctl.OK}, {ca, flowctl.OK}, {other, flowctl.Misconfigured}} {
			text, _ := os.ReadFile(step.roots)
			write(t, file, string(text))
			if cl == nil {
				cl = r.client(t, Config{TLS: tlsRequire, CAFile: file})
			}
			c, out := cl.Connect(t.Context(), "")
			if out.Class != step.class {
				t.Errorf("step %d: %v %s", i, out.Class, out.Text)
			}
			if c != nil {
				jobs := letters(1, 1) // reads what the server sends after the handshake, a ticket for resumption
				send(c, jobs...)
			}
		}
	})
}

func TestTheServersNameCanBeSet(t *testing.T) {
	other, ca := certificate(t, bubbleTime.Add(time.Hour), "other.example")
	for name, want := range map[string]flowctl.Class{"": flowctl.Misconfigured, "other.example": flowctl.OK, "third.example": flowctl.Misconfigured} {
		r := &relay{offers: []string{"STARTTLS"}, tls: other}
		inBubble(t, r, func(t *testing.T) {
			c, out := r.client(t, Config{TLS: tlsRequire, CAFile: ca, ServerName: name}).Connect(t.Context(), "")
			if out.Class != want {
				t.Errorf("%q: %v %s", name, out.Class, out.Text)
			}
			if c != nil {
				c.Cut()
			}
		})
	}
}

// Also where any certificate is taken.
func TestOldVersionsAreRefused(t *testing.T) {
	for version, want := range map[uint16]flowctl.Class{tls.VersionTLS11: flowctl.Misconfigured, tls.VersionTLS12: flowctl.OK} {
		for _, mode := range []string{tlsRequire, tlsOpportunistic} {
			old, ca := certificate(t, bubbleTime.Add(time.Hour), "relay.example")
			old.MinVersion, old.MaxVersion = tls.VersionTLS10, version
			cfg := Config{TLS: mode}
			if mode == tlsRequire {
				cfg.CAFile = ca
			}
			r := &relay{offers: []string{"STARTTLS"}, tls: old}
			inBubble(t, r, func(t *testing.T) {
				c, out := r.client(t, cfg).Connect(t.Context(), "")
				if out.Class != want {
					t.Errorf("%x, %s: %v %s", version, mode, out.Class, out.Text)
				}
				if c != nil {
					c.Cut()
				}
			})
		}
	}
}
