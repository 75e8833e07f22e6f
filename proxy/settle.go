package proxy

import (
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// What the dispatcher does with the end of a transaction: it judges, records, queues again, and settles.

// result takes what became of the oldest job of l.
func (d *lane) result(now time.Time, l *link, r *upstream.Result) {
	j := r.Job.Tag.(*job)
	l.jobs = l.jobs[1:]
	l.busySince, l.idleSince = now, now
	signal := r.Signal
	if r.HandedBack && signal.Class == flowctl.OK {
		signal.Class = flowctl.IdleClose // nothing was decided, so nothing succeeded
	}
	if d.cured(r) {
		signal.Class = flowctl.OK
	}
	if aboutContent(signal.Stage) && d.onlyThisMessage(signal.Class, r) {
		signal.Class = flowctl.PerMessage
	}
	if !r.HandedBack {
		d.took = signal.Took
	}
	signal.Taken = takenRecipients(r)
	d.flow.SendDone(now, l.id, signal)
	j.discard()
	if j.withdrawn {
		return
	}
	tripped := d.fuse.tripped
	v := judge(now, r, j.delivery, &d.fuse)
	if signal.Class == flowctl.Overload && d.flow.OthersServe(l.addr) {
		v.elsewhere()
	}
	if len(v.Delivered) > 0 {
		d.taken(r.Signal.Started)
		d.confirm(now, r.Signal.Started)
	}
	d.apply(now, j, r, v)
	if d.fuse.tripped != "" {
		d.acquit(now)
	}
	switch {
	case d.fuse.tripped == "":
	case d.fuse.tripped != tripped && !d.fuse.quota:
		d.hold(now, flowctl.Outcome{Text: d.fuse.tripped}, faultProbe)
	case d.fuse.tripped != tripped, d.held.quota && j.probe && overQuota(r):
		d.holdQuota(now, r.Signal.Started, flowctl.Outcome{Text: d.fuse.tripped, RetryAfter: r.Signal.RetryAfter})
	}
	if r.Signal.Class == flowctl.Misconfigured && r.Signal.Stage == flowctl.StageMail && authRequired(r) {
		d.hold(now, r.Signal, faultProbe)
	}
}

// takenRecipients counts those that the upstream took or may have taken.
func takenRecipients(r *upstream.Result) (n int) {
	for _, v := range r.Verdicts {
		if v.Class == flowctl.OK || v.Unheard {
			n++
		}
	}
	return n
}

// overQuota reports whether a recipient was refused for a quota.
func overQuota(r *upstream.Result) bool {
	return slices.ContainsFunc(r.Verdicts, func(v upstream.Verdict) bool { return v.Class == flowctl.Quota })
}

// cured reports whether a transaction shows that the upstream is well again: it took somebody, or refused for a moment; or, where
// no session could be had, it said anything about the message.
func (d *lane) cured(r *upstream.Result) bool {
	if d.held.why == "" || r.HandedBack || r.Uncertain || r.Err != nil {
		return false
	}
	if d.held.atDial {
		return r.Signal.Class <= flowctl.Permanent
	}
	return r.Signal.Class <= flowctl.PerMessage ||
		slices.ContainsFunc(r.Verdicts, func(v upstream.Verdict) bool { return v.Class == flowctl.OK })
}

// onlyThisMessage reports whether a class that would slow down everybody came for one message alone, so far: its
// words may be about the content, or quote somebody else's.
func (d *lane) onlyThisMessage(c flowctl.Class, r *upstream.Result) bool {
	if r.HandedBack {
		return false
	}
	switch c {
	case flowctl.Reputation, flowctl.AuthThrottle:
		return !d.fuse.blocks(r.Job.Env.ID)
	case flowctl.RateLimited:
		return !d.fuse.paces(r.Job.Env.ID)
	}
	return false
}

func aboutContent(st flowctl.Stage) bool { return st >= flowctl.StageRcpt && st <= flowctl.StageDot }

// authRequired: 530 is about us, whoever the recipient is (RFC 4954 section 6).
func authRequired(r *upstream.Result) bool {
	return len(r.Verdicts) > 0 && r.Verdicts[0].Reply.Code == 530
}

// ended takes leave of a connection. What it had not begun is as if it had never been tried; but if our own code failed
// on a message, that message waits, and so do those that it had begun with: they may be with the upstream.
func (d *lane) ended(now time.Time, l *link, end flowctl.Outcome, sound bool) {
	o := end
	for i, j := range l.jobs {
		d.flow.SendDone(now, l.id, o)
		o.Class = flowctl.IdleClose // those behind the first were not begun
		j.discard()
		switch {
		case j.withdrawn:
		case !sound && (i == 0 || j.begun):
			d.counts.duplicatesPossible++
			d.again(now, j.delivery.Ref, j, rest{To: j.To, How: byUncertain, Reply: o.Text})
		default:
			d.queue.Return(j.delivery.Ref, j.delivery.Since)
		}
	}
	l.jobs = nil
	if end.Class == flowctl.IdleClose && end.Stage != flowctl.StageIdle {
		end.Class = flowctl.OK // we ended it: no word about how long it may idle, or how many messages it takes
	}
	d.flow.Closed(now, l.id, end)
	delete(d.links, l.id)
	l.close()
}

// apply carries out a judgement.
func (d *lane) apply(now time.Time, j *job, r *upstream.Result, v judgement) {
	id, ref := j.delivery.ID, j.delivery.Ref
	d.counts.recipientsDelivered += uint64(len(v.Delivered))
	if len(v.Delivered) > 0 {
		d.counts.lastDelivered = now
	}
	if r.Uncertain {
		d.counts.duplicatesPossible++
		d.log.Warn("no answer to the content, it may arrive twice", zap.Stringer("id", id), zap.Bool("uncertain", true), d.reply(r.Signal.Text))
	}
	if len(r.Unreported) > 0 {
		d.log.Info("taken by an upstream without DSN, the report of success that was asked for will not come", zap.Stringer("id", id), zap.Int("recipients", len(r.Unreported)))
	}
	if len(v.Failed) > 0 {
		d.fail(id, v.Failed, v.Reply)
	}
	if len(v.Rests) == 0 {
		d.end(now, ref, j, j.settles && len(v.Delivered) == len(j.To))
		return
	}
	last := len(v.Rests) - 1
	for _, x := range v.Rests[:last] {
		d.again(now, d.queue.Split(ref, x.To, x.Key), j, x)
	}
	if x := v.Rests[last]; len(x.To) < len(j.To) {
		d.queue.Narrow(ref, x.To)
	}
	d.again(now, ref, j, v.Rests[last])
}

// again queues what is left of a delivery.
func (d *lane) again(now time.Time, ref queue.Ref, j *job, x rest) {
	id := j.delivery.ID
	if x.Suspect {
		d.queue.Suspect(ref)
	}
	if x.How == again {
		d.queue.Return(ref, j.delivery.Since)
		if j.begun { // so that a later start does not take it for one that was on its way at a crash
			d.recorder.write(tried(j, x, now, j.delivery.Tries).record(id))
		}
		return
	}
	if x.How == inDoubt && d.doubt(now, ref, j, x) {
		return
	}
	if d.held.why == "" && d.fuse.tripped == "" && !x.Unanswered && d.queue.Expired(now, ref) {
		d.fail(id, x.To, fmt.Sprintf("expired after %s: %s", d.cfg.Queue.ExpireAfter, x.Reply))
		d.end(now, ref, j, false)
		return
	}
	due, tries := d.queue.Defer(now, ref, causes[x.How], x.Hint)
	if x.How == byUncertain && tries.Uncertain >= queue.UncertainMax {
		d.log.Error("may have been delivered several times, the next try is far away", zap.Stringer("id", id), zap.Time("due", due))
	}
	d.explain(ref, x.Reply)
	d.recorder.write(tried(j, x, due, tries).record(id))
	d.log.Debug("deferred", zap.Stringer("id", id), zap.Time("due", due), zap.Uint8("attempts", tries.Attempts), d.reply(x.Reply))
}

// tried is what a try left of a delivery. A message that is still one delivery, of all its recipients, needs no other record.
func tried(j *job, x rest, due time.Time, tries queue.Tries) attempt {
	a := attempt{To: x.To, Due: due, Tries: tries, Reply: x.Reply}
	if j.delivery.To == nil && len(x.To) == len(j.To) {
		a.To, a.Whole = nil, true
	}
	return a
}

var causes = [...]queue.Cause{byUpstream: queue.ByUpstream, byHost: queue.ByHost, byRecipient: queue.ByRecipient, byUncertain: queue.ByUncertain, inDoubt: queue.ByRecipient}

// fail notes that recipients can never be delivered.
func (d *dispatcher) fail(id message.ID, to []int, reply string) {
	f := d.failures[id]
	f.to = append(f.to, to...)
	if f.reply == "" {
		f.reply = reply
	}
	d.failures[id] = f
	d.counts.recipientsFailed += uint64(len(to))
	d.log.Warn("recipients failed", zap.Stringer("id", id), zap.Int("failed", len(to)), d.reply(reply))
	d.recorder.write(verdict{Failed: to, Reply: reply}.record(id))
}

// end ends a delivery, and settles its message with the last one. recorded says that the journal has it already.
func (d *dispatcher) end(now time.Time, ref queue.Ref, j *job, recorded bool) {
	id := j.delivery.ID
	delete(d.reasons, ref)
	if !d.queue.End(ref) {
		return
	}
	d.intake.ended()
	fields := []zap.Field{zap.Stringer("id", id), zap.Duration("age", now.Sub(j.delivery.Received))}
	f, failed := d.failures[id]
	if !failed {
		d.counts.delivered++
		if !recorded {
			d.recorder.write(settled(id))
		}
		d.log.Info("settled", append(fields, zap.String("outcome", "delivered"))...)
		return
	}
	delete(d.failures, id)
	d.counts.dead++
	x := death{At: now, Failed: f.to, Reply: f.reply}
	d.recorder.write(x.record(id))
	d.dead.add(id, x, j.size())
	d.log.Error("settled", append(fields, zap.String("outcome", "dead"), zap.Int("failed", len(f.to)), d.reply(f.reply))...)
}
