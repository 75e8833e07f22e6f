package flowctl

import "time"

// movesMax bounds the moves kept between two calls of Moves; the oldest go first.
const movesMax = 64

// Move is one change of what the controller believes, for the log. The zero value says that nothing moved yet.
type Move struct {
	At       time.Time
	What     string // "width", "ceiling", "probe" (connections), "rate" (a second; 0: no limit), "linger" (seconds), "address" (1: in use, 0: given up), "state"
	From, To float64

	FromState, ToState State // of a "state" move

	Reason string
	Text   string // the upstream's reply, or the name of the address; may be ""
}

// moves is a bounded list. The zero value is empty.
type moves struct {
	list    []Move
	out     []Move
	last    Move
	dropped uint64
}

func (m *moves) add(v Move) {
	if len(m.list) >= movesMax {
		m.list = append(m.list[:0], m.list[1:]...)
		m.dropped++
	}
	m.list = append(m.list, v)
	m.last = v
}

// Moves returns what moved since the last call, oldest first, at most 64; borrowed until the next call.
func (c *Controller) Moves() []Move {
	c.log.out = append(c.log.out[:0], c.log.list...)
	c.log.list = c.log.list[:0]
	return c.log.out
}

// Counts are totals since New.
type Counts struct {
	Started      uint64          // dials begun
	Dials        [Classes]uint64 // dials ended, by class
	Sends        [Classes]uint64 // transactions ended, by class
	Closed       [Classes]uint64 // connections ended, by class
	Messages     uint64          // in transactions begun
	Recipients   uint64          // in transactions begun
	Unknown      uint64          // events that fit no connection: a fault of the caller
	MovesDropped uint64          // that Moves could not keep
}

// Snapshot is the controller at one moment, for metrics and operators.
type Snapshot struct {
	Width       float64 // connections
	Ceiling     int     // connections; 0: none known
	Max         int     // configured
	Established int
	Dialing     int
	Busy        int // established, with a transaction in flight
	Retiring    int // established, to be closed
	State       State
	Reason      string
	LastMove    Move
	NextProbe   time.Time     // above the ceiling or of a Stop, if there is demand; zero: none is to come
	ProbeGap    time.Duration // as long apart, without chance; 0: no ceiling known
	Rate        float64       // transactions a second allowed; 0: no limit
	DialAt      time.Time     // no dial before; zero or past: none withheld
	SendAt      time.Time     // no transaction before, by a pause of the upstream; zero or past: none withheld
	OpenAddrs   int           // addresses that do not answer
	Addrs       int           // all addresses
	Linger      time.Duration
	SessionCap  int           // messages after which a connection is replaced, as learnt; 0: not known
	QuotaUsed   int           // recipients in the last 24 hours
	QuotaLimit  int           // as configured; 0: none
	Share       float64       // of one connection, in the long run, where there is less than one for each; 0: not so
	Waiting     time.Duration // for a connection, with demand and none held; 0: not so
	Counts      Counts
}

// Snapshot returns the controller as it is now; it changes nothing that a plan depends on.
func (c *Controller) Snapshot(now time.Time) Snapshot {
	now = c.advance(now)
	s := Snapshot{
		Width: c.width, Ceiling: c.ceiling, Max: c.cfg.MaxConns,
		Established: c.established, Dialing: c.dialing, Busy: c.busy,
		ProbeGap: c.probeGap(now), Rate: c.pace.limit(), DialAt: c.dialAt, SendAt: c.sendAt,
		Addrs: len(c.addrs), Linger: c.linger(now, 0), Counts: c.counts,
	}
	c.quota.roll(now, c.bucket())
	s.SessionCap, s.QuotaUsed, s.QuotaLimit = c.sessionCap(now), int(c.quota.total), c.cfg.RecipientsPerDay
	s.Share, s.Waiting = c.share(now), c.waiting(now)
	s.State, s.Reason = c.settle(now)
	s.LastMove = c.log.last
	s.Counts.MovesDropped = c.log.dropped
	switch {
	case c.stop.on && c.stop.probeEvery > 0:
		s.NextProbe = c.stop.next
	case c.ceiling > 0 && c.ceiling < c.cfg.MaxConns && !c.slowStart && !(c.granted(now) && c.hint.Grant <= c.ceiling):
		s.NextProbe = c.nextProbe
	}
	for i := range c.conns {
		if c.conns[i].retiring {
			s.Retiring++
		}
	}
	for i := range c.addrs {
		if c.addrs[i].open {
			s.OpenAddrs++
		}
	}
	return s
}
