package model

import (
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// member is a real controller, and beside it what a pod has to do with a budget: ask, pass on what it hears as a hint, give back.
type member struct {
	*flowctl.Controller
	engine  *engine
	pod     int
	queuing bool
	granted bool
	asked   bool      // at least once
	until   time.Time // of the grant
	renew   time.Time // the hint
	conns   int       // dials and connections
}

var _ watcher = (*member)(nil)

func newMember(t *Team, pod int, c *flowctl.Controller) *member {
	return &member{Controller: c, engine: engineOf(t), pod: pod}
}

// Plan asks the engine before the controller. An engine that does not answer leaves the last hint to lapse.
func (m *member) Plan(now time.Time, d flowctl.Demand) flowctl.Plan {
	if !m.engine.alive(now) {
		return m.Controller.Plan(now, d)
	}
	again := m.ask(now, d.Ready > 0 || m.Snapshot(now).Busy > 0)
	p := m.Controller.Plan(now, d)
	for _, t := range [...]time.Time{again, m.renew} {
		if t.After(now) && (p.Wake.IsZero() || t.Before(p.Wake)) {
			p.Wake = t
		}
	}
	return p
}

// ask follows the demand and the lease, and returns when to ask again; zero: when the hint is to be renewed.
func (m *member) ask(now time.Time, want bool) (again time.Time) {
	before, e := m.granted, m.engine
	switch over := !m.until.After(now); {
	case m.queuing && !want:
		m.queuing = false
		e.leave(m.pod)
	case m.granted && want && over && len(e.queue) == 0:
		m.until = now.Add(e.Lease)
	case m.granted && (!want || over):
		m.granted = false
		m.release(now)
	case !m.granted && want && m.conns == 0:
		if !m.queuing {
			m.queuing = true
			e.queue = append(e.queue, m.pod)
		}
		if m.granted, again = e.grant(now, m.pod); m.granted {
			m.queuing = false
			m.until = now.Add(e.Lease)
		}
	}
	if m.granted != before || !m.asked || !m.renew.After(now) {
		m.tell(now)
	}
	if m.granted {
		again = m.until
	}
	return again
}

func (m *member) tell(now time.Time) {
	h := flowctl.Hint{Until: now.Add(m.engine.TTL)}
	if m.granted {
		h.Grant = 1
	}
	m.SetHint(now, h)
	m.asked, m.renew = true, now.Add(m.engine.Renew)
}

// release gives back what was granted once nothing uses it.
func (m *member) release(now time.Time) {
	if !m.granted && m.conns == 0 && m.engine.alive(now) {
		m.engine.giveBack(now)
	}
}

// DialStart implements Law, as do the other methods.
func (m *member) DialStart(now time.Time, id flowctl.ConnID, addr string) {
	m.conns++
	m.Controller.DialStart(now, id, addr)
}

func (m *member) DialDone(now time.Time, id flowctl.ConnID, o flowctl.Outcome) {
	m.Controller.DialDone(now, id, o)
	if !m.engine.alive(now) {
		m.conns-- // nobody counts any more
		return
	}
	switch o.Class {
	case flowctl.OK:
		m.engine.established(m.pod)
		return
	case flowctl.Busy:
		m.conns--
		m.granted, m.queuing = false, true
		m.engine.refused(now, m.pod)
		m.tell(now)
	default:
		m.conns--
		m.release(now)
	}
}

func (m *member) Closed(now time.Time, id flowctl.ConnID, o flowctl.Outcome) {
	m.Controller.Closed(now, id, o)
	m.conns--
	m.engine.up--
	m.release(now)
}
