package proxy

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
	"github.com/mailweir/mailweir/proxy/upstream"
)

const windowRTT = 40 * time.Millisecond

// windowed has one connection and a window.
func windowed(window string) func(c *config.Config) {
	return func(c *config.Config) { c.Upstream.Window, c.Flow.MaxConns = window, 1 }
}

// One connection carries a message in a round trip, and with a window as many as that holds.
func TestAWindowIsFilled(t *testing.T) {
	const messages = 1600
	took := map[string]time.Duration{}
	for window, level := range map[string]string{"1": "L3", "4": "L4", "16": "L4", upstream.WindowAuto: "L4"} {
		in(t, func(t *testing.T) {
			w := newWorld(t, relay.Config{RTT: windowRTT}, windowed(window))
			began := time.Now()
			ledger := w.send(messages, 10)
			w.settle(10 * time.Minute)
			took[window] = time.Since(began)
			w.arrived(ledger)
			if n := len(w.relay.Ledger()); n != messages {
				t.Errorf("window %s: %d of %d arrived", window, n, messages)
			}
			if v := w.relay.Violations(); len(v) > 0 {
				t.Errorf("window %s: %+v", window, v[0])
			}
			if u := w.proxy.Status().Upstream; u.Pipelining != level || u.StepsDown > 0 {
				t.Errorf("window %s: %s, window %d, %d steps down: %s", window, u.Pipelining, u.Window, u.StepsDown, u.StepReason)
			}
		})
	}
	t.Log(took)
	if one := took["1"]; one < messages*windowRTT*9/10 || one > messages*windowRTT*11/10 {
		t.Errorf("a window of 1: %v", one)
	}
	for window, most := range map[string]time.Duration{"4": took["1"] / 3, "16": took["1"] / 8, upstream.WindowAuto: took["1"] / 6} {
		if took[window] > most {
			t.Errorf("a window of %s: %v, want less than %v", window, took[window], most)
		}
	}
}

// What may arrive twice when a connection is cut is what was in flight on it, and it is counted.
func TestACutCostsNoMoreThanTheWindow(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{RTT: windowRTT}, windowed("16"))
		ledger := w.send(400, 10)
		w.until(time.Minute, "half of the messages", func() bool { return len(w.relay.Ledger()) >= 200 })
		w.relay.CutAll()
		w.settle(time.Hour)
		if err := source.Check(ledger, w.relay.Ledger()).Err(); err != nil {
			t.Error(err)
		}
		twice := len(w.relay.Ledger()) - 400
		if n := w.proxy.Status().Queue.DuplicatesPossible; twice > 16 || n > 16 || int(n) < twice {
			t.Errorf("%d arrived twice, %d may have", twice, n)
		}
	})
}

// A relay that hangs with a window in flight keeps that, and nothing that waits behind it.
func TestWhatWaitsBehindAStalledWindowIsSentByOthers(t *testing.T) {
	in(t, func(t *testing.T) {
		var dots atomic.Int32 // of all connections: none of them is sure to carry many, since the leases of the first ones end at any time
		w := newWorld(t, relay.Config{RTT: windowRTT, Reply: func(e relay.Event) relay.Action {
			return relay.Action{Stall: e.Stage == relay.StageDot && dots.Add(1) == 300}
		}}, windowed("4"), func(c *config.Config) { c.Flow.MaxConns = 2 })
		w.send(1000, 10)
		w.until(time.Minute, "all but what is in flight", func() bool {
			return len(w.relay.Ledger()) >= 996 && w.proxy.Status().Queue.InFlight <= 4
		})
		if u := w.proxy.Status().Upstream; u.Pipelining != "L4" || w.proxy.Status().Queue.InFlight == 0 {
			t.Errorf("no window has stalled, so nothing is shown: %+v", u)
		}
		w.settle(time.Hour)
		if n := len(w.relay.Ledger()); n != 1000 {
			t.Errorf("%d arrived", n)
		}
	})
}

// A restart begins where the last run ended.
func TestTheLevelSurvivesARestart(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{RTT: windowRTT}, windowed("8"))
		w.send(200, 10)
		w.settle(time.Minute)
		w.finish()
		w.start()
		if u := w.proxy.Status().Upstream; u.Pipelining != "L4" || u.Window != 8 {
			t.Errorf("begins at %s, window %d", u.Pipelining, u.Window)
		}
	})
}
