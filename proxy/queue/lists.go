package queue

import (
	"container/heap"
	"time"

	"github.com/mailweir/mailweir/proxy/message"
)

// Slots, lists and the heap behind Queue. Everything is linked by number, so that a backlog of a million
// deliveries is some hundred pieces of memory without pointers.

// keptDeliveries: a queue that never held more keeps its maps and lists when it is empty.
const keptDeliveries = 4096

// renew lets go of what grew with a backlog and shrinks by itself not at all. Queue is empty.
func (q *Queue) renew() {
	q.to, q.byName = map[Ref][]int{}, map[keyName]uint32{}
	q.keys, q.freeKeys = make([]key, 1), nil
	q.waiting, q.most = nil, 0
	for _, l := range q.lanes {
		l.turns = turns{}
	}
}

func (q *Queue) newEntry(id message.ID, received time.Time, recipients, deliveries int) uint32 {
	i := q.entries.take()
	*q.entries.at(i) = entry{id: id, received: received.UnixMicro(), recipients: uint32(recipients), open: uint32(deliveries)}
	q.stats.Messages++
	return i
}

// newSlot makes a delivery that is in no list yet.
func (q *Queue) newSlot(e uint32, g Group) uint32 {
	i := q.slots.take()
	*q.slots.at(i) = slot{entry: e, key: q.intern(keyName{g.Lane, g.Key}), tries: g.Tries, partial: g.To != nil}
	if g.To != nil {
		q.to[Ref(i)] = g.To
	}
	q.count(q.lane(i), func(n *Stats) { n.Deliveries++ })
	q.most = max(q.most, q.stats.Deliveries)
	return i
}

// next and prev are neighbours in the list of a key; none ends it.
func (s *slot) next() *uint32 { return &s.place[0] }
func (s *slot) prev() *uint32 { return &s.place[1] }

// due is in Unix microseconds. What waits is in no list, so it has its time where the neighbours were.
func (s *slot) due() int64 { return int64(uint64(s.place[1])<<32 | uint64(s.place[0])) }

func (s *slot) setDue(t int64) { s.place = [2]uint32{uint32(t), uint32(uint64(t) >> 32)} }

// intern counts one more delivery of the key.
func (q *Queue) intern(name keyName) uint32 {
	k, ok := q.byName[name]
	if !ok {
		if n := len(q.freeKeys); n > 0 {
			k, q.freeKeys = q.freeKeys[n-1], q.freeKeys[:n-1]
		} else {
			q.keys = append(q.keys, key{})
			k = uint32(len(q.keys) - 1)
		}
		q.keys[k] = key{name: name.name, lane: q.Lane(name.lane)}
		q.byName[name] = k
	}
	q.keys[k].refs++
	return k
}

// unref forgets a key with its last delivery.
func (q *Queue) unref(k uint32) {
	q.keys[k].refs--
	if q.keys[k].refs == 0 {
		delete(q.byName, keyName{q.keys[k].lane.n, q.keys[k].name})
		q.keys[k] = key{}
		q.freeKeys = append(q.freeKeys, k)
	}
}

// ready appends a delivery to the list of its key, or puts it first.
func (q *Queue) ready(i uint32, first bool) {
	s := q.slots.at(i)
	s.state, s.place = ready, [2]uint32{none, none}
	k := &q.keys[s.key]
	l := k.lane
	q.count(l, func(n *Stats) { n.Ready++ })
	switch {
	case k.head == none:
		k.head, k.tail = i, i
		if first && l.clockStopped() { // in a hold, the last to be probed again
			l.turns.pushFront(s.key)
		} else {
			l.turns.push(s.key)
		}
	case first:
		*s.next(), *q.slots.at(k.head).prev(), k.head = k.head, i, i
	default:
		*s.prev(), *q.slots.at(k.tail).next(), k.tail = k.tail, i, i
	}
}

// unlink takes a ready delivery out of the list of its key.
func (q *Queue) unlink(i uint32) {
	s := q.slots.at(i)
	k := &q.keys[s.key]
	next, prev := *s.next(), *s.prev()
	if prev == none {
		k.head = next
	} else {
		*q.slots.at(prev).next() = next
	}
	if next == none {
		k.tail = prev
	} else {
		*q.slots.at(next).prev() = prev
	}
}

func (q *Queue) deferUntil(i uint32, due time.Time) {
	s := q.slots.at(i)
	s.state = deferred
	s.setDue(due.UnixMicro())
	q.count(q.lane(i), func(n *Stats) { n.Deferred++ })
	heap.Push((*byDue)(q), i)
}

// promote makes ready what is due. While the clock of a lane stands still, for the upstream is held, what was tried before goes to the front:
// probes take from the back, and should not try the same again.
func (q *Queue) promote(now time.Time) {
	for len(q.waiting) > 0 && q.slots.at(q.waiting[0]).due() <= now.UnixMicro() {
		i := heap.Pop((*byDue)(q)).(uint32)
		l := q.lane(i)
		q.count(l, func(n *Stats) { n.Deferred-- })
		q.ready(i, l.clockStopped())
		l.ages.come(now)
	}
}

// leave takes a delivery out of the state in which the caller must have it.
func (q *Queue) leave(ref Ref, want state) {
	if q.slots.at(uint32(ref)).state != want {
		panic("queue: a delivery that is not in flight was given back")
	}
	q.count(q.lane(uint32(ref)), func(n *Stats) { n.InFlight-- })
}

// turns is a ring of keys.
type turns struct {
	ring  []uint32
	first int
	n     int
}

func (t *turns) push(k uint32) {
	if t.n == len(t.ring) {
		t.grow()
	}
	t.ring[(t.first+t.n)%len(t.ring)] = k
	t.n++
}

func (t *turns) pushFront(k uint32) {
	if t.n == len(t.ring) {
		t.grow()
	}
	t.first = (t.first + len(t.ring) - 1) % len(t.ring)
	t.ring[t.first] = k
	t.n++
}

// popLast takes the key whose turn would come last.
func (t *turns) popLast() (uint32, bool) {
	if t.n == 0 {
		return none, false
	}
	t.n--
	return t.ring[(t.first+t.n)%len(t.ring)], true
}

func (t *turns) pop() (uint32, bool) {
	if t.n == 0 {
		return none, false
	}
	k := t.ring[t.first]
	t.first = (t.first + 1) % len(t.ring)
	t.n--
	return k, true
}

func (t *turns) grow() {
	ring := make([]uint32, max(16, 2*len(t.ring)))
	for i := range t.n {
		ring[i] = t.ring[(t.first+i)%len(t.ring)]
	}
	t.ring, t.first = ring, 0
}

// dueHeap holds deferred slots, the first due on top.
type dueHeap []uint32

// byDue is the queue as container/heap sees it.
type byDue Queue

func (h *byDue) Len() int { return len(h.waiting) }
func (h *byDue) Less(a, b int) bool {
	return h.slots.at(h.waiting[a]).due() < h.slots.at(h.waiting[b]).due()
}
func (h *byDue) Swap(a, b int) { h.waiting[a], h.waiting[b] = h.waiting[b], h.waiting[a] }
func (h *byDue) Push(x any)    { h.waiting = append(h.waiting, x.(uint32)) }
func (h *byDue) Pop() any {
	last := len(h.waiting) - 1
	x := h.waiting[last]
	h.waiting = h.waiting[:last]
	if last > keptDeliveries && last < cap(h.waiting)/4 { // so that it does not stay as long as it ever was
		h.waiting = append(make(dueHeap, 0, 2*last), h.waiting...)
	}
	return x
}
