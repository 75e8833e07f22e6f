package proxy

import (
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
)

// What the dispatcher does about an upstream that cannot be sent to until somebody has cured it, or a quota has come back.

// held is why nothing is sent. The zero value: nothing is held.
type held struct {
	why    string        // "": not held
	since  time.Time     // when it was last refused
	every  time.Duration // between two probes
	atDial bool          // it came before any message
	quota  bool          // it is about a quota
}

const (
	// While held for a login fault one login is tried in loginProbe (retries lock accounts), for everything else but a quota
	// one message in faultProbe.
	loginProbe = 15 * time.Minute
	faultProbe = time.Minute

	// Providers count what they refuse, and some begin the wait for a quota anew with each refusal. So it is asked for as seldom as
	// the refusal says, or after quotaProbe, doubling with each refused probe to quotaProbeMax.
	quotaProbe    = 15 * time.Minute
	quotaProbeMax = 4 * time.Hour
)

// hold stops the upstream: mail is kept, its clock stands still, and one probe goes out in every interval. A probe that shows a
// cure ends it.
func (d *lane) hold(now time.Time, o flowctl.Outcome, every time.Duration) {
	reason := o.Text
	if o.Class != flowctl.OK {
		reason = o.Class.String() + " at " + o.Stage.String() + ": " + o.Text
	}
	d.flow.Stop(now, reason, d.scaled(every))
	if d.held.why == "" {
		d.queue.StopClock(now)
		d.giveBackPrepared() // what is probed is chosen anew
		for _, l := range d.links {
			d.recall(now, l)
		}
		d.recorder.put(d.blob(blobPauses), encodePauses(d.queue.Pauses()))
		d.log.Error("upstream held, mail waits until it is cured", d.reply(reason), zap.Int("pending", d.queue.Stats().Messages),
			zap.Duration("probe", d.scaled(every)))
	}
	d.held = held{why: reason, since: now, every: every}
}

// holdQuota holds for a quota. began is when what was refused had begun: dials that are refused together are one refusal.
func (d *lane) holdQuota(now, began time.Time, o flowctl.Outcome) {
	if d.held.quota && !began.After(d.held.since) {
		return
	}
	d.quotaWait = min(max(2*d.quotaWait, quotaProbe), quotaProbeMax)
	every := d.quotaWait
	if o.RetryAfter > 0 {
		every = max(o.RetryAfter, faultProbe)
	}
	d.hold(now, o, every)
	d.held.quota = true
}

// taken notes that the upstream took a message. What began before it last refused proves nothing.
func (d *lane) taken(began time.Time) {
	if began.After(d.held.since) {
		d.quotaWait = 0
	}
}

// probeSoon has a probe go out before its time. The mail stays held until one gets through.
func (d *lane) probeSoon(now time.Time, wait time.Duration) {
	d.eager = d.held.atDial && !d.held.quota
	d.flow.ProbeSoon(now, d.scaled(wait))
}

// resume is an operator's word that something was cured. It acts at once: what is held is probed, and every pause ends. was says
// why mail was held; "": it was not.
func (d *dispatcher) resume(now time.Time) (was string) {
	was = d.holds()
	for _, l := range d.lanes {
		l.log.Info("an operator says that the upstream is well", d.reply(l.held.why))
		if l.held.why == "" {
			l.flow.Resume(now)
			continue
		}
		l.probeSoon(now, 0)
	}
	return was
}

// resumed follows a probe that got through.
func (d *lane) resumed(now time.Time) {
	d.log.Info("upstream resumed", d.reply(d.held.why))
	d.held, d.eager = held{since: d.held.since}, false
	d.secrets.rest()
	d.fuse.rearm()
	d.queue.StartClock(now)
	d.recorder.put(d.blob(blobPauses), encodePauses(d.queue.Pauses()))
}
