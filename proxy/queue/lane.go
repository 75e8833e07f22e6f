package queue

import "time"

// Lane is one of the ways that deliveries leave by: with its own turns, and its own clock of expiry. What concerns a delivery that was
// taken is the queue's.
type Lane struct {
	*Queue
	n      int
	turns  turns   // keys that have something ready, in order of their turn
	pauses []Pause // spans that do not count towards expiry
	ages   ages
	counts Stats
}

// Lane returns the lane of a number, from 0. There are as many as were asked for.
func (q *Queue) Lane(n int) *Lane {
	for n >= len(q.lanes) {
		q.lanes = append(q.lanes, &Lane{Queue: q, n: len(q.lanes)})
	}
	return q.lanes[n]
}

// lane returns that of a delivery.
func (q *Queue) lane(slot uint32) *Lane { return q.keys[q.slots.at(slot).key].lane }

// count changes what is counted for a lane and for all.
func (q *Queue) count(l *Lane, change func(*Stats)) {
	change(&q.stats)
	change(&l.counts)
}

// Counts returns the lane's part of Stats; Messages is 0, since a message may be in several lanes.
func (l *Lane) Counts() Stats { return l.counts }

// Next takes the delivery whose turn it is; it is in flight until Return, Defer or End.
func (l *Lane) Next(now time.Time) (Delivery, bool) {
	l.promote(now)
	k, ok := l.turns.pop()
	if !ok {
		return Delivery{}, false
	}
	ref := l.keys[k].head
	l.unlink(ref)
	if l.keys[k].head != none {
		l.turns.push(k)
	}
	return l.fly(ref), true
}

// NextNewest takes what became ready last, of the key whose turn would come last; another key follows. It is for probes, which
// must not go through a pile of the same kind one by one.
func (l *Lane) NextNewest(now time.Time) (Delivery, bool) {
	l.promote(now)
	k, ok := l.turns.popLast()
	if !ok {
		return Delivery{}, false
	}
	ref := l.keys[k].tail
	l.unlink(ref)
	if l.keys[k].head != none {
		l.turns.pushFront(k)
	}
	return l.fly(ref), true
}

// Ready returns how many deliveries may be started now.
func (l *Lane) Ready(now time.Time) int {
	l.promote(now)
	return l.counts.Ready
}

// ReadySince returns since when the oldest delivery that may be started now waits for that, or a little earlier; the zero time
// when there is none.
func (l *Lane) ReadySince(now time.Time) time.Time {
	l.promote(now)
	return l.ages.oldest()
}
