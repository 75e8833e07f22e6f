package flowctl

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// Constants of the rate. Times scale with Config.Scale.
const (
	rateWindow   = 10 * time.Second       // over which the accepted rate is measured
	rateShortest = time.Second            // a measurement of less says nothing
	rateStep     = time.Second            // between raises after a cut
	rateSteps    = 20                     // raises back to the rate that was refused
	rateLeast    = 0.05                   // transactions a second; no cut goes lower
	rateBurst    = 100 * time.Millisecond // of transactions may be sent together
	tokenSlack   = 1e-6                   // of a token: the limiter calculates in floating point
	wakeGrain    = time.Millisecond       // the least time until a wake for tokens
)

// pace limits transactions a second: by configuration, and below that by what was refused. The zero value
// limits nothing.
type pace struct {
	static  float64 // configured; 0: none
	learnt  float64 // after a refusal; 0: none
	refused float64 // the rate that was refused, where learnt returns to
	cutAt   time.Time
	raised  time.Time
	limiter *rate.Limiter // nil while nothing limits

	since    time.Time // the window of measurement
	accepted int       // in it
	last     float64   // accepted a second in the window before
}

// limit returns transactions a second; 0: no limit.
func (p *pace) limit() float64 {
	if p.learnt > 0 && (p.static == 0 || p.learnt < p.static) {
		return p.learnt
	}
	return p.static
}

func (p *pace) configure(now time.Time, static float64) {
	p.static = static
	p.apply(now)
}

func (p *pace) apply(now time.Time) {
	r := p.limit()
	burst := max(1, int(min(r*rateBurst.Seconds(), math.MaxInt32)))
	switch {
	case r == 0:
		p.limiter = nil
	case p.limiter == nil:
		p.limiter = rate.NewLimiter(rate.Limit(r), burst)
	default:
		p.limiter.SetLimitAt(now, rate.Limit(r))
		p.limiter.SetBurstAt(now, burst)
	}
}

// take pays for one transaction; a caller that does not keep to the plan makes debts.
func (p *pace) take(now time.Time) {
	if p.limiter != nil {
		p.limiter.ReserveN(now, 1) // a burst is never less than 1, so this cannot fail
	}
}

// tokens returns how many transactions may start now, and if none, when one may.
func (p *pace) tokens(now time.Time) (n int, at time.Time) {
	if p.limiter == nil {
		return math.MaxInt32, time.Time{}
	}
	have := p.limiter.TokensAt(now) + tokenSlack
	if have >= 1 {
		return int(have), time.Time{}
	}
	wait := time.Duration(min((1-have)/p.limit(), timeMax.Seconds()) * float64(time.Second))
	return 0, now.Add(wait + wakeGrain)
}

// observed returns the accepted transactions a second of late; 0: too few to say.
func (p *pace) observed(now time.Time, shortest time.Duration) float64 {
	if d := now.Sub(p.since); d >= shortest && p.accepted > 0 {
		return float64(p.accepted) / d.Seconds()
	}
	return p.last
}

// cutRate halves the rate that was being accepted, or the limit when nothing was measured.
func (c *Controller) cutRate(now time.Time, reason, text string) {
	p := &c.pace
	p.cutAt, p.raised = now, now
	was := p.observed(now, c.cfg.scaled(rateShortest))
	if r := p.limit(); r > 0 && (was == 0 || r < was) {
		was = r
	}
	if was == 0 {
		return // no rate known: the pause must do
	}
	p.refused, p.learnt = was, max(was/2, rateLeast)
	p.apply(now)
	c.log.add(Move{At: now, What: "rate", From: was, To: p.learnt, Reason: reason, Text: text})
}

// recoverRate counts an accepted transaction and returns what cutRate took, step by step; beyond twice the
// rate once refused the limit is gone.
func (c *Controller) recoverRate(now, started time.Time) {
	p := &c.pace
	if started.After(p.cutAt) {
		c.rateWait = backoff{} // begun after the pause, so that was long enough
	}
	if d := now.Sub(p.since); d >= c.cfg.scaled(rateWindow) {
		p.last = 0
		if d < 2*c.cfg.scaled(rateWindow) {
			p.last = float64(p.accepted) / d.Seconds()
		}
		p.since, p.accepted = now, 0
	}
	p.accepted++
	if p.learnt == 0 || now.Sub(p.raised) < c.cfg.scaled(rateStep) {
		return
	}
	p.raised = now
	p.learnt += max(p.refused/(2*rateSteps), rateLeast)
	if p.learnt >= 2*p.refused || p.static > 0 && p.learnt >= p.static {
		c.log.add(Move{At: now, What: "rate", From: p.learnt, To: p.static, Reason: "recovered"})
		p.learnt = 0
	}
	p.apply(now)
}
