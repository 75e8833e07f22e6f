package proxy

import (
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
)

// What the log hears of the flow control. Where others hold connections too, it moves every few seconds, and always in the same way.

const (
	// statePause is how long a state that was told with its reason is only counted when it comes again.
	statePause = 10 * time.Minute
	// stateStays is how long a state must have lasted to be told all the same: the last word of the log must be true.
	stateStays = time.Minute
	// statesMax bounds what is known of what was told.
	statesMax = 64
)

// teller decides which changes of state the log hears of. The zero value has told nothing.
type teller struct {
	told    map[string]time.Time // state and reason: when
	last    string               // of those, the last one
	current flowctl.Move         // the last change, told or not
	repeats int                  // changes that were not told since
	shared  bool                 // others hold connections too
}

func stateOf(m flowctl.Move) string { return m.ToState.String() + ": " + m.Reason }

// changed takes note of a change of state, and reports whether it is to be told now.
func (t *teller) changed(now time.Time, m flowctl.Move, pause time.Duration) bool {
	t.current = m
	switch m.ToState {
	case flowctl.Contended, flowctl.Sharing:
		t.shared = true
	case flowctl.Calm, flowctl.SlowStart:
		t.shared = false
	}
	if at, ok := t.told[stateOf(m)]; ok && now.Sub(at) < pause {
		t.repeats++
		return false
	}
	return true
}

// stays reports whether the state was not told when it began and has lasted.
func (t *teller) stays(now time.Time, least time.Duration) bool {
	return t.repeats > 0 && stateOf(t.current) != t.last && now.Sub(t.current.At) >= least
}

// tell notes that the current state is told, and returns how many changes were not since the last one.
func (t *teller) tell(now time.Time) (repeats int) {
	if len(t.told) >= statesMax || t.told == nil {
		t.told = map[string]time.Time{}
	}
	t.last = stateOf(t.current)
	t.told[t.last] = now
	repeats, t.repeats = t.repeats, 0
	return repeats
}

// logMoves tells what the controller changed and why.
func (d *lane) logMoves(now time.Time) {
	t := &d.teller
	for _, m := range d.flow.Moves() {
		switch m.What {
		case "state":
			if t.changed(now, m, d.scaled(statePause)) {
				d.logMove(m, false, zap.Int("repeats", t.tell(now)))
			} else {
				d.logMove(m, true)
			}
			continue
		case "ceiling", "rate", "session_cap":
			d.learnt.limits = true
		}
		// The width moves every few successes while it grows; the others do where it is shared.
		d.logMove(m, m.What == "width" || t.shared && (m.What == "ceiling" || m.What == "probe"))
	}
	for _, s := range d.pool.client.Steps() {
		log := d.log.Info
		if s.Down {
			log = d.log.Warn
		}
		log("pipelining", zap.String("what", s.From+" to "+s.To), zap.String("reason", hideAddresses(d.cfg.Log.Addresses, s.Reason)))
	}
	if t.stays(now, d.scaled(stateStays)) {
		d.logMove(t.current, false, zap.Int("repeats", t.tell(now)))
	}
}

func (d *lane) logMove(m flowctl.Move, quiet bool, more ...zap.Field) {
	log := d.log.Info
	if quiet {
		log = d.log.Debug
	}
	log("flow", append(more, zap.String("what", describe(m)),
		zap.String("reason", hideAddresses(d.cfg.Log.Addresses, m.Reason)), d.reply(m.Text))...)
}

// describe writes a move as "ceiling 0 to 20".
func describe(m flowctl.Move) string {
	switch m.What {
	case "":
		return ""
	case "state":
		return fmt.Sprintf("state %s to %s", m.FromState, m.ToState)
	}
	return fmt.Sprintf("%s %.4g to %.4g", m.What, m.From, m.To)
}
