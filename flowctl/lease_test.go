package flowctl

import (
	"testing"
	"time"
)

// leased returns a flow out of slow start with n busy connections of which the first has its lease end at 10 s, the others never.
func leased(t testing.TB, n int) *flow {
	f := calm(t, Config{}, n)
	f.nextProbe = at(1e9) // and no probe gets into the way
	f.find(1).lease = at(10)
	return f
}

// endLease has connection id, whose lease is over at s, finish its message and close.
func (f *flow) endLease(s float64, id ConnID) {
	f.t.Helper()
	if p := f.plan(s, 100); len(p.Retire) != 1 || p.Retire[0] != id {
		f.t.Fatalf("%+v at %v s, want connection %d retired", p, s, id)
	}
	f.done(s, id, OK)
	f.Closed(at(s), id, Outcome{})
}

// look carries out the dial that is planned when the place at hand has been free long enough, and returns when it did.
func (f *flow) look(s float64, class Class) float64 {
	f.t.Helper()
	now, p := f.next(s, s+100, 100)
	if len(p.Dial) != 1 {
		f.t.Fatalf("%+v at %v s, want a dial", p, now)
	}
	f.dial(now, now+.02, class)
	return now + .02
}

func TestAPlaceIsLeftFreeForAMomentBeforeItIsTakenAgain(t *testing.T) {
	f := leased(t, 3)
	f.endLease(10, 1)
	p := f.plan(10, 100)
	if wait := p.Wake.Sub(at(10)); len(p.Dial) != 0 || wait < calmYield*3/4 || wait > calmYield*5/4 {
		t.Fatalf("%+v, want no dial and a look after about %v", p, calmYield)
	}
	if now := f.look(10, OK); now > 11 {
		t.Errorf("taken again at %v s", now)
	}
	f.want(3, 3)
	if f.lease.won != 1 || f.lease.contended() {
		t.Errorf("%+v", f.lease)
	}
}

func TestOneLookInVainCostsNoConnectionWhileNobodyElseIsSeen(t *testing.T) {
	f := leased(t, 3)
	f.endLease(10, 1)
	now := f.look(10, Busy)
	f.want(3, 3)
	if !f.lease.contended() {
		t.Error("nobody else is suspected")
	}
	f.look(now, OK)
	f.want(3, 3)
}

func TestTwoLooksInVainSaySoThatSomebodyElseHasThePlace(t *testing.T) {
	f := leased(t, 3)
	f.endLease(10, 1)
	now := f.look(f.look(10, Busy), Busy)
	f.want(2, 2)
	if p := f.plan(now, 100); p.State != Contended || len(p.Dial) != 0 {
		t.Errorf("%+v, want it contended and no further dial", p)
	}
}

func TestWhereOthersAreSeenOneLookIsEnough(t *testing.T) {
	f := leased(t, 3)
	f.lease.lost = at(5)
	f.endLease(10, 1)
	f.look(10, Busy)
	f.want(2, 2)
}

func TestTheFirstSignOfOthersShortensAllLeases(t *testing.T) {
	f := leased(t, 8)
	f.endLease(10, 1)
	now := f.look(10, Busy)
	for i := range f.conns {
		if k := &f.conns[i]; k.lease.After(at(now).Add(sharedLease * 5 / 4)) {
			t.Errorf("connection %d is held until %v", k.id, k.lease)
		}
	}
}

func TestAfterAQuietTimeNobodyElseIsBelievedToBeThere(t *testing.T) {
	f := leased(t, 3)
	f.lease.lost, f.lease.won = at(9), quietWon-1
	f.endLease(10, 1)
	f.look(10, OK)
	if !f.lease.contended() {
		t.Error("calm again a second after a place was lost")
	}
	f.find(f.last).lease = at(1e9)
	f.busyAll(11)
	now := 9 + quietTime.Seconds()
	f.find(2).lease = at(now)
	f.endLease(now, 2)
	f.look(now, OK)
	if f.lease.contended() {
		t.Errorf("%v without a loss, %d places taken again: still contended", quietTime, f.lease.won)
	}
}

func TestAProbeDoesNotTakeWhatIsLeftFreeForOthers(t *testing.T) {
	f := leased(t, 3)
	f.nextProbe = at(10)
	f.endLease(10, 1)
	if p := f.plan(10, 100); len(p.Dial) != 0 {
		t.Errorf("dials %q while a place is left free", p.Dial)
	}
}

func TestARefusalKeepsTheClaimToWhatIsLeftFree(t *testing.T) {
	f := leased(t, 4)
	f.lease.lost = at(5)
	f.find(2).lease = at(10.3)
	f.endLease(10, 1)
	f.endLease(10.3, 2)
	f.look(10.3, Busy) // the first place is gone, the second not looked at yet
	f.want(3, 3)
}

func TestAConnectionThatWasCutIsNoPlaceLeftFree(t *testing.T) {
	f := leased(t, 3)
	f.Closed(at(2), 1, Outcome{Class: SessionCap})
	if p := f.plan(2, 100); len(p.Dial) != 1 {
		t.Errorf("%+v, want it replaced at once", p)
	}
}

func TestWhatCannotBeTakenAgainIsNotGivenUp(t *testing.T) {
	for name, hinder := range map[string]func(f *flow){
		"too many logins":     func(f *flow) { f.pauseDials(at(9), time.Minute, reasonAuth) },
		"a pause":             func(f *flow) { f.pauseSends(at(9), time.Minute, reasonRate) },
		"a stop":              func(f *flow) { f.Stop(at(9), "password refused", time.Minute) },
		"a dial of our own":   func(f *flow) { f.DialStart(at(9.9), 100, "") },
		"a budget's decision": func(f *flow) { f.SetHint(at(9), Hint{Grant: 3, Until: at(60)}) },
	} {
		f := leased(t, 3)
		hinder(f)
		if p := f.plan(10, 100); len(p.Retire) != 0 {
			t.Errorf("%s: %+v gives up a connection", name, p)
		}
	}
}

func TestALeaseIsLongEnoughForLoginsAndMessages(t *testing.T) {
	f := leased(t, 1)
	f.lease.lost = at(5)
	if d := f.leaseFor(at(10)); d != sharedLease {
		t.Errorf("%v, want %v", d, sharedLease)
	}
	f.lease.setup = 2 * time.Second
	if d := f.leaseFor(at(10)); d != leaseSetups*2*time.Second {
		t.Errorf("with logins of 2 s: %v", d)
	}
	f.lease.setup, f.lease.message = 0, 10*time.Second
	if d := f.leaseFor(at(10)); d != leaseMessages*10*time.Second {
		t.Errorf("with messages of 10 s: %v", d)
	}
	f.lease.message = 0
	f.dial(11, 12, AuthThrottle)
	f.dial(200, 201, AuthThrottle)
	if d := f.leaseFor(at(201)); d != 4*sharedLease {
		t.Errorf("after two refusals of logins: %v", d)
	}
	if d := f.leaseFor(at(202 + stretchFor.Seconds())); d != sharedLease {
		t.Errorf("an hour later: %v", d)
	}
}

func TestWhoHoldsMoreAsksForMoreLessOften(t *testing.T) {
	for _, s := range []struct {
		held int
		mean time.Duration // between two dials for one more
	}{{1, 12 * time.Second}, {2, 18 * time.Second}, {9, knockCap}} {
		f := calm(t, Config{}, s.held)
		f.lease.lost = at(1)
		f.scheduleProbe(at(1), false)
		if d := f.nextProbe.Sub(at(1)); d < s.mean/2 || d > s.mean*3/2 {
			t.Errorf("%d held: next dial after %v, want about %v", s.held, d, s.mean)
		}
		f.scheduleProbe(at(1), true)
		if d := f.nextProbe.Sub(at(1)); d > s.mean/2 {
			t.Errorf("%d held, accepted: next dial after %v", s.held, d)
		}
	}
}
