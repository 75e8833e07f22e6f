package flowctl

import (
	"math"
	"testing"
	"time"
)

// pour sends one transaction each 1/perSecond s from s on for d seconds, all accepted, and returns when it ended.
func (f *flow) pour(s, d, perSecond float64) float64 {
	for end := s + d; s < end-1e-9; s += 1 / perSecond {
		f.SendStart(at(s), 1, 1, 1)
		f.done(s, 1, OK)
	}
	return s
}

func (f *flow) tooFast(s float64) {
	f.SendStart(at(s), 1, 1, 1)
	f.done(s, 1, RateLimited)
}

func (f *flow) wantRate(what string, want float64) {
	f.t.Helper()
	if got := f.pace.ceiling; math.Abs(got-want) > want/50 {
		f.t.Errorf("%s: ceiling of the rate %.2f, want %.2f", what, got, want)
	}
}

// limited returns a flow whose rate of 10 a second was refused at 20 s.
func limited(t *testing.T) *flow {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	f.tooFast(f.pour(0, 20, 10))
	f.wantRate("10 a second were accepted", 10)
	return f
}

func TestARefusedRateIsRememberedAsWhatWasAccepted(t *testing.T) {
	f := limited(t)
	if got := f.Snapshot(at(20)).Rate; math.Abs(got-10*rateBelow) > .2 {
		t.Errorf("sends %.2f a second, want a little below 10", got)
	}
	if p := f.plan(20.5, 100); p.State == Paused {
		t.Errorf("%+v: a known rate needs no pause", p)
	}
}

// Of a burst that is answered together the refusals may be heard first.
func TestWhatWasUnderWayAtARefusalBelongsToWhatWasAccepted(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 42)
	f.pour(0, 20, 5)
	for id := ConnID(2); id <= 42; id++ {
		f.SendStart(at(19.9), id, 1, 1)
	}
	f.SendDone(at(20), 2, Outcome{Class: RateLimited, Stage: StageDot, Started: at(19.9)})
	f.wantRate("100 in 20 s were accepted so far", 5)
	for id := ConnID(3); id <= 42; id++ {
		f.SendDone(at(20), id, Outcome{Class: OK, Stage: StageDot, Started: at(19.9)})
	}
	f.wantRate("and 40 more", 7)
	if f.pace.accepted != 0 {
		t.Errorf("%d of them count twice", f.pace.accepted)
	}
	f.SendStart(at(21), 1, 1, 1)
	f.SendDone(at(21.5), 1, Outcome{Class: OK, Stage: StageDot, Started: at(21)})
	f.wantRate("one that was begun later", 7)
	if f.pace.accepted != 1 {
		t.Errorf("%d count for the next measurement, want 1", f.pace.accepted)
	}
	now := f.probe1(23)
	for id := ConnID(1); id <= 42; id++ {
		f.SendStart(at(now), id, 1, 1)
	}
	f.SendDone(at(now+.5), 1, Outcome{Class: RateLimited, Stage: StageDot, Started: at(now)})
	for id := ConnID(3); id <= 42; id++ {
		f.SendDone(at(now+.5), id, Outcome{Class: OK, Stage: StageDot, Started: at(now)})
	}
	f.wantRate("a probe is refused, and what was under way with it accepted", 7)
}

func TestOneRateRefusalCountsInTwoSeconds(t *testing.T) {
	f := limited(t)
	now := f.pour(20, .8, 10)
	f.tooFast(now)
	now = f.pour(now, .8, 10)
	f.tooFast(now)
	f.wantRate("two more within two seconds", 10)
	f.tooFast(f.pour(now, 4, 10))
	f.wantRate("one more later", 10*rateShave)
}

func TestARateThatFallsIsFollowedInSteps(t *testing.T) {
	f := limited(t)
	now := f.pour(20, 5, 2)
	f.tooFast(now)
	f.wantRate("only 2 a second were accepted", 10*(1-rateCut))
	now = f.pour(now, 5, 2)
	f.tooFast(now)
	f.wantRate("again", 10*(1-rateCut)*(1-rateCut))
}

// probe lets the time come for a probe of the rate and begins it.
func (f *flow) probe1(s float64) float64 {
	f.t.Helper()
	f.pace.short = true
	s = max(s, f.pace.probeAt.Sub(epoch).Seconds())
	f.plan(s, 100)
	if f.pace.probing == 0 {
		f.t.Fatalf("no probe at %v s: %+v", s, f.pace)
	}
	return s
}

func TestAProbeOfTheRateThatIsAcceptedRaisesIt(t *testing.T) {
	f := limited(t)
	now := f.probe1(20)
	if got, want := f.Snapshot(at(now)).Rate, 10+rateProbe*math.Sqrt(10); math.Abs(got-want) > .1 {
		t.Errorf("probes with %.2f a second, want %.2f", got, want)
	}
	f.pour(now, 2, 10)
	f.wantRate("20 accepted", 10+rateProbe*math.Sqrt(10))
	if f.pace.more != 2*rateProbe {
		t.Errorf("the next probe adds %v, want twice as much", f.pace.more)
	}
}

func TestAProbeOfTheRateThatIsRefusedLeavesItAndWaitsLonger(t *testing.T) {
	f := limited(t)
	for _, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
		now := f.probe1(f.pace.cutAt.Sub(epoch).Seconds() + 3)
		f.tooFast(now + .5)
		f.wantRate("a probe refused", 10)
		if f.pace.gap != want {
			t.Errorf("%v until the next, want %v", f.pace.gap, want)
		}
	}
}

func TestTheRateIsNotProbedWhileTheDemandIsBelowIt(t *testing.T) {
	f := limited(t)
	for s := 21.0; s < 400; s++ {
		f.plan(s, 0)
	}
	if f.pace.probing != 0 {
		t.Error("probes a rate that nobody needs")
	}
}

func TestWithoutARateToKnowARefusalPauses(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	f.pour(0, .5, 10)
	f.tooFast(.5)
	if p := f.plan(.5, 100); p.State != Paused || f.pace.ceiling != 0 {
		t.Errorf("%+v, ceiling %v", p, f.pace.ceiling)
	}
}

// What was handed to a connection before the pause begins behind the message that is under way, after the refusal.
func TestWhatBeginsDuringAPauseForTheRateMakesItNoLonger(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	f.pour(0, .5, 10)
	f.tooFast(.5)
	until := f.Snapshot(at(.5)).SendAt
	f.tooFast(.6)
	f.tooFast(.7)
	if got := f.Snapshot(at(.7)).SendAt; !got.Equal(until) || f.rateWait.wait != rateMin {
		t.Errorf("pauses until %v, and the next time for twice %v; want %v and twice %v", got, f.rateWait.wait, until, rateMin)
	}
}

func TestAVerySlowRateIsLearntToo(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	f.pour(0, 100, .1)
	f.tooFast(100)
	f.wantRate("one in ten seconds", .1)
}

// Of two processes behind one limit, the fast one comes down and the slow one up.
func TestWhoSharesARateComesToSendTheSame(t *testing.T) {
	a, b := limited(t), limited(t)
	a.pace.ceiling, b.pace.ceiling = 12, 2
	for range 400 { // a refusal each, and as many accepted probes
		for _, p := range []*pace{&a.pace, &b.pace} {
			p.more = rateProbe
			p.ceiling += p.step()
		}
		a.pace.ceiling *= 1 - (1-rateShave)*a.pace.ceiling/14 // refusals meet whoever sends more
		b.pace.ceiling *= 1 - (1-rateShave)*b.pace.ceiling/14
	}
	if r := a.pace.ceiling / b.pace.ceiling; r > 1.2 {
		t.Errorf("%.2f and %.2f a second", a.pace.ceiling, b.pace.ceiling)
	}
}

// A tenth of all times, and ten times the rate, is the same seen through a lens.
func TestAScaledRateIsProbedLikeAnyOther(t *testing.T) {
	plain, scaled := pace{ceiling: 1.4, more: rateProbe, scale: 1}, pace{ceiling: 14, more: rateProbe, scale: .1}
	if a, b := plain.step()*10, scaled.step(); math.Abs(a-b) > 1e-9 {
		t.Errorf("a probe adds %v, want %v", b, a)
	}
}
