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

// sec returns the seconds from the epoch to t.
func sec(t time.Time) float64 { return t.Sub(epoch).Seconds() }

// expire ends the lease of a connection at s seconds, closes it as the plan says, and returns when its place is looked at.
func (f *flow) expire(s float64, id ConnID) float64 {
	f.t.Helper()
	f.find(id).lease = at(s)
	p := f.plan(s, 100)
	if len(p.Retire) != 1 || p.Retire[0] != id {
		f.t.Fatalf("retires %v at the end of the lease of %d", p.Retire, id)
	}
	if f.find(id).sending > 0 {
		f.done(s, id, OK)
	}
	f.Closed(at(s), id, Outcome{})
	p = f.plan(s, 100)
	if len(p.Dial) != 0 {
		f.t.Fatalf("dials %q: nobody else had a chance to take the place", p.Dial)
	}
	return sec(p.Wake)
}

// contend makes a flow believe that others hold connections too, since s seconds.
func (f *flow) contend(s float64) {
	f.lease.lost, f.refusedAt = at(s), at(s)
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

// Who closes each connection after a message never looks at a place, so only time can tell.
func TestCalmReturnsToOneWhoNeverLooks(t *testing.T) {
	f := newFlow(t, Config{})
	f.slowStart = false
	f.dial(0, .02, Busy)
	for s := 10.0; s < lingerPriced.Seconds(); s += 600 {
		if p := f.plan(s, 0); p.Linger != 0 {
			t.Fatalf("linger %v at %v s", p.Linger, s)
		}
		id := f.connect(s, 1)
		f.SendStart(at(s), id, 1, 1)
		f.done(s, id, OK)
		f.Closed(at(s), id, Outcome{})
	}
	if p := f.plan(lingerPriced.Seconds()+1, 0); p.Linger == 0 || p.State == Contended {
		t.Errorf("hours after the one refusal: linger %v, state %v", p.Linger, p.State)
	}
}

// Demand that begins anew has no place: what was left free long ago is somebody else's by now.
func TestAPlaceIsForgottenWhenTheDemandEnds(t *testing.T) {
	f := calm(t, Config{}, 1)
	f.contend(1)
	f.expire(5, 1)
	f.plan(5.1, 0)
	f.plan(3600, 1)
	f.dial(3600, 3600.02, Busy)
	if wait := sec(f.dialAt) - 3600.02; wait > 1.5*freshFirst.Seconds() {
		t.Errorf("fresh demand waits %v s for its second dial", wait)
	}
}

func TestRefusedLoginsMakeLeasesLongerForAnHour(t *testing.T) {
	f := newFlow(t, Config{})
	for i, want := range []time.Duration{2, 4, 8, 8} {
		f.stretchLeases(at(float64(i)))
		if d := f.leaseFor(at(float64(i))); d != want*calmLease {
			t.Errorf("refusal %d: leases of %v, want %v", i, d, want*calmLease)
		}
	}
	if d := f.leaseFor(at(3 + stretchFor.Seconds())); d != calmLease {
		t.Errorf("an hour later: %v", d)
	}
	f.stretchLeases(at(8000))
	if d := f.leaseFor(at(8000)); d != 2*calmLease {
		t.Errorf("the first refusal of another day: %v", d)
	}
}

func TestLingerIsShortWhereAPlaceIsSomebodyElses(t *testing.T) {
	const ms = time.Millisecond
	for name, s := range map[string]struct {
		set   func(f *flow)
		at    float64
		ready int
		want  time.Duration
	}{
		"never refused":               {func(*flow) {}, 5, 0, 5 * time.Second},
		"others hold connections":     {func(f *flow) { f.contend(1) }, 5, 0, 0},
		"others, but messages wait":   {func(f *flow) { f.contend(1) }, 5, 1, 5 * time.Second},
		"refused lately":              {func(f *flow) { f.refusedAt = at(1) }, 5, 0, lingerCost},
		"refused, connecting is slow": {func(f *flow) { f.refusedAt, f.lease.setup = at(1), 700*ms }, 5, 0, 700 * ms},
		"refused, connecting is very": {func(f *flow) { f.refusedAt, f.lease.setup = at(1), time.Minute }, 5, 0, 5 * time.Second},
		"refused six hours ago":       {func(f *flow) { f.refusedAt = at(1) }, 1 + 6*3600, 0, 5 * time.Second},
		"its own pauses are longer":   {func(f *flow) { f.turn.pause = 6 * time.Second }, 5, 0, lingerCost},
		"its own pauses are shorter":  {func(f *flow) { f.turn.pause = 4 * time.Second }, 5, 0, 5 * time.Second},
		"the upstream is impatient":   {func(f *flow) { f.idleLimit, f.idleLimitAt = 2*time.Second, at(1) }, 5, 0, 2 * time.Second},
	} {
		f := newFlow(t, Config{})
		s.set(f)
		if p := f.plan(s.at, s.ready); p.Linger != s.want {
			t.Errorf("%s: linger %v, want %v", name, p.Linger, s.want)
		}
	}
}

func TestBesideOthersOneDialIsInFlight(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	f.endSlowStart()
	f.width = 10
	f.contend(0)
	if p := f.plan(1, 100); len(p.Dial) != 1 {
		t.Fatalf("%d dials at once", len(p.Dial))
	}
	f.DialStart(at(1), 50, "")
	if p := f.plan(1, 100); len(p.Dial) != 0 {
		t.Errorf("%d dials beside one in flight", len(p.Dial))
	}
}

func TestKnocksForOneMoreGrowWithWhatIsHeld(t *testing.T) {
	for _, n := range []int{1, 4, 19} {
		f := calm(t, Config{}, n)
		f.contend(1)
		base := min(float64(n+1)*knockPerConn.Seconds(), knockCap.Seconds())
		for _, s := range []struct {
			accepted bool
			of       float64
		}{{false, base}, {true, base * knockAccepted}} {
			sum := 0.0
			for range 400 {
				f.lease.row = 0
				f.scheduleProbe(at(1), s.accepted)
				d := sec(f.nextProbe) - 1
				if d < s.of*.5 || d > s.of*1.5 {
					t.Fatalf("%d held: a knock after %v s, want about %v", n, d, s.of)
				}
				sum += d
			}
			if mean := sum / 400; mean < s.of*.95 || mean > s.of*1.05 {
				t.Errorf("%d held: knocks after %v s on average, want %v", n, mean, s.of)
			}
		}
	}
}

// The dials of slow start go on while a place is left free, and take it: what is established at the refusal is all that fits.
func TestARefusalInSlowStartEndsTheClaimToWhatIsLeftFree(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 4)
	f.width = 8
	f.busyAll(0)
	f.find(1).lease = at(1)
	f.plan(1, 100)
	f.done(1, 1, OK)
	f.Closed(at(1), 1, Outcome{})
	f.connect(1.1, 1)
	f.dial(1.1, 1.12, Busy)
	f.want(4, 4)
	if n, _ := f.yielding(at(1.12)); n != 0 || f.lease.contended() {
		t.Errorf("%d places left free, contended %v", n, f.lease.contended())
	}
}

// grow accepts every dial and every message from now on, and returns when there are n connections.
func (f *flow) grow(now float64, n int) float64 {
	f.t.Helper()
	for f.established < n {
		at, p := f.next(now, now+60, 100)
		if len(p.Dial) != 1 {
			f.t.Fatalf("%+v at %v s", p, at)
		}
		now = at
		id := f.connect(now, 1)
		f.SendStart(f.now, id, 1, 1)
		f.done(now, id, OK) // which confirms the probe
		f.busyAll(now)
	}
	return now
}

// Many have left, and none has said so: whose dials are all accepted takes twenty places in about a minute, and not one in six seconds.
func TestDialsThatAreAcceptedInARowGrowFaster(t *testing.T) {
	f := calm(t, Config{}, 1)
	f.contend(1)
	f.turn.wanting = at(-60)
	f.ready = 100
	f.scheduleProbe(at(1), false)
	now := f.grow(1, 20)
	if now < 20 || now > 90 {
		t.Errorf("20 connections after %.0f s", now)
	}
	f.dial(now, now, Busy)
	f.scheduleProbe(f.now, true)
	if d := f.nextProbe.Sub(f.now); d < knockCap*3/20 {
		t.Errorf("a pause of %v after a refusal: others are there again", d)
	}
}

// A burst at several processes: who has still much when the others are through does not wait for half a minute.
func TestMuchThatIsFreshFindsOutByItselfWhatThereIs(t *testing.T) {
	for _, s := range []struct {
		ready       int
		least, most float64
	}{{100, .5, 10}, {freshMuch - 1, 3, 40}} {
		f := calm(t, Config{}, 1)
		f.plan(2, 0)
		f.done(2, 1, OK)
		f.plan(3, 0)
		f.contend(3)
		f.plan(10, s.ready)
		f.busyAll(10)
		took := 0.0
		for id := ConnID(0); f.established < 4; {
			now, p := f.next(10+took, 100, s.ready)
			if took = now - 10; len(p.Dial) != 1 {
				t.Fatalf("%+v", p)
			}
			id = f.connect(now, 1)
			f.SendStart(f.now, id, 1, 1)
			f.done(now, id, OK)
			f.busyAll(now)
		}
		if took < s.least || took > s.most {
			t.Errorf("%d ready: three more after %.1f s, want %v to %v", s.ready, took, s.least, s.most)
		}
	}
}
