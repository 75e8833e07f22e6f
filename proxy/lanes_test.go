package proxy

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
)

// What is set for one upstream is the business of no other: limits, and credentials above all.
func TestEachUpstreamHasItsOwnSettingsAndCredentials(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		service := 200 * time.Millisecond
		def := n.put("relay.example", "192.0.2.1", relay.Config{Username: "def", Password: "one", ServiceTime: service})
		other := n.put("other.example", "192.0.2.2", relay.Config{Username: "app", Password: "two", ServiceTime: service})
		open := n.put("open.example", "192.0.2.3", relay.Config{ServiceTime: service})
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"), func(c *config.Config) {
			c.Upstream.Username, c.Upstream.Password, c.Upstream.PlaintextAuth = "def", "one", true
			c.Flow.MaxConns, c.Flow.RecipientsPerDay = 7, 1000
		}, n.to(t, "b.example", "other", "other.example", func(u *config.Upstream) {
			u.Relay.Username, u.Relay.Password, u.Relay.PlaintextAuth = "app", "two", true
			u.Flow.MaxConns, u.Flow.RecipientsPerDay = 2, 500
		}), n.to(t, "c.example", "open", "open.example"))
		var sent []source.Ledger
		for _, to := range []string{"a@a.example", "b@b.example", "c@c.example"} {
			sent = append(sent, w.send(50, 10, one(to), called(to)))
		}
		w.settle(10 * time.Minute)
		arrivedAt(t, sent, def, other, open)
		want := []struct{ most, quota int }{{7, 1000}, {2, 500}, {config.Default().Flow.MaxConns, 0}}
		for i, u := range w.proxy.Status().Upstreams {
			if u.Max != want[i].most || u.QuotaLimit != want[i].quota {
				t.Errorf("%s: %d connections, %d recipients a day", u.Name, u.Max, u.QuotaLimit)
			}
		}
		for i, s := range []*site{def, other, open} {
			if c := s.relay.Counters(); c.Taken != 50 || c.Peak > want[i].most {
				t.Errorf("upstream %d: %+v", i, c)
			}
		}
		w.balanced()
	})
}

// A hold is cured by what is put right for that upstream: its own secret, or an operator's word, which is for all.
func TestAHeldRouteIsCuredByItsOwnSecret(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		def := n.put("relay.example", "192.0.2.1", relay.Config{})
		locked := relay.Config{Username: "app", Password: "right"}
		a, b := n.put("a.example", "192.0.2.2", locked), n.put("b.example", "192.0.2.3", locked)
		dir := t.TempDir()
		login := func(file string) func(*config.Upstream) {
			write(t, filepath.Join(dir, file), "wrong")
			return func(u *config.Upstream) {
				u.Relay.Username, u.Relay.PasswordFile, u.Relay.PlaintextAuth = "app", filepath.Join(dir, file), true
			}
		}
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"),
			n.to(t, "a.example", "a", "a.example", login("a")), n.to(t, "b.example", "b", "b.example", login("b")))
		for _, to := range []string{"u@a.example", "u@b.example", "u@x.example"} {
			w.send(10, 2, one(to), called(to))
		}
		held := func() (n int) {
			for _, u := range w.proxy.Status().Upstreams {
				if u.Held != "" {
					n++
				}
			}
			return n
		}
		w.until(time.Minute, "both are held, and the default upstream is not", func() bool { return held() == 2 && def.took() == 10 })
		time.Sleep(time.Minute)
		write(t, filepath.Join(dir, "b"), "right")
		w.until(time.Minute, "one is cured", func() bool { return b.took() == 10 })
		if held() != 1 || a.took() > 0 {
			t.Errorf("%d held, %d taken with the wrong password", held(), a.took())
		}
		write(t, filepath.Join(dir, "a"), "right")
		w.proxy.resume()
		w.settle(time.Second) // sooner than a changed file would be tried
		if held() != 0 || a.took() != 10 {
			t.Errorf("%d held, %d taken", held(), a.took())
		}
		w.balanced()
	})
}
