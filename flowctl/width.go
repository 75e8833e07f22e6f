package flowctl

import "time"

// Constants of the laws of width. All times scale with Config.Scale.
const (
	overloadFactor   = 0.7                    // width kept at an overload
	restartWidth     = 4                      // width after an outage, at most
	probeEase        = 8                      // an accepted probe divides the gap by this
	probeFloor       = 100 * time.Millisecond // least gap, between probes that are accepted one after the other
	fallenProbeShare = 4                      // after a fall the gap is at most ProbeMax divided by this: what fell comes back
	peakKeep         = 30 * time.Minute       // how long a fall is remembered
	releaseLag       = 500 * time.Millisecond // how long an upstream may count a connection that has ended
	refillPause      = time.Second            // before another dial below the ceiling, when one was refused
)

// Reasons of moves and states.
const (
	reasonLearning    = "learning"
	reasonAtMax       = "at the configured maximum"
	reasonSlowStart   = "slow start"
	reasonGrowth      = "additive growth"
	reasonRefused     = "connection refused for their number"
	reasonNoneFree    = "no connection free for us"
	reasonTooMany     = "transaction refused for too many connections"
	reasonOverload    = "overload"
	reasonProbe       = "probe accepted"
	reasonAccepted    = "more accepted than was known to fit"
	reasonReturn      = "probe accepted after a fall"
	reasonRestart     = "answers again"
	reasonReputation  = "reputation"
	reasonAuth        = "too many logins"
	reasonRate        = "rate refused"
	reasonConnectRate = "rate of connections refused"
	reasonRestored    = "restored"
	reasonQuota       = "as many recipients as are allowed in a day"
	reasonSessionCap  = "no more messages over one connection"
	reasonGainTry     = "trying whether more is delivered"
	reasonNoGain      = "no more was delivered"
	reasonSeveral     = "several upstreams behind the address, each with its own limit"
	reasonNoGrant     = "no connection granted"
	reasonContended   = "others hold connections too"
	reasonSharing     = "others hold connections too, and there is less than one for each"
)

// connected takes a new connection in. The upstream accepted it, so at least as many as are now
// established fit, whatever was believed; but a dial that began before a load cut proves nothing after it.
func (c *Controller) connected(now time.Time, k *conn, o Outcome) {
	k.established, k.idleSince = true, now
	c.established++
	if a := c.address(k); a != nil {
		a.established++
	}
	c.authWait = backoff{}
	c.beginLease(now, k, o.Took)
	c.dialTested(now, k, true)
	if k.look > 0 {
		c.placeKept(now)
	}
	if c.established == 1 {
		c.turnBegins(now, k)
	}
	if !o.Started.After(c.loadCut) {
		return
	}
	if n := c.held(now); c.ceiling > 0 && n > c.ceiling {
		c.setCeiling(now, n, reasonAccepted, o.Text)
	}
	if n := c.held(now); n > int(c.width) {
		c.setWidth(now, float64(n), reasonAccepted, o.Text)
	}
	if k.probe {
		// A limit may show only when the connection is used (432 after DATA): the first answer confirms it.
		c.probe = k.id
	}
}

// disconnected learns from an end of a connection that was established.
func (c *Controller) disconnected(now time.Time, k *conn) {
	if now.Sub(c.ghostAt) >= c.cfg.scaled(releaseLag) {
		c.ghosts = 0
	}
	if !k.yielding { // or its place counts already
		c.ghosts, c.ghostAt = c.ghosts+1, now
	}
	if k.id == c.probe {
		c.probe = 0
		c.scheduleProbe(now, false)
	}
	c.endTrial(k)
	if a := c.address(k); a != nil {
		a.established--
		if !k.answered {
			// Accepted and closed without an answer to anything: no better than a refused dial.
			c.delayDial(now, a, 0)
		}
	}
}

// countRefused takes a dial that was refused because of the number of our connections: exactly those that
// are established fit. Refusals of dials that began before the last cut are the same event.
func (c *Controller) countRefused(now time.Time, k *conn, o Outcome) {
	slow := c.slowStart
	c.refusedAt, c.lease.row = now, 0
	c.dialTested(now, k, false)
	ghosts := 0
	if o.Started.Sub(c.ghostAt) < c.cfg.scaled(releaseLag) {
		ghosts = c.ghosts // closed so shortly before the dial that they may have been counted
	}
	switch {
	case k.look == 0 || slow:
	case ghosts > 0: // that is no word about the place that was left free
		c.yield(now, k.look-1)
		return
	case !k.test && !c.lease.lost.IsZero() && c.lease.backends.test(c.established):
		c.leave(place{until: now, looked: k.look, test: true})
		return
	case !c.placeLost(now, k.look):
		c.pauseDials(now, named(o), reasonRefused)
		return
	}
	if slow {
		c.lease.yields = c.lease.yields[:0] // the dials of slow start have taken what was left free, or somebody else has
	}
	sure := c.held(now)
	held := sure + ghosts
	to := max(held, 1)
	if c.ceiling > 0 {
		to = max(min(to, c.ceiling), sure, 1)
	}
	c.endSlowStart()
	if c.ceiling > to && (!c.lease.contended() || c.lease.lost.Equal(now)) && c.livePeak(now) == 0 {
		c.peak, c.peakAt = max(c.livePeak(now), c.ceiling), now
	}
	if o.Started.After(c.countCut) {
		c.countCut = now
		if k.probe || !c.shares(now) || c.gap == 0 {
			c.gapAfterRefusal(now, k.probe, slow)
		}
	}
	c.setCeiling(now, to, reasonRefused, o.Text)
	c.setWidth(now, min(c.width, float64(to)), reasonRefused, o.Text)
	switch {
	case c.established == 0 && c.dialing == 0:
		c.turn.waits = true
		c.lease.lost, c.lease.won = now, 0 // others hold all there is
		c.pauseDials(now, max(c.knock(now, k.look > 0), named(o)), reasonNoneFree)
	case to > sure:
		c.pauseDials(now, max(c.jitter(c.cfg.scaled(refillPause)), named(o)), reasonRefused)
	default:
		c.pauseDials(now, named(o), reasonRefused)
	}
}

// sendRefused takes a transaction that was refused because of the number of our connections, which some
// upstreams say only after DATA, and then to several at once: one less than were busy fit.
func (c *Controller) sendRefused(now time.Time, o Outcome) {
	if !o.Started.After(c.loadCut) {
		return
	}
	c.loadCut = now
	to := max(c.busy-1, 1)
	if c.ceiling > 0 {
		to = min(to, c.ceiling)
	}
	c.gapAfterRefusal(now, c.probe != 0, c.slowStart)
	c.probe = 0
	c.endSlowStart()
	c.setCeiling(now, to, reasonTooMany, o.Text)
	c.setWidth(now, min(c.width, float64(to)), reasonTooMany, o.Text)
	if c.busy <= 1 || o.RetryAfter > 0 {
		// The message comes again at once; with nothing left to give up, only time helps.
		c.pauseSends(now, max(c.jitter(c.busyWait.next(now, c.cfg.ProbeMin, c.cfg.ProbeMax)), named(o)), reasonNoneFree)
	}
}

// overloaded cuts the width. One overload fails many transactions: those that started before the last cut
// report the event it already answered.
func (c *Controller) overloaded(now time.Time, o Outcome) {
	if !o.Started.After(c.loadCut) {
		return
	}
	c.loadCut = now
	c.endSlowStart()
	c.setWidth(now, c.width*overloadFactor, reasonOverload, o.Text)
	c.restGain(now, true)
}

// succeeded grows the width after an answered transaction, if the width was what held us back: a window
// that was not used has proven nothing (congestion window validation, RFC 7661).
func (c *Controller) succeeded(now time.Time, k *conn, o Outcome) {
	if o.Started.After(c.loadCut) {
		c.busyWait = backoff{} // an accepted dial alone would not do: some refuse only after DATA
	}
	if c.probe == k.id {
		c.probeConfirmed(now)
	}
	w := int(c.width)
	switch {
	case c.cfg.Gain && c.excess:
		c.measureGain(now)
		return
	case c.cfg.Gain:
		c.unmeasured(now)
		return
	case !c.excess || c.busy < w || c.established < w:
		return
	}
	limit := c.growthLimit(now)
	switch {
	case w >= limit:
		if c.established >= limit {
			c.endSlowStart()
		}
	case c.slowStart:
		c.setWidth(now, min(c.width*2, float64(limit)), reasonSlowStart, "")
	default:
		c.setWidth(now, min(c.width+1/c.width, float64(limit)), reasonGrowth, "")
	}
}

// growthLimit is how far the width grows without probing.
func (c *Controller) growthLimit(now time.Time) int {
	limit := c.cfg.MaxConns
	if c.ceiling > 0 {
		limit = min(limit, c.ceiling)
		if c.slowStart {
			limit = min(max(limit, c.livePeak(now)), c.cfg.MaxConns)
		}
	}
	return limit
}

func (c *Controller) probeConfirmed(now time.Time) {
	c.probe = 0
	if c.shares(now) {
		c.scheduleProbe(now, true)
		return
	}
	c.gap = max(c.gap/probeEase, c.cfg.scaled(probeFloor))
	c.scheduleProbe(now, true)
	c.log.add(Move{At: now, What: "probe", From: float64(c.ceiling - 1), To: float64(c.ceiling), Reason: reasonProbe})
	if c.livePeak(now) > c.ceiling && !c.slowStart {
		// It had more before the fall: not one by one, but as at a start, up to where it was.
		c.startSlow(reasonReturn)
	}
}

// gapAfterRefusal sets when to look above the ceiling again: sooner when it is fresh, later when a probe was
// refused, and unchanged when something below it was.
func (c *Controller) gapAfterRefusal(now time.Time, probe, fresh bool) {
	longest := c.cfg.ProbeMax
	if c.livePeak(now) > 0 {
		longest = max(longest/fallenProbeShare, c.cfg.ProbeMin)
	}
	switch {
	case c.gap == 0 || fresh:
		c.gap = c.cfg.ProbeMin
	case c.shares(now):
	case probe:
		c.gap *= 2
	}
	c.gap = min(max(c.gap, c.cfg.ProbeMin), longest)
	c.scheduleProbe(now, false)
}

// scheduleProbe says when one connection more is tried. Where others wait too, all processes dial equally often, and those that hold
// more less often: so all come to hold the same.
func (c *Controller) scheduleProbe(now time.Time, accepted bool) {
	gap := c.probeGap(now)
	switch {
	case !c.shares(now):
		gap = c.spread(gap)
	case accepted:
		c.lease.row++
		halved := min(max(c.lease.row-knockRow, 0), knockHalved)
		gap = c.jitter(time.Duration(knockAccepted*float64(gap)) >> halved)
	default:
		gap = c.jitter(gap)
	}
	c.nextProbe = now.Add(gap)
}

// probeGap returns how far probes above the ceiling are apart, without chance; 0: no ceiling is known.
func (c *Controller) probeGap(now time.Time) time.Duration {
	if c.ceiling > 0 && c.shares(now) {
		return min(time.Duration(c.established+1)*c.cfg.scaled(knockPerConn), c.cfg.scaled(knockCap))
	}
	return c.gap
}

// held returns how many connections count as ours: those established, and the places left free that are going to be looked at.
func (c *Controller) held(now time.Time) int {
	n, _ := c.yielding(now)
	return c.established + n
}

// claimed returns held and the dials in flight.
func (c *Controller) claimed(now time.Time) int { return c.held(now) + c.dialing }

// livePeak is the ceiling before it fell, 0 when there was no fall or it is too long ago.
func (c *Controller) livePeak(now time.Time) int {
	if now.Sub(c.peakAt) >= c.cfg.scaled(peakKeep) {
		return 0
	}
	return c.peak
}

// restart begins anew after an outage; the ceiling is remembered.
func (c *Controller) restart(now time.Time) {
	c.startSlow(reasonRestart)
	to := max(min(restartWidth, c.growthLimit(now)), c.established)
	c.setWidth(now, float64(to), reasonRestart, "")
}

// startSlow lets the width double per round, up to the ceiling, or to where it was before it fell.
func (c *Controller) startSlow(reason string) { c.slowStart, c.slowReason = true, reason }

// endSlowStart also forgets the peak: either it was reached, or it is not there any more. So a stray free
// place costs one burst of refusals, not one at each probe.
func (c *Controller) endSlowStart() {
	if c.slowStart {
		c.slowStart, c.peak = false, 0
	}
}

func (c *Controller) setWidth(now time.Time, to float64, reason, text string) {
	to = max(1, min(to, float64(c.cfg.MaxConns)))
	if int(to) != int(c.width) {
		c.log.add(Move{At: now, What: "width", From: c.width, To: to, Reason: reason, Text: text})
	}
	c.width = to
}

func (c *Controller) setCeiling(now time.Time, to int, reason, text string) {
	if to != c.ceiling {
		c.log.add(Move{At: now, What: "ceiling", From: float64(c.ceiling), To: float64(to), Reason: reason, Text: text})
	}
	c.ceiling = to
}
