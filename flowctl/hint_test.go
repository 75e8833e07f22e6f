package flowctl

import "testing"

// A budget grants one pod a connection and tells the others that it is not their turn.
func TestAGrantOfNothingMeansNoConnectionUntilItLapses(t *testing.T) {
	f := calm(t, Config{}, 2)
	f.SetHint(at(2), Hint{Grant: 0, Until: at(10)})
	p := f.plan(2, 100)
	if len(p.Retire) != 2 || len(p.Dial) != 0 || !p.Wake.Equal(at(10)) {
		t.Fatalf("%+v, want both retired, no dial, and a wake at 10 s when the grant lapses", p)
	}
	f.done(3, 1, OK)
	f.done(3, 2, OK)
	f.Closed(at(3), 1, Outcome{})
	f.Closed(at(3), 2, Outcome{})
	for _, s := range []float64{3, 5, 9.9} {
		if p := f.plan(s, 100); len(p.Dial) != 0 || p.Send != 0 {
			t.Errorf("%+v at %v s, want nothing while nothing is granted", p, s)
		}
	}
	if p := f.plan(10, 100); len(p.Dial) == 0 {
		t.Errorf("%+v at 10 s, want the local law to dial", p)
	}
}

// Who was refused waits long for a place, by its own law; the budget knows that there is one.
func TestAGrantEndsTheWaitForAPlace(t *testing.T) {
	f := newFlow(t, Config{})
	f.plan(0, 100)
	f.dial(0, 1, Busy)
	if p := f.plan(1, 100); len(p.Dial) != 0 {
		t.Fatalf("%+v, want a wait after the refusal", p)
	}
	f.SetHint(at(1), Hint{Grant: 1, Until: at(100)})
	if p := f.plan(1, 100); len(p.Dial) != 1 {
		t.Errorf("%+v, want a dial for what was granted", p)
	}
}

// A connection that was granted is not given up for others to find: the budget takes it when it wants it.
func TestAGrantedConnectionHasNoLease(t *testing.T) {
	f := newFlow(t, Config{})
	f.leased = true
	f.connect(0, 1)
	f.dial(0, 1, Busy)
	f.busyAll(1)
	f.SetHint(at(2), Hint{Grant: 1, Until: at(1000)})
	for _, s := range []float64{100, 500, 900} {
		if p := f.plan(s, 100); len(p.Retire) != 0 {
			t.Errorf("%+v at %v s, want the connection kept", p, s)
		}
	}
	if p := f.plan(1000, 100); len(p.Retire) != 1 {
		t.Errorf("%+v at 1000 s, want the lease to end with the grant", p)
	}
}
