package flowctl

import "time"

// trackedMax bounds the table of connections, whatever the caller reports: the widest configuration
// twice, since a narrower one may come before the connections of a wider one are gone.
const trackedMax = 2*MaxConnsLimit + MaxDials

// conn is a connection from DialStart to its end.
type conn struct {
	id          ConnID
	addr        int // index into addrs; unlisted: -1
	name        string
	established bool
	retiring    bool      // named in Plan.Retire; final, since the caller may be acting on it
	probe       bool      // dialled above the ceiling
	answered    bool      // brought at least one answer to a transaction
	sending     int       // transactions in flight
	look        int       // which dial in a row this is for a place that was left free; 0: for none
	test        bool      // of a look that was refused, at once
	probes      bool      // dialled to probe a stopped upstream
	yielding    bool      // retiring because its lease is over
	sent        int       // messages taken
	rcpts       counted   // of the transactions in flight
	lease       time.Time // until when it may be held
	began       time.Time
	idleSince   time.Time
}

const unlisted = -1

// find returns the connection, nil when it is unknown. The pointer is good until the next append or remove.
// A few dozen entries are scanned faster than they are hashed, and in an order that is always the same.
func (c *Controller) find(id ConnID) *conn {
	for i := range c.conns {
		if c.conns[i].id == id {
			return &c.conns[i]
		}
	}
	return nil
}

func (c *Controller) remove(id ConnID) {
	for i := range c.conns {
		if c.conns[i].id == id {
			c.conns = append(c.conns[:i], c.conns[i+1:]...)
			return
		}
	}
}

func (c *Controller) isEstablished(id ConnID) bool {
	k := c.find(id)
	return k != nil && k.established
}

// address returns where k leads, nil when that is none of the upstream's addresses any more.
func (c *Controller) address(k *conn) *address {
	if k.addr == unlisted {
		return nil
	}
	return &c.addrs[k.addr]
}

// idle returns how many connections could take a transaction now.
func (c *Controller) idle() int {
	n := 0
	for i := range c.conns {
		if k := &c.conns[i]; k.established && !k.retiring && k.sending == 0 {
			n++
		}
	}
	return n
}

// depthDefault is one transaction under way, and one whose commands may travel with the content of the first.
const depthDefault = 2

// Room returns how many more transactions may be queued on a connection behind the one that it carries out, where it may be given depth of them
// at once (0: 2); 0 where it carries out none.
func (c *Controller) Room(now time.Time, id ConnID, depth int) int {
	k := c.find(id)
	if k == nil {
		return 0
	}
	return c.roomOn(k, c.sessionCap(c.advance(now)), depth)
}

func (c *Controller) roomOn(k *conn, sessionCap, depth int) int {
	if k.retiring || k.sending == 0 {
		return 0
	}
	if depth <= 0 {
		depth = depthDefault
	}
	n := depth - k.sending
	if sessionCap > 0 {
		n = min(n, sessionCap-k.sent-k.sending)
	}
	return max(n, 0)
}

// ahead returns how many transactions may be queued behind those that are carried out.
func (c *Controller) ahead(now time.Time, depth int) int {
	n, most := 0, c.sessionCap(now)
	for i := range c.conns {
		n += c.roomOn(&c.conns[i], most, depth)
	}
	return n
}

// retire names the connections to close in retireBuf, and adds to them while more are established than
// allowed: idle ones first, they cost nothing; among equals the youngest, the oldest has proven itself longest.
func (c *Controller) retire(allowed int) {
	staying := 0
	for i := range c.conns {
		if k := &c.conns[i]; k.established && !k.retiring {
			staying++
		}
	}
	for _, busy := range [...]bool{false, true} {
		for i := len(c.conns) - 1; i >= 0 && staying > allowed; i-- {
			if k := &c.conns[i]; k.established && !k.retiring && (k.sending > 0) == busy && !c.onTrial(k) {
				k.retiring = true
				staying--
			}
		}
	}
	c.retireBuf = c.retireBuf[:0]
	for i := range c.conns {
		if c.conns[i].retiring {
			c.retireBuf = append(c.retireBuf, c.conns[i].id)
		}
	}
}

const (
	lingerPriced = 6 * time.Hour          // after a refusal a place is worth no more than connecting again costs, for so long
	lingerCost   = 100 * time.Millisecond // what that is, as long as it was not measured
	lingerMin    = time.Second            // floor of what is concluded from an idle close
	lingerPart   = 0.8                    // of the idle time that the upstream showed not to like
	lingerKeep   = time.Hour              // then the conclusion is forgotten, for it can only shorten
)

// closedIdle learns how long the upstream leaves an idle connection alone.
func (c *Controller) closedIdle(now time.Time, k *conn) {
	limit := max(time.Duration(lingerPart*float64(now.Sub(k.idleSince))), c.cfg.scaled(lingerMin))
	if known := c.knownIdleLimit(now); known > 0 && known <= limit {
		return
	}
	c.idleLimit, c.idleLimitAt = limit, now
	c.log.add(Move{At: now, What: "linger", From: c.cfg.Linger.Seconds(), To: limit.Seconds(), Reason: "closed for being idle"})
}

// knownIdleLimit returns what closedIdle learnt and is still believed; 0: nothing.
func (c *Controller) knownIdleLimit(now time.Time) time.Duration {
	if now.Sub(c.idleLimitAt) >= c.cfg.scaled(lingerKeep) {
		return 0
	}
	return c.idleLimit
}

// linger returns how long an idle connection may be kept. Where connections were refused a place is somebody else's when we do not use
// it: it is kept no longer than connecting again takes, which costs at most twice what the best choice would have ("ski rental",
// A. Karlin et al., Competitive Snoopy Caching, 1988). Connections that waiting messages need stay.
func (c *Controller) linger(now time.Time, ready int) time.Duration {
	d, known := c.cfg.Linger, c.knownIdleLimit(now)
	switch {
	case ready > 0:
	case c.lease.contended():
		d = 0
	case c.refusedLately(now) || c.turn.pause > d:
		d = min(d, max(c.lease.setup, c.cfg.scaled(lingerCost)))
	}
	if known > 0 {
		d = min(d, known)
	}
	return d
}

func (c *Controller) refusedLately(now time.Time) bool {
	return !c.refusedAt.IsZero() && now.Sub(c.refusedAt) < c.cfg.scaled(lingerPriced)
}
