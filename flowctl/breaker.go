package flowctl

import "time"

// Constants of pauses. All times scale with Config.Scale.
const (
	tripCohorts   = 2                      // so many times what could have answered must have failed in a row (Postfix: failed cohorts)
	tripMin       = 3                      // and never fewer failures than this
	redialMin     = 100 * time.Millisecond // before a dial to an address where the last one failed, doubling
	redialMax     = 30 * time.Second
	authMin       = time.Minute // without dials after too many logins, doubling
	authMax       = 30 * time.Minute
	rateMin       = time.Second // without transactions after a rate refusal, doubling
	rateMax       = time.Minute
	reputationMin = 5 * time.Minute
	reputationMax = 30 * time.Minute
	retryAfterMax = 4 * time.Hour // the longest pause that a reply may ask for
	addressesMax  = 64            // of one upstream
)

// address is one network address of the upstream and its circuit breaker: closed; or open, until a
// trial brings an answer.
type address struct {
	name        string
	established int
	dialing     int
	planned     int // dials in the plan being made
	fails       int // in a row without an answer
	wait        backoff
	retryAt     time.Time // no dial before
	open        bool
	openWait    time.Duration
	openUntil   time.Time // no trial before
	trial       ConnID    // dialled while open, or trying a transaction; 0: none
}

// backoff is a pause that doubles each time. The zero value begins at the minimum.
type backoff struct {
	wait time.Duration
	last time.Time
}

// next returns the pause to take. After a quiet time of twice the longest it begins anew.
func (b *backoff) next(now time.Time, least, most time.Duration) time.Duration {
	if b.wait == 0 || now.Sub(b.last) > 2*most {
		b.wait = least
	} else {
		b.wait = min(2*b.wait, most)
	}
	b.last = now
	return b.wait
}

// named returns the pause a reply asked for, within bounds; 0: none.
func named(o Outcome) time.Duration { return max(0, min(o.RetryAfter, retryAfterMax)) }

// SetAddresses replaces the upstream's addresses, in order of preference among equally loaded ones; what is
// known of those that stay is kept. Connections to others live on. Names beyond the first
// 64 and repeated ones are dropped; none at all means the one address "".
func (c *Controller) SetAddresses(now time.Time, addrs []string) {
	now = c.advance(now)
	next := make([]address, 0, max(len(addrs), 1))
	for _, name := range addrs {
		if len(next) >= addressesMax {
			break
		}
		next = addAddress(next, c.addrs, name)
	}
	if len(next) == 0 {
		next = addAddress(next, c.addrs, "")
	}
	c.addrs = next
	for i := range c.conns {
		c.conns[i].addr = c.lookup(c.conns[i].name)
	}
	c.recount()
	c.settle(now)
}

func addAddress(next, known []address, name string) []address {
	for i := range next {
		if next[i].name == name {
			return next
		}
	}
	for i := range known {
		if known[i].name == name {
			return append(next, known[i])
		}
	}
	return append(next, address{name: name})
}

// recount gives each address its connections again, after the list changed.
func (c *Controller) recount() {
	for i := range c.addrs {
		c.addrs[i].established, c.addrs[i].dialing = 0, 0
	}
	for i := range c.conns {
		k := &c.conns[i]
		a := c.address(k)
		switch {
		case a == nil:
		case k.established:
			a.established++
		default:
			a.dialing++
		}
	}
}

func (c *Controller) lookup(name string) int {
	for i := range c.addrs {
		if c.addrs[i].name == name {
			return i
		}
	}
	return unlisted
}

// failed counts an attempt at k's address that brought no answer. live is how many connections there
// could have answered, this one included.
func (c *Controller) failed(now time.Time, k *conn, live int, o Outcome) {
	a := c.address(k)
	if a == nil {
		return
	}
	a.fails++
	switch {
	case a.open && a.trial == k.id:
		c.open(now, a, o)
	case !a.open && a.fails >= max(tripMin, tripCohorts*min(live, int(c.width))):
		c.open(now, a, o)
		c.log.add(Move{At: now, What: "address", From: 1, To: 0, Reason: "no answer", Text: a.name})
	}
}

// open keeps everything from the address for a time drawn at random between the least and three times the
// last ("decorrelated jitter", M. Brooker, Exponential Backoff and Jitter, 2015), so that many processes do not come back together.
func (c *Controller) open(now time.Time, a *address, o Outcome) {
	least := c.cfg.OpenMin
	span := max(3*max(a.openWait, least)-least, 0)
	a.openWait = min(least+time.Duration(c.chance()*float64(span)), c.cfg.OpenMax)
	a.open, a.trial = true, 0
	a.openUntil = now.Add(max(a.openWait, named(o)))
}

// answered says that k's address lives.
func (c *Controller) answered(now time.Time, k *conn) {
	a := c.address(k)
	if a == nil {
		return
	}
	if a.open {
		c.log.add(Move{At: now, What: "address", From: 0, To: 1, Reason: reasonRestart, Text: a.name})
	}
	a.fails, a.open, a.openWait, a.trial = 0, false, 0, 0
}

// delayDial paces the dials to an address where one failed.
func (c *Controller) delayDial(now time.Time, a *address, atLeast time.Duration) {
	wait := c.jitter(a.wait.next(now, c.cfg.scaled(redialMin), c.cfg.scaled(redialMax)))
	a.retryAt = later(a.retryAt, now.Add(max(wait, atLeast)))
}

// pauseDials stops all dialling for a while; connections stay in use.
func (c *Controller) pauseDials(now time.Time, d time.Duration, reason string) {
	if t := now.Add(d); d > 0 && t.After(c.dialAt) {
		c.dialAt, c.dialReason = t, reason
	}
}

// pauseSends stops everything for a while.
func (c *Controller) pauseSends(now time.Time, d time.Duration, reason string) {
	if t := now.Add(d); t.After(c.sendAt) {
		c.sendAt, c.sendReason = t, reason
	}
}

// endTrial notes that k is gone, and with it what was to be tried on it.
func (c *Controller) endTrial(k *conn) {
	if a := c.address(k); a != nil && a.trial == k.id {
		a.trial = 0
	}
	if c.stop.trial == k.id {
		c.stop.trial = 0
	}
}

// allOpen says whether no address is believed to answer.
func (c *Controller) allOpen() bool {
	for i := range c.addrs {
		if !c.addrs[i].open {
			return false
		}
	}
	return true
}

// readyAt returns when the address may be dialled; ok is false while an event must come first.
func (a *address) readyAt() (t time.Time, ok bool) {
	switch inFlight := a.dialing + a.planned; {
	case a.open:
		return later(a.retryAt, a.openUntil), a.trial == 0 && inFlight == 0
	case a.fails > 0:
		return a.retryAt, inFlight == 0 // one at a time, until it answers
	default:
		return a.retryAt, true
	}
}

// pick returns the address to dial next: the one with the fewest connections of those that may be dialled
// now. Without one, wake is when the first may be; zero: not before an event.
func (c *Controller) pick(now time.Time) (best *address, wake time.Time) {
	for i := range c.addrs {
		a := &c.addrs[i]
		switch t, ok := a.readyAt(); {
		case !ok:
		case t.After(now):
			if wake.IsZero() || t.Before(wake) {
				wake = t
			}
		case best == nil || a.load() < best.load():
			best = a
		}
	}
	return best, wake
}

func (a *address) load() int { return a.established + a.dialing + a.planned }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// chance returns a number in [0, 1).
func (c *Controller) chance() float64 { return float64(c.rng.Uint64()>>11) / (1 << 53) }

// jitter returns d times a number in [0.5, 1.5).
func (c *Controller) jitter(d time.Duration) time.Duration {
	return time.Duration((0.5 + c.chance()) * float64(d))
}
