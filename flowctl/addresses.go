package flowctl

import "time"

// An upstream may have several addresses: hosts of one list, and what their names resolve to. Each has a breaker of its own
// (breaker.go). One that does not answer costs one dial at a time, on top of what the others need, so that they serve as if it
// were not there.

const (
	addressesMax = 64          // of one upstream
	lateAfter    = time.Second // so long a dial is expected to become a connection, where there are other addresses,
	lateSetups   = 4           // or so many times what connecting takes on average
)

// Address is one network address of the upstream.
type Address struct {
	Name     string // as Plan.Dial names it
	Priority int    // those with the lowest are dialled; others only while none of these answers
	Weight   int    // its part of the connections among those of its priority; 0: 1
}

// AddressState is an address at one moment, for metrics and operators.
type AddressState struct {
	Address
	Established int
	Dialing     int
	Failures    int       // attempts in a row that brought no answer
	Open        bool      // it is taken not to answer, and only tried
	RetryAt     time.Time // no dial before; zero or past: none withheld
}

// address is an Address and its circuit breaker: closed; or open, until a trial brings an answer.
type address struct {
	Address
	established int
	dialing     int
	late        int  // of those, when the last plan was made: dials that have taken too long to count on
	planned     int  // dials in the plan being made
	known       bool // it has answered
	fails       int  // in a row without an answer
	wait        backoff
	retryAt     time.Time // no dial before
	open        bool
	openWait    time.Duration
	openUntil   time.Time // no trial before
	trial       ConnID    // dialled while open, or trying a transaction; 0: none
}

// SetAddresses replaces the upstream's addresses; what is known of those that stay is kept. Connections to others live
// on. Addresses beyond the first 64 and repeated names are dropped; none at all means the one address "".
func (c *Controller) SetAddresses(now time.Time, addrs []Address) {
	now = c.advance(now)
	next := make([]address, 0, max(len(addrs), 1))
	for _, a := range addrs {
		if len(next) >= addressesMax {
			break
		}
		next = addAddress(next, c.addrs, a)
	}
	if len(next) == 0 {
		next = addAddress(next, c.addrs, Address{})
	}
	c.addrs = next
	for i := range c.conns {
		c.conns[i].addr = c.lookup(c.conns[i].name)
	}
	c.recount()
	c.settle(now)
}

func addAddress(next, known []address, a Address) []address {
	a.Weight = max(a.Weight, 1)
	for i := range next {
		if next[i].Name == a.Name {
			return next
		}
	}
	for i := range known {
		if known[i].Name == a.Name {
			same := known[i]
			same.Address = a
			return append(next, same)
		}
	}
	return append(next, address{Address: a})
}

// Addresses returns the addresses in the order in which they were set.
func (c *Controller) Addresses() []AddressState {
	list := make([]AddressState, len(c.addrs))
	for i := range c.addrs {
		a := &c.addrs[i]
		at, _ := a.readyAt()
		list[i] = AddressState{a.Address, a.established, a.dialing, a.fails, a.open, at}
	}
	return list
}

// OthersServe reports whether there is another address than that one whose last attempt did not fail: what is wrong with one of several
// is its own matter then. It need not be connected, or a spare one would never be.
func (c *Controller) OthersServe(name string) bool {
	i := c.lookup(name)
	return i != unlisted && c.othersServe(&c.addrs[i])
}

// othersServe takes nil for an address that is not listed any more.
func (c *Controller) othersServe(a *address) bool {
	if a == nil {
		return false
	}
	for i := range c.addrs {
		if o := &c.addrs[i]; o != a && !o.doubtful() {
			return true
		}
	}
	return false
}

// recount gives each address its connections again, after the list changed.
func (c *Controller) recount() {
	for i := range c.addrs {
		c.addrs[i].established, c.addrs[i].dialing = 0, 0
	}
	for i := range c.conns {
		k := &c.conns[i]
		a := c.address(k)
		switch {
		case a == nil:
		case k.established:
			a.established++
		default:
			a.dialing++
		}
	}
}

func (c *Controller) lookup(name string) int {
	for i := range c.addrs {
		if c.addrs[i].Name == name {
			return i
		}
	}
	return unlisted
}

// doubtful says whether the last attempt at the address brought no answer.
func (a *address) doubtful() bool { return a.open || a.fails > 0 }

// lateFrom returns from when on a dial is not counted on: where there are other addresses, one that hangs must not keep their place.
func (c *Controller) lateFrom(k *conn) time.Time {
	if a := c.address(k); a != nil && a.doubtful() {
		return k.began
	}
	return k.began.Add(c.dialPatience())
}

func (c *Controller) dialPatience() time.Duration {
	return max(c.cfg.scaled(lateAfter), lateSetups*c.lease.setup)
}

// expected returns how many of the dials in flight are likely to become connections soon. With one address all are: there is
// nothing better to do than to wait.
func (c *Controller) expected(now time.Time) int {
	if len(c.addrs) == 1 || c.dialing == 0 {
		return c.dialing
	}
	n := 0
	for i := range c.conns {
		if k := &c.conns[i]; !k.established && c.lateFrom(k).After(now) {
			n++
		}
	}
	return n
}

// lookAtDials prepares for a plan.
func (c *Controller) lookAtDials(now time.Time) {
	for i := range c.addrs {
		c.addrs[i].planned, c.addrs[i].late = 0, 0
	}
	c.expecting, c.lateAt = c.expected(now), time.Time{}
	if len(c.addrs) == 1 || c.dialing == 0 {
		return
	}
	for i := range c.conns {
		k := &c.conns[i]
		if k.established {
			continue
		}
		if at := c.lateFrom(k); at.After(now) {
			if c.lateAt.IsZero() || at.Before(c.lateAt) {
				c.lateAt = at
			}
		} else if a := c.address(k); a != nil {
			a.late++
		}
	}
}

// leaveOpen retires connections to addresses that are taken not to answer, while others do; but not one that tries.
func (c *Controller) leaveOpen() {
	if len(c.addrs) == 1 || c.allOpen() {
		return
	}
	for i := range c.conns {
		k := &c.conns[i]
		if a := c.address(k); a != nil && k.established && a.open && a.trial != k.id {
			k.retiring = true
		}
	}
}

// onTrial says whether k is to show whether its address serves, while others do.
func (c *Controller) onTrial(k *conn) bool {
	a := c.address(k)
	return len(c.addrs) > 1 && a != nil && a.open && a.trial == k.id && !c.down
}

// toTry returns a connection that is to show by a transaction whether its address, or a stopped upstream, serves; 0: none.
func (c *Controller) toTry() ConnID {
	for i := range c.conns {
		k := &c.conns[i]
		if !k.established || k.retiring || k.sending > 0 {
			continue
		}
		if a := c.address(k); k.id == c.stop.trial || a != nil && a.open && a.trial == k.id {
			return k.id
		}
	}
	return 0
}

// readyAt returns when the address may be dialled; ok is false while an event must come first.
func (a *address) readyAt() (t time.Time, ok bool) {
	switch inFlight := a.dialing + a.planned; {
	case a.open:
		return later(a.retryAt, a.openUntil), a.trial == 0 && inFlight == 0
	case a.fails > 0, a.late > 0:
		return a.retryAt, inFlight == 0 // one at a time, until it answers
	default:
		return a.retryAt, true
	}
}

// pick returns the address to dial next. Of those that answer it is one of the lowest priority, with the fewest connections for
// its weight; before these come those that do not and would be preferred, one dial at a time. Without one, wake is when the
// first may be; zero: not before an event. An address that has not answered yet gets one dial at a time, too.
func (c *Controller) pick(now time.Time) (best *address, wake time.Time) {
	floor, sure := c.floor()
	equals := 0
	for i := range c.addrs {
		a := &c.addrs[i]
		if sure && a.Priority > floor || len(c.addrs) > 1 && !a.known && a.dialing+a.planned > 0 {
			continue
		}
		switch t, ok := a.readyAt(); {
		case !ok:
		case t.After(now):
			if wake.IsZero() || t.Before(wake) {
				wake = t
			}
		case best == nil || a.before(best):
			best, equals = a, a.Weight
		case !best.before(a): // equals: in proportion to their weights
			if equals += a.Weight; c.chance()*float64(equals) < float64(a.Weight) {
				best = a
			}
		}
	}
	return best, wake
}

// floor returns the lowest priority of which an address is likely to answer; sure is false when there is none.
func (c *Controller) floor() (priority int, sure bool) {
	for i := range c.addrs {
		if a := &c.addrs[i]; !a.doubtful() && a.late == 0 && (!sure || a.Priority < priority) {
			priority, sure = a.Priority, true
		}
	}
	return priority, sure
}

// before orders what may be dialled: doubtful ones first, since they do not count; then by priority, then by load.
func (a *address) before(b *address) bool {
	if a.doubtful() != b.doubtful() {
		return a.doubtful()
	}
	if a.Priority != b.Priority {
		return a.Priority < b.Priority
	}
	return a.load()*b.Weight < b.load()*a.Weight
}

func (a *address) load() int { return a.established + a.dialing + a.planned }
