package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
)

// At the very start mail waits for the names; afterwards nothing does, and a resolver that is slow is asked one question at a time.
func TestASlowResolverIsAskedOnceAtATimeAndDelaysTheStartOnly(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		site := n.put("relay.example", "192.0.2.1", relay.Config{RTT: 20 * time.Millisecond})
		asking, most := 0, 0
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"), func(c *config.Config) {
			c.Upstream.Resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
				n.set(func() { asking++; most = max(most, asking) })
				defer n.set(func() { asking-- })
				time.Sleep(5 * time.Second)
				return n.resolve(ctx, name)
			}
		})
		w.send(20, 4)
		time.Sleep(4 * time.Second)
		if s := w.proxy.Status().Upstream; s.Dials > 0 || w.proxy.Live() != nil {
			t.Errorf("%d dials to what is not known yet, %v", s.Dials, w.proxy.Live())
		}
		w.settle(10 * time.Second)
		for i := range 100 {
			began := time.Now()
			w.send(1, 1, func(c *source.Config) { c.Name = fmt.Sprint("n", i) })
			w.settle(time.Minute)
			if took := time.Since(began); took > time.Second {
				t.Errorf("message %d took %s", i, took)
			}
			time.Sleep(time.Second)
		}
		if got := n.get(func() int { return most }); got != 1 || site.took() != 120 || w.proxy.Status().Upstream.LastError != "" {
			t.Errorf("%d questions at a time, %d taken, last error %q", got, site.took(), w.proxy.Status().Upstream.LastError)
		}
	})
}

// A relay that moves is found by its name within seconds, and not when the addresses have become old.
func TestARelayThatMovedIsFoundWithinSeconds(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		old := n.put("relay.example", "192.0.2.1", relay.Config{})
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"))
		w.send(1, 1)
		w.settle(time.Minute)
		time.Sleep(2 * resolveEvery)
		n.set(func() { old.refuses = true })
		old.relay.Close()
		w.send(20, 1, called("late"))
		time.Sleep(2 * time.Minute) // it is known that nothing answers
		fresh := n.serve("192.0.2.2", relay.Config{})
		n.set(func() { n.names["relay.example"] = []string{"192.0.2.2"} })
		w.settle(3 * resolveAgain)
		if fresh.took() != 20 {
			t.Errorf("%d of 20 at the new address", fresh.took())
		}
	})
}

func TestTheLogTellsOnceThatNamesAreNotResolvedAndOnceEachNewAddress(t *testing.T) {
	in(t, func(t *testing.T) {
		n := newInternet(t)
		n.put("relay.example", "192.0.2.1", relay.Config{RTT: 20 * time.Millisecond})
		core, logs := observer.New(zap.InfoLevel)
		w := newWorld(t, relay.Config{}, n.behind("smtp://relay.example"))
		w.finish()
		w.log = zap.New(core)
		w.start()
		told := func(unresolved, addresses int) {
			t.Helper()
			for i := range 20 {
				w.send(1, 1, func(c *source.Config) { c.Name = fmt.Sprint("n", time.Now().Unix(), i) })
				w.settle(time.Minute)
				time.Sleep(resolveEvery / 4)
			}
			a, b := logs.FilterMessage("names not resolved, the addresses known so far stay").Len(), logs.FilterMessage("addresses").Len()
			if a != unresolved || b != addresses {
				t.Errorf("told %d and %d times, want %d and %d", a, b, unresolved, addresses)
			}
		}
		told(0, 1)
		n.set(func() { n.names["relay.example"] = nil })
		told(1, 1)
		n.set(func() { n.names["relay.example"] = []string{"192.0.2.1"} })
		told(1, 1)
		n.set(func() { n.names["relay.example"] = nil })
		told(2, 1)
	})
}
