package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
)

// internet is names, addresses, and what is there.
type internet struct {
	t     *testing.T
	mu    sync.Mutex
	names map[string][]string // addresses; nil: no such name
	sites map[string]*site    // by ip:port
}

// site is one address: a relay, or something worse.
type site struct {
	relay          *relay.Relay
	up             *memconn.Listener
	hangs, refuses bool
	dials, dialing int
	most           int // dialling at one time
}

func newInternet(t *testing.T) *internet {
	return &internet{t: t, names: map[string][]string{}, sites: map[string]*site{}}
}

// put makes a relay answer at an address of a name.
func (n *internet) put(name, ip string, rc relay.Config) *site {
	s := n.serve(ip, rc)
	n.set(func() { n.names[name] = append(n.names[name], ip) })
	return s
}

// serve makes a relay answer at an address, in place of what was there.
func (n *internet) serve(ip string, rc relay.Config) *site {
	s := &site{relay: relay.New(rc), up: memconn.Listen()}
	go func() {
		if err := s.relay.Serve(s.up); err != nil {
			n.t.Errorf("relay: %v", err)
		}
	}()
	n.t.Cleanup(s.relay.Close)
	n.set(func() { n.sites[net.JoinHostPort(ip, "25")] = s })
	return s
}

// set changes a site while others use it.
func (n *internet) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// get reads of a site.
func (n *internet) get(what func() int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return what()
}

func (n *internet) resolve(_ context.Context, name string) (ips []netip.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.names[name] == nil {
		return nil, errors.New("no such host")
	}
	for _, ip := range n.names[name] {
		ips = append(ips, netip.MustParseAddr(ip))
	}
	return ips, nil
}

func (n *internet) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	n.mu.Lock()
	s := n.sites[addr]
	if s == nil {
		n.mu.Unlock()
		return nil, fmt.Errorf("dial %s: no route to host", addr)
	}
	s.dials++
	s.dialing++
	s.most = max(s.most, s.dialing)
	hangs, refuses := s.hangs, s.refuses
	n.mu.Unlock()
	defer n.set(func() { s.dialing-- })
	switch {
	case refuses:
		return nil, syscall.ECONNREFUSED
	case hangs:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.up.Dial(ctx, network, addr)
}

// behind makes a Proxy use it.
func (n *internet) behind(url string) func(*config.Config) {
	return func(c *config.Config) {
		c.Upstream.URL, c.Upstream.Dial, c.Upstream.Resolve = url, n.dial, n.resolve
	}
}

func (s *site) took() int { return s.relay.Counters().Taken }

// The case of Postfix's tuning guide: 100 connections, two hosts, one of them dead, and 30 s to find that out.
func TestABlackHoledHostCostsATenthOfTheThroughputAtMost(t *testing.T) {
	rate := func(t *testing.T, hang bool) (perSecond float64, most int) {
		in(t, func(t *testing.T) {
			n := newInternet(t)
			slow := relay.Config{RTT: 20 * time.Millisecond, ServiceTime: time.Second}
			dead, live := n.put("dead.example", "192.0.2.1", slow), n.put("live.example", "192.0.2.2", slow)
			dead.hangs = hang
			url := "smtp://live.example"
			if hang {
				url = "smtp://dead.example,smtp://live.example"
			}
			w := newWorld(t, relay.Config{}, n.behind(url), func(c *config.Config) { c.Flow.MaxConns = 100; c.DrainTimeout = 0 })
			w.send(5000, 50, func(c *source.Config) { c.Size = 300 })
			time.Sleep(10 * time.Second)
			before := live.took()
			time.Sleep(30 * time.Second)
			perSecond, most = float64(live.took()-before)/30, n.get(func() int { return dead.most })
		})
		return perSecond, most
	}
	alone, _ := rate(t, false)
	beside, most := rate(t, true)
	t.Logf("alone %.1f a second, beside the dead host %.1f; at most %d dials to that at one time", alone, beside, most)
	if alone < 80 || beside < .9*alone || most != 1 {
		t.Errorf("alone %.1f a second, beside the dead host %.1f; %d dials to that at one time", alone, beside, most)
	}
}

func TestMailGoesToTheSpareHostWithinSecondsAndBack(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		rc := relay.Config{RTT: 20 * time.Millisecond}
		main, spare := n.put("main.example", "192.0.2.1", rc), n.put("spare.example", "192.0.2.2", rc)
		w := newWorld(t, relay.Config{}, n.behind("smtp://spare.example?priority=10,smtp://main.example"))
		stream := func(name string, seconds int) (slowest time.Duration) {
			for i := range seconds {
				began := time.Now()
				w.send(1, 1, func(c *source.Config) { c.Name = fmt.Sprint(name, i) })
				w.settle(time.Minute)
				slowest = max(slowest, time.Since(began))
				time.Sleep(time.Second)
			}
			return slowest
		}
		stream("a", 30)
		if main.took() != 30 || n.get(func() int { return spare.dials }) != 0 {
			t.Errorf("%d of 30 by the preferred host, %d dials to the spare one", main.took(), spare.dials)
		}
		n.set(func() { main.hangs = true })
		main.relay.Close()
		if slowest := stream("b", 120); slowest > 5*time.Second {
			t.Errorf("a message took %s", slowest)
		}
		if got := n.get(func() int { return main.most }); spare.took() != 120 || got > 1 {
			t.Errorf("%d of 120 by the spare host; %d dials to the dead one at once", spare.took(), got)
		}
		hosts := w.proxy.Status().Upstream.Hosts
		if len(hosts) != 2 || hosts[0].Address != "spare.example[192.0.2.2]:25" || !hosts[0].Up || hosts[1].Up || hosts[1].LastError != "unavailable connect" {
			t.Errorf("%+v", hosts)
		}
		n.set(func() { n.names["main.example"] = nil }) // and comes back at another address
		again := n.put("main.example", "192.0.2.3", rc)
		stream("c", 180)
		before := spare.took()
		stream("d", 60)
		if spare.took() > before || again.took() < 60 {
			t.Errorf("the preferred host is back and took %d, the spare one %d since", again.took(), spare.took()-before)
		}
		w.balanced()
	})
}

func TestAnAddressThatLeavesItsNameIsDialledNoMore(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		old := n.put("relay.example", "192.0.2.1", relay.Config{RTT: 20 * time.Millisecond})
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"))
		one := func(i int) {
			w.send(1, 1, func(c *source.Config) { c.Name = fmt.Sprint("n", i) })
			w.settle(time.Minute)
			time.Sleep(10 * time.Second) // longer than a connection lingers
		}
		one(0)
		n.set(func() { n.names["relay.example"] = nil }) // the resolver has trouble
		for i := range 10 {
			one(1 + i)
		}
		if old.took() != 11 {
			t.Errorf("%d of 11 while the name could not be resolved", old.took())
		}
		fresh := n.put("relay.example", "192.0.2.2", relay.Config{RTT: 20 * time.Millisecond})
		for i := range 5 {
			one(20 + i)
		}
		before := n.get(func() int { return old.dials })
		for i := range 10 {
			one(30 + i)
		}
		if n.get(func() int { return old.dials }) != before || fresh.took() < 10 {
			t.Errorf("%d by the new address, %d dials more to the old one", fresh.took(), old.dials-before)
		}
	})
}

// The resolver is asked for what is used, not for ever.
func TestAnIdleProxyAsksForNoNames(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		n.put("relay.example", "192.0.2.1", relay.Config{})
		asked := 0
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"), func(c *config.Config) {
			c.Upstream.Resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
				n.set(func() { asked++ })
				return n.resolve(ctx, name)
			}
		})
		w.send(1, 1)
		w.settle(time.Minute)
		time.Sleep(24 * time.Hour)
		if got := n.get(func() int { return asked }); got != 1 {
			t.Errorf("asked %d times", got)
		}
	})
}

// One host of several that is set up wrongly holds nothing.
func TestOneMisconfiguredHostOfSeveralHoldsNothing(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		n.put("bad.example", "192.0.2.1", relay.Config{Reply: deadAt(relay.StageConnect, "", "554 5.7.1 go away")})
		good := n.put("good.example", "192.0.2.2", relay.Config{RTT: 20 * time.Millisecond, ServiceTime: 100 * time.Millisecond})
		w := newWorld(t, relay.Config{}, n.behind("smtp://good.example,smtp://bad.example"))
		w.send(2000, 20)
		w.settle(5 * time.Minute)
		if s := w.proxy.Status(); s.Queue.Held != "" || good.took() != 2000 || s.Upstream.Down != 1 {
			t.Errorf("held %q, %d taken, %+v", s.Queue.Held, good.took(), s.Upstream.Hosts)
		}
		if h := w.proxy.Status().Upstream.Hosts[1]; !strings.HasPrefix(h.LastError, "unavailable greeting") {
			t.Errorf("%+v", h)
		}
	})
}

// A host that answers and lets nobody work is no reason for mail to wait, least of all mail that comes one by one: nothing is
// connected anywhere then.
func TestAHostThatTurnsEverybodyAwayIsNotWaitedFor(t *testing.T) {
	for name, reply := range map[string]func(relay.Event) relay.Action{
		"not for us":          deadAt(relay.StageConnect, "", "554 5.7.1 go away"),
		"not for us, at EHLO": deadAt(relay.StageEHLO, "", "550 5.7.1 go away"),
		"not now":             deadAt(relay.StageConnect, "", "451 4.7.1 try again later"),
		"full":                deadAt(relay.StageConnect, "", relay.ExchangeBusy),
		"under pressure":      deadAt(relay.StageDot, "", relay.ExchangePressure),
	} {
		for _, spare := range []string{"", "?priority=10"} {
			t.Run(name+spare, func(t *testing.T) {
				in(t, func(t *testing.T) {
					n := newInternet(t)
					n.put("bad.example", "192.0.2.1", relay.Config{Reply: reply})
					good := n.put("good.example", "192.0.2.2", relay.Config{RTT: 20 * time.Millisecond, ServiceTime: 100 * time.Millisecond})
					w := newWorld(t, relay.Config{}, n.behind("smtp://bad.example,smtp://good.example"+spare))
					for i := range 20 {
						w.send(1, 1, called(fmt.Sprint("n", i)))
						w.settle(time.Minute) // a few pauses that begin at MAILWEIR_RETRY_MIN
						time.Sleep(20 * time.Second)
					}
					w.send(1000, 20, called("many"))
					w.settle(30 * time.Second)
					if s := w.proxy.Status(); s.Queue.Held != "" || good.took() != 1020 || s.Upstream.Ceiling > 0 || s.Upstream.Down != 1 {
						t.Errorf("held %q, %d taken, %+v", s.Queue.Held, good.took(), s.Upstream)
					}
				})
			})
		}
	}
}

// What is wrong with every host is our own, and held for; each minute all are tried, and one that is well again is enough.
func TestHostsThatAllTurnUsAwayHoldTheMail(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		bad := relay.Config{Reply: deadAt(relay.StageConnect, "", "554 5.7.1 go away")}
		n.put("a.example", "192.0.2.1", bad)
		n.put("b.example", "192.0.2.2", bad)
		w := newWorld(t, relay.Config{}, n.behind("smtp://a.example,smtp://b.example?priority=10"))
		w.send(10, 2)
		w.until(10*time.Second, "it is held", func() bool { return w.proxy.Status().Queue.Held != "" })
		time.Sleep(time.Hour)
		if q := w.proxy.Status().Queue; q.Held == "" || q.Pending != 10 || q.Dead > 0 {
			t.Errorf("%+v", q)
		}
		if dials := w.proxy.Status().Upstream.Dials; dials > 60*4 {
			t.Errorf("%d dials in an hour", dials)
		}
		cured := n.serve("192.0.2.1", relay.Config{})
		w.settle(3 * time.Minute)
		if q := w.proxy.Status().Queue; q.Held != "" || cured.took() != 10 {
			t.Errorf("%d taken, %+v", cured.took(), q)
		}
		w.balanced()
	})
}

// Nobody has tried to log in at a host that offers no way to, so it is one that turns us away, and the others serve on.
func TestAHostWithoutLoginIsNotWaitedFor(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		n.put("bad.example", "192.0.2.1", relay.Config{})
		good := n.put("good.example", "192.0.2.2", relay.Config{Username: "app", Password: "right"})
		w := newWorld(t, relay.Config{}, creds, n.behind("smtp://bad.example,smtp://good.example?priority=10"))
		for i := range 5 {
			w.send(1, 1, called(fmt.Sprint("n", i)))
			w.settle(time.Minute)
			if s := w.proxy.Status(); s.Queue.Held != "" || good.took() != i+1 {
				t.Errorf("held %q, %d taken", s.Queue.Held, good.took())
			}
		}
	})
}
