package proxy

import (
	"cmp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/queue"
)

// What the dispatcher does about connections beside feeding them: close, take back, and tell whether something moves.

// close ends the feed; the connection finishes what it holds and says QUIT.
func (l *link) close() {
	if !l.closing {
		l.closing = true
		close(l.feed)
	}
}

// retire closes connections after their current transaction.
func (d *lane) retire(now time.Time, ids []flowctl.ConnID) {
	for _, id := range ids {
		if l := d.links[id]; l != nil && !l.closing {
			d.recall(now, l)
			l.close()
		}
	}
}

// recall takes back what a connection was fed and has not begun with. A message whose commands are on the wire goes on: taking it
// back would cost the session.
func (d *lane) recall(now time.Time, l *link) {
	for _, j := range slices.Backward(l.unfed()) { // each becomes the next in the queue
		d.flow.SendDone(now, l.id, flowctl.Outcome{Class: flowctl.IdleClose, Stage: flowctl.StageIdle})
		if !j.withdrawn {
			j.discard()
			d.queue.Return(j.delivery.Ref, j.delivery.Since)
		}
	}
	if len(l.jobs) == 0 {
		l.idleSince = now
	}
}

// unfed empties the feed and returns what was in it, the oldest first. The connection may take one while we take those before and
// behind it, so that only the jobs themselves tell which of them came back.
func (l *link) unfed() (back []*job) {
	for range l.jobs {
		select {
		case j, open := <-l.feed:
			if open { // or it is leaving already, and what it holds it has begun with
				back = append(back, j.Tag.(*job))
			}
		default:
		}
	}
	l.jobs = slices.DeleteFunc(l.jobs, func(j *job) bool { return slices.Contains(back, j) })
	return back
}

// closeIdle closes connections that have been idle for linger, and returns when the next one will have been. Those for which
// messages are on their way are not idle. The last one may stay longer than the others, so it waits until they have left
// and the controller, which hears of that, was asked anew.
func (d *lane) closeIdle(now time.Time, linger time.Duration, messages int) (next time.Time) {
	idle, open, leaving := d.idleLinks()
	for _, l := range idle[:max(len(idle)-messages, 0)] {
		end := l.idleSince.Add(linger)
		if end.After(now) {
			return end
		}
		if open == 1 && leaving {
			return time.Time{} // the end of a connection wakes us
		}
		l.close()
		open, leaving = open-1, true
	}
	return time.Time{}
}

// idleLinks returns the idle connections in the order in which they may go: idleLink's choice is the last. open counts those that
// are established and stay, leaving says whether others are about to end.
func (d *lane) idleLinks() (idle []*link, open int, leaving bool) {
	for _, l := range d.links {
		switch {
		case l.closing:
			leaving = true
		case l.conn != nil:
			open++
			if len(l.jobs) == 0 {
				idle = append(idle, l)
			}
		}
	}
	slices.SortFunc(idle, func(a, b *link) int {
		return cmp.Or(a.idleSince.Compare(b.idleSince), cmp.Compare(b.id, a.id))
	})
	return idle, open, leaving
}

// takeBackStalled gives to others what waits behind a transaction that does not get on, and returns when to look again.
func (d *lane) takeBackStalled(now time.Time) (next time.Time) {
	for _, l := range d.links {
		if !l.hasWaiting() {
			continue
		}
		end := l.busySince.Add(prefetchPatience)
		if !end.After(now) {
			d.takeBackWaiting(l)
		} else if next.IsZero() || end.Before(next) {
			next = end
		}
	}
	return next
}

// hasWaiting reports whether there is something behind the transaction under way that was not taken back.
func (l *link) hasWaiting() bool {
	return len(l.jobs) > 1 && slices.ContainsFunc(l.jobs[1:], func(j *job) bool { return !j.withdrawn })
}

// takeBackWaiting returns to the queue what waits behind the transaction under way, but for what is in flight with it.
func (d *lane) takeBackWaiting(l *link) {
	if len(l.jobs) < 2 {
		return
	}
	for _, j := range slices.Backward(l.jobs[1:]) { // each becomes the next in the queue
		d.takeBack(j)
	}
}

// takeBack returns a fed job to the queue, unless its content is being sent. The connection will report it handed back.
func (d *lane) takeBack(j *job) {
	if j.withdrawn || !j.Withdraw() {
		return
	}
	j.withdrawn = true
	j.discard()
	d.queue.Return(j.delivery.Ref, j.delivery.Since)
}

// closeAll starts the end: nothing new, and every connection finishes its transaction.
func (d *dispatcher) closeAll() {
	d.stopping = true
	for _, l := range d.lanes {
		l.closeAll()
	}
}

func (d *lane) closeAll() {
	for _, l := range d.links {
		d.takeBackWaiting(l)
		l.close()
	}
}

func (d *lane) giveBackPrepared() {
	for _, j := range d.prepared {
		j.discard()
		d.queue.Return(j.delivery.Ref, j.delivery.Since)
	}
	d.prepared = nil
}

// reportEmpty tells whoever drains that nothing is left, or nothing that may be sent before drainBy.
func (d *dispatcher) reportEmpty() {
	if d.empty != nil && (d.queue.Stats().Messages == 0 || d.hopeless()) {
		close(d.empty)
		d.empty = nil
	}
}

func (d *dispatcher) hopeless() bool {
	next := d.queue.NextDue()
	later := next.IsZero() || next.After(d.drainBy)
	for _, l := range d.lanes {
		if l.working() || !l.shut() && (l.waits() || l.queue.Counts().Deferred > 0 && !later) {
			return false
		}
	}
	return true
}

// working reports whether something is being loaded, dialled or sent.
func (d *lane) working() bool {
	if d.loading > 0 {
		return true
	}
	for _, l := range d.links {
		if l.conn == nil || len(l.jobs) > 0 {
			return true
		}
	}
	return false
}

// waits reports whether something could be sent if the plan allowed it.
func (d *lane) waits() bool { return d.queue.Counts().Ready > 0 || len(d.prepared) > 0 }

// shut reports whether what waits may not be sent before drainBy.
func (d *lane) shut() bool {
	return d.waits() && d.plan.Send == 0 && len(d.plan.Dial) == 0 && d.plan.SendAt.After(d.drainBy)
}

// report tells liveness whether every lane that may do something does, and until when at the latest.
func (d *dispatcher) report(now time.Time) {
	stuck := false
	var overdue time.Time
	for _, l := range d.lanes {
		stuck = stuck || l.mayWork && maySend(now, l.plan) && !l.working()
		if end := l.overdue(); overdue.IsZero() || !end.IsZero() && end.Before(overdue) {
			overdue = end
		}
	}
	d.pulse.plan(now, stuck, false, overdue)
}

// overdue returns when the connection that is busy longest is past every deadline; zero: none is busy. What is being dialled has
// the client's own deadlines.
func (d *lane) overdue() (at time.Time) {
	for _, l := range d.links {
		if len(l.jobs) == 0 {
			continue
		}
		content := time.Duration(l.jobs[0].size()/slowestContent) * time.Second
		content += time.Duration(len(l.jobs[0].To)) * longestRcpt
		if end := l.busySince.Add(longestTransaction + content); at.IsZero() || end.Before(at) {
			at = end
		}
	}
	return at
}

// maySend reports whether the plan allows a message now. Who waits for a turn, a pause to end or an address to answer is well.
func maySend(now time.Time, plan flowctl.Plan) bool { return plan.Send > 0 && !plan.SendAt.After(now) }

// buryDead forgets dead messages that are too old or too many. When the journal runs full it forgets one more in every
// reliefPause: what a dead message holds back there is room for mail that can still arrive.
func (d *dispatcher) buryDead(now time.Time) {
	d.dead.expire(now, d.cfg.DeadKeep, d.cfg.DeadMaxBytes, d.forget)
	if len(d.dead.rows) == 0 || now.Sub(d.relieved) < reliefPause {
		return
	}
	d.relieved = now
	if s := d.journal.Stats(); s.Bytes > s.MaxBytes/10*9 {
		d.dead.drop(d.forget)
	}
}

const reliefPause = time.Second

// forget lets a dead message go for good.
func (d *dispatcher) forget(c corpse) {
	d.recorder.write(settled(c.id))
	d.log.Warn("dead message forgotten", zap.Stringer("id", c.id), zap.Time("died", c.At))
}

func (d *dispatcher) reply(text string) zap.Field { return showReply(d.cfg.Log.Addresses, text) }

// explain keeps the reply that made a delivery wait, for lists.
func (d *dispatcher) explain(ref queue.Ref, reply string) {
	if _, known := d.reasons[ref]; known || len(d.reasons) < maxReasons {
		d.reasons[ref] = reply
	}
}

func (d *dispatcher) scaled(t time.Duration) time.Duration {
	if d.cfg.Flow.Scale > 0 {
		return time.Duration(float64(t) * d.cfg.Flow.Scale)
	}
	return t
}

func (j *job) size() int64 {
	if j.Env == nil {
		return 0
	}
	return j.Env.Size
}
