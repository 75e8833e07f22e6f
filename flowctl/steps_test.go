package flowctl

import (
	"math"
	"testing"
	"time"
)

// at returns the instant s seconds after the epoch, to the nanosecond.
func at(s float64) time.Time { return epoch.Add(time.Duration(math.Round(s * 1e9))) }

// flow is a controller, with shorthand for the events of a test.
type flow struct {
	*Controller
	t      testing.TB
	last   ConnID
	leased bool // its leases end; else they do not get into the way of what a test is about
}

func newFlow(t testing.TB, cfg Config) *flow {
	t.Helper()
	c, err := New(cfg, 1, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return &flow{Controller: c, t: t}
}

// connect establishes n connections at s seconds and returns the ID of the first.
func (f *flow) connect(s float64, n int) ConnID {
	first := f.last + 1
	for range n {
		f.last++
		f.DialStart(at(s), f.last, f.addrs[0].Name)
		f.DialDone(at(s), f.last, Outcome{})
		if k := f.find(f.last); k != nil && !f.leased {
			k.lease = at(1e9)
		}
	}
	return first
}

// dial lets one dial begin at s seconds and end at e in class.
func (f *flow) dial(s, e float64, class Class) {
	f.last++
	f.DialStart(at(s), f.last, f.addrs[0].Name)
	f.DialDone(at(e), f.last, Outcome{Class: class, Stage: StageGreeting, Started: at(s)})
}

// busyAll starts a transaction on each idle connection at s seconds.
func (f *flow) busyAll(s float64) {
	for i := range f.conns {
		if k := &f.conns[i]; k.established && k.sending == 0 {
			f.SendStart(at(s), k.id, 1, 1)
		}
	}
}

func (f *flow) done(s float64, id ConnID, class Class) {
	f.SendDone(at(s), id, Outcome{Class: class, Stage: StageDot})
}

func (f *flow) plan(s float64, ready int) Plan { return f.Plan(at(s), Demand{Ready: ready}) }

func (f *flow) want(width float64, ceiling int) {
	f.t.Helper()
	if d := f.width - width; d > 1e-9 || d < -1e-9 || f.ceiling != ceiling {
		f.t.Errorf("width %.3f ceiling %d, want %.3f and %d", f.width, f.ceiling, width, ceiling)
	}
}

// calm returns a flow out of slow start with n busy connections, width n and ceiling n, at 1 s.
func calm(t testing.TB, cfg Config, n int) *flow {
	f := newFlow(t, cfg)
	f.connect(0, n)
	f.dial(0, 1, Busy)
	f.busyAll(1)
	f.want(float64(n), n)
	f.Moves()
	return f
}

func TestOneOverloadShrinksTheWidthOnce(t *testing.T) {
	f := calm(t, Config{}, 8)
	for i, s := range []struct {
		started, finished, width float64
	}{
		{1, 3, 5.6},
		{2, 4, 5.6}, // the same event: it started before the cut
		{3, 4, 5.6}, // at the same instant: not after it
		{5, 6, 3.92},
		{7, 8, 2.744},
		{9, 10, 1.9208},
		{11, 12, 1.34456},
		{13, 14, 1}, // never below
		{15, 16, 1},
	} {
		id := ConnID(i%8 + 1)
		f.busyAll(s.started)
		f.SendDone(at(s.finished), id, Outcome{Class: Overload, Stage: StageDot, Started: at(s.started)})
		f.want(s.width, 8)
	}
}

// A width cut by overload limits how many connections work, not how many there are: a server short of resources is not
// helped by logins.
func TestConnectionsBeyondACutFinishAndStayIdle(t *testing.T) {
	f := calm(t, Config{}, 8)
	f.done(2, 1, Overload)
	if p := f.plan(2, 100); int(f.width) != 5 || len(p.Retire) != 0 || p.Send != 0 || p.Ahead != 0 {
		t.Fatalf("%+v at width %v, want nothing closed and nothing begun", p, f.width)
	}
	f.done(3, 2, OK)
	if p := f.plan(3, 100); p.Send != 0 || p.Ahead != 0 || f.busy != 6 {
		t.Errorf("%+v with %d busy at width %v", p, f.busy, f.width)
	}
	f.done(3, 3, OK)
	f.done(3, 4, OK)
	if p := f.plan(3, 100); p.Send == 0 || len(p.Dial) != 0 || len(p.Retire) != 0 {
		t.Errorf("%+v with %d busy at width %v, want an idle one to go on", p, f.busy, f.width)
	}
}

func TestAProbeAcceptedAfterAFallGoesBackUpAtOnce(t *testing.T) {
	f := calm(t, Config{}, 12)
	for id := range ConnID(9) {
		f.Closed(at(2), id+1, Outcome{Class: Unavailable, Stage: StageIdle})
	}
	f.dial(3, 3, Busy)
	f.want(3, 3)
	f.gap = time.Minute
	f.dial(5, 5, Busy)
	if f.gap != f.cfg.ProbeMax/fallenProbeShare {
		t.Errorf("gap %v soon after a fall", f.gap)
	}
	id := f.connect(60, 1)
	f.busyAll(60)
	f.done(61, id, OK)
	f.busyAll(61)
	if p := f.plan(61, 100); p.State != SlowStart || p.Reason != reasonReturn {
		t.Fatalf("%+v", p)
	}
	f.done(62, id, OK)
	f.want(8, 4)
	f.dial(62, 62, Busy) // it is not all back
	f.want(4, 4)
	if f.livePeak(at(62)) != 0 || f.slowStart {
		t.Error("the peak is remembered although it is not there")
	}
}

func TestARefusedDialSaysExactlyWhatFits(t *testing.T) {
	f := newFlow(t, Config{MaxConns: 50})
	f.connect(0, 7)
	f.width = 16
	for range 4 {
		f.last++
		f.DialStart(at(1), f.last, "")
	}
	f.DialDone(at(2), f.last-3, Outcome{Class: Busy, Started: at(1)})
	f.want(7, 7)
	gap, next := f.gap, f.nextProbe
	f.DialDone(at(2), f.last-2, Outcome{Class: OK, Started: at(1)})
	f.want(8, 8) // it was accepted: a place had become free
	f.DialDone(at(2), f.last-1, Outcome{Class: Busy, Started: at(1)})
	f.DialDone(at(2.5), f.last, Outcome{Class: Busy, Started: at(1)})
	f.want(8, 8)
	if f.gap != gap || f.nextProbe != next {
		t.Errorf("one event moved the probe more than once: gap %v then %v", gap, f.gap)
	}
	if p := f.plan(2.5, 100); len(p.Retire) != 0 || p.Send != 8 || len(p.Dial) != 0 {
		t.Errorf("plan %+v, want 8 sends, no dial and no connection given up", p)
	}
}

func TestAConnectionJustClosedIsStillCountedThere(t *testing.T) {
	f := calm(t, Config{}, 5)
	f.Closed(at(10), 1, Outcome{Class: SessionCap})
	f.dial(10.01, 10.03, Busy)
	f.want(5, 5)
	if p := f.plan(10.03, 100); len(p.Dial) != 0 || !p.Wake.After(at(10.5)) {
		t.Errorf("refill refused and tried again at once: %+v", p)
	}
	f.dial(12, 12.02, Busy) // by now the place has been taken
	f.want(4, 4)
	if f.gap != f.cfg.ProbeMin {
		t.Errorf("gap %v: a refused refill counted as a probe", f.gap)
	}
}

func TestAProbeDoublesItsGapWhenRefusedAndShortensItWhenAccepted(t *testing.T) {
	f := calm(t, Config{ProbeMax: 10 * time.Second}, 3)
	now := 1.0
	for _, want := range []time.Duration{2, 4, 8, 10, 10} {
		p := f.plan(now, 10)
		if len(p.Dial) != 0 || !p.Wake.Equal(f.nextProbe) {
			t.Fatalf("before the gap is over: %+v, next probe %v", p, f.nextProbe)
		}
		now = f.nextProbe.Sub(epoch).Seconds()
		if p := f.plan(now, 10); len(p.Dial) != 1 {
			t.Fatalf("after the gap: %+v", p)
		}
		f.dial(now, now+.1, Busy)
		now += .1
		f.want(3, 3)
		if f.gap != want*time.Second {
			t.Fatalf("gap %v, want %v s", f.gap, want)
		}
	}
	now += 20
	f.last++
	id := f.last
	f.DialStart(at(now), id, "")
	f.DialDone(at(now), id, Outcome{})
	f.want(4, 4)
	if f.gap != 10*time.Second {
		t.Errorf("gap %v changed before the probe carried anything", f.gap)
	}
	f.SendStart(at(now), id, 1, 1)
	if p := f.plan(now, 10); len(p.Dial) != 0 {
		t.Errorf("dials %q above a ceiling that is not confirmed", p.Dial)
	}
	f.done(now+1, id, OK)
	if f.gap != 10*time.Second/probeEase {
		t.Errorf("gap %v after an accepted probe, want an eighth of 10 s", f.gap)
	}
}

func TestARefillOfALostConnectionIsNoProbe(t *testing.T) {
	f := calm(t, Config{}, 3)
	f.Closed(at(1.1), 2, Outcome{Class: SessionCap})
	if p := f.plan(1.1, 10); len(p.Dial) != 1 {
		t.Fatalf("a lost connection is not replaced: %+v", p)
	}
	gap, next := f.gap, f.nextProbe
	f.connect(1.2, 1)
	f.busyAll(1.2)
	f.done(1.3, f.last, OK)
	f.want(3, 3)
	if f.gap != gap || f.nextProbe != next || f.probe != 0 {
		t.Errorf("a refill counted as a probe")
	}
}

func TestARefusalAfterDataGivesUpOneConnectionOnce(t *testing.T) {
	f := calm(t, Config{}, 5)
	f.Closed(at(1.5), 5, Outcome{Class: SessionCap})
	f.connect(1.6, 1) // idle
	f.done(2, 1, Busy)
	f.want(3, 3) // four were busy
	f.done(2.1, 2, Busy)
	f.done(2.2, 3, Busy)
	f.want(3, 3)
	p := f.plan(2.2, 10)
	if len(p.Retire) != 2 || p.Send != 2 {
		t.Errorf("plan %+v, want two idle ones retired and two more sending", p)
	}
	again := f.plan(2.2, 10)
	if len(again.Retire) != 2 {
		t.Errorf("asked again, %d to retire", len(again.Retire))
	}
	for _, id := range p.Retire {
		if k := f.find(id); k.sending > 0 {
			t.Errorf("busy connection %d is retired before idle ones", id)
		}
	}
}

func TestARefusalAfterDataWithOneConnectionWaits(t *testing.T) {
	f := newFlow(t, Config{})
	f.connect(0, 1)
	last := 0.0
	for i := range 4 {
		now := float64(i) * 200
		f.SendStart(at(now), 1, 1, 1)
		f.done(now+1, 1, Busy)
		f.want(1, 1)
		p := f.plan(now+1, 5)
		wait := p.Wake.Sub(at(now + 1)).Seconds()
		if p.Send != 0 || p.State != Paused || wait < 0.5 || !p.SendAt.Equal(p.Wake) {
			t.Fatalf("plan %+v, want a pause", p)
		}
		if i < 3 && now < 120 && wait <= last/3.1 {
			t.Errorf("pause %v after %v", wait, last)
		}
		last = wait
	}
}

func TestWithNothingEstablishedARefusalPacesTheDials(t *testing.T) {
	f := newFlow(t, Config{})
	now, total := 0.0, 0
	for now < 600 {
		p := f.plan(now, 100)
		if p.State == Open {
			t.Fatal("a count refusal opened the breaker")
		}
		if len(p.Dial) == 0 {
			if p.State != Paused || !p.SendAt.Equal(p.Wake) || !p.Wake.After(at(now)) {
				t.Fatalf("at %v s: %+v", now, p)
			}
			now = p.Wake.Sub(epoch).Seconds()
			continue
		}
		if len(p.Dial) != 1 {
			t.Fatalf("%d dials at width 1", len(p.Dial))
		}
		total++
		f.dial(now, now+.02, Busy)
		now += .02
		f.want(1, 1)
	}
	if total < 20 || total > 50 { // at .5 s, .75 s, ... to a minute, and more often again from two minutes on
		t.Errorf("%d dials in ten minutes, want 20..50", total)
	}
}

func TestTheWidthGrowsOnlyWhenItWasTheLimit(t *testing.T) {
	f := calm(t, Config{}, 6)
	f.done(2, 1, Overload) // 4.2
	f.plan(2, 100)
	f.Closed(at(2), 1, Outcome{})
	f.Closed(at(2), 2, Outcome{Class: IdleClose})
	f.busyAll(3)
	before := f.width
	if f.established != 4 || f.busy != 4 {
		t.Fatalf("%d established, %d busy", f.established, f.busy)
	}
	ids := []ConnID{f.conns[0].id, f.conns[1].id, f.conns[2].id, f.conns[3].id}
	f.plan(3, 0) // nothing waits: the width holds nobody back
	f.done(3.1, ids[0], OK)
	f.want(before, 6)
	f.busyAll(3.1)
	if p := f.plan(3.1, 10); len(p.Dial) != 0 {
		t.Errorf("dials %q above a width that an overload cut", p.Dial)
	}
	f.done(3.2, ids[1], OK)
	f.want(before+1/before, 6)
	f.done(3.3, ids[2], OK) // only three were busy
	f.want(before+1/before, 6)
}

func TestSlowStartDoublesPerRound(t *testing.T) {
	f := newFlow(t, Config{})
	for round, want := range []int{1, 2, 4, 8, 16, 20, 20} {
		now := float64(round)
		f.plan(now, 1000)
		if int(f.width) != want {
			t.Fatalf("round %d: width %v, want %d", round, f.width, want)
		}
		for f.established < want {
			p := f.plan(now, 1000)
			if len(p.Dial) != min(MaxDials, want-f.established) {
				t.Fatalf("round %d with %d established: %d dials", round, f.established, len(p.Dial))
			}
			f.connect(now, len(p.Dial))
		}
		f.busyAll(now)
		f.plan(now, 1000)
		for id := range ConnID(want) {
			f.done(now+.5, id+1, Permanent) // the server answered: as good as taken
		}
	}
	if p := f.plan(10, 1000); p.State != Calm || p.Reason != reasonAtMax {
		t.Errorf("state %v (%s)", p.State, p.Reason)
	}
}

func TestWithoutDemandNothingIsDialled(t *testing.T) {
	f := newFlow(t, Config{})
	f.width = 10
	for _, s := range []struct{ ready, dials int }{{0, 0}, {-5, 0}, {1, 1}, {3, 3}, {1 << 40, MaxDials}} {
		if p := f.plan(1, s.ready); len(p.Dial) != s.dials || s.ready <= 0 && !p.Wake.IsZero() {
			t.Errorf("%d ready: %d dials, want %d; wake %v", s.ready, len(p.Dial), s.dials, p.Wake)
		}
	}
	f.connect(1, 1)
	if p := f.plan(1, 1); len(p.Dial) != 0 || p.Send != 1 {
		t.Errorf("one idle and one ready: %+v", p)
	}
}

// With a deeper queue there is more ahead, on each connection no more than it has room for and than its session may carry.
func TestAheadGoesAsDeepAsAConnectionMay(t *testing.T) {
	f := calm(t, Config{}, 3)
	for _, s := range []struct{ ready, depth, ahead int }{{9, 0, 3}, {9, 2, 3}, {9, 3, 6}, {100, 17, 48}, {5, 17, 5}, {9, 1, 0}} {
		if p := f.Plan(at(1), Demand{Ready: s.ready, Depth: s.depth}); p.Ahead != s.ahead {
			t.Errorf("%d ready, %d deep: %d ahead, want %d", s.ready, s.depth, p.Ahead, s.ahead)
		}
	}
	f.SendStart(at(1), 2, 1, 1)
	for id, room := range map[ConnID]int{1: 3, 2: 2, 9: 0} {
		if n := f.Room(at(1), id, 4); n != room {
			t.Errorf("connection %d has room for %d, want %d", id, n, room)
		}
	}
	f.cap.most, f.cap.at = 3, at(1)
	if n := f.Room(at(1), 2, 17); n != 1 {
		t.Errorf("a session of 3 with 2 under way has room for %d", n)
	}
}

func TestAheadIsWhatNoOtherConnectionCanTake(t *testing.T) {
	f := calm(t, Config{}, 3)
	for _, s := range []struct{ ready, ahead int }{{0, 0}, {1, 1}, {2, 2}, {9, 3}} {
		if p := f.plan(1, s.ready); p.Ahead != s.ahead || p.Send != 0 {
			t.Errorf("%d ready: %+v, want ahead %d", s.ready, p, s.ahead)
		}
	}
	f.done(1.1, 1, OK)
	if p := f.plan(1.1, 2); p.Send != 1 || p.Ahead != 1 {
		t.Errorf("one idle: %+v, want one to send and one ahead", p)
	}
	f.SendStart(at(1.1), 2, 1, 1)
	f.SendStart(at(1.1), 3, 1, 1)
	if p := f.plan(1.1, 9); p.Send != 1 || p.Ahead != 0 || f.busy != 2 {
		t.Errorf("with two queued: %+v, busy %d", p, f.busy)
	}
	f.done(1.2, 2, OK)
	if f.busy != 2 {
		t.Errorf("a connection with a queued transaction is not busy")
	}
}

func TestAGrantCapsTheWidthUntilItLapses(t *testing.T) {
	f := calm(t, Config{}, 5)
	f.SetHint(at(2), Hint{Grant: 2, Until: at(10)})
	p := f.plan(2, 100)
	if len(p.Retire) != 3 || !p.Wake.Equal(at(10)) {
		t.Fatalf("%+v, want 3 retired and a wake when the grant lapses", p)
	}
	for _, id := range p.Retire {
		f.Closed(at(3), id, Outcome{})
	}
	if p := f.plan(10, 100); len(p.Dial) != 3 {
		t.Errorf("after the grant: %+v, want the local law", p)
	}
	f.want(5, 5)
}

func TestReconfigureKeepsWhatWasLearnt(t *testing.T) {
	f := calm(t, Config{}, 6)
	if err := f.Reconfigure(at(2), Config{MaxConns: -1}); err == nil || f.cfg.MaxConns != 20 {
		t.Fatalf("a bad configuration: %v, maximum %d", err, f.cfg.MaxConns)
	}
	if err := f.Reconfigure(at(2), Config{MaxConns: 4}); err != nil {
		t.Fatal(err)
	}
	f.want(4, 6)
	if p := f.plan(2, 10); len(p.Retire) != 2 {
		t.Errorf("%+v, want 2 retired", p)
	}
}
