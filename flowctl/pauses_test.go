package flowctl

import (
	"testing"
	"time"
)

// next follows the plan's wakes from s seconds until it dials or sends, at most to most, and returns when.
func (f *flow) next(s, most float64, ready int) (float64, Plan) {
	f.t.Helper()
	for range 1000 {
		p := f.plan(s, ready)
		if len(p.Dial) > 0 || p.Send > 0 {
			return s, p
		}
		if p.Wake.IsZero() || !p.Wake.Before(at(most)) {
			return most, p
		}
		s = p.Wake.Sub(epoch).Seconds()
	}
	f.t.Fatal("woken without work too often")
	return 0, Plan{}
}

func TestTheBreakerOpensAfterTwoCohortsAndTriesOneByOne(t *testing.T) {
	f := newFlow(t, Config{})
	now := 0.0
	for i := range tripMin {
		var p Plan
		if now, p = f.next(now, 10, 50); len(p.Dial) != 1 {
			t.Fatalf("dial %d: %+v", i, p)
		}
		f.dial(now, now+.01, Unavailable)
		now += .01
	}
	p := f.plan(now, 50)
	if p.State != Open || !p.SendAt.After(at(now)) || !p.Wake.Equal(p.SendAt) {
		t.Fatalf("after %d failures: %+v", tripMin, p)
	}
	if now, p = f.next(now, 100, 50); len(p.Dial) != 1 {
		t.Fatalf("half open: %+v", p)
	}
	f.last++
	id := f.last
	f.DialStart(at(now), id, "")
	if p := f.plan(now, 50); p.State != HalfOpen || len(p.Dial) != 0 || p.Send != 0 {
		t.Fatalf("while trying: %+v", p)
	}
	f.DialDone(at(now), id, Outcome{})
	if p := f.plan(now, 50); p.State != HalfOpen || p.Send != 1 || p.Ahead != 0 || len(p.Dial) != 0 {
		t.Fatalf("connected: %+v", p)
	}
	f.SendStart(at(now), id, 1, 1)
	if p := f.plan(now, 50); p.Send != 0 || len(p.Dial) != 0 {
		t.Fatalf("sending: %+v", p)
	}
	f.done(now+1, id, OK)
	p = f.plan(now+1, 50)
	if p.State != SlowStart || f.width != restartWidth || len(p.Dial) != restartWidth-1 {
		t.Errorf("answered: %+v, width %v", p, f.width)
	}
}

func TestAnAddressThatFailedIsDialledOneByOne(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	f.busyAll(0)
	f.width = 10
	if p := f.plan(0, 50); len(p.Dial) != MaxDials {
		t.Fatalf("%d dials", len(p.Dial))
	}
	f.dial(0, 0, Unavailable)
	if p := f.plan(0, 50); len(p.Dial) != 0 || p.Wake.IsZero() || p.Wake.After(at(.15)) {
		t.Fatalf("at once: %+v", p)
	}
	now, p := f.next(0, 1, 50)
	if len(p.Dial) != 1 {
		t.Fatalf("after the pause: %+v", p)
	}
	f.DialStart(at(now), 99, "")
	if p := f.plan(now, 50); len(p.Dial) != 0 {
		t.Errorf("while one dials: %+v", p)
	}
}

func TestAFailedTrialWaitsLonger(t *testing.T) {
	f := newFlow(t, Config{})
	now := 0.0
	dials := 0
	for now < 600 {
		var p Plan
		if now, p = f.next(now, 600, 50); len(p.Dial) == 0 {
			break
		}
		dials++
		f.dial(now, now+.01, Unavailable)
		now += .01
	}
	if dials < 12 || dials > 40 {
		t.Errorf("%d dials in ten minutes of outage", dials)
	}
}

func TestTimeoutsDoNotOpenItWhileAnotherConnectionSucceeds(t *testing.T) {
	f := calm(t, Config{}, 4)
	for i := range 100 {
		now := 2 + float64(i)
		f.dial(now, now+.1, Unavailable)
		f.dial(now, now+.1, Unavailable)
		f.done(now+.5, 1, PerMessage)
		f.SendStart(at(now+.6), 1, 1, 1)
		if p := f.plan(now+.6, 0); p.State != Calm {
			t.Fatalf("state %v after %d failures", p.State, i)
		}
	}
	f.want(4, 4)
}

func TestAnyAnswerClosesTheBreaker(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	f.busyAll(0)
	for range 4 {
		f.dial(1, 2, Unavailable)
	}
	if p := f.plan(2, 5); p.State != Open {
		t.Fatalf("state %v", p.State)
	}
	f.done(3, 1, Permanent) // a transaction that hung since before
	if p := f.plan(3, 5); p.State != SlowStart || p.Send != 1 {
		t.Errorf("%+v", p)
	}
}

func TestOneBadAddressDoesNotStopTheOthers(t *testing.T) {
	f := newFlow(t, Config{})
	f.SetAddresses(epoch, equals("a", "b", "a", "c"))
	f.width = 12
	named := map[string]int{}
	now := 0.0
	for i := range 60 {
		p := f.plan(now, 100)
		for _, addr := range append([]string(nil), p.Dial...) {
			named[addr]++
			f.last++
			f.DialStart(at(now), f.last, addr)
			class := OK
			if addr == "b" {
				class = Unavailable
			}
			f.DialDone(at(now), f.last, Outcome{Class: class})
			if class == OK {
				f.SendStart(at(now), f.last, 1, 1)
				f.done(now, f.last, OK)
				f.busyAll(now)
			}
		}
		if p.State == Open || p.State == HalfOpen {
			t.Fatalf("state %v at step %d", p.State, i)
		}
		now += 1
	}
	if f.established < 12 || named["a"] < 5 || named["c"] < 5 || named["b"] > 12 || named["b"] < 3 {
		t.Errorf("dials %v, %d established", named, f.established)
	}
	if s := f.Snapshot(at(now)); s.OpenAddrs != 1 || s.Addrs != 3 {
		t.Errorf("%d of %d addresses open", s.OpenAddrs, s.Addrs)
	}
	f.SetAddresses(at(now), equals("d"))
	f.Closed(at(now), f.conns[0].id, Outcome{}) // of an address that is gone
	if p := f.plan(now, 100); len(p.Dial) != 0 && p.Dial[0] != "d" {
		t.Errorf("dials %q", p.Dial)
	}
}

func TestAConnectionThatBringsNothingIsPacedLikeAFailedDial(t *testing.T) {
	f := newFlow(t, Config{})
	now, dials := 0.0, 0
	for now < 60 {
		var p Plan
		if now, p = f.next(now, 60, 10); len(p.Dial) == 0 {
			break
		}
		dials++
		id := f.connect(now, 1)
		f.SendStart(at(now), id, 1, 1)
		f.done(now, id, IdleClose)
		f.Closed(at(now), id, Outcome{Class: IdleClose})
	}
	if dials < 5 || dials > 15 {
		t.Errorf("%d dials in a minute, want a growing pause", dials)
	}
}

func TestTooManyLoginsStopTheDialsButNotTheSessions(t *testing.T) {
	f := calm(t, Config{}, 2)
	f.width, f.ceiling = 6, 6
	last := time.Duration(0)
	now := 2.0
	for i := range 6 {
		f.dial(now, now, AuthThrottle)
		f.dial(now, now, AuthThrottle) // together with the first
		f.done(now, 1, OK)
		p := f.plan(now, 100)
		wait := f.dialAt.Sub(at(now))
		if len(p.Dial) != 0 || p.Send != 1 || p.State != Calm {
			t.Fatalf("step %d: %+v", i, p)
		}
		f.SendStart(at(now), 1, 1, 1)
		if wait < authMin/2 || wait > 3*authMax/2 || i > 0 && wait < last/3 || f.authWait.wait != min(authMin<<i, authMax) {
			t.Errorf("step %d: pause %v after %v, step of the ladder %v", i, wait, last, f.authWait.wait)
		}
		last = wait
		now = f.dialAt.Sub(epoch).Seconds()
	}
}

func TestARateRefusalPausesAndLeavesTheWidth(t *testing.T) {
	f := calm(t, Config{}, 4)
	f.SendDone(at(2), 1, Outcome{Class: RateLimited, Stage: StageDot, RetryAfter: 7 * time.Second})
	f.SendDone(at(2.1), 2, Outcome{Class: RateLimited, Stage: StageDot, RetryAfter: 70 * time.Second}) // the same event
	f.want(4, 4)
	p := f.plan(2.1, 100)
	if p.State != Paused || p.Send != 0 || p.Ahead != 0 || len(p.Dial) != 0 || !p.SendAt.Equal(at(9)) || !p.Wake.Equal(at(9)) {
		t.Fatalf("%+v, want a pause to 9 s", p)
	}
	if p := f.plan(9, 100); p.State != Calm || p.Send == 0 {
		t.Errorf("after the pause: %+v", p)
	}
	f.want(4, 4)
}

func TestAConfiguredRateIsKept(t *testing.T) {
	f := newFlow(t, Config{PerSecond: 4})
	f.connect(0, 1)
	f.width = 20
	sent, now := 0, 0.0
	for {
		var p Plan
		if now, p = f.next(now, 100, 1000); p.Send == 0 {
			break
		}
		sent++
		f.SendStart(at(now), 1, 1, 1)
		f.done(now, 1, OK)
		if len(p.Dial) != 0 {
			t.Fatalf("dials %q for a rate that one connection carries", p.Dial)
		}
	}
	if sent < 396 || sent > 401 {
		t.Errorf("%d transactions in 100 s at 4/s", sent)
	}
}

func TestStopLetsOneTransactionThroughAtATime(t *testing.T) {
	f := calm(t, Config{}, 2)
	f.done(1.5, 1, OK)
	f.Stop(at(2), "password refused", time.Minute)
	f.done(3, 2, OK) // it began before the stop and proves nothing
	if p := f.plan(3, 9); p.State != Stopped || p.Reason != "password refused" || p.Send != 0 || !p.SendAt.Equal(at(62)) || !p.Wake.Equal(at(62)) {
		t.Fatalf("%+v", p)
	}
	if p := f.plan(62, 9); p.Send != 1 || p.Ahead != 0 || len(p.Dial) != 0 {
		t.Fatalf("at probe time: %+v", p)
	}
	f.SendStart(at(62), 1, 1, 1)
	if p := f.plan(62, 9); p.Send != 0 {
		t.Fatalf("while probing: %+v", p)
	}
	f.done(63, 1, Permanent)
	f.Closed(at(63), 1, Outcome{})
	f.Closed(at(63), 2, Outcome{})
	if p := f.plan(64, 9); p.State != Stopped || len(p.Dial) != 0 || !p.Wake.Equal(at(122)) {
		t.Fatalf("after a probe that failed: %+v", p)
	}
	if p := f.plan(122, 9); len(p.Dial) != 1 {
		t.Fatalf("no connection: %+v", p)
	}
	id := f.connect(122, 1)
	if p := f.plan(122, 9); p.Send != 1 {
		t.Fatalf("the connection dialled for the probe: %+v", p)
	}
	f.SendStart(at(122), id, 1, 1)
	f.done(123, id, OK)
	if p := f.plan(123, 9); p.State == Stopped || p.Send != 1 {
		t.Errorf("after a probe that succeeded: %+v", p)
	}
}

func TestAFailedProbeDialOfAStopWaitsForTheNext(t *testing.T) {
	f := newFlow(t, Config{})
	f.Stop(at(0), "password refused", time.Minute)
	for i := range 5 {
		due := 60 * float64(i+1)
		if now, p := f.next(due-59, 1e4, 9); now != due || len(p.Dial) != 1 {
			t.Fatalf("probe %d at %v s: %+v, want it at %v s", i, now, p, due)
		}
		f.dial(due, due+.5, Misconfigured)
	}
}

// Those after it come at the interval of the stop, however the probe ended.
func TestOneProbeOfAStopCanBeSentSooner(t *testing.T) {
	f := newFlow(t, Config{})
	f.ProbeSoon(at(0), time.Second)
	if p := f.plan(0, 9); p.State == Stopped || len(p.Dial) != 1 {
		t.Fatalf("without a stop: %+v", p)
	}
	f.Stop(at(0), "password refused", time.Hour)
	f.dial(3600, 3601, AuthThrottle) // the dials are paused too
	f.ProbeSoon(at(3610), 2*time.Second)
	if now, p := f.next(3610, 1e5, 9); now != 3612 || len(p.Dial) != 1 || p.State != Stopped {
		t.Fatalf("at %v: %+v", now, p)
	}
	id := f.connect(3612, 1)
	f.SendStart(at(3612), id, 1, 1)
	f.done(3613, id, PerMessage)
	if now, p := f.next(3613, 1e5, 9); now != 7212 || p.Send != 1 {
		t.Errorf("the one after it at %v: %+v", now, p)
	}
	f.Stop(at(8000), "held", 0)
	f.ProbeSoon(at(8000), 0)
	if p := f.plan(8001, 9); p.Send != 0 {
		t.Errorf("of a stop without probes: %+v", p)
	}
}

func TestStopWithoutProbesEndsByResumeOnly(t *testing.T) {
	f := calm(t, Config{}, 2)
	f.done(1.5, 1, OK)
	f.Stop(at(2), "held", 0)
	if p := f.plan(1e6, 9); p.State != Stopped || p.Send != 0 || !p.Wake.IsZero() || !p.SendAt.IsZero() {
		t.Fatalf("%+v", p)
	}
	f.Resume(at(1e6))
	if p := f.plan(1e6, 9); p.State != Calm || p.Send != 1 {
		t.Errorf("%+v", p)
	}
	f.want(2, 2)
}

func TestIdleClosesShortenTheLinger(t *testing.T) {
	for _, s := range []struct{ first, second, linger float64 }{
		{100, 100, 60}, // longer than we keep one anyway
		{30, 100, 24},
		{30, 50, 24}, // only ever shorter
		{50, 60, 40},
		{50, 50.5, 40},
		{3, 20, 2.4},
		{2.5, 20, 2},
	} {
		f := newFlow(t, Config{Linger: time.Minute})
		f.connect(0, 4)
		f.Closed(at(s.first), 1, Outcome{Class: IdleClose, Stage: StageIdle})
		f.Closed(at(s.second), 2, Outcome{Class: IdleClose, Stage: StageIdle})
		if got := f.plan(s.second, 0).Linger.Seconds(); got != s.linger {
			t.Errorf("closed after %v and %v s: linger %v s, want %v", s.first, s.second, got, s.linger)
		}
		if got := f.plan(s.second+3600, 0).Linger; got != time.Minute {
			t.Errorf("an hour later: linger %v", got)
		}
		f.want(4, 0) // nothing to do with the width
	}
}

func TestAnOverloadedTrialIsNoAnswer(t *testing.T) {
	f := newFlow(t, Config{})
	for range tripMin {
		f.dial(0, 0, Unavailable)
	}
	now, p := f.next(0, 100, 9)
	f.dial(now, now, Overload)
	if p = f.plan(now, 9); p.State != Open || len(p.Dial) != 0 || !p.Wake.After(at(now)) {
		t.Fatalf("after an overloaded dial: %+v", p)
	}
	now, _ = f.next(now, 1000, 9)
	id := f.connect(now, 1)
	f.SendStart(at(now), id, 1, 1)
	f.done(now, id, Overload)
	if p = f.plan(now, 9); p.State != Open || p.Send != 0 || !p.Wake.After(at(now)) {
		t.Fatalf("after an overloaded transaction: %+v", p)
	}
	_, p = f.next(now, 1000, 9)
	if p.Send != 1 || len(p.Dial) != 0 {
		t.Errorf("the idle connection is not tried: %+v", p)
	}
}

func TestARefusalForTheNumberClosesTheBreaker(t *testing.T) {
	f := newFlow(t, Config{})
	f.ceiling = 6
	for range tripMin {
		f.dial(0, 0, Unavailable)
	}
	now, _ := f.next(0, 100, 9)
	f.dial(now, now+.1, Busy)
	f.want(1, 1)
	if p := f.plan(now+.1, 9); p.State != Paused || p.Reason != reasonNoneFree {
		t.Errorf("%+v, want a pause because none is free", p)
	}
	f.connect(now+9, 1)
	f.busyAll(now + 9)
	if p := f.plan(now+9, 9); p.State != Sharing || f.livePeak(at(now)) != 6 { // somebody else has all there is
		t.Errorf("%+v, peak %d: the ceiling of before is forgotten", p, f.peak)
	}
}

func TestWhatAReplyNamesIsObeyed(t *testing.T) {
	for _, class := range []Class{RateLimited, Overload, Unavailable, AuthThrottle, Misconfigured, Busy} {
		f := newFlow(t, Config{})
		f.last++
		f.DialStart(epoch, f.last, "")
		f.DialDone(epoch, f.last, Outcome{Class: class, RetryAfter: 2 * time.Hour})
		if s, p := f.next(0, 1e5, 1); s != 7200 || len(p.Dial) != 1 {
			t.Errorf("%v: dials again after %v s, want 7200", class, s)
		}
	}
	f := newFlow(t, Config{})
	f.connect(0, 1)
	f.busyAll(0)
	f.SendDone(at(1), 1, Outcome{Class: Overload, RetryAfter: 30 * time.Second})
	if s, _ := f.next(1, 1e5, 1); s != 31 {
		t.Errorf("an overloaded transaction: sends again at %v s, want 31", s)
	}
	f.SendStart(at(40), 1, 1, 1)
	f.SendDone(at(41), 1, Outcome{Class: OK, RetryAfter: time.Hour})
	if s, _ := f.next(41, 1e5, 1); s != 41 {
		t.Errorf("a success: sends again at %v s", s)
	}
}

func TestReputationGoesToOneConnectionAndWaits(t *testing.T) {
	f := calm(t, Config{PerSecond: 100}, 6)
	f.done(2, 1, Reputation)
	f.done(2, 2, Reputation)
	f.want(1, 6)
	p := f.plan(2, 100)
	if p.State != Paused || p.Reason != reasonReputation || len(p.Retire) != 0 || p.SendAt.Before(at(2+150)) {
		t.Errorf("%+v, want nothing closed and a pause of minutes", p)
	}
	if r := f.Snapshot(at(2)).Rate; r != 50*rateBelow {
		t.Errorf("rate %v, want a little below half of 100", r)
	}
}

func TestAConnectionThatEndsInATransactionEndsTheTransaction(t *testing.T) {
	f := calm(t, Config{}, 4)
	f.Closed(at(2), 1, Outcome{Class: Overload, Stage: StageDot})
	f.want(2.8, 4)
	if f.busy != 3 || f.established != 3 {
		t.Errorf("%d busy of %d", f.busy, f.established)
	}
	f.SendDone(at(2), 1, Outcome{Class: Overload})
	f.want(2.8, 4)
	if n := f.Snapshot(at(2)).Counts.Unknown; n != 1 {
		t.Errorf("%d unknown events, want 1", n)
	}
}

func TestTheAddressesAreBounded(t *testing.T) {
	f := newFlow(t, Config{})
	var names []string
	for i := range 3 * addressesMax {
		names = append(names, string(rune('0'+i)))
	}
	f.SetAddresses(epoch, equals(names...))
	if len(f.addrs) != addressesMax {
		t.Errorf("%d addresses", len(f.addrs))
	}
	f.DialStart(epoch, 1, "nowhere")
	f.DialDone(epoch, 1, Outcome{Class: Unavailable})
	f.SetAddresses(epoch, nil)
	if p := f.plan(0, 1); len(p.Dial) != 1 || p.Dial[0] != "" {
		t.Errorf("dials %q, want the one address without a name", p.Dial)
	}
}
