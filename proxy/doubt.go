package proxy

import (
	"slices"
	"time"

	"github.com/mailweir/mailweir/proxy/queue"
)

// A refusal for good is not believed at once: the first ones of a relay that has lost its rights look like those of dead
// addresses. It stands when a message that was begun afterwards is delivered, which shows that the relay is sane. If the fuse trips instead,
// whoever was refused waits with the others, and is delivered after the cure. If neither happens for a while, since there is no other
// mail, it is asked for once more, and then it stands.

// doubt is a refusal that does not stand yet. In the queue its delivery is in flight; in the journal it is due.
type doubt struct {
	ref queue.Ref
	job *job
	rest
	at time.Time
}

const (
	// doubtFor is how long a refusal waits for others to be delivered: several of them, also at Exchange Server's five messages a minute.
	doubtFor = time.Minute
	// maxDoubts bounds what waits. One message may be many, the messages are fewer than fuseMessages; what is one too many is
	// deferred as if it had waited.
	maxDoubts = 256
)

// doubt has a refusal wait. False: it cannot.
func (d *lane) doubt(now time.Time, ref queue.Ref, j *job, x rest) bool {
	if len(d.doubts) >= maxDoubts {
		d.queue.Suspect(ref)
		return false
	}
	d.doubts = append(d.doubts, doubt{ref, j, x, now})
	d.explain(ref, x.Reply)
	d.recorder.write(tried(j, x, now, j.delivery.Tries).record(j.delivery.ID))
	return true
}

// confirm follows a delivery whose transaction began at began: refusals from before stand. A tripped fuse has acquitted them all.
func (d *lane) confirm(now, began time.Time) {
	d.doubts = slices.DeleteFunc(d.doubts, func(x doubt) bool {
		if x.at.After(began) {
			return false
		}
		d.fail(x.job.delivery.ID, x.To, x.Reply)
		d.end(now, x.ref, x.job, false)
		return true
	})
}

// acquit has everybody wait who was refused by a relay that refuses everybody.
func (d *lane) acquit(now time.Time) {
	for _, x := range d.doubts {
		x.How = byRecipient
		d.again(now, x.ref, x.job, x.rest)
	}
	d.doubts = nil
}

// askAgain ends the wait of refusals that nothing has confirmed, and returns when to look again.
func (d *lane) askAgain(now time.Time) (next time.Time) {
	for len(d.doubts) > 0 {
		x := d.doubts[0]
		if next = x.at.Add(d.scaled(doubtFor)); next.After(now) {
			return next
		}
		d.doubts = d.doubts[1:]
		x.How, x.Suspect = byRecipient, true
		d.again(now, x.ref, x.job, x.rest)
	}
	return time.Time{}
}
