package proxy

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/flowctl"
)

func move(s flowctl.State, reason string, at time.Time) flowctl.Move {
	return flowctl.Move{At: at, What: "state", ToState: s, Reason: reason}
}

// Processes that take turns go through the same states every few seconds, for days.
func TestAStateThatComesAgainAndAgainIsCounted(t *testing.T) {
	var tell teller
	told, repeats := 0, 0
	changes := 0
	for now := noon; now.Before(noon.Add(time.Hour)); now = now.Add(5 * time.Second) {
		m := move(flowctl.Sharing, "others hold connections too", now)
		if changes++; changes%2 == 0 {
			m = move(flowctl.Paused, "no connection free", now)
		}
		if tell.changed(now, m, statePause) {
			told++
			repeats += tell.tell(now)
		}
		if tell.stays(now, stateStays) {
			t.Fatal("nothing stays")
		}
	}
	if told > 2*7 || told < 4 {
		t.Errorf("told %d times in an hour", told)
	}
	if repeats+tell.repeats+told != changes {
		t.Errorf("%d changes: %d told, %d and %d counted", changes, told, repeats, tell.repeats)
	}
}

func TestTheLastStateThatTheLogNamesIsTheTrueOne(t *testing.T) {
	var tell teller
	calm := func(now time.Time) flowctl.Move { return move(flowctl.Calm, "refused", now) }
	paused := func(now time.Time) flowctl.Move { return move(flowctl.Paused, "rate", now) }
	now := noon
	for _, m := range []flowctl.Move{calm(now), paused(now)} {
		if !tell.changed(now, m, statePause) {
			t.Fatalf("%+v is new", m)
		}
		tell.tell(now)
	}
	now = now.Add(time.Minute)
	if tell.changed(now, calm(now), statePause) {
		t.Error("told again at once")
	}
	if tell.stays(now.Add(stateStays-1), stateStays) {
		t.Error("it has not lasted")
	}
	if now = now.Add(stateStays); !tell.stays(now, stateStays) {
		t.Error("the log says paused")
	}
	if tell.tell(now) != 1 || tell.stays(now.Add(time.Hour), stateStays) {
		t.Error("told twice")
	}
}

// rival takes a place of the relay, keeps it for a while, and does without one for as long, until ctx ends.
func (w *world) rival(ctx context.Context, keep time.Duration) {
	for ctx.Err() == nil {
		c, err := w.up.Dial(ctx, "tcp", "relay.example:25")
		if err != nil {
			return // ctx has ended
		}
		pause := 100 * time.Millisecond
		greeting := make([]byte, 3)
		if n, err := c.Read(greeting); err == nil && string(greeting[:n]) == "220" {
			pause = keep
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		_ = c.Close() // it has done its work
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// While others hold connections too, the log tells that, and not each of the moves that it takes.
func TestTheLogOfASharedUpstreamIsShort(t *testing.T) {
	in(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		w := newWorld(t, relay.Config{MaxConnections: 3, RTT: 20 * time.Millisecond, ServiceTime: 100 * time.Millisecond})
		w.finish()
		w.log = zap.New(core)
		w.start()
		ctx, cancel := context.WithCancel(t.Context())
		var rivals sync.WaitGroup
		for range 4 {
			rivals.Go(func() { w.rival(ctx, 5*time.Second) })
		}
		w.send(10000, 20)
		time.Sleep(30 * time.Minute)
		cancel()
		rivals.Wait()
		time.Sleep(20 * time.Minute)
		told, kept, limits, quietly := 0, 0, 0, 0
		var last string
		for _, e := range logs.FilterMessage("flow").All() {
			what, _ := e.ContextMap()["what"].(string)
			switch quiet := e.Level == zap.DebugLevel; {
			case strings.HasPrefix(what, "state") && quiet:
				kept++
			case strings.HasPrefix(what, "state"):
				told++
				last = what
			case strings.HasPrefix(what, "ceiling") && quiet:
				quietly++
			case strings.HasPrefix(what, "ceiling"):
				limits++
			}
		}
		if kept < 10 || quietly < 4 {
			t.Fatalf("%d changes of state and %d of limits are not told: nothing is tested", kept, quietly)
		}
		if told > 30 || limits > 3 {
			t.Errorf("in half an hour the log tells %d changes of state (and keeps %d) and %d limits", told, kept, limits)
		}
		refusals := logs.FilterMessage("no connection")
		if loud := refusals.Filter(func(e observer.LoggedEntry) bool { return e.Level > zap.DebugLevel }).Len(); loud > 5 || refusals.Len() < 50 {
			t.Errorf("of %d refusals %d are warned of", refusals.Len(), loud)
		}
		if state := w.proxy.Status().Upstream.State; !strings.HasSuffix(last, " to "+state) {
			t.Errorf("the log ends with %q, the state is %s", last, state)
		}
	})
}

// Who waits for a turn is well. A restart would not help, and would cost the place in the line.
func TestWaitingForATurnIsAlive(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxConnections: 1, RTT: 20 * time.Millisecond})
		ctx, cancel := context.WithCancel(t.Context())
		var rivals sync.WaitGroup
		rivals.Go(func() { w.rival(ctx, 24*time.Hour) })
		time.Sleep(time.Second)
		ledger := w.send(20, 2)
		for i := range 7200 {
			time.Sleep(time.Second)
			if err := w.proxy.Live(); err != nil {
				t.Fatalf("after %d s: %v", i, err)
			}
		}
		if s := w.proxy.Status(); s.Upstream.Waiting < 7000 || s.Queue.Pending != 20 || s.Queue.Deferred > 0 {
			t.Errorf("waiting %v s, %+v", s.Upstream.Waiting, s.Queue)
		}
		cancel()
		rivals.Wait()
		w.settle(time.Hour)
		w.arrived(ledger)
	})
}
