//go:build crash

package crash

import (
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

// book unites what sources were told with what sinks took. It is not safe for concurrent use.
type book struct {
	sent    source.Ledger
	sinks   []*sink
	crashes []crash
}

// crash is one end of a process: down is when it ran no more, up when the next one had not begun yet.
type crash struct{ down, up time.Time }

// account is what a book says. Its unit is the delivery, one message to one recipient.
type account struct {
	source.Report
	Unexplained []string      // arrived twice with no crash between
	Oldest      time.Duration // the longest from the arrival of what came again to the crash after it
	PerCrash    int           // the most that one crash repeated
}

// add enters what a source was told. The names of sources must differ. What never got as far as its content cannot have
// arrived and is left out.
func (b *book) add(l source.Ledger) {
	for _, r := range l.Records {
		if r.Stage == source.StageContent || r.Stage == source.StageDot {
			b.sent.Records = append(b.sent.Records, r)
		}
	}
}

// crashed enters a crash.
func (b *book) crashed(down, up time.Time) { b.crashes = append(b.crashes, crash{down, up}) }

// acknowledged counts the messages answered 250.
func (b *book) acknowledged() int { return b.sent.Count(source.Record.Acknowledged) }

func (b *book) taken() []relay.Message {
	var all []relay.Message
	for _, s := range b.sinks {
		all = append(all, s.Ledger()...)
	}
	slices.SortStableFunc(all, func(x, y relay.Message) int { return x.When.Compare(y.When) })
	return all
}

// account compares. It changes nothing and may be asked again.
func (b *book) account() account {
	taken := b.taken()
	a := account{Report: source.Check(b.sent, taken)}
	last := map[string]time.Time{}
	repeated := make([]int, len(b.crashes))
	for _, m := range taken {
		for _, to := range m.To {
			name := m.XID + " to " + to
			if before, again := last[name]; again {
				a.explain(b, repeated, name, before, m.When)
			}
			last[name] = m.When
		}
	}
	for _, n := range repeated {
		a.PerCrash = max(a.PerCrash, n)
	}
	return a
}

// explain finds the crash that had a delivery come again.
func (a *account) explain(b *book, repeated []int, name string, before, again time.Time) {
	i, _ := slices.BinarySearchFunc(b.crashes, before, func(c crash, t time.Time) int { return c.up.Compare(t) })
	if i == len(b.crashes) || b.crashes[i].down.After(again) {
		a.Unexplained = append(a.Unexplained, fmt.Sprintf("%s: at %v and %v", name, before, again))
		return
	}
	repeated[i]++
	a.Oldest = max(a.Oldest, b.crashes[i].down.Sub(before))
}

// settle waits until all that was acknowledged has arrived, and judges: nothing lost, nothing altered, nothing
// twice without a crash between, no rule of the protocol broken.
func (b *book) settle(t *testing.T, limit time.Duration) account {
	t.Helper()
	a := b.account()
	for deadline := time.Now().Add(limit); len(a.Lost) > 0 && time.Now().Before(deadline); a = b.account() {
		<-time.After(checkPause)
	}
	if err := a.Err(); err != nil {
		t.Errorf("after %v: %v", limit, err)
	}
	if a.Foreign > 0 {
		t.Errorf("%d messages arrived that nobody sent", a.Foreign)
	}
	if n := len(a.Unexplained); n > 0 {
		t.Errorf("%d deliveries came twice without a crash between, the first %s", n, a.Unexplained[0])
	}
	for _, s := range b.sinks {
		if v := s.Violations(); len(v) > 0 {
			t.Errorf("a sink complains %d times, first: %+v", len(v), v[0])
		}
	}
	return a
}

const checkPause = 20 * time.Millisecond

// mood is how a sink treats its clients.
type mood int32

const (
	takes       mood = iota // everything
	refusesAll              // 451 to each recipient: the journal notes an attempt for each
	refusesHalf             // the same to every second recipient that asks
	isBusy                  // 421 to whoever connects: nothing is tried, the backlog grows
	isMute                  // takes each message and answers nothing: it will come again, and nobody knows
)

// sink is a relay whose mood can be changed while it serves.
type sink struct {
	*relay.Relay
	address string // host:port
	mood    atomic.Int32
	asked   atomic.Int64 // recipients
}

// newSink serves until the test ends. A script in cfg takes the place of the moods.
func newSink(t *testing.T, cfg relay.Config) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{address: l.Addr().String()}
	if cfg.Reply == nil {
		cfg.Reply = s.reply
	}
	s.Relay = relay.New(cfg)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }() // received below
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

// is changes the mood; connections that were let in while it was another one keep to what is asked of them from now on.
func (s *sink) is(m mood) { s.mood.Store(int32(m)) }

func (s *sink) reply(e relay.Event) relay.Action {
	switch m := mood(s.mood.Load()); {
	case m == isBusy && e.Stage == relay.StageConnect:
		return relay.Action{Reply: relay.ExchangeBusy, Close: true}
	case m == isBusy && e.Stage == relay.StageMail:
		return relay.Action{Reply: relay.ExchangeBusy, Close: true}
	case e.Stage == relay.StageRcpt && (m == refusesAll || m == refusesHalf && s.asked.Add(1)%2 == 0):
		return relay.Action{Reply: "451 4.2.1 Mailbox busy, try again later"}
	case m == isMute && e.Stage == relay.StageDot:
		return relay.Action{Take: true, Stall: true}
	}
	return relay.Action{}
}
