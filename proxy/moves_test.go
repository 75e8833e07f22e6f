package proxy

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
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

// While others hold connections too, the log tells that, and not each of the moves that it takes.
func TestTheLogOfAContendedUpstreamIsShort(t *testing.T) {
	in(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		w := newWorld(t, relay.Config{MaxConnections: 2, RTT: 20 * time.Millisecond, ServiceTime: 100 * time.Millisecond})
		w.finish()
		w.log = zap.New(core)
		w.start()
		// Somebody else takes a place, and leaves it again after a while, again and again.
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 100 {
				for range 20 {
					c, err := w.up.Dial(t.Context(), "tcp", "relay.example:25")
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(3 * time.Second)
					_ = c.Close() // it was somebody else's
				}
				time.Sleep(time.Second)
			}
		}()
		for i := 0; i < 100; i++ {
			w.send(200, 20, func(c *source.Config) { c.Name = strings.Repeat("n", i+1) })
			w.settle(10 * time.Minute)
		}
		<-done
		info, quiet := 0, 0
		for _, e := range logs.FilterMessage("flow").All() {
			what, _ := e.ContextMap()["what"].(string)
			if e.Level > zap.DebugLevel {
				info++
			} else if strings.HasPrefix(what, "ceiling") || strings.HasPrefix(what, "state") {
				quiet++
			}
		}
		t.Logf("%d lines, %d moves that are told to nobody but debuggers", info, quiet)
	})
}
