package proxy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
)

// recovery rebuilds from the journal's records, in the order in which they were written, what was pending.
type recovery struct {
	log      *zap.Logger
	messages map[message.ID]*recovered
	domains  map[string]string // each domain once, however many messages name it
	deaths   map[message.ID]death
	ids      *message.IDs
	bad      int // records that could not be read; what they said is forgotten, never a message
}

// recovered is what has to be known of a message that had not ended: as little as can be, since there may be a million.
type recovered struct {
	received  time.Time
	size      int64
	domains   []string // one a recipient
	fates     []fate   // one a recipient; nil: nothing happened yet
	dead      bool
	failed    []int
	failReply string
}

// fate is what is known of one recipient.
type fate struct {
	ended bool
	due   time.Time
	tries queue.Tries

	started int // tries that began and of which nothing was heard
}

// crashTries is how often a message may be on its way when the process dies before it has to wait: others
// go first, in case it is the message that kills us.
const crashTries = 3

func newRecovery(ids *message.IDs, log *zap.Logger) *recovery {
	return &recovery{log: log, messages: map[message.ID]*recovered{}, domains: map[string]string{}, deaths: map[message.ID]death{}, ids: ids}
}

// replay takes the next record. Only an accepted message that cannot be read is an error.
func (r *recovery) replay(rec journal.Record) error {
	id := message.ID(rec.ID)
	if rec.Type == journal.Accepted {
		return r.accepted(id, rec.Payload)
	}
	switch rec.Type {
	case journal.Settled, journal.Void:
		delete(r.messages, id)
		delete(r.deaths, id)
		return nil
	}
	m := r.messages[id]
	if m == nil {
		return nil // a blob, or about a message that has ended
	}
	f, err := parseFields(rec.Payload)
	if err != nil {
		r.bad++
		r.log.Error("state record not understood, its message may be sent again", zap.Stringer("id", id), zap.Error(err))
		return nil
	}
	m.apply(rec.Type, f)
	if rec.Type == journal.Dead {
		r.deaths[id] = death{At: f.At, Failed: m.failed, Reply: f.Reply}
	}
	return nil
}

func (r *recovery) accepted(id message.ID, meta []byte) error {
	var env message.Envelope
	if err := env.UnmarshalBinary(meta); err != nil {
		return fmt.Errorf("proxy: recover message %s: %w", id, err)
	}
	r.ids.Seen(id)
	m := &recovered{received: env.Received, size: env.Size, domains: make([]string, len(env.To))}
	for i, to := range env.To {
		domain := message.Domain(to.Addr)
		known, ok := r.domains[domain]
		if !ok {
			known = strings.Clone(domain) // and not the address around it
			r.domains[known] = known
		}
		m.domains[i] = known
	}
	r.messages[id] = m
	return nil
}

func (m *recovered) apply(t journal.Type, f fields) {
	switch t {
	case journal.Verdict:
		m.failed = append(m.failed, f.Failed...)
		if m.failReply == "" {
			m.failReply = f.Reply
		}
		m.each(append(f.Delivered, f.Failed...), func(x *fate) { x.ended, x.started = true, 0 })
	case journal.Attempt:
		m.each(m.concerned(f), func(x *fate) { x.due, x.tries, x.started = f.Due, f.Tries, 0 })
	case journal.Started:
		m.each(m.concerned(f), func(x *fate) { x.started++ })
	case journal.Dead:
		m.dead = true
	}
}

func (m *recovered) each(to []int, set func(*fate)) {
	if m.fates == nil {
		m.fates = make([]fate, len(m.domains))
	}
	for _, i := range to {
		if i < len(m.fates) {
			set(&m.fates[i])
		}
	}
}

// concerned returns whom a record is about.
func (m *recovered) concerned(f fields) []int {
	if f.HasTo {
		return f.To
	}
	return indices(len(m.domains))
}

// groups makes deliveries of the recipients that have not ended: those with the same history go together.
func (m *recovered) groups(now time.Time, crashPause time.Duration) []queue.Group {
	type history struct {
		due     time.Time
		tries   queue.Tries
		crashed bool
	}
	var groups []queue.Group
	at := map[history]int{}
	for i := range m.domains {
		var x fate
		if m.fates != nil {
			x = m.fates[i]
		}
		if x.ended {
			continue
		}
		h := history{x.due, x.tries, x.started >= crashTries}
		if h.crashed && h.due.Before(now.Add(crashPause)) {
			h.due = now.Add(crashPause)
		}
		g, ok := at[h]
		if !ok || len(groups[g].To) == queue.MaxGroup {
			g = len(groups)
			at[h] = g
			groups = append(groups, queue.Group{Due: h.due, Tries: x.tries})
		}
		groups[g].To = append(groups[g].To, i)
	}
	for i := range groups {
		g := &groups[i]
		g.Key = sharedKey(g.To, func(i int) string { return m.domains[i] })
		if len(g.To) == len(m.domains) {
			g.To = nil
		}
	}
	return groups
}

// crashes returns how often the process died while a recipient of the message was being tried.
func (m *recovered) crashes() (n int) {
	for i := range m.fates {
		if !m.fates[i].ended {
			n = max(n, m.fates[i].started)
		}
	}
	return n
}

// into fills the dispatcher's queue, in the order of acceptance, and ends what had ended but for the last record.
func (r *recovery) into(d *dispatcher, now time.Time) {
	ids := make([]message.ID, 0, len(r.messages))
	for id := range r.messages {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		m := r.messages[id]
		groups := m.groups(now, d.cfg.Queue.RecipientRetryMin)
		switch {
		case m.dead:
			d.dead.add(id, r.deaths[id], m.size)
		case len(groups) == 0 && len(m.failed) > 0:
			x := death{At: now, Failed: m.failed, Reply: m.failReply}
			d.recorder.write(x.record(id))
			d.dead.add(id, x, m.size)
		case len(groups) == 0:
			d.recorder.write(settled(id))
		default:
			r.pending(d, now, id, m, groups)
		}
	}
	slices.SortStableFunc(d.dead.rows, func(a, b corpse) int { return a.At.Compare(b.At) })
}

func (r *recovery) pending(d *dispatcher, now time.Time, id message.ID, m *recovered, groups []queue.Group) {
	if len(m.failed) > 0 {
		d.failures[id] = failure{to: m.failed, reply: m.failReply}
	}
	crashes := m.crashes()
	if crashes > 0 {
		d.counts.duplicatesPossible++
	}
	if crashes >= crashTries {
		d.log.Error("message was on its way at several crashes, others go first", zap.Stringer("id", id), zap.Int("crashes", crashes))
	}
	d.queue.Add(now, id, m.received, len(m.domains), groups)
	d.intake.pending.Add(1)
	d.counts.recovered++
}
