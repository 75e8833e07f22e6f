package model

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

func play(t *testing.T, s Scenario, seed uint64) *Result {
	t.Helper()
	r, err := Run(&s, Flowctl, seed, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A scenario with everything in it: bulk, bursts and single messages; pods that come and go; a limit that falls, connects that
// fail, a rate, and an outage.
func everything(seed uint64) Scenario {
	full := Server{Limit: 3, Backends: 2, Fails: .05, PerSecond: 40}
	low, down := full, full
	low.Limit, low.PerSecond = 1, 0
	down.Outage = Outage(1 + seed%2)
	return Scenario{
		Name: "everything", Config: flowctl.Config{MaxConns: 12}, Server: full, For: 4 * time.Minute, Warm: 10 * time.Second,
		Groups: []Group{
			{Pods: 3, Backlog: Endless, Spread: time.Second, Leave: 3 * time.Minute},
			{Pods: 4, Backlog: 300, Join: 20 * time.Second, Spread: time.Minute},
			{Pods: 30, PerSecond: 5, Spread: time.Second, Leave: 230 * time.Second},
		},
		Changes: []Change{{60 * time.Second, low}, {90 * time.Second, full}, {120 * time.Second, down}, {150 * time.Second, full}},
	}
}

func TestEqualSeedsGiveEqualResults(t *testing.T) {
	a, b, c := play(t, everything(1), 1), play(t, everything(1), 1), play(t, everything(1), 2)
	if !reflect.DeepEqual(a, b) {
		t.Error("two runs of one seed differ")
	}
	if reflect.DeepEqual(a.Bins, c.Bins) {
		t.Error("runs of two seeds are the same: the seed decides nothing")
	}
}

func TestNothingIsLost(t *testing.T) {
	var all Totals
	for seed := range uint64(8) {
		r := play(t, everything(seed), seed)
		n := &r.Totals
		t.Logf("seed %d: %+v", seed, *n)
		if sum := n.Accepted + n.Refused + n.Failed + n.Dialling; n.Dials != sum {
			t.Errorf("seed %d: %d dials began and %d are accounted for", seed, n.Dials, sum)
		}
		if sum := n.Sent + n.Throttled + n.Cut + n.Sending; n.Starts != sum {
			t.Errorf("seed %d: %d transactions began and %d are accounted for", seed, n.Starts, sum)
		}
		if sum := n.FiniteSent + n.FiniteSending + n.Waiting; n.Offered != sum {
			t.Errorf("seed %d: %d messages were offered and %d are accounted for", seed, n.Offered, sum)
		}
		sum, delivered := r.Sum(0, r.For), 0
		for _, p := range r.Pods {
			delivered += p.Delivered
		}
		if delivered != n.Sent || int(sum.Sent) != n.Sent || int(sum.Dials) != n.Dials {
			t.Errorf("seed %d: pods have %d, bins %d, totals %d messages; bins %d, totals %d dials", seed, delivered, sum.Sent, n.Sent, sum.Dials, n.Dials)
		}
		all.Throttled, all.Cut, all.Refused = all.Throttled+n.Throttled, all.Cut+n.Cut, all.Refused+n.Refused
		all.Failed, all.FiniteSent = all.Failed+n.Failed, all.FiniteSent+n.FiniteSent
	}
	if n := &all; n.Throttled == 0 || n.Cut == 0 || n.Refused == 0 || n.Failed == 0 || n.FiniteSent == 0 {
		t.Errorf("something never happened with any seed, so the test says nothing of it: %+v", *n)
	}
}

func TestTheServerNeverServesMoreThanItsLimit(t *testing.T) {
	for seed := range uint64(4) {
		s := Scenario{
			Name: "limit", Groups: []Group{{Pods: 9, Backlog: Endless, Spread: time.Second}, {Pods: 50, PerSecond: 5}},
			Server: Server{Limit: 2, Backends: 3}, For: 3 * time.Minute,
		}
		n := play(t, s, seed).Totals
		if n.MostHeld != 2 || n.MostSending > 6 || n.MostSending < 4 {
			t.Errorf("seed %d: %d held at one backend, %d sending, want 2 and nearly 6, no more", seed, n.MostHeld, n.MostSending)
		}
	}
}

// A limit that falls takes the places of those who are too many as soon as their message is done.
func TestALimitThatFallsIsInForceAfterTheMessage(t *testing.T) {
	const fall = 30 * time.Second
	r := play(t, Scenario{
		Name: "fall", Groups: []Group{{Pods: 2, Backlog: Endless}}, Server: Server{Limit: 6}, For: time.Minute,
		Changes: []Change{{fall, Server{Limit: 2}}},
	}, 1)
	if before := r.Util(10*time.Second, fall, 6); before < .9 {
		t.Errorf("before the fall %.2f of 6 slots were used, want nearly all", before)
	}
	if after := float64(r.Sum(fall+time.Second, r.For).Busy) / float64(29*time.Second); after > 2.001 || after < 1 {
		t.Errorf("after the fall %.2f connections work in the mean, want 2 or little less", after)
	}
}

// What is said of the slot in the package's comment: a connection that never ends uses all of it.
func TestASlotInUseDeliversItsTime(t *testing.T) {
	r := play(t, Scenario{Name: "one", Groups: []Group{{Pods: 1, Backlog: Endless}}, Server: Server{Limit: 1}, For: time.Hour, Warm: time.Minute}, 1)
	if u := r.Util(r.Warm, r.For, 1); u < .97 || u > 1.001 {
		t.Errorf("utilisation of one slot %.4f, want nearly 1", u)
	}
	s := r.Sum(r.Warm, r.For)
	if mean := time.Duration(s.Work / int64(s.Sent)); mean < 98*time.Millisecond || mean > 102*time.Millisecond {
		t.Errorf("a message takes %v in the mean, want 100 ms", mean)
	}
}

// An upstream with a knee delivers no more than it would at full speed, however many share it, and makes each wait for it.
func TestBeyondTheKneeMoreConnectionsDeliverNoMore(t *testing.T) {
	r := play(t, Scenario{
		Name: "knee", Config: flowctl.Config{MaxConns: 20}, Groups: []Group{{Pods: 4, Backlog: Endless}},
		Server: Server{Knee: 5, Limit: 40}, For: 10 * time.Minute, Warm: time.Minute,
	}, 1)
	s := r.Sum(r.Warm, r.For)
	width, slowed := float64(s.Busy)/float64(r.For-r.Warm), float64(s.Took)/float64(s.Work)
	if u := r.Util(r.Warm, r.For, 5); math.Abs(u-1) > .01 {
		t.Errorf("delivered %.3f of what full speed allows, want all of it", u)
	}
	if width < 6 || math.Abs(slowed-width/5) > .02*slowed {
		t.Errorf("%.1f connections at a knee of 5 and messages take %.2f times as long, want more than the knee and their ratio", width, slowed)
	}
}

func TestTheRateLimitHolds(t *testing.T) {
	r := play(t, Scenario{
		Name: "rate", Groups: []Group{{Pods: 5, Backlog: Endless}}, Server: Server{PerSecond: 14}, For: 10 * time.Minute, Warm: time.Minute,
	}, 1)
	s := r.Sum(r.Warm, r.For)
	if most := int32(14*540 + 14); s.Sent > most || s.Throttled == 0 {
		t.Errorf("%d messages passed and %d were refused in nine minutes at 14 a second, want at most %d and some", s.Sent, s.Throttled, most)
	}
}

func TestEventsHappenInTheirOrder(t *testing.T) {
	var h heap
	rng := rand.New(rand.NewPCG(1, 1))
	var want []int64
	for i := range 5000 {
		if i%3 == 2 {
			e := h.pop()
			at := slices.Index(want, slices.Min(want))
			if e.at != want[at] {
				t.Fatalf("event %d is of %d, want %d", i, e.at, want[at])
			}
			want = slices.Delete(want, at, at+1)
			continue
		}
		at := rng.Int64N(100)
		h.push(event{at: at})
		want = append(want, at)
	}
	var last event
	for len(h.list) > 0 {
		e := h.pop()
		if e.at < last.at || e.at == last.at && e.seq < last.seq {
			t.Fatalf("%+v came after %+v", e, last)
		}
		last = e
	}
}

func TestAReplayFindsALawThatIsNotDeterministic(t *testing.T) {
	s := Scenario{Name: "few", Groups: []Group{{Pods: 3, Backlog: Endless}}, Server: Server{Limit: 4}, For: time.Minute}
	r, err := RunReplay(&s, Flowctl, 1, Options{})
	if err != nil || r.Replay.Differs != 0 || r.Replay.Steps < 1000 {
		t.Fatalf("%+v, %v, want the same plans again", r.Replay, err)
	}
	made := uint64(0)
	r, err = RunReplay(&s, func(team *Team, pod int, seed uint64, now time.Time) (Law, error) {
		made++
		return Flowctl(team, pod, seed+made, now) // another chance each time
	}, 1, Options{})
	if err != nil || r.Replay.Differs == 0 {
		t.Errorf("%+v, %v, want plans that differ", r.Replay, err)
	}
}

func TestWhatTheModelCannotPlayIsRefused(t *testing.T) {
	for _, s := range []Scenario{
		{Groups: make([]Group, groupsMax+1)},
		{Server: Server{Knee: 3}, Changes: []Change{{0, Server{Knee: 3, Outage: Refuses}}}},
		{Changes: []Change{{0, Server{Knee: 3}}}},
		{Groups: []Group{{Pods: 1, Backlog: 1}}, Config: flowctl.Config{MaxConns: -1}, For: time.Second},
	} {
		if _, err := Run(&s, Flowctl, 1, Options{}); err == nil {
			t.Errorf("%+v was played", s)
		}
	}
}

func TestQuantilesAreWithinTheStep(t *testing.T) {
	var h Histogram
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Second)
	}
	for _, q := range []float64{.01, .5, .99} {
		got, want := h.Quantile(q).Seconds(), 1000*q
		if got < want || got > want*1.03 {
			t.Errorf("quantile %v is %.1f, want %.1f or a little more", q, got, want)
		}
	}
}
