package proxy

import (
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
)

// recovery rebuilds from the journal's records, in the order in which they were written, what was pending.
type recovery struct {
	log     *zap.Logger
	pending backlog
	parts   map[message.ID]*parts // of messages whose recipients are not all alike, or of which one has failed
	names   names
	deaths  map[message.ID]death
	ids     *message.IDs
	router  *router
	bad     int // records that could not be read; what they said is forgotten, never a message
}

// crashTries is how often a message may be on its way when the process dies before it has to wait: others
// go first, in case it is the message that kills us. It is not given up for that: it may have been a bystander.
const crashTries = 3

func newRecovery(ids *message.IDs, log *zap.Logger) *recovery {
	return &recovery{log: log, parts: map[message.ID]*parts{}, names: newNames(), deaths: map[message.ID]death{}, ids: ids, router: &router{most: []int{queue.MaxGroup}}}
}

// replay takes the next record. Only an accepted message that cannot be read is an error.
func (r *recovery) replay(rec journal.Record) error {
	id := message.ID(rec.ID)
	switch rec.Type {
	case journal.Accepted:
		return r.accepted(id, rec.Payload)
	case journal.Settled, journal.Void:
		r.pending.remove(id)
		delete(r.parts, id)
		delete(r.deaths, id)
		return nil
	}
	m := r.pending.get(id)
	if m == nil {
		return nil // a blob, or about a message that has ended
	}
	if rec.Type == journal.Restated {
		r.restated(m)
		return nil
	}
	f, err := parseFields(rec.Payload)
	if err != nil {
		r.bad++
		r.log.Error("state record not understood, its message may be sent again", zap.Stringer("id", id), zap.Error(err))
		return nil
	}
	r.apply(m, rec.Type, f)
	return nil
}

func (r *recovery) accepted(id message.ID, meta []byte) error {
	var domains []uint32 // from the second domain on
	n, domain := 0, uint32(0)
	o, err := message.ReadOutline(meta, func(from, addr []byte) {
		d := r.place(from, addr)
		switch {
		case n == 0:
			domain = d
		case d != domain && domains == nil:
			domains = slices.Repeat([]uint32{domain}, n)
		}
		if domains != nil {
			domains = append(domains, d)
		}
		n++
	})
	if err != nil {
		return fmt.Errorf("proxy: recover message %s: %w", id, err)
	}
	r.ids.Seen(id)
	if r.pending.get(id) != nil {
		return nil // a copy says nothing new
	}
	m := r.pending.add(id)
	m.received, m.size, m.domain, m.recipients = o.Received, o.Size, domain, uint32(o.Recipients)
	if domains != nil {
		m.domain = 0
		r.part(m).domains = domains
	}
	return nil
}

// place returns the number of where a recipient's mail queues up, by the routes now in force.
func (r *recovery) place(from, addr []byte) uint32 {
	if len(r.router.table) == 0 {
		return r.names.domain(0, addr)
	}
	return r.names.domain(r.router.table.Lane(message.Domain(string(from)), message.Domain(string(addr))), addr)
}

// part returns what is particular to a message.
func (r *recovery) part(m *recovered) *parts {
	p := r.parts[m.id]
	if p == nil {
		p = new(parts)
		r.parts[m.id] = p
	}
	return p
}

// restated makes the message one of which nothing is known but that it was accepted.
func (r *recovery) restated(m *recovered) {
	delete(r.deaths, m.id)
	m.fate = fate{}
	if p := r.parts[m.id]; p != nil && p.domains != nil {
		*p = parts{domains: p.domains}
	} else {
		delete(r.parts, m.id)
	}
}

func (r *recovery) apply(m *recovered, t journal.Type, f fields) {
	switch t {
	case journal.Verdict:
		if len(f.Failed) > 0 {
			p := r.part(m)
			p.failed = append(p.failed, f.Failed...)
			if p.failReply == "" {
				p.failReply = f.Reply
			}
		}
		r.each(m, true, append(f.Delivered, f.Failed...), func(x *fate) { x.ended, x.started = true, 0 })
	case journal.Attempt:
		due := micros(f.Due)
		r.each(m, f.HasTo, f.To, func(x *fate) { x.due, x.tries, x.started = due, f.Tries, 0 })
	case journal.Started:
		r.each(m, f.HasTo, f.To, func(x *fate) { x.started = up(x.started) })
	case journal.Dead:
		x := death{At: f.At, Reply: f.Reply}
		if p := r.parts[m.id]; p != nil {
			x.Failed = p.failed
		}
		r.deaths[m.id] = x
	}
}

// into fills the dispatcher's queue, in the order of acceptance, and ends what had ended but for the last record. Nothing is left of
// the recovery then.
func (r *recovery) into(d *dispatcher, now time.Time) {
	var groups []queue.Group
	r.pending.empty(func(m *recovered) {
		x, dead := r.deaths[m.id]
		p := r.parts[m.id]
		groups = r.groups(groups, m, now, d.cfg.Queue.RecipientRetryMin)
		switch {
		case dead:
			d.dead.add(m.id, x, m.size)
		case len(groups) == 0 && p != nil && len(p.failed) > 0:
			x := death{At: now, Failed: p.failed, Reply: p.failReply}
			d.recorder.write(x.record(m.id))
			d.dead.add(m.id, x, m.size)
		case len(groups) == 0:
			d.recorder.write(settled(m.id))
		default:
			r.enqueue(d, now, m, groups)
		}
	})
	slices.SortStableFunc(d.dead.rows, func(a, b corpse) int { return a.At.Compare(b.At) })
	*r = recovery{}
}

func (r *recovery) enqueue(d *dispatcher, now time.Time, m *recovered, groups []queue.Group) {
	if p := r.parts[m.id]; p != nil && len(p.failed) > 0 {
		d.failures[m.id] = failure{to: p.failed, reply: p.failReply}
	}
	crashes := r.crashes(m)
	if crashes > 0 {
		d.counts.duplicatesPossible++
	}
	if crashes >= crashTries {
		d.log.Error("message was on its way at several crashes, others go first", zap.Stringer("id", m.id), zap.Uint8("crashes", crashes))
	}
	d.queue.Add(now, m.id, time.UnixMicro(m.received), int(m.recipients), groups)
	d.intake.pending.Add(1)
	d.counts.recovered++
}
