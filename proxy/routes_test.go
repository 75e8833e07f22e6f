package proxy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
	"github.com/mailweir/mailweir/proxy/route"
)

// to adds a route for the recipients of a domain, to an upstream of that name at one host.
func (n *internet) to(t *testing.T, domain, name, host string, set ...func(*config.Upstream)) func(*config.Config) {
	t.Helper()
	p, err := route.Parse(domain)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *config.Config) {
		up := config.Upstream{Name: name, Relay: config.Default().Upstream, Flow: config.Default().Flow}
		up.Relay.URL, up.Relay.Dial, up.Relay.Resolve, up.Relay.Hostname = "smtp://"+host, n.dial, n.resolve, "weir.example"
		for _, s := range set {
			s(&up)
		}
		c.Others = append(c.Others, up)
		c.Table = append(c.Table, route.Rule{To: []route.Pattern{p}, Lane: len(c.Others)})
	}
}

func one(addr ...string) func(*source.Config) { return rcpts(func(int) []string { return addr }) }

func called(name string) func(*source.Config) { return func(c *source.Config) { c.Name = name } }

// arrivedAt wants every delivery of the ledgers at one of the relays, once and unaltered.
func arrivedAt(t *testing.T, sent []source.Ledger, at ...*site) {
	t.Helper()
	var all source.Ledger
	for _, l := range sent {
		all.Records = append(all.Records, l.Records...)
	}
	report := source.Check(all, taken(at...))
	if err := report.Err(); err != nil {
		t.Error(err)
	}
	if len(report.Duplicated) > 0 {
		t.Errorf("sent twice: %v", report.Duplicated)
	}
}

func taken(at ...*site) (all []relay.Message) {
	for _, s := range at {
		all = append(all, s.relay.Ledger()...)
	}
	return all
}

func TestMailGoesWhereItsRouteSays(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		def, bulk := n.put("relay.example", "192.0.2.1", relay.Config{}), n.put("bulk.example", "192.0.2.2", relay.Config{})
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"), n.to(t, "*.bulk.example", "bulk", "bulk.example",
			func(u *config.Upstream) { u.GroupMax = 2 }))
		l := w.send(10, 2, one("a@x.example", "b@n.bulk.example", "c@y.example", "d@M.bulk.example", "e@n.bulk.example", "f@bulk.example"))
		w.settle(time.Minute)
		arrivedAt(t, []source.Ledger{l}, def, bulk)
		for _, m := range bulk.relay.Ledger() {
			if len(m.To) > 2 || slices.ContainsFunc(m.To, func(a string) bool { return !strings.HasSuffix(strings.ToLower(a), ".bulk.example") }) {
				t.Errorf("bulk took %v", m.To)
			}
		}
		for _, m := range def.relay.Ledger() {
			if len(m.To) != 3 {
				t.Errorf("the default took %v", m.To)
			}
		}
		if q := w.proxy.Status().Queue; q.Delivered != 10 || q.RecipientsDelivered != 60 || q.DuplicatesPossible > 0 {
			t.Errorf("%+v", q)
		}
		w.balanced()
	})
}

// Whatever one upstream does, mail by another route is as fast as if it were alone.
func TestABadRouteDelaysNoOther(t *testing.T) {
	stall := func(at relay.Stage) relay.Config {
		return relay.Config{Reply: func(e relay.Event) relay.Action { return relay.Action{Stall: e.Stage == at} }}
	}
	const many = 1500
	good := relay.Config{RTT: 20 * time.Millisecond, ServiceTime: 50 * time.Millisecond}
	run := func(t *testing.T, bad *relay.Config, set func(*site), up func(*config.Upstream)) (took, single time.Duration) {
		in(t, func(t *testing.T) {
			n := newInternet(t)
			n.put("good.example", "192.0.2.1", good)
			options := []func(*config.Config){n.behind("smtp://good.example"), func(c *config.Config) { c.DrainTimeout = 0 }}
			if bad != nil {
				s := n.put("bad.example", "192.0.2.2", *bad)
				set(s)
				options = append(options, n.to(t, "bad.example", "bad", "bad.example", up))
			}
			w := newWorld(t, relay.Config{}, options...)
			if bad != nil {
				w.send(200, 20, one("u@bad.example"), called("bad"))
				time.Sleep(20 * time.Second) // for it to go wrong
				w.send(100, 20, rcpts(func(i int) []string { return []string{fmt.Sprintf("u%d@bad.example", i)} }), called("more"))
			}
			began := time.Now()
			w.send(many, 20, called("good"))
			w.until(time.Hour, "the good ones are delivered", func() bool { return n.sites["192.0.2.1:25"].took() == many })
			took = time.Since(began)
			time.Sleep(time.Minute)
			began = time.Now()
			w.send(1, 1, called("single"))
			w.until(time.Hour, "the single one too", func() bool { return n.sites["192.0.2.1:25"].took() == many+1 })
			single = time.Since(began)
			time.Sleep(time.Second)
			s := w.proxy.Status()
			if bad != nil && (s.Upstream.Held != "" || s.Queue.Pending < 285) {
				t.Errorf("%+v, held %q: nothing is tested", s.Queue, s.Upstream.Held)
			}
			if err := w.proxy.Live(); err != nil {
				t.Error(err)
			}
		})
		return took, single
	}
	none := func(*site) {}
	var aloneTook, aloneSingle time.Duration
	for range 3 { // chance has a part in it
		took, single := run(t, nil, nil, nil)
		aloneTook, aloneSingle = max(aloneTook, took), max(aloneSingle, single)
	}
	for name, bad := range map[string]struct {
		relay relay.Config
		set   func(*site)
		up    func(*config.Upstream)
	}{
		"refuses":           {relay.Config{}, func(s *site) { s.refuses = true }, nil},
		"hangs at connect":  {relay.Config{}, func(s *site) { s.hangs = true }, nil},
		"stalls at CONNECT": {stall(relay.StageConnect), none, nil},
		"stalls at EHLO":    {stall(relay.StageEHLO), none, nil},
		"stalls at MAIL":    {stall(relay.StageMail), none, nil},
		"stalls at RCPT":    {stall(relay.StageRcpt), none, nil},
		"stalls at DATA":    {stall(relay.StageData), none, nil},
		"stalls at content": {stall(relay.StageContent), none, nil},
		"stalls at the dot": {stall(relay.StageDot), none, nil},
		"greets with 554":   {relay.Config{Reply: deadAt(relay.StageConnect, "", "554 5.7.1 go away")}, none, nil},
		"wrong password": {relay.Config{Username: "app", Password: "right"}, none, func(u *config.Upstream) {
			u.Relay.Username, u.Relay.Password, u.Relay.PlaintextAuth = "app", "wrong", true
		}},
		"quota used up":    {relay.Config{Reply: deadAt(relay.StageConnect, "", "554 5.4.5 Daily sending quota exceeded")}, none, nil},
		"fixed quota":      {relay.Config{}, none, func(u *config.Upstream) { u.Flow.RecipientsPerDay = 1 }},
		"refuses all mail": {relay.Config{Reply: deadAt(relay.StageRcpt, "", "550 no")}, none, nil},
		"overloaded":       {relay.Config{Reply: deadAt(relay.StageDot, "", "452 4.3.1 Insufficient system resources")}, none, nil},
		"one connection":   {relay.Config{ServiceTime: time.Minute}, none, func(u *config.Upstream) { u.Flow.MaxConns = 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			up := bad.up
			if up == nil {
				up = func(*config.Upstream) {}
			}
			took, single := run(t, &bad.relay, bad.set, up)
			if took > aloneTook { // by chance, or for good
				again, _ := run(t, &bad.relay, bad.set, up)
				took = min(took, again)
			}
			if took > aloneTook+aloneTook/10 || single > aloneSingle+aloneSingle/10 {
				t.Errorf("many messages took %s, alone %s; a single one %s, alone %s", took, aloneTook, single, aloneSingle)
			}
		})
	}
}

// Each recipient has one end, whichever route ends first, and the message is settled with the last of them.
func TestAMessageOnTwoRoutesIsSettledWithTheLast(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		def := n.put("relay.example", "192.0.2.1", relay.Config{Reply: deadAt(relay.StageRcpt, "nobody", "550 5.1.1 user unknown")})
		other := n.put("other.example", "192.0.2.2", relay.Config{})
		n.set(func() { other.hangs = true })
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"), n.to(t, "b.example", "other", "other.example"))
		both := w.send(5, 1, one("a@a.example", "b@b.example"), called("both"))
		w.send(1, 1, one("nobody@a.example", "b@b.example"), called("half"))
		w.until(time.Minute, "one half is delivered or refused", func() bool {
			s := w.proxy.Status()
			return s.Queue.RecipientsDelivered == 5 && s.Upstream.Outcomes["permanent"] == 1
		})
		w.send(1, 1, one("a@a.example"), called("sane")) // whose delivery shows that the refusal stands
		w.until(time.Minute, "the refusal stands", func() bool {
			q := w.proxy.Status().Queue
			return q.RecipientsFailed == 1 && q.RecipientsDelivered == 6
		})
		if q := w.proxy.Status().Queue; q.Pending != 6 || q.Delivered != 1 || q.Dead > 0 {
			t.Errorf("%+v", q)
		}
		entries, err := w.proxy.pendingRows(10)
		if err != nil || len(entries) != 6 || entries[0].Upstream != "other" || fmt.Sprint(entries[0].To) != "[b@b.example]" {
			t.Errorf("%+v, %v", entries, err)
		}
		n.set(func() { other.hangs = false })
		w.settle(5 * time.Minute)
		arrivedAt(t, []source.Ledger{both}, def, other)
		if q := w.proxy.Status().Queue; q.Delivered != 6 || q.Dead != 1 || q.RecipientsDelivered != 12 || q.RecipientsFailed != 1 {
			t.Errorf("%+v", q)
		}
		w.balanced()
		if left := w.finish(); left != 0 {
			t.Errorf("%d left", left)
		}
	})
}

func TestAStartWithOtherRoutesSendsWhatWaitsByThose(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		def, other := n.put("relay.example", "192.0.2.1", relay.Config{}), n.put("other.example", "192.0.2.2", relay.Config{})
		n.set(func() { def.refuses = true })
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"))
		moved := w.send(20, 4, one("a@moved.example"), called("moved"))
		half := w.send(20, 4, one("a@moved.example", "b@x.example"), called("half"))
		w.finish()
		n.to(t, "moved.example", "other", "other.example")(&w.cfg)
		w.start()
		w.until(5*time.Minute, "what has a route now is delivered", func() bool { return w.proxy.Status().Queue.RecipientsDelivered == 40 })
		if q := w.proxy.Status().Queue; q.Pending != 20 || q.Delivered != 20 || other.took() != 40 {
			t.Errorf("%+v", q)
		}
		n.set(func() { def.refuses, other.refuses = false, true })
		w.settle(5 * time.Minute)
		waiting := w.send(10, 2, one("a@moved.example"), called("waiting"))
		w.finish()
		w.cfg.Others, w.cfg.Table = nil, nil // and without any
		w.start()
		w.settle(5 * time.Minute)
		arrivedAt(t, []source.Ledger{moved, half, waiting}, def, other)
		w.balanced()
	})
}

// A kill loses nothing, and repeats no more than what was under way, on whichever route.
func TestAKillBetweenTwoRoutesRepeatsOnlyWhatWasUnderWay(t *testing.T) {
	repeated := 0
	for moment := range 12 {
		in(t, func(t *testing.T) {
			n := newInternet(t)
			slow := relay.Config{RTT: 20 * time.Millisecond, ServiceTime: 100 * time.Millisecond}
			quick := relay.Config{RTT: 10 * time.Millisecond}
			def, other := n.put("relay.example", "192.0.2.1", slow), n.put("other.example", "192.0.2.2", quick)
			few := func(u *config.Upstream) { u.Flow.MaxConns = 4 }
			w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"), n.to(t, "b.example", "other", "other.example", few),
				func(c *config.Config) { c.Flow.MaxConns = 4; c.DrainTimeout = 0 })
			ledger := w.send(60, 10, one("a@a.example", "b@b.example"))
			time.Sleep(time.Duration(moment) * 37 * time.Millisecond)
			synctest.Wait()
			dir := t.TempDir()
			copyFiles(t, w.cfg.Journal.Dir, dir) // what a kill leaves
			before := w.proxy.Status().Queue.InFlight
			def.relay.Close()
			other.relay.Close()
			n.set(func() { def.refuses, other.refuses = true, true })
			w.finish()

			def2, other2 := n.serve("192.0.2.1", slow), n.serve("192.0.2.2", quick)
			w.cfg.Journal.Dir = dir
			w.start()
			w.settle(time.Hour)
			report := source.Check(ledger, taken(def, other, def2, other2))
			if err := report.Err(); err != nil {
				t.Errorf("moment %d: %v", moment, err)
			}
			if len(report.Duplicated) > before {
				t.Errorf("moment %d: %d sent twice, and %d were under way", moment, len(report.Duplicated), before)
			}
			repeated += len(report.Duplicated)
			if n := len(report.Duplicated); uint64(n) > w.proxy.Status().Queue.DuplicatesPossible {
				t.Errorf("moment %d: %d sent twice and not counted: %+v", moment, n, w.proxy.Status().Queue)
			}
			w.balanced()
		})
	}
	t.Logf("%d sent twice in all", repeated)
}

func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !f.Type().IsRegular() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// What is learnt of an upstream is kept under its name.
func TestEachUpstreamIsRememberedByItsName(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		three := relay.Config{MaxConnections: 3, RTT: 20 * time.Millisecond}
		n.put("relay.example", "192.0.2.1", relay.Config{MaxConnections: 5, RTT: 20 * time.Millisecond})
		n.put("a.example", "192.0.2.2", three)
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"), n.to(t, "a.example", "a", "a.example"))
		w.send(200, 20, one("u@a.example"))
		w.send(200, 20, one("u@x.example"), called("x"))
		w.settle(time.Minute)
		ceilings := func() (c []int) {
			for _, u := range w.proxy.Status().Upstreams {
				c = append(c, u.Ceiling)
			}
			return c
		}
		if got := ceilings(); !slices.Equal(got, []int{5, 3}) {
			t.Fatalf("%v", got)
		}
		w.finish()
		others, table := w.cfg.Others, w.cfg.Table
		w.cfg.Others, w.cfg.Table = nil, nil
		n.to(t, "b.example", "b", "b.example")(&w.cfg) // its place in the list is another's
		w.cfg.Others = append(w.cfg.Others, others...)
		table[0].Lane = 2
		w.cfg.Table = append(w.cfg.Table, table...)
		w.start()
		if got := ceilings(); !slices.Equal(got, []int{5, 0, 3}) {
			t.Errorf("after a restart: %v", got)
		}
		w.finish()
		w.cfg.Others, w.cfg.Table = nil, nil
		w.start()
		time.Sleep(time.Second)
		if b := w.proxy.journal.Blob("flow/a"); b != nil || w.proxy.journal.Blob("flow") == nil || w.proxy.journal.Blob(blobNames) != nil {
			t.Error("what is known of upstreams that are gone is kept")
		}
	})
}
