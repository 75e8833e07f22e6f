package queue

import (
	"fmt"
	"testing"
	"time"
)

// Lanes share the messages and nothing else: each has its own turns, counts and clock, whatever the other one does.
func TestALaneSeesItsOwnDeliveriesOnly(t *testing.T) {
	q := New(cfg, 1, start)
	a, b := q.Lane(0), q.Lane(1)
	q.Add(start, 1, start, 5, []Group{{Key: "x.example", To: []int{0, 1}}, {Lane: 1, Key: "x.example", To: []int{2, 3, 4}}})
	if a.Ready(start) != 1 || b.Ready(start) != 1 || q.Stats().Ready != 2 || q.Stats().Messages != 1 {
		t.Errorf("ready %d and %d, %+v", a.Ready(start), b.Ready(start), q.Stats())
	}
	d := next(t, b, start)
	if d.Lane != 1 || fmt.Sprint(d.To) != "[2 3 4]" || d.Last {
		t.Errorf("%+v", d)
	}
	wantNothing(t, b, start)
	part := q.Split(d.Ref, []int{4}, "y.example")
	q.Narrow(d.Ref, []int{2, 3})
	q.Return(part, d.Since)
	q.Return(d.Ref, d.Since)
	if a.Ready(start) != 1 || b.Ready(start) != 2 {
		t.Errorf("ready %d and %d: what was split has changed its lane", a.Ready(start), b.Ready(start))
	}
	for _, want := range []string{"[4]", "[2 3]"} {
		if d := next(t, b, start); d.Lane != 1 || fmt.Sprint(d.To) != want {
			t.Errorf("%+v, want %s", d, want)
		}
	}
	wantNothing(t, b, start)
	if d := next(t, a, start); d.Lane != 0 || fmt.Sprint(d.To) != "[0 1]" || q.End(d.Ref) {
		t.Errorf("%+v", d)
	}
	if c := a.Counts(); c != (Stats{}) || b.Counts().InFlight != 2 || q.Stats().Messages != 1 {
		t.Errorf("%+v, %+v", c, b.Counts())
	}
}

func TestAHoldStopsTheClockOfItsLaneOnly(t *testing.T) {
	for held := range 2 {
		q := New(cfg, 1, start)
		lanes := []*Lane{q.Lane(0), q.Lane(1)}
		q.Add(start, 1, start, 2, []Group{{Key: "x", To: []int{0}}, {Lane: 1, Key: "x", To: []int{1}}})
		lanes[held].StopClock(start.Add(time.Hour))
		for n, l := range lanes {
			now := start.Add(cfg.ExpireAfter + time.Minute)
			d := next(t, l, now)
			if got := q.Expired(now, d.Ref); got != (n != held) {
				t.Errorf("lane %d is held, and in lane %d it is %v that mail has expired", held, n, got)
			}
			q.Return(d.Ref, d.Since)
		}
	}
}

// Probes take from the back. So in a lane that is held what was tried goes to the front, and in another one to the back.
func TestWhatIsTriedAgainGoesToTheFrontOfAHeldLaneOnly(t *testing.T) {
	for held := range 2 {
		q := New(cfg, 1, start)
		lanes := []*Lane{q.Lane(0), q.Lane(1)}
		lanes[held].StopClock(start)
		for n, l := range lanes {
			q.Add(start, 1, start, 1, []Group{{Lane: n, Key: "x"}})
			tried := next(t, l, start)
			q.Defer(start, tried.Ref, ByUpstream, 0)
			q.Add(start, 2, start, 1, []Group{{Lane: n, Key: "x"}})
			first := next(t, l, start.Add(time.Minute))
			if got := first.Ref == tried.Ref; got != (n == held) {
				t.Errorf("lane %d is held: in lane %d what was tried goes first: %v", held, n, got)
			}
		}
	}
}
