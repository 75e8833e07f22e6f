package flowctl

import "testing"

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
