package proxy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/config"
)

// by takes over the routes of a file, as a start reads them.
func (n *internet) by(t *testing.T, file string) func(*config.Config) {
	t.Helper()
	loaded, _, err := config.Load([]string{"MAILWEIR_UPSTREAM=smtp://relay.example", "MAILWEIR_HOSTNAME=weir.example",
		"MAILWEIR_JOURNAL_DIR=" + filepath.Dir(file), "MAILWEIR_JOURNAL_ALLOW_VOLATILE=true", "MAILWEIR_ROUTES_FILE=" + file})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *config.Config) {
		c.Others, c.Table, c.AtStart = loaded.Others, loaded.Table, loaded.AtStart
		for i := range c.Others {
			c.Others[i].Relay.Dial, c.Others[i].Relay.Resolve = n.dial, n.resolve
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What waits goes by the new routes after a restart, and whoever changes their file learns within seconds that it takes one, and
// whether it would succeed.
func TestAChangedFileOfRoutesIsToldOnceAndActsAtTheNextStart(t *testing.T) {
	const kept, moved = "- {to: x.example, upstream: other, url: smtp://other.example}\n", "- {to: moved.example, upstream: other}\n"
	in(t, func(t *testing.T) {
		n := newInternet(t)
		def, other := n.put("relay.example", "192.0.2.1", relay.Config{}), n.put("other.example", "192.0.2.2", relay.Config{})
		n.set(func() { def.refuses = true })
		file := filepath.Join(t.TempDir(), "routes.yaml")
		write(t, file, kept)
		core, logs := observer.New(zap.InfoLevel)
		told := func(text string) int { return logs.FilterMessage(text).Len() }
		const taken, refused, again = "configuration has changed, a restart takes it in",
			"configuration has changed and would be refused, the next start will fail", "the configuration is again as it was at the start"
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"), n.by(t, file))
		w.finish()
		w.log = zap.New(core)
		w.start()
		waiting := w.send(20, 4, one("a@moved.example"), called("waiting"))
		time.Sleep(time.Minute)
		if r := w.proxy.Status().Restart; r != (admin.RestartStatus{}) || told(taken)+told(refused)+told(again) > 0 {
			t.Errorf("nothing has changed: %+v", r)
		}

		write(t, file, kept+"- {to: mo") // one look finds it half written
		time.Sleep(watchEvery)
		write(t, file, kept+moved)
		w.until(4*watchEvery, "the change is told", func() bool { return w.proxy.Status().Restart == admin.RestartStatus{Files: "routes_file " + file} })
		time.Sleep(time.Hour)
		if told(taken) != 1 || told(refused) > 0 || other.took() > 0 {
			t.Errorf("told %d times, as refused %d times; %d taken by a route that is not in force", told(taken), told(refused), other.took())
		}
		write(t, file, kept+"- {to: moved.example, upstream: nowhere}\n")
		w.until(4*watchEvery, "the fault is told", func() bool { return strings.Contains(w.proxy.Status().Restart.Refused, "route 2: url: is missing") })
		time.Sleep(time.Hour)
		if told(refused) != 1 {
			t.Errorf("told %d times", told(refused))
		}
		by := w.send(1, 1, one("a@x.example"), called("by")) // the routes of the start are in force
		w.until(time.Minute, "it goes by its route", func() bool { return other.took() == 1 })
		write(t, file, kept)
		w.until(4*watchEvery, "nothing is to be done", func() bool { return w.proxy.Status().Restart == admin.RestartStatus{} })
		if told(again) != 1 {
			t.Errorf("told %d times", told(again))
		}
		write(t, file, kept+moved)

		w.finish()
		n.by(t, file)(&w.cfg)
		w.start()
		w.settle(5 * time.Minute)
		arrivedAt(t, []source.Ledger{waiting, by}, other)
		if r := w.proxy.Status().Restart; r != (admin.RestartStatus{}) {
			t.Errorf("after the restart: %+v", r)
		}
		w.balanced()
	})
}

// Whatever state a delivery was in, a start sends it by the routes of that start, and who has the message does not get it again: the
// sender decides as well as the recipient, an upstream may keep its name and be somewhere else, and a time that was promised stays.
func TestAStartMovesWhatIsInEveryState(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		old := n.put("old.example", "192.0.2.2", relay.Config{Reply: deadAt(relay.StageRcpt, "later", "451 4.7.1 come back")})
		def, moved := n.put("relay.example", "192.0.2.1", relay.Config{}), n.put("new.example", "192.0.2.3", relay.Config{})
		file := filepath.Join(t.TempDir(), "routes.yaml")
		write(t, file, "- {from: news.example, upstream: bulk, url: smtp://old.example, recipients_per_transaction: 3}\n")
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"), n.by(t, file))
		from := func(c *source.Config) { c.From = "app@news.example" }
		half := w.send(5, 1, from, one("later@a.example", "at-once@a.example", "at-once@b.example", "later@b.example"), called("half"))
		w.until(time.Minute, "half of it has arrived", func() bool { return w.proxy.Status().Queue.Deferred == 10 || old.took() == 10 })
		n.set(func() { old.refuses = true })
		time.Sleep(2 * time.Minute) // until no connection is left
		ready := w.send(5, 1, from, one("a@a.example", "b@b.example", "c@c.example", "d@d.example"), called("ready"))
		other := w.send(5, 1, func(c *source.Config) { c.From = "app@other.example" }, one("news@news.example"), called("other"))
		w.until(time.Minute, "the other sender's mail has arrived", func() bool { return def.took() == 5 })
		due := w.proxy.Status().Queue.NextDue
		w.finish()

		write(t, file, "- {from: other.example, to: a.example, upstream: default}\n- {from: news.example, upstream: bulk, url: smtp://new.example}\n")
		n.by(t, file)(&w.cfg)
		w.cfg.Queue.GroupMax = 2 // which is the default upstream's
		w.start()
		w.until(5*time.Minute, "what was ready has arrived", func() bool { return moved.took() >= 5 })
		if now := time.Now(); now.Before(due) && len(moved.relay.Ledger()) > 5 {
			t.Errorf("%s before it was due", due.Sub(now))
		}
		w.settle(2 * time.Hour)
		arrivedAt(t, []source.Ledger{half, ready, other}, def, old, moved)
		if def.took() != 5 {
			t.Errorf("%d by the default upstream", def.took())
		}
		for _, m := range moved.relay.Ledger()[:5] {
			if fmt.Sprint(m.To) != "[a@a.example b@b.example c@c.example d@d.example]" {
				t.Errorf("%v: it was cut for an upstream that is gone", m.To)
			}
		}
		w.balanced()
	})
}
