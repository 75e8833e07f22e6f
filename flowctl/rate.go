package flowctl

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// An upstream that refuses by rate says by what it accepted how fast it may be fed. That is remembered as a ceiling of the rate, a
// little less is sent, and now and then a little more is tried, for a few transactions.

// Constants of the rate. Times scale with Config.Scale.
const (
	rateWindow   = time.Minute     // the longest time over which the accepted rate is measured
	rateShortest = 2 * time.Second // a measurement of less says nothing; and one refusal counts in so long
	rateCut      = .4              // the most that one refusal takes off the ceiling,
	rateShave    = .97             // and what it leaves at most
	rateBelow    = .985            // of the ceiling is sent
	rateLeast    = 0.01            // transactions a second; no ceiling is lower

	rateProbeMin   = 5 * time.Second // between two probes, doubled by each that is refused
	rateProbeMax   = 5 * time.Minute
	rateProbe      = .03              // how much more than the ceiling a probe sends; twice as much after each that is accepted,
	rateProbeMost  = .25              // up to this part of the ceiling
	rateProbeFor   = 20               // transactions of a probe,
	rateProbeTime  = 60 * time.Second // or as many as this takes if they are fewer,
	rateProbeLeast = 3                // but not fewer than these

	rateBurst  = 100 * time.Millisecond // of transactions may be sent together
	tokenSlack = 1e-6                   // of a token: the limiter calculates in floating point
	wakeGrain  = time.Millisecond       // the least time until a wake for tokens
)

// pace limits transactions a second: by configuration, and below that by what was refused. The zero value
// limits nothing.
type pace struct {
	static  float64       // configured; 0: none
	scale   float64       // Config.Scale
	ceiling float64       // what was accepted when a transaction was refused for its rate; 0: none was
	cutAt   time.Time     // the last such refusal that counted
	short   bool          // the limit, and not the demand, held the last plan back
	limiter *rate.Limiter // nil while nothing limits

	since    time.Time // the beginning of the measurement
	accepted int       // transactions since
	last     verdict   // of the last measurement that moved the ceiling

	probing int           // transactions that the probe under way still wants; 0: there is none
	more    float64       // what the next probe sends more, as a part of the ceiling
	gap     time.Duration // between probes
	probeAt time.Time     // of the next
}

// verdict is a measurement that a refusal ended, and the ceiling before it. Transactions that were under way then belong to it when they are
// accepted: of a burst that is answered together the refusals may be heard first.
type verdict struct {
	was      float64 // 0: there was no ceiling
	accepted int
	took     time.Duration // 0: it moved no ceiling, or another one was found since
}

func (v verdict) ceiling() float64 {
	got := float64(max(v.accepted, 1)) / v.took.Seconds()
	if v.was == 0 {
		return got
	}
	return max(min(got, v.was*rateShave), v.was*(1-rateCut))
}

// limit returns transactions a second; 0: no limit.
func (p *pace) limit() float64 {
	learnt := p.ceiling * rateBelow
	if p.probing > 0 {
		learnt = p.ceiling + p.step()
	}
	if learnt > 0 && (p.static == 0 || learnt < p.static) {
		return learnt
	}
	return p.static
}

// step is what a probe adds. It grows with the root of the ceiling while a refusal takes a part of it: of several processes
// that share a limit the fast come down and the slow come up.
func (p *pace) step() float64 {
	return min(p.more*math.Sqrt(p.ceiling/p.scale), rateProbeMost*p.ceiling)
}

func (p *pace) configure(now time.Time, static, scale float64) {
	p.static, p.scale = static, scale
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
	if p.since.IsZero() {
		p.since = now
	}
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

// measure begins anew.
func (p *pace) measure(now time.Time) { p.since, p.accepted = now, 0 }

// measured returns the accepted transactions a second of late, and as if it were one when there was none; 0: it is too early to say.
func (p *pace) measured(now time.Time, shortest time.Duration) float64 {
	if d := now.Sub(p.since); d >= shortest && !p.since.IsZero() {
		return float64(max(p.accepted, 1)) / d.Seconds()
	}
	return 0
}

// rateRefused takes a transaction that was refused for its rate; the width has nothing to do with it. Those that began before the
// last such event are the same, as are those that follow within the shortest measurement; and what begins during the pause that came
// of one, since it was handed to its connection before.
func (c *Controller) rateRefused(now time.Time, o Outcome) {
	p := &c.pace
	if !o.Started.After(p.cutAt) {
		return
	}
	paused := c.sendAt.After(now) && c.sendReason == reasonRate
	if o.RetryAfter > 0 {
		c.pauseSends(now, named(o), reasonRate)
	}
	if p.ceiling > 0 && now.Sub(p.cutAt) < c.cfg.scaled(rateShortest) {
		return
	}
	if p.ceiling == 0 && paused {
		return
	}
	was, got := p.ceiling, p.measured(now, c.cfg.scaled(rateShortest))
	p.cutAt, p.last = now, verdict{}
	switch {
	case was == 0 && got == 0: // too early to know a rate: it must begin anew
		if o.RetryAfter == 0 {
			c.pauseSends(now, c.jitter(c.rateWait.next(now, c.cfg.scaled(rateMin), c.cfg.scaled(rateMax))), reasonRate)
		}
		return
	case p.probing > 0:
		p.gap = min(2*p.gap, c.cfg.scaled(rateProbeMax)) // the ceiling was right
	case got == 0:
		p.ceiling = was * rateShave
	default:
		if was == 0 {
			p.gap = c.cfg.scaled(rateProbeMin)
		}
		p.last = verdict{was, p.accepted, now.Sub(p.since)}
		p.ceiling = p.last.ceiling()
	}
	c.rateMoved(now, was, reasonRate, o.Text)
}

// cutRate halves the rate that is being accepted, for an upstream that takes offence. Without a measurement the caller's pause must do.
func (c *Controller) cutRate(now time.Time, reason, text string) {
	p := &c.pace
	was := p.measured(now, c.cfg.scaled(rateShortest))
	if r := p.limit(); r > 0 && (was == 0 || r < was) {
		was = r
	}
	if was == 0 {
		return
	}
	p.ceiling, p.gap, p.cutAt, p.last = was/2, c.cfg.scaled(rateProbeMin), now, verdict{}
	c.rateMoved(now, was, reason, text)
}

// rateMoved ends what is under way, and begins to measure under the new ceiling.
func (c *Controller) rateMoved(now time.Time, was float64, reason, text string) {
	p := &c.pace
	p.ceiling = max(p.ceiling, rateLeast)
	p.probing, p.more, p.probeAt = 0, rateProbe, now.Add(c.jitter(p.gap))
	p.measure(now)
	p.apply(now)
	if p.ceiling != was {
		c.log.add(Move{At: now, What: "rate", From: was, To: p.ceiling, Reason: reason, Text: text})
	}
}

// rateAccepted counts an accepted transaction, and raises the ceiling when it was a probe's last.
func (c *Controller) rateAccepted(now, started time.Time) {
	p := &c.pace
	if started.After(p.cutAt) {
		c.rateWait = backoff{} // begun after the pause, so that was long enough
	}
	if d := now.Sub(p.since); d >= c.cfg.scaled(rateWindow) { // forget the first half
		p.since, p.accepted = now.Add(-d/2), p.accepted/2
		if d >= 2*c.cfg.scaled(rateWindow) {
			p.measure(started)
		}
	}
	if p.last.took > 0 && !started.After(p.cutAt) {
		p.last.accepted++
		p.ceiling = max(p.last.ceiling(), rateLeast)
		p.apply(now)
		return
	}
	p.accepted++
	if p.probing == 0 || started.Before(p.probeAt) {
		return
	}
	if p.probing--; p.probing == 0 {
		was := p.ceiling
		p.last = verdict{}
		p.ceiling += p.step()
		p.more = min(2*p.more, rateProbeMost)
		p.gap = c.cfg.scaled(rateProbeMin)
		p.probeAt = now.Add(c.jitter(p.gap))
		p.apply(now)
		c.log.add(Move{At: now, What: "rate", From: was, To: p.ceiling, Reason: reasonProbe})
	}
}

// probeRate begins a probe when one is due and the ceiling is what holds the demand back.
func (c *Controller) probeRate(now time.Time) {
	p := &c.pace
	if p.ceiling > 0 && p.probing == 0 && p.short && !p.probeAt.After(now) && (p.static == 0 || p.ceiling < p.static) {
		p.probing, p.probeAt = min(max(rateProbeLeast, int(p.ceiling*c.cfg.scaled(rateProbeTime).Seconds())), rateProbeFor), now
		p.apply(now)
	}
}
