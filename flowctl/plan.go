package flowctl

import "time"

// demandMax bounds what a caller may claim, far from overflow.
const demandMax = 1 << 30

// Plan says what may happen now, given what waits. It is to be asked after events, when demand came, and
// at the Wake it named; it forgets nothing by being asked too often. Without demand nothing is dialled.
func (c *Controller) Plan(now time.Time, d Demand) Plan {
	now = c.advance(now)
	c.dialBuf = c.dialBuf[:0]
	c.excess = false
	c.lookAtDials(now)
	ready := max(0, min(d.Ready, demandMax))
	if c.turn.demand(now, ready > 0 || c.busy > 0) {
		c.forgetPlaces(now)
	}
	c.noteMuch(now, ready)
	var p Plan
	if ready > 0 && c.granted(now) {
		p.wakeAt(now, c.hint.Until)
	}
	c.forgetOthers(now)
	c.endLeases(now, &p)
	c.endFull(now)
	c.leaveOpen()
	c.retire(c.room(now))
	p.Retire, p.Linger = c.retireBuf, c.linger(now, ready)
	switch {
	case ready == 0:
	case c.stop.on:
		c.planStopped(now, &p)
	case c.sendAt.After(now):
		p.SendAt = c.sendAt
		p.wakeAt(now, c.sendAt)
	case c.quotaSpent(now, &p):
	case c.allOpen():
		c.planTrial(now, &p)
	default:
		c.planFlow(now, ready, d.Depth, &p)
	}
	if p.Send > 0 {
		p.Try = c.toTry()
	}
	p.State, p.Reason = c.settle(now)
	p.Dial = c.dialBuf
	return p
}

// allowed returns how many connections there may be, probes apart.
func (c *Controller) allowed(now time.Time) int {
	n := min(int(c.width), c.cfg.MaxConns)
	if c.granted(now) {
		n = min(n, max(c.hint.Grant, 0))
	}
	return n
}

// room returns how many connections may stay. A width cut by overload closes none: an idle one costs the upstream nothing, and
// closing it would cost a login when the width has grown again.
func (c *Controller) room(now time.Time) int {
	n := c.cfg.MaxConns
	if c.ceiling > 0 {
		n = min(n, c.ceiling)
	}
	if c.granted(now) {
		n = min(n, max(c.hint.Grant, 0))
	}
	return n
}

func (c *Controller) granted(now time.Time) bool { return c.hint.Until.After(now) }

// planFlow is the ordinary case.
func (c *Controller) planFlow(now time.Time, ready, depth int, p *Plan) {
	c.probeRate(now)
	tokens, tokenAt := c.pace.tokens(now)
	c.pace.short = tokens < ready
	if tokens == 0 {
		p.SendAt = tokenAt
		p.wakeAt(now, tokenAt)
	}
	left, _ := c.quotaLeft(now)
	ready = min(ready, tokens, left) // what the rate forbids needs no connection either
	allowed, idle := c.allowed(now), c.idle()
	c.excess = c.busy+ready > allowed
	p.Send = max(0, min(idle, allowed-c.busy, ready))
	yielding, look := c.yielding(now)
	need := min(allowed-yielding, c.busy+ready) - c.established - c.expecting
	p.wakeAt(now, c.lateAt)
	switch {
	case need > 0:
		c.planDials(now, c.atOnce(need), p)
	case c.excess && c.expecting == 0:
		c.planProbe(now, allowed, p)
	}
	if c.busy+ready > c.established && yielding > 0 {
		p.wakeAt(now, look)
	}
	// What every idle connection, every dial and every dial to come leave over may queue behind a running one.
	if c.busy <= allowed {
		p.Ahead = max(0, min(c.ahead(now, depth), ready-max(idle, p.Send)-c.expecting-max(need, 0)))
	}
	if c.toTry() != 0 {
		p.Ahead = 0 // so that somebody ends, and it is its turn
	}
	if p.Send == 0 && c.established == 0 && c.dialing == 0 && len(c.dialBuf) == 0 && p.SendAt.IsZero() {
		p.SendAt = p.Wake
	}
}

// atOnce returns how many of n dials may be in flight: where others wait too, each may be refused, and one refusal says it all.
func (c *Controller) atOnce(n int) int {
	if c.lease.contended() && !c.slowStart {
		return min(n, 1-c.expecting)
	}
	return n
}

// planDials names up to n addresses to dial, or when one may be.
func (c *Controller) planDials(now time.Time, n int, p *Plan) {
	if c.dialAt.After(now) {
		p.wakeAt(now, c.dialAt)
		return
	}
	for n = min(n, MaxDials-c.expecting); n > 0; {
		a, wake := c.pick(now)
		if a == nil {
			p.wakeAt(now, wake)
			return
		}
		a.planned++
		c.dialBuf = append(c.dialBuf, a.Name)
		if len(c.addrs) > 1 {
			p.wakeAt(now, now.Add(c.dialPatience()))
		}
		if len(c.addrs) == 1 || !a.doubtful() { // one that may not answer is dialled on top
			n--
		}
	}
}

// planProbe tries one connection more than is known to fit, when all that are known to fit are in use and the gap is over. While a
// place is left free for others not all are: a probe would take it.
func (c *Controller) planProbe(now time.Time, allowed int, p *Plan) {
	if c.ceiling == 0 || c.slowStart || c.probe != 0 || allowed != c.ceiling || c.established < allowed ||
		allowed >= c.cfg.MaxConns || c.granted(now) && c.hint.Grant <= allowed {
		return
	}
	if c.nextProbe.After(now) {
		p.wakeAt(now, c.nextProbe)
		return
	}
	c.planDials(now, 1, p)
}

// planTrial is the case when no address is believed to answer: one connection at a time tries, and one
// transaction on it. What is idle is tried before a dial.
func (c *Controller) planTrial(now time.Time, p *Plan) {
	for i := range c.addrs {
		if a := &c.addrs[i]; a.trial != 0 && a.late == 0 { // one that hangs does not keep the others from being tried
			p.Send = c.trialSend(now, a.trial)
			p.wakeAt(now, c.lateAt)
			return
		}
	}
	var until time.Time
	for i := range c.addrs {
		if a := &c.addrs[i]; a.late == 0 && (until.IsZero() || a.openUntil.Before(until)) {
			until = a.openUntil
		}
	}
	switch {
	case until.After(now):
		p.wakeAt(now, until)
	case c.idle() > 0 && c.busy < c.allowed(now):
		p.Send = 1
	case c.established+c.expecting < c.allowed(now):
		c.planDials(now, 1, p)
	}
	if p.Send == 0 {
		p.SendAt = p.Wake
	}
}

// trialSend returns 1 when the connection dialled for a trial is ready for its transaction, and 0 while the
// trial is under way.
func (c *Controller) trialSend(now time.Time, id ConnID) int {
	k := c.find(id)
	if k == nil || !k.established || k.retiring || k.sending > 0 || c.busy >= c.allowed(now) {
		return 0
	}
	return 1
}

// planStopped lets one transaction through at probe time, and the dial it needs.
func (c *Controller) planStopped(now time.Time, p *Plan) {
	s := &c.stop
	switch {
	case s.probeEvery == 0:
	case s.trial != 0:
		p.Send = c.trialSend(now, s.trial)
	case s.next.After(now):
		p.wakeAt(now, s.next)
	case c.idle() > 0 && c.busy < c.allowed(now):
		p.Send = 1
	case c.expecting == 0 && c.established < c.allowed(now):
		c.planDials(now, 1, p)
	}
	if p.Send == 0 {
		p.SendAt = p.Wake
	}
}

// wakeAt makes the caller come back at t at the latest. A t that is not ahead is no reason to come back.
func (p *Plan) wakeAt(now, t time.Time) {
	if t.After(now) && (p.Wake.IsZero() || t.Before(p.Wake)) {
		p.Wake = t
	}
}

// settle brings the state up to date after an event, and says when it changed.
func (c *Controller) settle(now time.Time) (State, string) {
	down := c.allOpen()
	if c.down && !down {
		c.down = false
		c.restart(now)
	}
	c.down = down
	s, reason := c.current(now)
	if s != c.state {
		c.log.add(Move{At: now, What: "state", FromState: c.state, ToState: s, Reason: reason})
	}
	c.state, c.stateReason = s, reason
	return s, reason
}

func (c *Controller) current(now time.Time) (State, string) {
	switch {
	case c.stop.on:
		return Stopped, c.stop.reason
	case c.sendAt.After(now):
		return Paused, c.sendReason
	case c.granted(now) && c.hint.Grant <= 0:
		return Paused, reasonNoGrant
	case c.overQuota(now):
		return Paused, reasonQuota
	case c.down:
		for i := range c.addrs {
			if c.addrs[i].trial != 0 {
				return HalfOpen, "trying whether it answers"
			}
		}
		return Open, "no address answers"
	case c.dialAt.After(now) && c.established == 0:
		return Paused, c.dialReason
	case c.slowStart:
		return SlowStart, c.slowReason
	case c.lease.contended() && (c.turn.waits || now.Sub(c.turn.alone) < c.cfg.scaled(sharingFor)):
		return Sharing, reasonSharing
	case c.lease.contended():
		return Contended, reasonContended
	case int(c.width) >= c.cfg.MaxConns:
		return Calm, reasonAtMax
	case c.lease.backends.several:
		return Calm, reasonSeveral
	case c.ceiling > 0 && int(c.width) >= c.ceiling:
		return Calm, reasonRefused
	default:
		return Calm, reasonGrowth
	}
}
