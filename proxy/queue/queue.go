// Package queue decides which delivery is tried next, and when a failed one is due again.
//
// It is a deterministic state machine: it does no I/O, starts no goroutines and never reads the
// clock. Deliveries of different keys take turns, so that a flood for one domain delays nobody
// else; deliveries of one key go in the order in which they became due. Lanes keep apart what leaves by different ways: each is
// asked for its own next delivery, and none waits for another. One goroutine owns a Queue.
package queue

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/mailweir/mailweir/proxy/message"
)

// Ref names a pending delivery from Add to End. The zero Ref names none. After End the same value may
// name another delivery.
type Ref uint32

// Delivery is the unit of the queue: those recipients of one message that leave by the same lane and share their fate so far. A
// message starts as one delivery a lane of up to MaxGroup recipients (the upstream fans out by domain, so
// splitting it earlier would only send the body more often); recipients that fail on their own
// account go on as deliveries of their own.
type Delivery struct {
	Ref        Ref
	ID         message.ID
	Received   time.Time
	Recipients int       // of the message
	To         []int     // indices of recipients; nil: all of the message. Not to be changed.
	Tries                // what it has been through
	Lane       int       // which way it leaves
	Last       bool      // the message has no other delivery
	Since      time.Time // when it became ready, or a little earlier
}

// Tries is what a delivery has been through; it survives a restart.
type Tries struct {
	Attempts  uint8 // failures on the recipients' own account: the exponent of their backoff
	Strikes   uint8 // failures that concerned the upstream: the exponent of that backoff
	Uncertain uint8 // tries that may have been delivered, though no reply was heard
	Suspects  uint8 // refusals that looked like the upstream's and not like the recipient's
}

// Cause says whose failure a deferral is.
type Cause uint8

const (
	ByUpstream  Cause = iota // RetryMin to RetryMax
	ByRecipient              // RecipientRetryMin to RecipientRetryMax
	ByUncertain              // may have been delivered: uncertainMin, then ever longer
	ByHost                   // one of several hosts refused what the others may take: RetryMin each time, and nothing is counted
)

const (
	// MaxGroup is how many recipients one delivery has at most: what every server must take in
	// one transaction (RFC 5321 section 4.5.3.1.8).
	MaxGroup = 100

	// uncertainMin is the first pause after a try that may have been delivered; uncertainHold the
	// pause from the third on. A relay that takes mail and never answers gets a handful of
	// copies and not one a minute.
	uncertainMin  = 5 * time.Minute
	uncertainHold = 24 * time.Hour

	// UncertainMax is that third try.
	UncertainMax = 3

	none = 0 // end of a list, and no slot or key: number 0 is never given out
)

type state uint8

const (
	ready state = iota + 1
	deferred
	inFlight
)

// entry is one message of the queue: 24 bytes, no pointers.
type entry struct {
	id         message.ID
	received   int64  // Unix microseconds
	recipients uint32 // how many
	open       uint32 // deliveries that have not ended
}

// slot is one delivery: 24 bytes, no pointers, so that the collector never looks at a backlog.
type slot struct {
	entry   uint32    // its message
	key     uint32    // index into Queue.keys
	place   [2]uint32 // ready: the next and the previous one of its key; deferred: when it is due; see lists.go
	tries   Tries
	state   state
	partial bool // has a list of recipients in Queue.to
}

// key is one name under which deliveries queue up.
type key struct {
	name       string
	lane       *Lane
	head, tail uint32 // ready deliveries
	refs       int    // deliveries of this key, in any state
}

// Queue holds the pending deliveries. Its zero value is not usable; New makes one.
type Queue struct {
	cfg     Config
	random  *rand.Rand
	entries slab[entry]
	slots   slab[slot]
	to      map[Ref][]int // recipients of the deliveries that are not whole messages
	keys    []key
	byName  map[keyName]uint32
	lanes   []*Lane // never empty
	waiting dueHeap // deferred deliveries
	grace   time.Time

	freeKeys []uint32
	most     int // deliveries at one time since the queue was last empty
	stats    Stats
}

// Stats counts what is pending.
type Stats struct {
	Messages   int
	Deliveries int
	Ready      int
	Deferred   int
	InFlight   int
}

// startGrace is how long after a start nothing expires: the clock may have been wrong before, or be now.
const startGrace = 10 * time.Minute

// New returns an empty queue. Equal seeds, calls and times give equal answers.
func New(cfg Config, seed uint64, now time.Time) *Queue {
	q := &Queue{cfg: cfg, random: rand.New(rand.NewPCG(seed, 0)), grace: now.Add(startGrace)}
	q.Lane(0)
	q.renew()
	return q
}

// keyName is what deliveries of one key have in common.
type keyName struct {
	lane int
	name string
}

// Group is a delivery to be added.
type Group struct {
	Lane  int       // which way it leaves
	Key   string    // deliveries of one lane and different keys take turns
	To    []int     // nil: all recipients of the message. The queue keeps it.
	Due   time.Time // zero: at once
	Tries Tries
}

// Add takes in a message that was accepted at received, with its deliveries: at least one. A due time
// further away than the longest backoff is brought nearer, since the clock that it was written by
// may have been wrong.
func (q *Queue) Add(now time.Time, id message.ID, received time.Time, recipients int, groups []Group) {
	e := q.newEntry(id, received, recipients, len(groups))
	for _, g := range groups {
		ref := q.newSlot(e, g)
		if g.Due.After(now) {
			q.deferUntil(ref, earlier(g.Due, now.Add(q.longestPause())))
		} else {
			q.ready(ref, false)
			q.lane(ref).ages.come(now)
		}
	}
}

// fly makes a delivery that is in no list one in flight.
func (q *Queue) fly(ref uint32) Delivery {
	s := q.slots.at(ref)
	s.state = inFlight
	l := q.lane(ref)
	q.count(l, func(n *Stats) { n.Ready--; n.InFlight++ })
	d := q.delivery(ref)
	d.Since = l.ages.leave()
	return d
}

func (q *Queue) delivery(i uint32) Delivery {
	s := q.slots.at(i)
	e := q.entries.at(s.entry)
	return Delivery{
		Ref:        Ref(i),
		ID:         e.id,
		Received:   time.UnixMicro(e.received),
		Recipients: int(e.recipients),
		To:         q.to[Ref(i)],
		Tries:      s.tries,
		Lane:       q.keys[s.key].lane.n,
		Last:       e.open == 1,
	}
}

// Return gives a delivery back as if it had never been tried: it is the next of its key, and was ready since then.
func (q *Queue) Return(ref Ref, since time.Time) {
	q.leave(ref, inFlight)
	q.ready(uint32(ref), true)
	q.lane(uint32(ref)).ages.back(since)
}

// Defer counts a failed try and makes the delivery wait, longer at each failure of the same cause. hint, if
// longer, is how long the upstream asked to wait. It returns when the delivery is due and what it has been through,
// for the journal.
func (q *Queue) Defer(now time.Time, ref Ref, cause Cause, hint time.Duration) (time.Time, Tries) {
	s := q.slots.at(uint32(ref))
	pause := max(q.pause(&s.tries, cause), hint)
	due := now.Add(min(pause, q.longestPause())).Truncate(time.Microsecond) // as the journal keeps it
	q.leave(ref, inFlight)
	q.deferUntil(uint32(ref), due)
	return due, s.tries
}

// Suspect counts a refusal that looked like the upstream's, for a delivery that is then deferred.
func (q *Queue) Suspect(ref Ref) {
	t := &q.slots.at(uint32(ref)).tries
	t.Suspects = up(t.Suspects)
}

// Split makes a new delivery of some recipients of one that is in flight. It is in flight too and has the same history;
// the caller Narrows ref to the others. It stays in the lane.
func (q *Queue) Split(ref Ref, to []int, key string) Ref {
	s := q.slots.at(uint32(ref))
	q.entries.at(s.entry).open++
	l := q.lane(uint32(ref))
	other := q.newSlot(s.entry, Group{Lane: l.n, Key: key, To: to, Tries: s.tries})
	q.slots.at(other).state = inFlight
	q.count(l, func(n *Stats) { n.InFlight++ })
	return Ref(other)
}

// Narrow says which recipients are left of a delivery in flight. The queue keeps to.
func (q *Queue) Narrow(ref Ref, to []int) {
	q.slots.at(uint32(ref)).partial = true
	q.to[ref] = to
}

// End removes a delivery in flight, and with the last one its message; last says so.
func (q *Queue) End(ref Ref) (last bool) {
	q.leave(ref, inFlight)
	s := *q.slots.at(uint32(ref))
	if s.partial {
		delete(q.to, ref)
	}
	q.count(q.lane(uint32(ref)), func(n *Stats) { n.Deliveries-- })
	q.unref(s.key)
	q.slots.give(uint32(ref))
	e := q.entries.at(s.entry)
	e.open--
	if last = e.open == 0; last {
		q.entries.give(s.entry)
		q.stats.Messages--
	}
	if q.stats.Deliveries == 0 && q.most > keptDeliveries {
		q.renew()
	}
	return last
}

// NextDue returns when the next deferred delivery is due; the zero time when none is.
func (q *Queue) NextDue() time.Time {
	if len(q.waiting) == 0 {
		return time.Time{}
	}
	return time.UnixMicro(q.slots.at(q.waiting[0]).due())
}

// Stats returns the counts as they are now.
func (q *Queue) Stats() Stats { return q.stats }

// Row is a delivery as a list shows it.
type Row struct {
	Delivery
	State string    // due, deferred, in flight
	Due   time.Time // when deferred
}

// Rows returns the limit oldest pending deliveries, the oldest first. It walks the whole queue: for operators,
// not for every message.
func (q *Queue) Rows(limit int) []Row {
	var oldest []uint32
	byAge := func(a, b uint32) int {
		return cmp.Compare(q.entries.at(q.slots.at(a).entry).id, q.entries.at(q.slots.at(b).entry).id)
	}
	for i := range q.slots.all() {
		oldest = append(oldest, i)
		if len(oldest) == 2*limit {
			slices.SortFunc(oldest, byAge)
			oldest = oldest[:limit]
		}
	}
	slices.SortFunc(oldest, byAge)
	rows := make([]Row, 0, min(limit, len(oldest)))
	for _, i := range oldest[:min(limit, len(oldest))] {
		s := q.slots.at(i)
		row := Row{Delivery: q.delivery(i), State: [...]string{ready: "due", deferred: "deferred", inFlight: "in flight"}[s.state]}
		if s.state == deferred {
			row.Due = time.UnixMicro(s.due())
		}
		rows = append(rows, row)
	}
	return rows
}

// Oldest returns when the oldest pending message was accepted; the zero time when there is none. It
// walks the whole queue.
func (q *Queue) Oldest() time.Time {
	oldest := int64(math.MaxInt64)
	for _, e := range q.entries.all() {
		oldest = min(oldest, e.received)
	}
	if oldest == math.MaxInt64 {
		return time.Time{}
	}
	return time.UnixMicro(oldest)
}

// Expired reports whether a delivery that was just tried and failed has waited long enough to be given up:
// ExpireAfter since it was received, not counting pauses, and never in the first minutes after a start.
func (q *Queue) Expired(now time.Time, ref Ref) bool {
	if now.Before(q.grace) {
		return false
	}
	received := time.UnixMicro(q.entries.at(q.slots.at(uint32(ref)).entry).received)
	waited := now.Sub(received)
	for _, p := range q.lane(uint32(ref)).pauses {
		waited -= p.within(received, now)
	}
	return waited >= q.cfg.ExpireAfter
}

// pause counts one failure of the cause and returns the backoff that follows it.
func (q *Queue) pause(t *Tries, cause Cause) time.Duration {
	switch cause {
	case ByRecipient:
		t.Attempts = up(t.Attempts)
		return q.jitter(backoff(q.cfg.RecipientRetryMin, q.cfg.RecipientRetryMax, t.Attempts))
	case ByUncertain:
		t.Attempts, t.Uncertain = up(t.Attempts), up(t.Uncertain)
		if t.Uncertain >= UncertainMax {
			return uncertainHold
		}
		return uncertainMin + q.jitter(backoff(uncertainMin, uncertainHold, t.Uncertain))
	case ByHost:
		return q.jitter(q.cfg.RetryMin)
	default:
		t.Strikes = up(t.Strikes)
		return q.jitter(backoff(q.cfg.RetryMin, q.cfg.RetryMax, t.Strikes))
	}
}

func (q *Queue) longestPause() time.Duration {
	return max(q.cfg.RetryMax, q.cfg.RecipientRetryMax, uncertainHold)
}

// backoff doubles from lo to hi.
func backoff(lo, hi time.Duration, failures uint8) time.Duration {
	if doublings := failures - 1; lo < hi>>doublings {
		return lo << doublings
	}
	return hi
}

// jitter keeps half of d and draws the other half, so that what failed together does not return together.
func (q *Queue) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(q.random.Int64N(int64(d/2)+1))
}

func up(n uint8) uint8 {
	if n == math.MaxUint8 {
		return n
	}
	return n + 1
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
