package flowctl

import "time"

// dialFailed applies what a dial that did not become a connection says. k has left the table.
func (c *Controller) dialFailed(now time.Time, k *conn, o Outcome) {
	a := c.address(k)
	switch o.Class {
	case Unavailable:
		live := 1
		if a != nil {
			live += a.established + a.dialing
		}
		c.failed(now, k, live, o)
	case Overload:
		if c.othersServe(a) {
			c.failed(now, k, 1+a.established+a.dialing, o) // its own trouble: the width is not cut for one of several
			break
		}
		// Not told apart from a reply that never came, so no answer for the breaker, and no failure either.
		c.overloaded(now, o)
		if a != nil && a.open && a.trial == k.id {
			c.open(now, a, o)
		}
	case Busy:
		if c.othersServe(a) && a.established == 0 {
			c.failed(now, k, 1+a.dialing, o) // full, and not with ours: no word about how many the others take
			break
		}
		c.answered(now, k)
		c.settle(now) // a restart first, so that the refusal has the last word on the width
		c.countRefused(now, k, o)
		return // the address is well: nothing to pace but what countRefused did
	case AuthThrottle:
		c.answered(now, k)
		c.pauseForAuth(now, o)
	case RateLimited:
		c.answered(now, k)
		c.pauseDials(now, max(c.jitter(c.rateWait.next(now, c.cfg.scaled(rateMin), c.cfg.scaled(rateMax))), named(o)), reasonConnectRate)
	case Reputation:
		c.answered(now, k)
		c.distrusted(now, o)
	default:
		c.answered(now, k)
	}
	if a != nil && !a.open { // an open one has its own pause
		c.delayDial(now, a, named(o))
	}
}

// transaction applies what a transaction says. k is still counted as busy.
func (c *Controller) transaction(now time.Time, k *conn, o Outcome) {
	switch o.Class {
	case IdleClose, Overload, Unavailable:
	default:
		k.answered = true
		c.answered(now, k)
		if a := c.address(k); a != nil {
			a.wait = backoff{}
		}
		c.settle(now) // a restart first: the laws below act on its width
	}
	switch o.Class {
	case OK, PerMessage, Permanent:
		average(&c.lease.message, o.Took)
		if o.Class == OK && c.stop.on && !o.Started.Before(c.stop.at) {
			c.stop = stop{}
		}
		c.rateAccepted(now, o.Started)
		c.succeeded(now, k, o)
	case RateLimited:
		c.rateRefused(now, o)
	case Overload:
		c.overloaded(now, o)
		if o.RetryAfter > 0 {
			c.pauseSends(now, named(o), reasonOverload)
		}
		switch a := c.address(k); {
		case c.othersServe(a):
			c.failed(now, k, a.established+a.dialing, o) // one that is overloaded for good is given up
		case a != nil && a.open && a.trial == k.id:
			c.open(now, a, o)
		}
	case Busy:
		c.sendRefused(now, o)
	case Unavailable:
		live := 1
		if a := c.address(k); a != nil {
			live = a.established + a.dialing
		}
		c.failed(now, k, live, o)
	case Reputation:
		c.distrusted(now, o)
	case AuthThrottle:
		c.pauseForAuth(now, o)
	case IdleClose, SessionCap, Quota, Misconfigured:
		// No word about load. Quota and Misconfigured are the caller's to judge: it may call Stop.
	}
}

// pauseForAuth keeps the sessions there are and logs in no more for minutes.
func (c *Controller) pauseForAuth(now time.Time, o Outcome) {
	if c.dialAt.After(now) && c.dialReason == reasonAuth && !o.Started.After(c.authWait.last) {
		return // of the logins that were refused together, the first has said it
	}
	c.stretchLeases(now)
	wait := c.jitter(c.authWait.next(now, c.cfg.scaled(authMin), c.cfg.scaled(authMax)))
	c.pauseDials(now, max(wait, named(o)), reasonAuth)
}

// distrusted answers a block for what we send or who we are: as little as possible, and not soon.
func (c *Controller) distrusted(now time.Time, o Outcome) {
	if !o.Started.After(c.loadCut) {
		return
	}
	c.loadCut = now
	c.endSlowStart()
	c.setWidth(now, 1, reasonReputation, o.Text)
	c.cutRate(now, reasonReputation, o.Text)
	wait := c.jitter(c.reputation.next(now, c.cfg.scaled(reputationMin), c.cfg.scaled(reputationMax)))
	c.pauseSends(now, max(wait, named(o)), reasonReputation)
}
