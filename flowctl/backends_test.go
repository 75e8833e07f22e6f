package flowctl

import "testing"

// crowded returns a flow with n busy connections that has lost a place to others, whose leases end only when the test says so.
func crowded(t testing.TB, n int) *flow {
	f := calm(t, Config{}, n)
	f.lease.lost = at(1)
	f.hold()
	return f
}

func (f *flow) hold() {
	for i := range f.conns {
		f.conns[i].lease = at(1e6)
	}
}

// lookInVain ends a lease at s seconds and has the look at its place refused. It says whether that is repeated at once.
func (f *flow) lookInVain(s float64) (repeated bool) {
	f.t.Helper()
	f.hold()
	f.nextProbe = at(1e6)
	f.lease.lost, f.lease.won = at(s), 0 // others are about
	f.lease.yields = nil
	id := f.conns[0].id
	f.conns[0].lease = at(s)
	if p := f.plan(s, 100); len(p.Retire) != 1 {
		f.t.Fatalf("%+v at %v s, want one retired", p, s)
	}
	f.done(s, id, OK)
	f.Closed(at(s), id, Outcome{})
	f.plan(s+2, 100)
	f.dial(s+2, s+2.1, Busy)
	return len(f.plan(s+2.1, 100).Dial) > 0
}

// repeat refuses looks from s seconds on, one in ten seconds, until so many were repeated, with the outcomes given. It returns how many
// looks there were.
func (f *flow) repeat(s float64, outcomes ...Class) (looks int) {
	f.t.Helper()
	for _, class := range outcomes {
		for done := false; !done; looks++ {
			if looks > 3*testRare*testWindow {
				f.t.Fatal("no look is repeated any more")
			}
			begin := s + 10*float64(looks)
			if done = f.lookInVain(begin); done {
				f.dial(begin+2.1, begin+2.2, class)
			}
			f.lease.yields = nil
			for f.established < 6 { // what was lost comes back somehow
				f.dial(begin+9, begin+9.1, OK)
			}
			f.busyAll(begin + 9.2)
		}
	}
	return looks
}

func times(n int, class Class) []Class {
	all := make([]Class, n)
	for i := range all {
		all[i] = class
	}
	return all
}

func TestLooksThatFindAPlaceAtTheNextMomentTellOfSeveralBackends(t *testing.T) {
	f := crowded(t, 6)
	f.repeat(10, append(times(testWindow-testAccepted, Busy), times(testAccepted-1, OK)...)...)
	if f.lease.backends.several || f.state == Calm {
		t.Fatalf("%v: %s, want no conclusion yet", f.state, f.stateReason)
	}
	f.repeat(1000, OK)
	if f.state != Calm || f.stateReason != reasonSeveral || f.gap != f.cfg.ProbeMin {
		t.Errorf("%v: %s, gap %v, want the leases of one that is alone, and a probe soon", f.state, f.stateReason, f.gap)
	}
}

// Where all places are taken a repeated look is refused again, but for the chance that somebody has just gone.
func TestOthersAreNotTakenForBackends(t *testing.T) {
	f := crowded(t, 6)
	for i := range 4 {
		f.repeat(10+1e4*float64(i), append(times(testAccepted-1, OK), times(testWindow-testAccepted+1, Busy)...)...)
	}
	if f.lease.backends.several || f.state == Calm {
		t.Errorf("%v: %s, want contended", f.state, f.stateReason)
	}
}

func TestTestsThatFindNothingBecomeRare(t *testing.T) {
	f := crowded(t, 6)
	first := f.repeat(10, times(testWindow, Busy)...)
	f.repeat(1e4, times(3*testWindow, Busy)...)
	last := f.repeat(5e4, times(2, Busy)...)
	if first != testEvery*testWindow || last != 2*testRare {
		t.Errorf("%d looks in the first window and %d for two tests at last, want %d and %d", first, last, testEvery*testWindow, 2*testRare)
	}
}

func TestALookRepeatedLateTellsNothingOfBackends(t *testing.T) {
	f := crowded(t, 6)
	for i := range 8 {
		s := 10 + 10*float64(i)
		if f.lookInVain(s) {
			f.dial(s+3, s+3.1, OK) // somebody may have gone in the meantime
		}
		f.lease.yields = nil
		for f.established < 6 {
			f.dial(s+9, s+9.1, OK)
		}
		f.busyAll(s + 9.2)
	}
	if b := f.lease.backends; b.refused != 0 || b.accepted != 0 {
		t.Errorf("%+v, want no test counted", b)
	}
}

// One backend is full and others are not: it costs no connection to be sent to the full one.
func TestAmongSeveralBackendsAPlaceIsLookedForOften(t *testing.T) {
	f := crowded(t, 6)
	f.lease.backends.several, f.lease.backends.every = true, 1000
	s := 10.0
	f.lookInVain(s)
	for look := 2; look <= severalLooks; look++ {
		if s += 4; len(f.plan(s, 100).Dial) != 1 {
			t.Fatalf("no dial for look %d", look)
		}
		f.dial(s, s+.1, Busy)
		f.want(6, 6)
	}
	if len(f.lease.yields) != 0 {
		t.Errorf("%d places left after %d looks", len(f.lease.yields), severalLooks)
	}
}

func TestThatThereAreSeveralBackendsIsForgottenWhenLooksAreRefusedAgain(t *testing.T) {
	f := crowded(t, 6)
	f.lease.backends.several = true
	f.repeat(10, append(times(testStill, OK), times(testWindow-testStill, Busy)...)...)
	if !f.lease.backends.several {
		t.Fatal("forgotten though repeated looks were accepted")
	}
	f.repeat(1e4, append(times(testStill-1, OK), times(testWindow-testStill+1, Busy)...)...)
	if f.lease.backends.several || f.state == Calm {
		t.Errorf("%v: %s, want contended", f.state, f.stateReason)
	}
}
