package proxy

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
)

// meter is a quota at the end of the content.
type meter struct {
	mu      sync.Mutex
	reply   string      // "": there is room
	refused []time.Time // when
}

func (m *meter) set(reply string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reply = reply
}

func (m *meter) config() relay.Config {
	return relay.Config{Reply: func(e relay.Event) relay.Action {
		m.mu.Lock()
		defer m.mu.Unlock()
		if e.Stage != relay.StageDot || m.reply == "" {
			return relay.Action{}
		}
		m.refused = append(m.refused, time.Now())
		return relay.Action{Reply: m.reply}
	}}
}

// since returns the minutes from one refusal to the next, and forgets them.
func (m *meter) since(began time.Time) (minutes []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range m.refused {
		minutes = append(minutes, int(at.Sub(began).Round(time.Minute)/time.Minute))
		began = at
	}
	m.refused = nil
	return minutes
}

var manyDomains = rcpts(func(n int) []string { return []string{fmt.Sprintf("u%d@d%d.example", n, n%9)} })

// Providers count what they refuse, and some begin the wait anew with it.
func TestAUsedUpQuotaIsAskedForEverMoreSeldom(t *testing.T) {
	in(t, func(t *testing.T) {
		m := &meter{reply: "550 5.4.5 Daily user sending limit exceeded."}
		w := newWorld(t, m.config())
		w.send(100, 5, manyDomains)
		time.Sleep(time.Minute)
		m.since(time.Now())
		began := time.Now().Add(-time.Minute)
		time.Sleep(20 * time.Hour)
		if got := m.since(began); !slices.Equal(got, []int{15, 30, 60, 120, 240, 240, 240, 240}) {
			t.Errorf("asked after %v minutes", got)
		}
		s := w.proxy.Status()
		if s.Queue.Held == "" || s.Queue.Dead > 0 || s.Upstream.ProbeGap != quotaProbeMax.Seconds() || s.Upstream.NextProbe.Before(time.Now()) {
			t.Errorf("held %q, dead %d, next probe at %v and then each %v s", s.Queue.Held, s.Queue.Dead, s.Upstream.NextProbe, s.Upstream.ProbeGap)
		}
		m.set("")
		w.settle(quotaProbeMax + time.Hour)

		m.set("550 5.4.5 Daily user sending limit exceeded.")
		w.send(100, 5, manyDomains, func(c *source.Config) { c.Name = "next" })
		time.Sleep(time.Minute)
		m.since(time.Now())
		began = time.Now().Add(-time.Minute)
		time.Sleep(time.Hour)
		if got := m.since(began); !slices.Equal(got, []int{15, 30}) {
			t.Errorf("after it had come back: asked after %v minutes", got)
		}
	})
}

func TestAQuotaIsAskedForWhenTheRefusalSays(t *testing.T) {
	in(t, func(t *testing.T) {
		m := &meter{reply: "550 5.4.5 Daily sending quota exceeded, try again in 3 hours"}
		w := newWorld(t, m.config())
		w.send(100, 5, manyDomains)
		time.Sleep(time.Minute)
		m.since(time.Now())
		began := time.Now().Add(-time.Minute)
		time.Sleep(10 * time.Hour)
		if got := m.since(began); !slices.Equal(got, []int{180, 180, 180}) {
			t.Errorf("asked after %v minutes", got)
		}
	})
}

// A relay may say so before any message.
func TestAQuotaInTheGreetingIsAskedForAsSeldom(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: deadAt(relay.StageConnect, "", "554 5.4.5 Daily sending quota exceeded")})
		w.send(100, 5, manyDomains)
		time.Sleep(time.Minute)
		if w.proxy.Status().Queue.Held == "" {
			t.Fatalf("%+v", w.proxy.Status().Upstream)
		}
		before := w.dialled()
		time.Sleep(4 * time.Hour)
		if n := w.dialled() - before; n != 4 { // after 15, 45, 105 and 225 minutes
			t.Errorf("%d dials in 4 hours", n)
		}
	})
}

func TestAFixedQuotaIsKept(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{}, func(c *config.Config) { c.Flow.RecipientsPerDay = 60 })
		ledger := w.send(100, 5)
		time.Sleep(23 * time.Hour)
		s := w.proxy.Status()
		if s.Queue.Delivered != 60 || s.Upstream.QuotaUsed != 60 || s.Upstream.QuotaLimit != 60 || s.Upstream.State != "paused" {
			t.Errorf("on the first day: %+v, %+v", s.Queue, s.Upstream)
		}
		if err := w.proxy.Live(); err != nil {
			t.Error(err)
		}
		w.settle(2 * time.Hour)
		w.arrived(ledger)
	})
}
