package flowctl

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// check holds the controller and a plan against everything that must be true at any time.
func check(t rapid.TB, c *Controller, now time.Time, ready int, p Plan) {
	t.Helper()
	established, dialing, busy, retiring, idle := 0, 0, 0, 0, 0
	for _, k := range c.conns {
		switch {
		case !k.established:
			dialing++
		default:
			established++
			if k.sending > 0 {
				busy++
			}
			if k.retiring {
				retiring++
			} else if k.sending == 0 {
				idle++
			}
		}
	}
	if established != c.established || dialing != c.dialing || busy != c.busy {
		t.Fatalf("counted %d %d %d, believed %d %d %d", established, dialing, busy, c.established, c.dialing, c.busy)
	}
	if !(c.width >= 1 && c.width <= float64(c.cfg.MaxConns)) {
		t.Fatalf("width %v of at most %d", c.width, c.cfg.MaxConns)
	}
	if c.ceiling > 0 && int(c.width) > max(c.ceiling, c.peak) {
		t.Fatalf("width %v above ceiling %d and peak %d", c.width, c.ceiling, c.peak)
	}
	if len(p.Dial) > 0 && (dialing+len(p.Dial) > MaxDials || ready <= 0) {
		t.Fatalf("%d dials to %d in flight with %d ready", len(p.Dial), dialing, ready)
	}
	if len(p.Dial) > 0 && established+dialing+len(p.Dial) > c.cfg.MaxConns {
		t.Fatalf("%d dials to %d established and %d dialling, of at most %d", len(p.Dial), established, dialing, c.cfg.MaxConns)
	}
	if p.Send < 0 || p.Ahead < 0 || p.Send > idle || p.Send+p.Ahead > max(ready, 0) {
		t.Fatalf("send %d ahead %d with %d idle and %d ready", p.Send, p.Ahead, idle, ready)
	}
	if p.Send > 0 && busy+p.Send > int(c.width) {
		t.Fatalf("send %d beside %d busy at width %v", p.Send, busy, c.width)
	}
	if len(p.Retire) != retiring {
		t.Fatalf("%d named to retire, %d believed to", len(p.Retire), retiring)
	}
	if !p.Wake.IsZero() && !p.Wake.After(now) {
		t.Fatalf("wake %v is not after %v", p.Wake, now)
	}
	if p.Linger < 0 {
		t.Fatalf("linger %v", p.Linger)
	}
	atRest := p.Send == 0 && len(p.Dial) == 0 && busy == 0 && dialing == 0 && retiring == 0
	forever := c.stop.on && c.stop.probeEvery == 0
	if ready > 0 && atRest && p.Wake.IsZero() && !forever {
		t.Fatalf("%d ready, nothing under way, and nothing to wait for: %+v", ready, p)
	}
}

// A caller that does what the plans say, and an upstream that answers anything: the work is never given up.
func TestAnObedientCallerAlwaysComesToSend(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, err := New(Config{MaxConns: 5, Gain: rapid.Bool().Draw(t, "gain"), RecipientsPerDay: rapid.SampledFrom([]int{0, 3}).Draw(t, "quota")},
			rapid.Uint64().Draw(t, "seed"), epoch)
		if err != nil {
			t.Fatal(err)
		}
		c.SetAddresses(epoch, []string{"a", "b"}[:rapid.IntRange(1, 2).Draw(t, "addrs")])
		now, last := epoch, ConnID(0)
		step := func(class Class) (sent bool) {
			p := c.Plan(now, Demand{Ready: 9})
			check(t, c, now, 9, p)
			for _, addr := range append([]string(nil), p.Dial...) {
				last++
				c.DialStart(now, last, addr)
				c.DialDone(now, last, Outcome{Class: class})
			}
			for _, id := range append([]ConnID(nil), p.Retire...) {
				c.Closed(now, id, Outcome{})
			}
			for i := 0; i < len(c.conns) && p.Send > 0; i++ {
				if k := c.conns[i]; k.established && k.sending == 0 && !k.retiring {
					p.Send--
					c.SendStart(now, k.id, 1, 1)
					now = now.Add(time.Millisecond)
					c.SendDone(now, k.id, Outcome{Class: class})
					sent = class == OK
					if class == Unavailable {
						c.Closed(now, k.id, Outcome{Class: class})
					}
				}
			}
			if p.Send == 0 && len(p.Dial) == 0 && len(p.Retire) == 0 && p.Wake.After(now) {
				now = p.Wake
			}
			return sent
		}
		for range rapid.IntRange(0, 60).Draw(t, "trouble") {
			if rapid.IntRange(0, 9).Draw(t, "hint") == 0 {
				c.SetHint(now, Hint{rapid.IntRange(-1, 3).Draw(t, "grant"), now.Add(time.Duration(rapid.IntRange(-5, 200).Draw(t, "for")) * time.Second)})
			}
			step(Class(rapid.IntRange(0, Classes-1).Draw(t, "class")))
		}
		for i := 0; !step(OK); i++ {
			if i > 200 {
				t.Fatal("the upstream is well again and nothing is sent")
			}
		}
	})
}

func TestTheSameEventsGiveTheSamePlans(t *testing.T) {
	trace := func(seed uint64) uint64 {
		h := fnv.New64a()
		r := newRelay(t, Config{MaxConns: 50}, 5, seed)
		for i := range 60 {
			if i == 20 {
				r.limit = 9
			}
			if i == 40 {
				r.limit = 3
			}
			r.run(time.Second)
			fmt.Fprintln(h, r.sent, r.refused, r.c.Snapshot(r.now), r.c.Plan(r.now, Demand{Ready: 10}), r.c.Moves())
		}
		return h.Sum64()
	}
	if first, again := trace(1), trace(1); first != again {
		t.Error("the same seed gave another run")
	}
	if trace(1) == trace(2) {
		t.Error("another seed gave the same run: chance has no part in it")
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	for want, cfg := range map[string]Config{
		"max_connections": {MaxConns: MaxConnsLimit + 1},
		"rate_per_second": {PerSecond: math.NaN()},
		"time_scale":      {Scale: math.NaN()},
		"ProbeMin":        {ProbeMin: 2 * time.Minute},
		"OpenMin":         {OpenMax: time.Millisecond},
		"OpenMax":         {OpenMax: -1},
		"Linger":          {Linger: 8 * 24 * time.Hour},
	} {
		bad := cfg
		bad.MaxConns = min(bad.MaxConns, MaxConnsLimit+1)
		err := bad.Validate()
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte("flowctl: validate "+want)) {
			t.Errorf("%+v: %v, want a fault of %s", cfg, err, want)
		}
		if _, err := New(cfg, 1, epoch); err == nil {
			t.Errorf("New took %+v", cfg)
		}
	}
	two := Config{MaxConns: -1, PerSecond: -1}.Validate()
	if n := bytes.Count([]byte(two.Error()), []byte("flowctl: validate")); n != 2 {
		t.Errorf("%d of 2 faults named: %v", n, two)
	}
}

func TestMovesAreBoundedAndTakenOnce(t *testing.T) {
	f := newFlow(t, Config{})
	for i := range 200 {
		f.Stop(at(float64(i)), "on", 0)
		f.Resume(at(float64(i)))
	}
	moves := f.Moves()
	if len(moves) != movesMax || moves[movesMax-1].ToState != SlowStart || !moves[0].At.Before(moves[movesMax-1].At) {
		t.Errorf("%d moves, the last %+v", len(moves), moves[len(moves)-1])
	}
	if again := f.Moves(); len(again) != 0 {
		t.Errorf("%d moves given twice", len(again))
	}
	if s := f.Snapshot(at(200)); s.Counts.MovesDropped != 400-movesMax || s.LastMove.ToState != SlowStart {
		t.Errorf("%d dropped, last %+v", s.Counts.MovesDropped, s.LastMove)
	}
}

func TestEveryNameIsSpelt(t *testing.T) {
	seen := map[string]bool{}
	for c := range Classes {
		seen[Class(c).String()] = true
	}
	for s := StageConnect; s <= StageIdle; s++ {
		seen["stage "+s.String()] = true
	}
	for s := SlowStart; s <= Stopped; s++ {
		seen["state "+s.String()] = true
	}
	if len(seen) != Classes+10+8 || seen[""] || seen["unknown"] {
		t.Errorf("names %v", seen)
	}
	if Class(200).String() != "unknown" || Stage(200).String() != "unknown" || State(200).String() != "unknown" {
		t.Error("what is beyond the last is not unknown")
	}
}

// steady is a round of events at a relay that has room for as many as there are: one transaction ends and
// another begins, and now and then a connection is replaced.
type steady struct {
	c   *Controller
	now time.Time
	n   int
	ids [20]ConnID
	id  ConnID
}

func newSteady(t testing.TB) *steady {
	c, err := New(Config{PerSecond: 1e6}, 1, epoch)
	if err != nil {
		t.Fatal(err)
	}
	s := &steady{c: c, now: epoch}
	for i := range s.ids {
		s.id++
		s.ids[i] = s.id
		c.DialStart(s.now, s.id, "")
		c.DialDone(s.now, s.id, Outcome{})
		c.SendStart(s.now, s.id, 1, 1)
	}
	return s
}

const steadyEvents = 3 // and more when a connection is replaced

func (s *steady) round() {
	s.n++
	slot := s.n % len(s.ids)
	s.now = s.now.Add(5 * time.Millisecond)
	s.c.SendDone(s.now, s.ids[slot], Outcome{Class: OK, Stage: StageDot})
	if s.n%100 == 0 {
		s.c.Closed(s.now, s.ids[slot], Outcome{Class: SessionCap})
		s.id++
		s.ids[slot] = s.id
		s.c.DialStart(s.now, s.id, "")
		s.c.DialDone(s.now, s.id, Outcome{})
	}
	s.c.Plan(s.now, Demand{Ready: 100})
	s.c.SendStart(s.now, s.ids[slot], 1, 1)
}

func TestAnEventAllocatesNothing(t *testing.T) {
	s := newSteady(t)
	for range 1000 {
		s.round()
	}
	if n := testing.AllocsPerRun(2000, s.round); n != 0 {
		t.Errorf("%v allocations a round", n)
	}
	if s.c.counts.Unknown != 0 || s.c.busy != len(s.ids) {
		t.Errorf("%d unknown events, %d busy", s.c.counts.Unknown, s.c.busy)
	}
}

func BenchmarkEvent(b *testing.B) {
	s := newSteady(b)
	b.ReportAllocs()
	for b.Loop() {
		s.round()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*steadyEvents), "ns/event")
}
