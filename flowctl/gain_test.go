package flowctl

import (
	"testing"
	"time"
)

// slowing is an upstream that carries knee transactions at a time at full speed, a tenth of a second each, and more ever slower.
type slowing struct {
	*flow
	now   float64
	knee  int
	ready int
}

func newSlowing(t *testing.T, cfg Config, knee int) *slowing {
	cfg.Gain = true
	return &slowing{flow: newFlow(t, cfg), knee: knee, ready: 1000}
}

// round lets each connection that may carry one transaction; as many rounds as make up seconds.
func (s *slowing) run(seconds float64) {
	for end := s.now + seconds; s.now < end; {
		p := s.plan(s.now, s.ready)
		for _, id := range append([]ConnID(nil), p.Retire...) {
			s.Closed(at(s.now), id, Outcome{})
		}
		for range p.Dial {
			id := s.connect(s.now, 1)
			s.find(id).lease = at(1e9)
		}
		p = s.plan(s.now, s.ready)
		var busy []ConnID
		for i := range s.conns {
			if k := &s.conns[i]; len(busy) < p.Send && k.established && k.sending == 0 && !k.retiring {
				busy = append(busy, k.id)
			}
		}
		for _, id := range busy {
			s.SendStart(at(s.now), id, 1, 1)
		}
		s.plan(s.now, s.ready)
		s.now += .1 * max(1, float64(len(busy))/float64(s.knee))
		for i, id := range busy { // evenly spread, as they would be
			s.done(s.now+float64(i)*1e-6, id, OK)
			s.plan(s.now+float64(i)*1e-6, s.ready)
		}
		s.now += 1e-3
	}
}

func TestAWiderPoolIsKeptOnlyWhileItDeliversMore(t *testing.T) {
	for _, knee := range []int{3, 10} {
		s := newSlowing(t, Config{MaxConns: 100}, knee)
		s.run(900)
		if s.slowStart || s.width < float64(knee)*.85 || s.width > float64(knee)*1.25+1 {
			t.Errorf("width %v in slow start %v, want about %d", s.width, s.slowStart, knee)
		}
	}
}

func TestSlowStartTriesTwiceAsMuch(t *testing.T) {
	s := newSlowing(t, Config{MaxConns: 16}, 16)
	seen := map[int]bool{}
	for range 400 {
		s.run(.5)
		seen[int(s.width)] = true
	}
	for _, w := range []int{1, 2, 4, 8, 16} {
		if !seen[w] || len(seen) > 7 {
			t.Fatalf("widths %v, want powers of two", seen)
		}
	}
}

// Otherwise no narrower width would ever be tried, and no connection above a ceiling.
func TestSlowStartByGainEndsWhereThereIsNoWider(t *testing.T) {
	s := newSlowing(t, Config{MaxConns: 4}, 100)
	s.run(120)
	if p := s.plan(s.now, 1000); s.width != 4 || p.State != Calm {
		t.Errorf("width %v, state %v", s.width, p.State)
	}
}

// tested returns a flow in whose test base is compared with tried: it delivered so many a second before.
func tested(t *testing.T, base, tried, rate float64) *slowing {
	s := newSlowing(t, Config{MaxConns: 100}, 1000)
	s.connect(0, 10)
	s.slowStart, s.width = false, tried
	s.gain = gain{phase: gainTries, base: base, rate: rate, tried: tried}
	return s
}

func TestTheGainDecidesWhetherTheWidthIsKept(t *testing.T) {
	for _, s := range []struct {
		base, tried, before, after, want float64
	}{
		{10, 12, 100, 120, 12}, // a fifth more delivers a fifth more
		{10, 12, 100, 111, 12}, // more than half of that
		{10, 12, 100, 109, 10}, // less
		{10, 12, 100, 80, 10},
		{10, 9, 100, 100, 9}, // narrower, and as good
		{10, 9, 100, 96, 9},
		{10, 9, 100, 94, 10}, // and worse
	} {
		f := tested(t, s.base, s.tried, s.before)
		f.judgeGain(at(1), s.after)
		if f.width != s.want || f.gain.phase != gainRests || !f.gain.next.After(at(1)) {
			t.Errorf("%+v: width %v, %+v", s, f.width, f.gain)
		}
	}
}

func TestATestThatChangesNothingIsMadeLessOften(t *testing.T) {
	f := tested(t, 10, 12, 100)
	for _, want := range []time.Duration{2, 4, 8, 16, 32, 64, 120, 120} {
		f.restGain(at(1), false)
		if f.gain.gap != want*time.Second {
			t.Fatalf("gap %v, want %v s", f.gain.gap, want)
		}
	}
	if f.restGain(at(1), true); f.gain.gap != gainMin {
		t.Errorf("gap %v after a move", f.gain.gap)
	}
}

func TestEachThirdTestIsOfANarrowerWidth(t *testing.T) {
	f := tested(t, 10, 10, 100)
	for i, want := range []float64{11.2, 11.2, 9, 11.2, 11.2, 9} {
		f.width = 10
		f.tryWidth(at(1))
		if d := f.width - want; d > 1e-9 || d < -1e-9 {
			t.Errorf("test %d of width %v, want %v", i+1, f.width, want)
		}
	}
	for _, s := range []struct{ from, up, down float64 }{{2, 3, 1}, {1, 2, 1}, {99.5, 100, 89.55}} {
		f.width, f.gain.turn = s.from, 0
		if f.tryWidth(at(1)); f.width != s.up {
			t.Errorf("from %v up to %v, want %v", s.from, f.width, s.up)
		}
		f.width, f.gain.turn = s.from, gainTurns-1
		if f.tryWidth(at(1)); f.width < s.down-1e-9 || f.width > s.down+1e-9 {
			t.Errorf("from %v down to %v, want %v", s.from, f.width, s.down)
		}
	}
}

func TestWithoutDemandATestIsGivenUp(t *testing.T) {
	s := newSlowing(t, Config{MaxConns: 100}, 5)
	s.run(60)
	for i := 0; s.gain.phase != gainTries; i++ {
		if s.run(.2); i > 5000 {
			t.Fatal("nothing is tried")
		}
	}
	base := s.gain.base
	s.ready = 0
	s.plan(s.now, 0)
	s.SendStart(at(s.now), s.conns[0].id, 1, 1)
	s.done(s.now+.1, s.conns[0].id, OK)
	if s.width != base || s.gain.phase != gainRests {
		t.Errorf("width %v, %+v, want %v and a rest", s.width, s.gain, base)
	}
}

// A refusal or an overload has the last word: the end of a test must not raise what it cut.
func TestATestEndsWhenSomethingElseMovesTheWidth(t *testing.T) {
	for name, cut := range map[string]func(f *flow){
		"refused dial": func(f *flow) { f.dial(2, 2.02, Busy) },
		"overload":     func(f *flow) { f.done(2, 1, Overload) },
		"reputation":   func(f *flow) { f.done(2, 1, Reputation) },
	} {
		for _, idle := range []bool{false, true} {
			s := tested(t, 12, 14, 100)
			s.ghostAt = at(-9)
			s.busyAll(1)
			cut(s.flow)
			width := s.width
			if width >= 12 {
				t.Fatalf("%s: width %v is not cut", name, width)
			}
			s.sendAt = time.Time{}
			if idle {
				s.plan(3, 0)
				s.done(3, 2, OK)
			} else {
				s.gain.skip, s.gain.count, s.gain.since = 0, 1e6, at(2)
				s.plan(3, 1000)
				s.done(3, 2, OK)
			}
			if s.width > width {
				t.Errorf("%s, then demand %v: the test took the width from %v back to %v", name, !idle, width, s.width)
			}
		}
	}
}
