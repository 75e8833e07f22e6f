package flowctl

import "time"

// An upstream may have enough of us without saying so: it only gets slower. Then a wider pool delivers no more, it just waits longer.
// No time of a message tells that apart from a long way or a busy day, but the delivered rate does: a width is worth keeping when the
// rate rose with it. The rates compared are of two widths, one right after the other, so nothing is remembered that could drift.

// Constants of the gain test. Times scale with Config.Scale.
const (
	gainUp      = 1.12 // the width tried, and at least one connection more;
	gainDown    = .9   // each third time a narrower one, and at least one less
	gainTurns   = 3
	gainPart    = .5              // a width is kept when the rate changed by at least this part as much, and given up when it changed by less
	gainSample  = 60              // transactions of a measurement,
	gainPerConn = 20              // and for each connection: the more there are, the finer is what must be told apart
	gainMin     = 2 * time.Second // between tests, doubled by each that changes nothing
	gainMax     = 2 * time.Minute
)

// gain is a test of the width under way, or the pause until the next. The zero value begins by measuring.
type gain struct {
	phase gainPhase
	base  float64   // the width before the test
	tried float64   // and in it
	rate  float64   // transactions a second at that width
	skip  int       // transactions until the clock starts
	count int       // since it started
	since time.Time // when it did
	turn  int
	gap   time.Duration
	next  time.Time // of the next test
}

type gainPhase uint8

const (
	gainMeasures gainPhase = iota // the rate at the width there is
	gainTries                     // and at another
	gainRests
)

// measureGain takes an answered transaction, when more was waiting than the width allowed.
func (c *Controller) measureGain(now time.Time) {
	g := &c.gain
	switch {
	case g.phase == gainRests && g.next.After(now):
		return
	case g.phase == gainRests:
		c.beginGain(now, gainMeasures)
	case g.phase == gainMeasures && g.base != c.width, g.phase == gainTries && g.tried != c.width: // something else moved it
		c.beginGain(now, gainMeasures)
	}
	if g.skip > 0 || g.count == 0 && c.held(now) < int(c.width) { // those begun under another width, or while it was not there yet
		g.skip = max(g.skip-1, 0)
		g.since = now
		return
	}
	g.count++
	if g.count < gainSample+gainPerConn*int(c.width) {
		return
	}
	r := float64(g.count) / max(now.Sub(g.since), time.Microsecond).Seconds()
	if g.phase == gainMeasures {
		g.rate = r
		c.tryWidth(now)
		return
	}
	c.judgeGain(now, r)
}

func (c *Controller) beginGain(now time.Time, phase gainPhase) {
	g := &c.gain
	if phase == gainMeasures {
		g.base = c.width
	}
	g.tried = c.width
	g.phase, g.skip, g.count, g.since = phase, int(c.width)+1, 0, now
}

// tryWidth begins to use another width: at the start twice as much.
func (c *Controller) tryWidth(now time.Time) {
	g := &c.gain
	w, limit := c.width, float64(c.growthLimit(now))
	g.turn++
	switch {
	case c.slowStart:
		w *= 2
	case g.turn%gainTurns == 0:
		w = max(min(w*gainDown, w-1), 1)
	default:
		w = max(w*gainUp, w+1)
	}
	if w = min(w, limit); int(w) == int(c.width) {
		if w >= limit {
			c.endSlowStart() // there is no wider to double to
		}
		c.restGain(now, false)
		return
	}
	c.setWidth(now, w, reasonGainTry, "")
	c.beginGain(now, gainTries)
}

// judgeGain keeps the width that was tried, or goes back.
func (c *Controller) judgeGain(now time.Time, r float64) {
	g := &c.gain
	wider, rose := c.width/g.base-1, r/g.rate-1
	keep := rose >= gainPart*wider // for a narrower one both are negative: the rate may fall by half as much
	switch {
	case !keep:
		c.setWidth(now, g.base, reasonNoGain, "")
		c.endSlowStart()
	case c.slowStart:
		c.beginGain(now, gainMeasures)
		return
	}
	c.restGain(now, keep)
}

func (c *Controller) restGain(now time.Time, moved bool) {
	g := &c.gain
	g.gap = min(max(2*g.gap, c.cfg.scaled(gainMin)), c.cfg.scaled(gainMax))
	if moved {
		g.gap = c.cfg.scaled(gainMin)
	}
	g.phase, g.next = gainRests, now.Add(c.jitter(g.gap))
}

// unmeasured ends a measurement: the demand, a rate or a pause held the rate back, and not the width.
func (c *Controller) unmeasured(now time.Time) {
	g := &c.gain
	switch g.phase {
	case gainTries:
		if g.tried == c.width {
			c.setWidth(now, g.base, reasonNoGain, "")
		}
		c.restGain(now, false)
	case gainMeasures:
		c.beginGain(now, gainMeasures)
	}
}
