package flowctl

import "time"

// A process that holds no connection while others hold all asks again and again. How often must not follow its own luck: a process that
// was refused and therefore asks less is served less, and the fleet falls into those who have and those who wait. It follows
// what is equal for all in the same position: how long it has waited.

// Constants of turns. All times scale with Config.Scale, and where it says so with Config.Patience.
const (
	knockPerConn  = 6 * time.Second  // between dials for one connection more: as often as this for each there would be,
	knockCap      = 20 * time.Second // but not more rarely than this
	knockAccepted = .3               // of that, after one that was accepted: there may be room for more
	knockRow      = 6                // accepted in a row mean that others have left: each further one halves the pause,
	knockHalved   = 4                // so many times at most

	turnFirst = time.Minute       // within this, by chance, the first dial after a turn (Patience)
	turnLeast = 30 * time.Second  // then the pauses grow with the wait, from this (Patience)
	turnMost  = 100 * time.Second // to this (Patience),
	turnFair  = 130 * time.Second // and shrink in proportion to what the wait is beyond this: who has waited longest asks most often (Patience)
	turnHaste = 20                // down to such a part

	freshFor    = 30 * time.Second       // demand is fresh,
	freshMuch   = 20                     // and so many messages are much
	freshFirst  = 500 * time.Millisecond // the first pause of one that was idle before,
	freshGrowth = .5                     // the later ones as a part of its wait,
	freshMost   = time.Minute            // up to this

	pauseWeight = .25             // of a pause without demand in the average of them
	sharingFor  = 5 * time.Minute // after a wait the state is called Sharing
)

// turn is what the controller knows of its wait for a connection. The zero value: it does not wait.
type turn struct {
	wanting time.Time     // since when there has been demand; zero: there is none
	much    bool          // and at some time since it was much
	ended   time.Time     // when the last connection of several turns' demand went; zero: the demand has had no connection yet
	idle    time.Time     // since when there has been none; zero: there is
	pause   time.Duration // how long there was none, on average; 0: not known
	waits   bool          // refused, with nothing held
	alone   time.Time     // when it last was; zero: never
	waited  time.Duration // the last wait
}

// since returns when the wait began: with the last connection, or with the demand that has had none.
func (t *turn) since() time.Time { return later(t.ended, t.wanting) }

// shares says whether probes go by the law of those who share for long. Much that is fresh finds out by itself, and faster, what there is:
// others may have less to send, and be gone soon.
func (c *Controller) shares(now time.Time) bool {
	return c.lease.contended() && !c.fresh(now)
}

// fresh says whether there is much that has not waited for long.
func (c *Controller) fresh(now time.Time) bool {
	return c.turn.much && now.Sub(c.turn.wanting) < c.cfg.scaled(freshFor)
}

// noteMuch begins to probe anew when demand becomes much for the first time, if it is fresh then.
func (c *Controller) noteMuch(now time.Time, ready int) {
	if c.turn.much || ready < freshMuch {
		return
	}
	c.turn.much = true
	if c.fresh(now) && c.lease.contended() && c.ceiling > 0 {
		c.gap = c.cfg.ProbeMin
		c.scheduleProbe(now, false)
	}
}

// turnBegins ends a wait.
func (c *Controller) turnBegins(now time.Time, k *conn) {
	t := &c.turn
	if !t.waits {
		return
	}
	t.waits, t.alone = false, now
	t.waited = 0
	if k.look == 0 {
		t.waited = now.Sub(t.since())
		if c.lease.contended() {
			c.scheduleProbe(now, true)
		}
	}
}

// demand follows whether there is anything to send, and says whether that began just now. Demand that begins anew is fresh: it has had
// no turn.
func (t *turn) demand(now time.Time, any bool) (fresh bool) {
	switch {
	case any && t.wanting.IsZero():
		t.wanting = now
		if !t.idle.IsZero() {
			if t.pause == 0 {
				t.pause = now.Sub(t.idle)
			}
			t.pause += time.Duration(pauseWeight * float64(now.Sub(t.idle)-t.pause))
		}
		t.idle = time.Time{}
		return true
	case !any:
		t.ended, t.waits, t.much = time.Time{}, false, false
		if !t.wanting.IsZero() {
			t.wanting, t.idle = time.Time{}, now
		}
	}
	return false
}

// knock returns the pause until the next dial of a process that holds nothing. first: its turn has just ended.
//
// New demand knocks soon: a message now and then finds a place between the turns of those with much to send, who wait in line.
// Who has had a turn asks no later than its demand is old: where that is short, the others may be through as well.
func (c *Controller) knock(now time.Time, first bool) time.Duration {
	if first {
		return time.Duration(c.chance() * float64(min(c.patient(turnFirst), max(now.Sub(c.turn.wanting), c.cfg.scaled(freshFirst)))))
	}
	age := max(now.Sub(c.turn.since()), 0)
	var d time.Duration
	if c.turn.ended.IsZero() {
		d = min(max(time.Duration(freshGrowth*float64(age)), c.cfg.scaled(freshFirst)), c.cfg.scaled(freshMost))
	} else {
		young := max(time.Duration(freshGrowth*float64(now.Sub(c.turn.wanting))), c.cfg.scaled(freshFirst))
		d = min(max(age, min(c.patient(turnLeast), young)), c.patient(turnMost))
	}
	if haste := float64(age) / float64(c.patient(turnFair)); haste > 1 {
		d = time.Duration(float64(d) / min(haste, turnHaste))
	}
	return c.jitter(d)
}

func (c *Controller) patient(d time.Duration) time.Duration {
	return time.Duration(c.cfg.Patience * float64(c.cfg.scaled(d)))
}

// share is what part of one connection we get, where all share; 0: others do not hold all.
func (c *Controller) share(now time.Time) float64 {
	t := &c.turn
	if t.waited == 0 || now.Sub(t.alone) >= c.cfg.scaled(sharingFor) {
		return 0
	}
	lease := c.leaseFor(now)
	return float64(lease) / float64(lease+t.waited)
}

func (c *Controller) waiting(now time.Time) time.Duration {
	if !c.turn.waits || c.turn.wanting.IsZero() {
		return 0
	}
	return now.Sub(c.turn.since())
}
