package flowctl

import (
	"slices"
	"time"
)

// Nobody tells a process that others wait for the places it holds: a full upstream refuses them, and answers us as ever. So a
// connection is held for a lease, closed, and its place left free for a moment, the yield. Whoever has been refused may take it; if it
// is still free afterwards, nobody wanted it, and it is taken again. That one reconnect is how an incumbent learns of others.

// Constants of leases. All times scale with Config.Scale.
const (
	calmLease     = time.Minute            // while nobody else is seen
	calmYield     = 500 * time.Millisecond // likewise
	sharedLease   = 12 * time.Second       // while somebody else is
	leaseSpread   = .25                    // of a lease or yield, either way, by chance: what began together shall not end together
	leaseSetups   = 50                     // a lease is at least so many times what it takes to connect
	leaseMessages = 10                     // and what so many messages take
	yieldTime     = 800 * time.Millisecond
	calmLooks     = 2    // at a place before it is taken for lost, while nobody else is seen;
	averageWeight = .125 // of one more in the averages of what connecting and messages take

	quietWon   = 100             // places taken again in a row,
	quietTime  = 5 * time.Minute // and time without losing one, after which nobody else is believed to be there
	stretchMax = 8               // leases become up to so many times longer by refusals for too many logins,
	stretchFor = time.Hour       // for so long
)

// leases is what the controller knows of those it shares the upstream with. The zero value: of nobody.
type leases struct {
	setup     time.Duration // what connecting takes, on average; 0: not known
	message   time.Duration // what a message takes, likewise
	yields    []place
	won       int       // places taken again since the last one was lost
	row       int       // probes accepted since a dial was refused
	lost      time.Time // when the last one was; zero: none, or so long ago that nobody else is believed to be there
	stretch   int       // factor; 0: 1
	stretchAt time.Time // when it last grew
	backends  backends
}

// place is one that we gave up.
type place struct {
	until  time.Time // nobody of ours before then
	looked int       // in vain, so far
	test   bool      // see backends
}

// contended says whether others have taken places of ours of late.
func (l *leases) contended() bool { return !l.lost.IsZero() && !l.backends.several }

// forgetOthers ends the belief that others hold connections, for who does not look at places: no connection of his lives for a whole
// lease. Else he would go on logging in for each message long after they have left.
func (c *Controller) forgetOthers(now time.Time) {
	if c.lease.contended() && now.Sub(c.lease.lost) >= c.cfg.scaled(lingerPriced) {
		c.lease.lost = time.Time{}
	}
}

// leaseFor returns how long a connection may be held.
func (c *Controller) leaseFor(now time.Time) time.Duration {
	d := c.cfg.scaled(calmLease)
	if c.lease.contended() {
		d = c.cfg.scaled(sharedLease)
	}
	if c.lease.stretch > 1 && now.Sub(c.lease.stretchAt) < c.cfg.scaled(stretchFor) {
		d *= time.Duration(c.lease.stretch)
	}
	return max(d, leaseSetups*c.lease.setup, leaseMessages*c.lease.message)
}

// spread returns d, more or less by chance.
func (c *Controller) spread(d time.Duration) time.Duration {
	return time.Duration((1 - leaseSpread + 2*leaseSpread*c.chance()) * float64(d))
}

// average takes one more duration into an average; 0 is none.
func average(d *time.Duration, took time.Duration) {
	took = min(took, timeMax)
	if *d == 0 {
		*d = took
	}
	if took > 0 {
		*d += time.Duration(averageWeight * float64(took-*d))
	}
}

// beginLease gives a new connection its lease.
func (c *Controller) beginLease(now time.Time, k *conn, took time.Duration) {
	average(&c.lease.setup, took)
	d := c.leaseFor(now)
	if c.slowStart {
		k.lease = now.Add(time.Duration(c.chance() * float64(d))) // as if some had begun long ago: all at once would end at once
		return
	}
	k.lease = now.Add(c.spread(d))
}

// endLeases marks the connections that have been held long enough.
func (c *Controller) endLeases(now time.Time, p *Plan) {
	if c.granted(now) || c.stop.on || c.down || c.dialAt.After(now) || c.sendAt.After(now) || c.dialing > 0 {
		return // a budget gives and takes by itself; what cannot be taken again is not given up; nor is it for a dial of our own
	}
	for i := range c.conns {
		k := &c.conns[i]
		switch {
		case !k.established || k.retiring:
		case k.lease.After(now):
			p.wakeAt(now, k.lease)
		default:
			k.retiring, k.yielding = true, true
		}
	}
}

// yield leaves a place free that was ours, and was looked for in vain so many times.
func (c *Controller) yield(now time.Time, looked int) {
	d := c.cfg.scaled(calmYield)
	if c.lease.contended() {
		d = c.cfg.scaled(yieldTime)
	}
	c.leave(place{until: now.Add(c.spread(d)), looked: looked})
}

func (c *Controller) leave(p place) {
	if len(c.lease.yields) < MaxConnsLimit {
		c.lease.yields = append(c.lease.yields, p)
	}
}

// yielding returns how many places are left free for now, and when the first of them is looked at.
func (c *Controller) yielding(now time.Time) (n int, next time.Time) {
	for _, p := range c.lease.yields {
		if p.until.After(now) {
			if n == 0 || p.until.Before(next) {
				next = p.until
			}
			n++
		}
	}
	return n, next
}

// forgetPlaces gives up what was left free and not looked at in time: the demand ended first, and that which begins now has no place.
func (c *Controller) forgetPlaces(now time.Time) {
	c.lease.yields = slices.DeleteFunc(c.lease.yields, func(p place) bool { return !p.until.After(now) })
}

// takeYield makes a dial the look at a place that was left free, if there is one whose time has come. It returns which look at it that
// is, from 1, 0 for none, and whether it repeats the one before at once.
func (c *Controller) takeYield(now time.Time) (look int, test bool) {
	for i, p := range c.lease.yields {
		if !p.until.After(now) {
			c.lease.yields = append(c.lease.yields[:i], c.lease.yields[i+1:]...)
			return p.looked + 1, p.test && now.Sub(p.until) < c.cfg.scaled(testWithin)
		}
	}
	return 0, false
}

// placeKept notes that a place left free was still there.
func (c *Controller) placeKept(now time.Time) {
	l := &c.lease
	l.won++
	if l.contended() && l.won >= quietWon && now.Sub(l.lost) >= c.cfg.scaled(quietTime) {
		l.lost = time.Time{}
		c.scheduleProbe(now, false)
	}
}

// placeLost notes that a place left free was not there at a look. It returns false when that says nothing about how many fit, and there
// may be another look: one stray refusal costs no connection while nobody else is seen.
func (c *Controller) placeLost(now time.Time, look int) bool {
	l := &c.lease
	calm := !l.contended()
	l.won, l.lost = 0, now
	if l.backends.several {
		if look < severalLooks {
			c.yield(now, look)
		}
		return false
	}
	if calm {
		c.shortenLeases(now)
		if look < calmLooks {
			c.yield(now, look)
			return false
		}
	}
	return true
}

// shortenLeases gives the leases that were begun when nobody else was seen the length that they have now.
func (c *Controller) shortenLeases(now time.Time) {
	for i := range c.conns {
		if k := &c.conns[i]; k.established {
			if end := now.Add(time.Duration(c.chance() * (1 + leaseSpread) * float64(c.leaseFor(now)))); end.Before(k.lease) {
				k.lease = end
			}
		}
	}
	c.scheduleProbe(now, false)
}

// stretchLeases makes reconnects rarer, for an upstream that counts logins.
func (c *Controller) stretchLeases(now time.Time) {
	l := &c.lease
	if now.Sub(l.stretchAt) >= c.cfg.scaled(stretchFor) {
		l.stretch = 1
	}
	l.stretch, l.stretchAt = min(2*max(l.stretch, 1), stretchMax), now
}
