package model

import (
	"slices"
	"time"
)

// Budget is a fleet-wide budget of connections: a service that all pods ask and that grants each of them a connection in turn. The
// zero value of Dies is never.
type Budget struct {
	Lease time.Duration // a connection is granted for so long, while others wait for one
	TTL   time.Duration // what a pod was told holds for so long; more than Lease and a transaction
	Renew time.Duration // a pod asks again after so long, at the latest
	Probe time.Duration // between grants of one connection more than are known to fit
	Dies  time.Duration // since the start: from then on it does not answer
}

// settling is how long a connection that a pod has closed is not granted again: the upstream may still count it.
const settling = 50 * time.Millisecond

// engine is the service. It is told no limit: it learns it from one pod at a time, which is granted one connection more than are known to
// fit. First come, first served.
type engine struct {
	*Budget
	poke  func(pod int) bool
	queue []int // pods
	fit   int   // connections that were established at one time
	held  int   // granted
	up    int   // of them established

	closed  []time.Time // connections given back and not granted since, the earliest first
	prober  int         // the pod that tries one more; nobody: none does
	probeAt time.Time   // not before
}

const nobody = -1

func engineOf(t *Team) *engine {
	e, ok := t.Shared["engine"].(*engine)
	if !ok {
		e = &engine{Budget: t.Budget, poke: t.Poke, prober: nobody}
		t.Shared["engine"] = e
	}
	return e
}

func (e *engine) alive(now time.Time) bool { return e.Dies == 0 || now.Before(Epoch.Add(e.Dies)) }

// grant gives the first in the queue a connection, if there is one, and otherwise says when to ask again; zero: when poked.
func (e *engine) grant(now time.Time, pod int) (ok bool, again time.Time) {
	if len(e.queue) == 0 || e.queue[0] != pod {
		return false, time.Time{}
	}
	for len(e.closed) > 0 && !e.closed[0].Add(settling).After(now) {
		e.closed = e.closed[1:]
	}
	switch {
	case e.held+len(e.closed) < e.fit:
	case len(e.closed) > 0:
		return false, e.closed[0].Add(settling)
	case e.prober != nobody, e.up < e.held: // a refusal is to say that one more does not fit beside all others
		return false, time.Time{}
	case e.probeAt.After(now):
		return false, e.probeAt
	default:
		e.prober = pod
	}
	e.held++
	e.queue = e.queue[1:]
	e.next()
	return true, time.Time{}
}

// next lets the first in the queue ask.
func (e *engine) next() {
	if len(e.queue) > 0 {
		e.poke(e.queue[0])
	}
}

// leave takes a pod out of the queue that wants nothing any more.
func (e *engine) leave(pod int) {
	e.queue = slices.DeleteFunc(e.queue, func(p int) bool { return p == pod })
	e.next()
}

// giveBack ends a grant whose connection was closed.
func (e *engine) giveBack(now time.Time) {
	e.held--
	e.closed = append(e.closed, now)
	e.next()
}

// established learns how many fit. After a probe that was accepted the next may come at once.
func (e *engine) established(pod int) {
	e.up++
	e.fit = max(e.fit, e.up)
	if e.prober == pod {
		e.prober = nobody
	}
	e.next()
}

// refused learns that no more fit than were granted without this one. The pod is the first to get one.
func (e *engine) refused(now time.Time, pod int) {
	e.held--
	e.fit = max(min(e.fit, e.held), 1)
	if e.prober == pod {
		e.prober = nobody
	}
	e.probeAt = now.Add(e.Probe)
	e.queue = append([]int{pod}, e.queue...)
}
