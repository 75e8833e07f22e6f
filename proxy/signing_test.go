package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
	"github.com/mailweir/mailweir/proxy/dkim"
)

// Stories of mail that is signed on its way out.

// signingKeys are files of their own, so that a story can change them.
type signingKeys struct {
	t   *testing.T
	dir string
}

func newSigningKeys(t *testing.T) signingKeys {
	k := signingKeys{t, t.TempDir()}
	k.put("r.pem", "rsa.pem")
	k.put("e.pem", "ed25519.pem")
	return k
}

// put makes name the key that the tests of package dkim have as from.
func (k signingKeys) put(name, from string) {
	k.t.Helper()
	text, err := os.ReadFile(filepath.Join("dkim", "testdata", from))
	if err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(k.dir, name), text, 0o600); err != nil {
		k.t.Fatal(err)
	}
}

func (k signingKeys) remove(name string) {
	k.t.Helper()
	if err := os.Remove(filepath.Join(k.dir, name)); err != nil {
		k.t.Fatal(err)
	}
}

// sign configures two keys for source.example: r is RSA, e is Ed25519.
func (k signingKeys) sign(c *config.Config) {
	for _, name := range []string{"r", "e"} {
		c.DKIM = append(c.DKIM, dkim.Key{Domain: "source.example", Selector: name, File: filepath.Join(k.dir, name+".pem"), From: []string{"source.example"}})
	}
}

const (
	rsaRecord = "v=DKIM1; k=rsa; p=" +
		"MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAlm+cuV+pOxj7JWH9KLa9ykSusnCDyKS8qGFWaA0nASeQui/aduRVgiZKzlcTAJgVTd5azaLpE4zU" +
		"Pa+KOhNV5DlwvuyxM8PA53V9cxHT+2BdLj4ZxCKo9ktqrrQtKzNmAtLgF/6zlZpeWtEOeJbmNcFXMBIE+p3UPBX7fONsqF4Kxwp25fhUcl3+zCY/zUuvGsU0" +
		"QumaHMtCWKsCP/U0UEpituXA3jn7HgqSBiHS6bRSKYcRNGu+9+IVS468QfiHrtEUbpg6gm2QRR9UoKgyeHFfcfeKnDbxtSXiNOGsG5RUBXZJdcAWGGP/SZ0s" +
		"kbloDsq+VOS8G9UVoEHT0h4eVQIDAQAB"
	otherRecord = "v=DKIM1; k=rsa; p=" +
		"MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAqh4KGmx9q3yeY8PXnJQFjhQ/mjXFD0wQDHFYOaIt8l8kvo7ZzQtD+mXaj3mQWT/9vwiHGcBiY37e" +
		"VCWcU0aEaSIgCvm/+uxPI6+zYr2QgTuXBqtNadzHTKomePaegzVcyWVKcfTDOsNAJcrTWJPazk0MisnwgnhpNtT2QGU+EgZEfduQIft8qgQ2yV9jxqlj60M4" +
		"48lwX8TiG8k58CqAHRQo2PFf4COnWs/9xHE4r/+tI6/99MzCGvHHIEACw6v6pbDNBdN++Buv2h9T7L/FcuGnuUpMHwsqPdGIxJHfJ6WxrZCkYkzsZK6nMfOh" +
		"L1p35WYhnhhXqIClOl5GCs15pwIDAQAB"
	edRecord = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
)

// signed wants each message to have both signatures, good by what DNS says, before an otherwise unaltered content.
func (k signingKeys) signed(taken []relay.Message, rsa string) {
	k.t.Helper()
	dns := map[string]string{"r._domainkey.source.example": rsa, "e._domainkey.source.example": edRecord}
	for _, m := range taken {
		found, err := msgauth.VerifyWithOptions(bytes.NewReader(m.Body), &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
			return []string{dns[name]}, nil
		}})
		if err != nil || len(found) != len(dns) {
			k.t.Fatalf("%s: %d signatures, %v", m.XID, len(found), err)
		}
		for _, v := range found {
			if v.Err != nil {
				k.t.Fatalf("%s: %v\n%s", m.XID, v.Err, m.Prefix)
			}
		}
		if n := strings.Count(m.Prefix, "DKIM-Signature: "); n != len(dns) || !strings.HasPrefix(m.Prefix, "DKIM-Signature: ") {
			k.t.Fatalf("%s: %d signatures before the content:\n%s", m.XID, n, m.Prefix)
		}
	}
}

func TestWhatGoesOutIsSignedAndUnaltered(t *testing.T) {
	in(t, func(t *testing.T) {
		keys := newSigningKeys(t)
		w := newWorld(t, relay.Config{MaxConnections: 5, RTT: 10 * time.Millisecond, KeepBodies: true}, keys.sign)
		small := w.send(60, 10, func(c *source.Config) { c.Name = "small" })
		big := w.send(3, 3, func(c *source.Config) { c.Name, c.Size = "big", 3<<20 })
		w.settle(time.Minute)
		w.arrived(small)
		w.arrived(big)
		taken := w.relay.Ledger()
		keys.signed(taken, rsaRecord)
		for _, m := range taken {
			if want := fmt.Sprintf("SIZE=%d", m.Size); m.MailParams[0] != want {
				t.Errorf("%s: declared as %s, was %s", m.XID, m.MailParams[0], want)
			}
		}
		if s := w.proxy.Status().Signing; s.Keys != 2 || s.Signed < 63 || s.Unusable != nil {
			t.Errorf("%+v", s)
		}
	})
}

func TestANewKeyNeedsNoRestart(t *testing.T) {
	in(t, func(t *testing.T) {
		keys := newSigningKeys(t)
		w := newWorld(t, relay.Config{KeepBodies: true}, keys.sign)
		w.send(5, 1, func(c *source.Config) { c.Name = "before" })
		w.settle(time.Minute)
		keys.put("r.pem", "other.pem")
		w.send(5, 1, func(c *source.Config) { c.Name = "after" })
		w.settle(time.Minute)
		taken := w.relay.Ledger()
		if len(taken) != 10 {
			t.Fatalf("%d arrived", len(taken))
		}
		keys.signed(taken[:5], rsaRecord)
		keys.signed(taken[5:], otherRecord)
	})
}

// What was made ready before an upstream went away is not sent with a signature of then.
func TestAKeyThatChangesWhileTheUpstreamIsAwaySignsWhatWaited(t *testing.T) {
	for name, down := range map[string]bool{"away": true, "held": false} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				var broken atomic.Bool
				broken.Store(true)
				keys := newSigningKeys(t)
				w := newWorld(t, relay.Config{KeepBodies: true, Reply: func(e relay.Event) relay.Action {
					if e.Stage == relay.StageConnect && broken.Load() {
						return relay.Action{Reply: "554 5.7.1 no service for you"}
					}
					return relay.Action{}
				}}, keys.sign)
				if down {
					w.setDown(errors.New("no route to host"))
				}
				ledger := w.send(20, 4)
				time.Sleep(time.Hour)
				keys.put("r.pem", "other.pem")
				time.Sleep(2 * preparedMax)
				broken.Store(false)
				w.setDown(nil)
				w.settle(2 * time.Minute)
				w.arrived(ledger)
				keys.signed(w.relay.Ledger(), otherRecord)
			})
		})
	}
}

func TestMailWaitsForAMissingKey(t *testing.T) {
	in(t, func(t *testing.T) {
		keys := newSigningKeys(t)
		w := newWorld(t, relay.Config{KeepBodies: true}, keys.sign, func(c *config.Config) { c.Queue.ExpireAfter = 2 * time.Hour })
		w.finish()
		core, logs := observer.New(zap.WarnLevel)
		w.log = zap.New(core)
		keys.remove("e.pem")
		w.start()
		held := w.send(20, 4, func(c *source.Config) { c.Name = "held" })
		other := w.send(5, 1, func(c *source.Config) { c.Name, c.From = "other", "sender@elsewhere.example" })
		w.until(time.Minute, "other mail flows", func() bool { return w.proxy.Status().Queue.Delivered == 5 })
		time.Sleep(6 * time.Hour) // longer than a message may wait for a relay
		s := w.proxy.Status()
		if s.Queue.Pending != 20 || s.Queue.Dead != 0 || len(w.relay.Ledger()) != 5 {
			t.Fatalf("%+v, %d at the relay", s.Queue, len(w.relay.Ledger()))
		}
		if len(s.Signing.Unusable) != 1 || !strings.Contains(s.Signing.Unusable[0], "e._domainkey.source.example: cannot be read: no such file") {
			t.Errorf("%q", s.Signing.Unusable)
		}
		if rows, err := w.proxy.pendingRows(1); err != nil || len(rows) != 1 || !strings.Contains(rows[0].Reason, "e._domainkey.source.example") {
			t.Errorf("%+v, %v", rows, err)
		}
		if n := logs.Len(); n != 1 || logs.All()[0].Level != zap.ErrorLevel {
			t.Errorf("%d lines in the log, want the alarm, once: %v", n, logs.All())
		}
		if err := w.proxy.Live(); err != nil {
			t.Errorf("a restart is no cure: %v", err)
		}
		if n := w.dialled(); n > 5 {
			t.Errorf("%d dials for what cannot be sent", n)
		}
		keys.put("e.pem", "ed25519.pem")
		w.until(2*w.cfg.Queue.RetryMax, "all is sent", func() bool { return w.proxy.Status().Queue.Pending == 0 })
		w.arrived(held)
		w.arrived(other)
		keys.signed(w.relay.Ledger()[5:], rsaRecord)
		if s := w.proxy.Status().Signing; s.Unusable != nil || s.Unsigned["domain"] != 5 {
			t.Errorf("%+v", s)
		}
		w.balanced()
	})
}

// A message of several deliveries, and one that is tried again, is signed each time.
func TestEveryTryIsSigned(t *testing.T) {
	in(t, func(t *testing.T) {
		keys := newSigningKeys(t)
		refused := map[int]bool{}
		w := newWorld(t, relay.Config{MaxConnections: 1, KeepBodies: true, Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageDot && !refused[e.Transaction%3] {
				refused[e.Transaction%3] = true
				return relay.Action{Reply: "451 4.3.0 try again later"}
			}
			return relay.Action{}
		}}, keys.sign, func(c *config.Config) { c.Queue.GroupMax = 2 })
		ledger := w.send(1, 1, rcpts(func(int) []string {
			return []string{"a@a.example", "b@a.example", "c@a.example", "d@a.example", "e@a.example"}
		}))
		w.settle(2 * time.Hour)
		w.arrived(ledger)
		if n := len(w.relay.Ledger()); n != 3 {
			t.Errorf("%d transactions", n)
		}
		keys.signed(w.relay.Ledger(), rsaRecord)
	})
}

// What the signature adds counts for the limit of the relay; and a relay without 8BITMIME gets eight bits as they are.
func TestTheSignatureCountsForTheSize(t *testing.T) {
	in(t, func(t *testing.T) {
		keys := newSigningKeys(t)
		w := newWorld(t, relay.Config{MaxSize: 10_000, Without: []string{"8BITMIME"}}, keys.sign)
		w.send(1, 1, func(c *source.Config) { c.Size = 9_500 }) // and Received
		w.settle(time.Minute)
		rows, err := w.proxy.deadRows(2)
		if err != nil || len(rows) != 1 || !strings.Contains(rows[0].Reason, "5.3.4 mailweir: the message has 10") {
			t.Errorf("%+v, %v", rows, err)
		}
	})
}
