package proxy

import (
	"strconv"
	"time"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
)

// fuse stops the upstream before a fault of ours, or of its own, bounces a backlog. It judges the refusals that
// come at RCPT and after the content, where the words alone do not show whom they concern: a full mailbox says
// "quota exceeded", and a relay that lost its rights answers 554 to everything. It is pure.
//
// What it has tripped on, it may have tripped on wrongly: an application can send ten mails to dead addresses in a row. So the
// upstream is probed with other messages, the first success clears everything, and when probes were refused for as long as a
// message may wait, permanent refusals stand. What sounds like quota or misconfiguration never does without a success of others.
type fuse struct {
	refused   map[message.ID]struct{} // messages refused for good, or suspiciously, since the last success
	names     map[string]struct{}     // recipients whose refusal did, up to two
	suspects  map[string]struct{}     // recipient domains whose refusal sounded like the upstream's, since the last success
	blocked   map[message.ID]struct{} // messages blocked for their content, or for us, since the last success
	paced     message.ID              // the last message refused for the rate; 0: none was
	armed     bool                    // it had tripped before: the next refusal trips it again
	successAt time.Time
	tripped   string        // why nothing may be bounced now; "": not tripped
	quota     bool          // and what was said last before it tripped was about a quota
	trippedAt time.Time     // when it last tripped
	waited    time.Duration // for how long probes were refused, without a success between; 0: it has not tripped
	refusedAt time.Time     // the last of those
	spent     bool          // it was tripped for so long that refusals stand until the next success
}

const (
	// fuseGap is the most that one refused probe adds to the wait: time in which nothing could be probed, since the upstream was
	// away or we were, does not count.
	fuseGap = 2 * time.Hour
	// fuseMessages: so many distinct messages refused in a row, without one success, are the upstream's or the
	// configuration's doing and not the recipients'.
	fuseMessages = 10
	// fuseDomains: so many distinct messages, to so many recipient domains, make a suspicion of quota, of misconfiguration or
	// of a bad reputation certain.
	fuseDomains = 3
	// suspectTries: a refusal that sounds like the upstream's, so often for one delivery while others get
	// through, is about the recipient after all.
	suspectTries = 3
)

// success clears every suspicion; a tripped fuse closes again. But what began before it tripped proves nothing.
func (f *fuse) success(now, began time.Time) {
	if f.tripped != "" && !began.After(f.trippedAt) {
		return
	}
	clear(f.refused)
	clear(f.names)
	clear(f.suspects)
	clear(f.blocked)
	*f = fuse{refused: f.refused, names: f.names, suspects: f.suspects, blocked: f.blocked, paced: f.paced, successAt: now}
}

// rearm closes a tripped fuse without a success: the next refusal trips it again.
func (f *fuse) rearm() {
	if f.tripped == "" {
		return
	}
	clear(f.refused)
	clear(f.names)
	clear(f.suspects)
	f.tripped, f.armed = "", true
}

// restore takes over from an earlier run that ended with a tripped fuse.
func (f *fuse) restore(waited time.Duration) { f.waited, f.armed = waited, true }

// spend lets refusals stand when probes have been refused for so long. It reports whether that ends a hold.
func (f *fuse) spend(patience time.Duration) bool {
	if f.tripped == "" || f.waited < patience {
		return false
	}
	f.tripped, f.spent = "", true
	return true
}

// permanent takes note that a message was refused for good, and reports whether that may stand. If not,
// the fuse has tripped and the message is held.
func (f *fuse) permanent(now time.Time, id message.ID, reply string) bool {
	f.count(now, id, flowctl.Permanent, reply)
	return f.tripped == ""
}

// suspect takes note of a refusal that sounds like Quota or Misconfigured, for one recipient. It trips when several messages to
// several recipient domains had one. One recipient's quota trips nothing, however many messages meet it: it may be its mailbox's.
func (f *fuse) suspect(now time.Time, id message.ID, class flowctl.Class, to, reply string) {
	_, known := f.refused[id]
	if f.names == nil {
		f.names = map[string]struct{}{}
	}
	if len(f.names) < 2 {
		f.names[to] = struct{}{}
	}
	f.count(now, id, class, reply)
	if known || f.spent || f.tripped != "" { // one message stands for one domain, however many it names
		return
	}
	if f.suspects == nil {
		f.suspects = map[string]struct{}{}
	}
	f.suspects[message.Domain(to)] = struct{}{}
	if len(f.suspects) >= fuseDomains {
		f.trip(now, class, class.String()+": "+reply)
	}
}

// blocks takes note of a message blocked for reputation, and reports whether it is about more than that message.
func (f *fuse) blocks(id message.ID) bool {
	if f.blocked == nil {
		f.blocked = map[message.ID]struct{}{}
	}
	if len(f.blocked) < fuseDomains {
		f.blocked[id] = struct{}{}
	}
	return len(f.blocked) >= fuseDomains
}

// paces takes note of a message refused for the rate, and reports whether it is about more than that message: the last one that was
// is another one. A relay may quote, for one recipient again and again, what somebody else told it.
func (f *fuse) paces(id message.ID) bool {
	other := f.paced != 0 && f.paced != id
	f.paced = id
	return other
}

func (f *fuse) count(now time.Time, id message.ID, class flowctl.Class, reply string) {
	if f.tripped != "" { // a pause without an answer, or without a process, counts little
		f.waited += min(now.Sub(f.refusedAt), fuseGap)
		f.refusedAt = now
	}
	if f.tripped != "" || f.spent {
		return
	}
	if f.refused == nil {
		f.refused = map[message.ID]struct{}{}
	}
	if len(f.refused) < fuseMessages {
		f.refused[id] = struct{}{}
	}
	switch {
	case class == flowctl.Quota && len(f.names) < 2:
	case f.armed:
		f.trip(now, class, "refused again: "+reply)
	case len(f.refused) >= fuseMessages:
		f.trip(now, class, "refused "+strconv.Itoa(fuseMessages)+" messages in a row: "+reply)
	}
}

func (f *fuse) trip(now time.Time, class flowctl.Class, why string) {
	if f.tripped != "" {
		return
	}
	f.tripped, f.trippedAt, f.refusedAt, f.quota = why, now, now, class == flowctl.Quota
	f.waited = max(f.waited, 1)
}

// certain reports whether a suspicious refusal is about the recipient after all: it was repeated, and others
// got through since the given time.
func (f *fuse) certain(suspects uint8, since time.Time) bool {
	return f.tripped == "" && suspects >= suspectTries && f.successAt.After(since)
}
