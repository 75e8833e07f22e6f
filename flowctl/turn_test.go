package flowctl

import (
	"testing"
	"time"
)

// refused returns the pauses between the dials of a flow that is refused again and again, from s seconds on.
func (f *flow) refused(s float64, n int) (pauses []time.Duration) {
	f.t.Helper()
	for range n {
		now, p := f.next(s, 1e6, 1)
		if len(p.Dial) != 1 {
			f.t.Fatalf("%+v at %v s, want a dial", p, now)
		}
		pauses = append(pauses, at(now).Sub(at(s)))
		f.dial(now, now, Busy)
		s = now
	}
	return pauses
}

func TestNewDemandKnocksSoonAndThenInProportionToItsWait(t *testing.T) {
	f := newFlow(t, Config{})
	var waited time.Duration
	for i, d := range f.refused(0, 12)[1:] {
		mean := min(max(waited/2, freshFirst), freshMost)
		if waited > turnFair {
			mean = time.Duration(float64(mean) * float64(turnFair) / float64(waited))
		}
		if d < mean/2-time.Millisecond || d > mean*3/2+time.Millisecond {
			t.Errorf("dial %d, %v after the demand began: %v after the last, want about %v", i, waited, d, mean)
		}
		waited += d
	}
}

// standing returns a flow that has had more to send for an hour, whose only connection went at 10 s and whose place was gone.
func standing(t *testing.T) *flow { return standingSince(t, -3600, 1) }

// standingSince is standing, with more to send since s.
func standingSince(t *testing.T, s float64, seed uint64) *flow {
	f := leased(t, 1)
	f.lease.lost, f.turn.wanting = at(5), at(s)
	f.rng.Seed(seed, 0)
	f.endLease(10, 1)
	f.look(10, Busy)
	return f
}

func TestWhoHadItsTurnWaitsInLine(t *testing.T) {
	f := standing(t)
	now, p := f.next(10.9, 1e6, 100)
	if now > 11+turnFirst.Seconds() || len(p.Dial) != 1 {
		t.Fatalf("%+v at %v s, want the first dial within %v", p, now, turnFirst)
	}
	f.dial(now, now, Busy)
	since := now
	for range 8 {
		mean := min(max(time.Duration((since-10)*1e9), turnLeast), turnMost)
		if w := since - 10; w > turnFair.Seconds() {
			mean = time.Duration(float64(mean) * turnFair.Seconds() / w)
		}
		d := f.refused(since, 1)[0]
		if d < mean/2-time.Second || d > mean*3/2+time.Second {
			t.Errorf("%v s after its turn: %v between dials, want about %v", since-10, d, mean)
		}
		since += d.Seconds()
	}
}

// Where all began a moment ago, the others may be through in another: who has lost its place does not wait in line for longer than it has had
// anything to send.
func TestWhoHasJustBegunAsksSoonAfterItsTurn(t *testing.T) {
	for seed := range uint64(20) {
		f := standingSince(t, 5, seed)
		now, _ := f.next(10.9, 1e6, 100)
		if now > 10.9+6 {
			t.Errorf("the first dial %.1f s after the turn, want within the 6 s for which there has been demand", now-10.9)
		}
		for range 12 {
			f.dial(now, now, Busy)
			most := 1.5 * max(now-10, .5*(now-5)) // of its wait, and of its demand
			d := f.refused(now, 1)[0].Seconds()
			if d > min(most, 1.5*turnMost.Seconds()) {
				t.Errorf("%.1f s after the demand began: %.1f s between dials, want at most %.1f", now-5, d, most)
			}
			now += d
		}
	}
}

func TestPatienceMakesDialsRarer(t *testing.T) {
	count := func(patience float64) int {
		f := standing(t)
		f.cfg.Patience = patience
		n := 0
		for now := 10.9; now < 2000; n++ {
			next, _ := f.next(now, 1e6, 100)
			f.dial(next, next, Busy)
			now = next
		}
		return n
	}
	if one, two := count(1), count(2); two > one*2/3 {
		t.Errorf("%d dials, with twice the patience %d", one, two)
	}
}

// Equal waits, equal pauses, whatever came before: else the lucky would become luckier.
func TestThePauseFollowsTheWaitAndNotLuck(t *testing.T) {
	lucky, unlucky := standing(t), standing(t)
	for range 20 {
		unlucky.dial(11, 11, Busy)
	}
	sum := func(f *flow) (d time.Duration) {
		f.advance(at(100))
		for range 2000 {
			d += f.knock(at(100), false)
		}
		return d / 2000
	}
	if a, b := sum(lucky), sum(unlucky); max(a, b)-min(a, b) > a/20 {
		t.Errorf("%v between dials on average, after 20 refusals more %v", a, b)
	}
}

func TestTheSnapshotTellsOfTheShareAndTheWait(t *testing.T) {
	f := standing(t)
	if s := f.Snapshot(at(40)); s.Waiting != 30*time.Second || s.State != Sharing && s.State != Paused {
		t.Errorf("%+v", s)
	}
	f.connect(46, 1) // after 36 s
	f.busyAll(46)
	if s := f.Snapshot(at(47)); s.Waiting != 0 || s.State != Sharing || s.Share != .25 {
		t.Errorf("waiting %v, %v, share %v; want 12 s of each 48", s.Waiting, s.State, s.Share)
	}
	if s := f.Snapshot(at(50 + sharingFor.Seconds())); s.Share != 0 || s.State != Contended {
		t.Errorf("%v, share %v", s.State, s.Share)
	}
}

func TestAnIdlePlaceIsPricedOnceSomebodyWasRefused(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	if p := f.plan(1, 0); p.Linger != 5*time.Second {
		t.Errorf("never refused: linger %v", p.Linger)
	}
	f.lease.setup = 300 * time.Millisecond
	f.dial(1, 1, Busy)
	if p := f.plan(2, 0); p.Linger != f.lease.setup {
		t.Errorf("refused: linger %v, want what connecting takes", p.Linger)
	}
	if p := f.plan(2, 3); p.Linger != 5*time.Second {
		t.Errorf("with messages waiting: linger %v", p.Linger)
	}
	f.lease.lost = at(2)
	if p := f.plan(2, 0); p.Linger != 0 {
		t.Errorf("others wait: linger %v", p.Linger)
	}
	if p := f.plan(3+lingerPriced.Seconds(), 0); f.lease.contended() || p.Linger != 5*time.Second {
		t.Errorf("long after: linger %v", p.Linger)
	}
}

func TestAProcessWithLongPausesKeepsNoConnectionForThem(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	for s := 0.0; s < 200; s += 20 { // a message every 20 s
		f.plan(s, 1)
		f.SendStart(at(s), 1, 1, 1)
		f.done(s+.1, 1, OK)
		f.plan(s+.1, 0)
	}
	if p := f.plan(181, 0); p.Linger != lingerCost {
		t.Errorf("linger %v", p.Linger)
	}
}
