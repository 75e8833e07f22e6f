package flowctl

import (
	"testing"
	"time"
)

func TestTheSnapshotSaysWhyNoConnectionMoreIsTried(t *testing.T) {
	for name, s := range map[string]struct {
		set    func() *flow
		state  State
		reason string
		probe  bool
	}{
		"new":            {func() *flow { return newFlow(t, Config{}) }, SlowStart, reasonLearning, false},
		"at its ceiling": {func() *flow { return calm(t, Config{}, 4) }, Calm, reasonRefused, true},
		"at the maximum": {func() *flow { return calm(t, Config{MaxConns: 4}, 4) }, Calm, reasonAtMax, false},
		"cut by overload": {func() *flow { f := calm(t, Config{}, 4); f.done(1.5, 1, Overload); return f },
			Calm, reasonGrowth, true},
		"beside others": {func() *flow { f := calm(t, Config{}, 4); f.contend(1); return f }, Contended, reasonContended, true},
		"granted less": {func() *flow { f := calm(t, Config{}, 4); f.SetHint(at(1), Hint{Grant: 3, Until: at(9)}); return f },
			Calm, reasonRefused, false},
		"granted none": {func() *flow { f := calm(t, Config{}, 4); f.SetHint(at(1), Hint{Until: at(9)}); return f },
			Paused, reasonNoGrant, false},
		"stopped": {func() *flow { f := calm(t, Config{}, 4); f.Stop(at(1), "held", 0); return f }, Stopped, "held", true},
		"no answer": {func() *flow {
			f := newFlow(t, Config{})
			for range tripMin {
				f.dial(1, 1, Unavailable)
			}
			return f
		}, Open, "no address answers", false},
	} {
		f := s.set()
		got := f.Snapshot(at(2))
		if got.State != s.state || got.Reason != s.reason || got.NextProbe.IsZero() == s.probe {
			t.Errorf("%s: %v (%s), next probe %v; want %v (%s), probe to come: %v", name, got.State, got.Reason, got.NextProbe, s.state, s.reason, s.probe)
		}
		if p := f.plan(2, 9); p.State != got.State || p.Reason != got.Reason {
			t.Errorf("%s: the plan says %v (%s), the snapshot %v (%s)", name, p.State, p.Reason, got.State, got.Reason)
		}
	}
}

func TestTheSnapshotCounts(t *testing.T) {
	f := calm(t, Config{PerSecond: 50, MaxConns: 10}, 5)
	f.done(1, 5, OK)
	f.find(4).lease = at(1)
	f.plan(1.01, 9)
	f.last++
	f.DialStart(at(1.2), f.last, "")
	s := f.Snapshot(at(1.2))
	if s.Width != 5 || s.Ceiling != 5 || s.Max != 10 || s.Established != 5 || s.Dialing != 1 || s.Busy != 4 || s.Retiring != 1 {
		t.Errorf("%+v", s)
	}
	if s.Rate != 50 || s.Linger != lingerCost || s.Addrs != 1 || s.OpenAddrs != 0 || s.ProbeGap != time.Second {
		t.Errorf("%+v", s)
	}
	if c := s.Counts; c.Started != 7 || c.Dials[OK] != 5 || c.Dials[Busy] != 1 || c.Sends[OK] != 1 || c.Messages != 5 || c.Recipients != 5 || c.Unknown != 0 {
		t.Errorf("%+v", c)
	}
	if m := s.LastMove; m.What != "state" || m.Reason == "" {
		t.Errorf("last move %+v", m)
	}
}

func TestTheGapOfProbesIsWhatTheNextOneFollows(t *testing.T) {
	f := calm(t, Config{}, 4)
	f.gap = 8 * time.Second
	if s := f.Snapshot(at(2)); s.ProbeGap != 8*time.Second {
		t.Errorf("alone: %v", s.ProbeGap)
	}
	f.contend(2)
	if s := f.Snapshot(at(2)); s.ProbeGap != knockCap {
		t.Errorf("beside others: %v, want %v", s.ProbeGap, knockCap)
	}
}

func TestASnapshotChangesNoPlan(t *testing.T) {
	run := func(look bool) (plans []Plan) {
		f := calm(t, Config{RecipientsPerDay: 50}, 3)
		for s := 1.0; s < 200; s++ {
			if look {
				f.Snapshot(at(s))
			}
			p := f.plan(s, 9)
			p.Dial, p.Retire = append([]string(nil), p.Dial...), append([]ConnID(nil), p.Retire...)
			plans = append(plans, p)
			for range p.Dial {
				f.dial(s, s, Busy)
			}
		}
		return plans
	}
	with, without := run(true), run(false)
	for i := range with {
		if a, b := with[i], without[i]; a.Wake != b.Wake || len(a.Dial) != len(b.Dial) || a.Send != b.Send || a.State != b.State {
			t.Fatalf("plan %d: %+v and %+v", i, a, b)
		}
	}
}

func TestAGrantOfNothingMeansNoConnection(t *testing.T) {
	f := calm(t, Config{}, 3)
	f.SetHint(at(2), Hint{Grant: 0, Until: at(60)})
	p := f.plan(2, 9)
	if len(p.Retire) != 3 || p.Send != 0 || p.Ahead != 0 || len(p.Dial) != 0 || p.State != Paused || p.Reason != reasonNoGrant || !p.Wake.Equal(at(60)) {
		t.Fatalf("%+v, want all closed, and to wait until it lapses", p)
	}
	for id := range ConnID(3) {
		f.done(2, id+1, OK)
		f.Closed(at(2), id+1, Outcome{})
	}
	if p := f.plan(59, 9); len(p.Dial) != 0 || !p.SendAt.Equal(at(60)) || !p.Wake.Equal(at(60)) {
		t.Errorf("before it lapses: %+v", p)
	}
	if p := f.plan(60, 9); len(p.Dial) == 0 {
		t.Errorf("after: %+v", p)
	}
	f.SetHint(at(61), Hint{Grant: 2, Until: at(100)})
	if p := f.plan(61, 9); len(p.Dial) == 0 || len(p.Dial) > 2 {
		t.Errorf("with two granted: %+v", p)
	}
	f.SetHint(at(62), Hint{})
	if p := f.plan(62, 9); len(p.Dial) != 3 {
		t.Errorf("without a budget: %+v", p)
	}
}

// Whatever else keeps the flow, the caller is woken when a grant lapses.
func TestALapsedGrantWakesInEveryState(t *testing.T) {
	for name, s := range map[string]struct {
		hinder func(f *flow)
	}{
		"flowing": {func(*flow) {}},
		"down":    {func(f *flow) { f.open(at(1), &f.addrs[0], Outcome{}); f.settle(at(1)) }},
		"stopped": {func(f *flow) { f.Stop(at(1), "held", time.Second) }},
	} {
		f := newFlow(t, Config{})
		s.hinder(f)
		f.SetHint(at(1), Hint{Grant: 0, Until: at(600)})
		if p := f.plan(500, 9); !p.Wake.Equal(at(600)) || len(p.Dial) != 0 {
			t.Errorf("%s: %+v, want a wake at 600 s", name, p)
		}
		if p := f.plan(600, 9); len(p.Dial) != 1 {
			t.Errorf("%s: after the grant: %+v", name, p)
		}
	}
}

func TestATimeNamedByACountRefusalIsObeyed(t *testing.T) {
	refuse := func(f *flow, s float64) {
		f.last++
		f.DialStart(at(s), f.last, "")
		f.DialDone(at(s+.02), f.last, Outcome{Class: Busy, RetryAfter: time.Hour})
	}
	for name, f := range map[string]*flow{"a probe": calm(t, Config{}, 3), "a look": calm(t, Config{}, 3)} {
		s := 50.0
		if name == "a look" {
			s = f.expire(5, 1)
		}
		refuse(f, s)
		for now := s + 1; now < s+3600; now += 100 {
			if p := f.plan(now, 100); len(p.Dial) != 0 {
				t.Fatalf("%s: dials %v s later, although an hour was named", name, now-s)
			}
		}
	}
}
