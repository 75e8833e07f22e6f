package model

import (
	"fmt"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// pod is one process: its demand, its law, and the obedient pool between them.
type pod struct {
	index   int
	group   int
	seed    uint64
	law     Law // nil before it joined
	left    bool
	conns   []uint32 // as dialled
	dialing int
	idle    int

	ready   int // messages that wait
	endless bool
	queued  bool  // its messages have a time of arrival
	arrived fifo  // those that wait
	oldest  int64 // since when the oldest waits, where messages have no time of their own

	wakeAt int64 // ask for a plan no later
	armed  int64 // the event for it that comes first

	since     int64 // waiting for a delivery since; never: it wants nothing
	worst     int64
	delivered int
	dials     int
	heard     int64 // first answer after the last change of the upstream; -1: none yet
}

// obeyMax bounds the plans asked for at one moment. A sound law comes to rest after two or three.
const obeyMax = 200

// obey asks for plans and carries them out until there is nothing more to do now.
func (f *fleet) obey(p *pod) {
	if p.left {
		return
	}
	now := f.time()
	for range obeyMax {
		if p.endless {
			p.ready = endlessReady
		}
		plan := p.law.Plan(now, f.demand(p))
		f.res.Totals.Plans++
		acted := f.retire(p, plan.Retire)
		for _, addr := range plan.Dial {
			f.dial(p, addr)
			acted = true
		}
		acted = f.sendSome(p, plan.Send) || acted
		expiry, expired := f.expire(p, plan.Linger)
		if acted || expired {
			continue
		}
		f.arm(p, &plan, expiry)
		return
	}
	f.err = fmt.Errorf("model: pod %d at %v: the law never comes to rest", p.index, time.Duration(f.now))
}

func (f *fleet) demand(p *pod) flowctl.Demand {
	d := flowctl.Demand{Ready: p.ready}
	switch {
	case p.ready == 0:
	case p.queued:
		d.Oldest = Epoch.Add(time.Duration(p.arrived.first()))
	default:
		d.Oldest = Epoch.Add(time.Duration(p.oldest))
	}
	return d
}

// arm makes the pod come back when the plan or the next idle connection wants it.
func (f *fleet) arm(p *pod, plan *flowctl.Plan, expiry int64) {
	p.wakeAt = expiry
	for _, t := range [...]time.Time{plan.Wake, plan.SendAt} {
		if t.IsZero() {
			continue
		}
		if at := int64(t.Sub(Epoch)); at > f.now {
			p.wakeAt = min(p.wakeAt, at)
		} else if t == plan.Wake {
			f.res.Faults.LateWake++
		}
	}
	f.armAt(p)
}

func (f *fleet) armAt(p *pod) {
	if p.wakeAt < p.armed && p.wakeAt < f.end {
		p.armed = p.wakeAt
		f.heap.push(event{at: p.wakeAt, kind: wake, arg: uint32(p.index)})
	}
}

// wakeUp is the end of a timer. An earlier plan may have set it, and a later one another time.
func (f *fleet) wakeUp(p *pod, at int64) {
	if at != p.armed {
		return
	}
	p.armed = never
	if p.wakeAt > f.now {
		f.armAt(p)
		return
	}
	f.obey(p)
}

func (f *fleet) retire(p *pod, ids []flowctl.ConnID) bool {
	f.closes = append(f.closes[:0], ids...)
	closed := false
	for _, id := range f.closes {
		i := uint32(id & indexMask)
		k := &f.conns[i]
		if k.id() != id || k.phase == dialling {
			continue
		}
		k.retiring = true
		if k.phase == idle {
			f.hangUp(i, flowctl.OK)
			closed = true
		}
	}
	return closed
}

// expire closes the connection that has been idle longest, if that is linger, and returns when the next one will have been.
func (f *fleet) expire(p *pod, linger time.Duration) (next int64, expired bool) {
	if p.idle == 0 {
		return never, false
	}
	oldest, found := int64(never), uint32(0)
	for _, i := range p.conns {
		if k := &f.conns[i]; k.phase == idle && k.since < oldest {
			oldest, found = k.since, i
		}
	}
	if end := oldest + int64(linger); end > f.now {
		return end, false
	}
	f.hangUp(found, flowctl.OK)
	return 0, true
}

// sendSome starts up to n transactions, each on the idle connection that was used last, so that the others can go.
func (f *fleet) sendSome(p *pod, n int) bool {
	done := false
	for ; n > 0 && p.ready > 0; n-- {
		best := uint32(0)
		for _, i := range p.conns {
			if k := &f.conns[i]; k.phase == idle && !k.retiring && (best == 0 || k.since > f.conns[best].since) {
				best = i
			}
		}
		if best == 0 {
			f.res.Faults.NoIdle++
			break
		}
		f.send(p, best)
		done = true
	}
	return done
}

func (f *fleet) leave(p *pod) {
	p.left = true
	f.endWait(p, f.now)
	if p.law == nil {
		return
	}
	for i := len(p.conns) - 1; i >= 0; i-- {
		k := &f.conns[p.conns[i]]
		k.retiring = true
		if k.phase == idle {
			f.hangUp(p.conns[i], flowctl.OK)
		}
	}
}

// endWait notes how long the pod has waited for a delivery until t.
func (f *fleet) endWait(p *pod, t int64) {
	if p.since != never {
		p.worst = max(p.worst, t-p.since)
		p.since = never
	}
}

// hear notes that the upstream answered.
func (f *fleet) hear(p *pod) {
	if p.heard < 0 {
		p.heard = f.now
	}
}

// fifo is a queue of times. The zero value is empty.
type fifo struct {
	list []int64
	head int
}

func (q *fifo) push(t int64) { q.list = append(q.list, t) }
func (q *fifo) len() int     { return len(q.list) - q.head }
func (q *fifo) first() int64 { return q.list[q.head] }

func (q *fifo) pop() int64 {
	t := q.list[q.head]
	q.head++
	if 2*q.head > len(q.list) {
		q.list = q.list[:copy(q.list, q.list[q.head:])]
		q.head = 0
	}
	return t
}

// unpop puts back what was taken, before all others.
func (q *fifo) unpop(t int64) {
	if q.head > 0 {
		q.head--
		q.list[q.head] = t
		return
	}
	q.list = append(q.list, 0)
	copy(q.list[1:], q.list)
	q.list[0] = t
}
