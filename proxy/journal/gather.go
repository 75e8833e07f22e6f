package journal

import "time"

// gathering decides whether messages wait a moment before they are written and synced. Those whom a sync has just answered soon
// have their next message, while others already wait: left alone, the two groups take turns for ever, and every message
// waits for two syncs, the other group's and its own. One short pause brings them together for good.
//
// It is a state machine that never reads the clock. A lone sender never waits. Pauses in which not everybody came back were
// in vain, and become rare. The zero value is ready.
type gathering struct {
	begun time.Time // the sync that runs, or the last one
	want  int       // messages that end the pause; 0: there is none
	until time.Time // when it ends without them
	vain  int       // syncs that were skipped after the last pause that did; 0 when one was of use
	skip  int       // syncs that no pause follows
}

const (
	gatherWait  = 2 * time.Millisecond // the longest pause,
	gatherShare = 2                    // and which part of the sync before it: more would cost senders who come at random what others gain
	gatherMost  = 64                   // messages; so many share the cost of a sync well enough
	gatherSkip  = 256                  // the most syncs without a pause, so that those in vain cost less than a hundredth
)

// syncBegins is to be called when a sync begins.
func (g *gathering) syncBegins(now time.Time) { g.begun, g.want = now, 0 }

// syncEnded is to be called when it has ended well, and has answered so many messages while so many others waited.
func (g *gathering) syncEnded(now time.Time, answered, waiting int) {
	switch n := answered + waiting; {
	case answered == 0 || n < 2 || n > gatherMost:
	case g.skip > 0:
		g.skip--
	default:
		g.want = n
		g.until = now.Add(min(gatherWait, now.Sub(g.begun)/gatherShare))
	}
}

// waits says whether messages that may be written shall wait for more, n being there.
func (g *gathering) waits(now time.Time, n int) bool {
	switch {
	case g.want == 0:
		return false
	case n >= g.want:
		g.vain = 0
	case now.Before(g.until):
		return true
	default:
		g.vain = min(2*g.vain+1, gatherSkip)
		g.skip = g.vain
	}
	g.want = 0
	return false
}
