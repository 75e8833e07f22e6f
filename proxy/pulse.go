package proxy

import (
	"fmt"
	"sync/atomic"
	"time"
)

// pulse knows whether the dispatcher and its connections get on with their work. Liveness asks it: a restart cures
// what is stuck here. A breaker that is open, a quota that is used up or a reply that takes ten minutes is healthy.
type pulse struct {
	lastBeat  atomic.Int64 // Unix nanoseconds
	idleSince atomic.Int64 // since when something may be sent and nothing is; 0: not so
	overdueAt atomic.Int64 // when the connection that is busy longest is past every deadline; 0: none is busy
}

const (
	// patience is how long the dispatcher may be silent, or idle with work that the plan permits.
	patience = 30 * time.Second
	// longestTransaction covers the deadlines of all phases of one transaction but the content (RFC 5321 section
	// 4.5.3.2), twice; slowestContent, in octets a second, the content.
	longestTransaction = 50 * time.Minute
	slowestContent     = 1000
	// longestRcpt is the deadline of each RCPT.
	longestRcpt = 5 * time.Minute
)

func (p *pulse) beat(now time.Time) { p.lastBeat.Store(now.UnixNano()) }

// plan takes note of what may be done and what is being done.
func (p *pulse) plan(now time.Time, maySend, working bool, overdue time.Time) {
	if !maySend || working {
		p.idleSince.Store(0)
	} else {
		p.idleSince.CompareAndSwap(0, now.UnixNano())
	}
	if overdue.IsZero() {
		p.overdueAt.Store(0)
	} else {
		p.overdueAt.Store(overdue.UnixNano())
	}
}

// check returns why the process should be restarted, nil if it should not.
func (p *pulse) check(now time.Time) error {
	if silent := now.Sub(time.Unix(0, p.lastBeat.Load())); p.lastBeat.Load() != 0 && silent > patience {
		return fmt.Errorf("the dispatcher has been silent for %s", silent.Round(time.Second))
	}
	if since := p.idleSince.Load(); since != 0 && now.Sub(time.Unix(0, since)) > patience {
		return fmt.Errorf("mail may be sent and none is, for %s", now.Sub(time.Unix(0, since)).Round(time.Second))
	}
	if at := p.overdueAt.Load(); at != 0 && now.UnixNano() > at {
		return fmt.Errorf("a connection is past all its deadlines")
	}
	return nil
}
