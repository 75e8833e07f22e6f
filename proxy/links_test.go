package proxy

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// The dispatcher carries out plans. These tests have no connections behind the links: what would feed on them is the test.

// newCarrier returns a lane with a queue, a controller and established links that have been idle since noon plus
// their number in seconds, from 1.
func newCarrier(t *testing.T, links int) *lane {
	t.Helper()
	flow, err := flowctl.New(flowctl.Config{RecipientsPerDay: 500}, 1, noon)
	if err != nil {
		t.Fatal(err)
	}
	client, err := upstream.New(upstream.Config{URL: "smtp://relay.example"})
	if err != nil {
		t.Fatal(err)
	}
	q := queue.New(queue.Config{}, 1, noon)
	d := &lane{dispatcher: &dispatcher{queue: q}, name: "default", pool: &pool{client: client}, flow: flow, queue: q.Lane(0), links: map[flowctl.ConnID]*link{}}
	for id := flowctl.ConnID(1); int(id) <= links; id++ {
		l := &link{id: id, feed: make(chan *upstream.Job, maxFed), conn: new(upstream.Conn), idleSince: noon.Add(time.Duration(id) * time.Second)}
		d.links[id] = l
		flow.DialStart(noon, id, "")
		flow.DialDone(noon, id, flowctl.Outcome{})
	}
	return d
}

// closed returns which links were closed, as a set.
func (d *lane) closed() map[flowctl.ConnID]bool {
	set := map[flowctl.ConnID]bool{}
	for id, l := range d.links {
		if l.closing {
			set[id] = true
		}
	}
	return set
}

func wantClosed(t *testing.T, d *lane, want ...flowctl.ConnID) {
	t.Helper()
	got := d.closed()
	for _, id := range want {
		if !got[id] {
			t.Errorf("%d stays; closed are %v", id, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("closed are %v; want %v", got, want)
	}
}

func TestAConnectionForWhichAMessageIsBeingLoadedIsNotIdle(t *testing.T) {
	d := newCarrier(t, 4)
	d.closeIdle(noon.Add(time.Minute), 0, 2)
	wantClosed(t, d, 1, 2) // the next two are for 4 and 3, as idleLink chooses
	if l := d.idleLink(); l.id != 4 {
		t.Errorf("the next message is for %d", l.id)
	}
}

func TestConnectionsLeaveWhenTheyHaveBeenIdleForLong(t *testing.T) {
	d := newCarrier(t, 4)
	d.links[1].jobs = []*job{{}} // it is busy, whenever it was idle last
	next := d.closeIdle(noon.Add(10*time.Second), 7*time.Second, 0)
	wantClosed(t, d, 2, 3)
	if want := noon.Add(11 * time.Second); !next.Equal(want) {
		t.Errorf("looks again at %v; want %v", next, want)
	}
}

// The plan's linger is for as many as there are; the last one may stay longer, which the controller says when it has heard that
// the others have left.
func TestTheLastIdleConnectionIsAskedForAnew(t *testing.T) {
	d := newCarrier(t, 3)
	d.closeIdle(noon.Add(time.Minute), time.Second, 0)
	wantClosed(t, d, 1, 2)
	delete(d.links, 1)
	d.closeIdle(noon.Add(time.Minute), time.Second, 0)
	wantClosed(t, d, 2)
	delete(d.links, 2)
	d.closeIdle(noon.Add(time.Minute), time.Hour, 0)
	wantClosed(t, d)
	d.closeIdle(noon.Add(time.Minute), time.Second, 0)
	wantClosed(t, d, 3)
}

// feedTwo gives the link two messages, of which a connection would have begun with the first so many.
func feedTwo(t *testing.T, d *lane, l *link, begun int) {
	t.Helper()
	for id := range message.ID(2) {
		d.queue.Add(noon, id+1, noon, 1, []queue.Group{{Key: "a"}})
		next, _ := d.queue.Next(noon)
		j := &job{delivery: next}
		j.Tag = j
		d.prepared = append(d.prepared, j)
		d.feed(noon, l)
	}
	for range begun {
		<-l.feed
	}
}

func TestARetiredConnectionBeginsNothingMore(t *testing.T) {
	for begun := range 3 {
		d := newCarrier(t, 1)
		l := d.links[1]
		feedTwo(t, d, l, begun)
		d.retire(noon, []flowctl.ConnID{1})
		d.retire(noon, []flowctl.ConnID{1}) // a plan names it until it is gone
		if _, open := <-l.feed; open {
			t.Errorf("%d begun: it is fed on", begun)
		}
		if len(l.jobs) != begun || d.queue.Ready(noon) != 2-begun {
			t.Errorf("%d begun: %d stay and %d are queued again", begun, len(l.jobs), d.queue.Ready(noon))
		}
		if n := d.flow.Snapshot(noon).Busy; n != min(begun, 1) {
			t.Errorf("%d begun: %d busy", begun, n)
		}
		if next, ok := d.queue.Next(noon); ok && int(next.ID) != begun+1 {
			t.Errorf("%d begun: message %d comes next", begun, next.ID)
		}
	}
}

// The feed of a connection that is leaving is closed: it gives nothing back, and what it carries out stays its own.
func TestAHoldTakesNothingFromAConnectionThatIsLeaving(t *testing.T) {
	d := newCarrier(t, 1)
	d.log, d.recorder = zap.NewNop(), &recorder{entries: make(chan entry, 10)}
	l := d.links[1]
	feedTwo(t, d, l, 1)
	d.retire(noon, []flowctl.ConnID{1})
	d.hold(noon, flowctl.Outcome{Text: "535 no"}, time.Minute)
	if len(l.jobs) != 1 || d.queue.Ready(noon) != 1 || d.flow.Snapshot(noon).Busy != 1 {
		t.Errorf("%d jobs stay and %d are queued again, %d busy", len(l.jobs), d.queue.Ready(noon), d.flow.Snapshot(noon).Busy)
	}
}

// The connection goes on taking jobs while they are taken back: each is with one of the two, and both know with whom.
func TestWhatIsTakenBackIsNotWhatTheConnectionTakesMeanwhile(t *testing.T) {
	for round := range 2000 {
		l := &link{feed: make(chan *upstream.Job, maxFed)}
		for range maxFed {
			j := &job{}
			j.Tag = j
			l.jobs = append(l.jobs, j)
			l.feed <- &j.Job
		}
		stop, taken := make(chan struct{}), make(chan []*job)
		go func() {
			var js []*job
			defer func() { taken <- js }()
			for {
				select {
				case j := <-l.feed:
					js = append(js, j.Tag.(*job))
				case <-stop:
					return
				}
			}
		}()
		all := slices.Clone(l.jobs)
		back := l.unfed()
		close(stop)
		if with := <-taken; !slices.Equal(with, l.jobs) || len(back)+len(with) != len(all) {
			t.Fatalf("round %d: %d came back, %d are thought to be with the connection, %d are", round, len(back), len(l.jobs), len(with))
		}
	}
}

// A connection on which our own code fails leaves in doubt all that it had begun with, and nothing else.
func TestOurOwnFailureLeavesInDoubtWhatWasInFlight(t *testing.T) {
	for begun := range 3 {
		d := newCarrier(t, 1)
		d.log, d.recorder, d.reasons = zap.NewNop(), &recorder{entries: make(chan entry, 10)}, map[queue.Ref]string{}
		l := d.links[1]
		feedTwo(t, d, l, begun)
		for _, j := range l.jobs[:begun] {
			j.begun = true
		}
		d.ended(noon, l, flowctl.Outcome{Class: flowctl.PerMessage, Stage: flowctl.StageDot}, false)
		if n := int(d.counts.duplicatesPossible); n != max(begun, 1) || d.queue.Ready(noon) != 2-n {
			t.Errorf("%d begun: %d in doubt, %d queued again", begun, n, d.queue.Ready(noon))
		}
	}
}

func TestNoMessageMayBeSentBeforeItsTime(t *testing.T) {
	for _, tt := range []struct {
		name string
		plan flowctl.Plan
		want bool
	}{
		{"a connection is idle", flowctl.Plan{Send: 1}, true},
		{"waiting for a turn", flowctl.Plan{State: flowctl.Sharing, SendAt: noon.Add(time.Second)}, false},
		{"the time is not yet there", flowctl.Plan{Send: 1, SendAt: noon.Add(time.Second)}, false},
		{"the time is there", flowctl.Plan{Send: 1, SendAt: noon}, true},
		{"nothing can be dialled", flowctl.Plan{}, false},
	} {
		if got := maySend(noon, tt.plan); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestThePlanHearsSinceWhenTheOldestMessageWaits(t *testing.T) {
	d := newCarrier(t, 0)
	arrive := func(s int) {
		d.queue.Add(noon.Add(time.Duration(s)*time.Second), message.ID(s), noon, 1, []queue.Group{{Key: "a"}})
	}
	want := func(ready, since int) {
		t.Helper()
		got := d.demand(noon.Add(time.Minute))
		if got.Ready != ready || !got.Oldest.Equal(noon.Add(time.Duration(since)*time.Second)) {
			t.Errorf("%d since %v; want %d since %d s", got.Ready, got.Oldest.Sub(noon), ready, since)
		}
	}
	if got := d.demand(noon); got.Ready != 0 || !got.Oldest.IsZero() {
		t.Errorf("of nothing: %+v", got)
	}
	arrive(3)
	arrive(5)
	want(2, 3)
	next, _ := d.queue.Next(noon)
	d.loading++
	want(2, 3) // being loaded it still waits
	d.loading--
	d.prepared = append(d.prepared, &job{delivery: next})
	want(2, 3)
	d.prepared = nil // it was sent
	want(1, 5)
}
