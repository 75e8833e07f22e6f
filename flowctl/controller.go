package flowctl

import (
	"math/rand/v2"
	"time"
)

// MaxDials bounds the dials in flight: slow start overshoots by no more refusals than this.
const MaxDials = 4

// Controller decides how many connections one upstream gets. It is not safe for concurrent use.
// Times passed to its methods should not go back; one that does is read as the latest seen.
//
// Invariants: 1 <= width <= cfg.MaxConns, and width <= ceiling unless the ceiling is unknown or was
// higher not long ago. Only a cut leaves more connections established than the width says.
type Controller struct {
	cfg Config // resolved
	rng rand.PCG
	now time.Time // the latest seen

	conns       []conn    // by DialStart
	addrs       []address // never empty
	established int       // of conns
	dialing     int       // of conns
	expecting   int       // of those, when the last plan was made: dials that are expected to become connections
	lateAt      time.Time // when the first of these will not be any more; zero: with one address, never
	busy        int       // of conns: with a transaction in flight

	width      float64 // connections
	ceiling    int     // connections held at the last count refusal, raised by what was accepted since; 0: none known
	slowStart  bool
	slowReason string
	countCut   time.Time // last cut because of a refused dial; zero: none
	loadCut    time.Time // last cut because of a refused transaction or an overload; zero: none
	excess     bool      // the last plan had more demand than width

	gap       time.Duration // between probes above the ceiling; 0 while no ceiling is known
	nextProbe time.Time
	probe     ConnID    // a probe that was accepted and has not sent yet; 0: none
	peak      int       // the ceiling before it fell; 0: it did not
	peakAt    time.Time // when it last fell

	ghosts  int       // connections closed in quick succession: the upstream may still count them
	ghostAt time.Time // the last of them

	dialAt      time.Time // no dial before
	dialReason  string
	sendAt      time.Time // no transaction before
	sendReason  string
	busyWait    backoff // after a count refusal that leaves us nothing
	authWait    backoff
	rateWait    backoff
	reputation  backoff
	pace        pace
	idleLimit   time.Duration // what idle connections may be kept, as the upstream showed; 0: not seen
	idleLimitAt time.Time
	lease       leases
	turn        turn
	gain        gain
	quota       quota
	cap         sessionCap
	refusedAt   time.Time // when a dial was last refused for the number of connections; zero: never
	hint        Hint
	stop        stop
	down        bool // every address is open

	state       State
	stateReason string
	log         moves
	counts      Counts
	dialBuf     []string
	retireBuf   []ConnID
}

// stop is an order to send nothing. The zero value: none.
type stop struct {
	on         bool
	at         time.Time
	reason     string
	probeEvery time.Duration // 0: never
	next       time.Time     // the next probe transaction
	trial      ConnID        // the connection dialled for it, until it has sent
}

// New returns a controller that knows nothing of its upstream: one address "", width 1, slow start.
// The seed decides all chance. The error is Validate's.
func New(cfg Config, seed uint64, now time.Time) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.resolved()
	c := &Controller{
		cfg: cfg, now: now, width: 1, slowStart: true, slowReason: reasonLearning, stateReason: reasonLearning,
		addrs: []address{{Address: Address{Weight: 1}}},
	}
	c.rng.Seed(seed, 0)
	c.pace.configure(now, cfg.PerSecond, cfg.Scale)
	return c, nil
}

// Reconfigure takes a new configuration and keeps what was learnt. On Validate's error nothing changes.
func (c *Controller) Reconfigure(now time.Time, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	now = c.advance(now)
	c.cfg = cfg.resolved()
	c.pace.configure(now, c.cfg.PerSecond, c.cfg.Scale)
	c.gap = min(c.gap, c.cfg.ProbeMax)
	c.setWidth(now, c.width, "configured", "")
	return nil
}

// DialStart says that a dial to addr has begun. An ID in use, 0, or more connections than any
// configuration allows are counted as a fault of the caller and otherwise ignored, as are later events of it.
func (c *Controller) DialStart(now time.Time, id ConnID, addr string) {
	now = c.advance(now)
	if id == 0 || c.find(id) != nil || len(c.conns) >= trackedMax {
		c.counts.Unknown++
		return
	}
	k := conn{id: id, name: addr, addr: c.lookup(addr), began: now}
	k.look, k.test = c.takeYield(now)
	k.probe = k.look == 0 && !c.slowStart && c.ceiling > 0 && c.claimed(now) >= c.ceiling
	k.probes = c.stop.on
	c.conns = append(c.conns, k)
	c.dialing++
	c.counts.Started++
	if a := c.address(&k); a != nil {
		a.dialing++
		if a.open && a.trial == 0 {
			a.trial = id
		}
	}
	if c.stop.on {
		c.stop.trial, c.stop.next = id, now.Add(c.stop.probeEvery)
	}
	c.settle(now)
}

// DialDone says how a dial ended; Class OK: the connection is established and idle. After any other class
// the ID is forgotten, and no Closed follows.
func (c *Controller) DialDone(now time.Time, id ConnID, o Outcome) {
	now = c.advance(now)
	k := c.find(id)
	if k == nil || k.established || int(o.Class) >= Classes {
		c.counts.Unknown++
		return
	}
	c.counts.Dials[o.Class]++
	c.dialing--
	if a := c.address(k); a != nil {
		a.dialing--
	}
	if o.Started.IsZero() {
		o.Started = k.began
	}
	if o.Class == OK {
		c.connected(now, k, o)
		if c.stop.on && k.probes && !c.isEstablished(c.stop.trial) {
			c.stop.trial = id // of several addresses that were dialled for the probe, the first that answers
		}
	} else {
		failed := *k
		c.remove(id)
		c.dialFailed(now, &failed, o)
		c.endTrial(&failed)
	}
	c.settle(now)
}

// SendStart says that a transaction of msgs messages and rcpts recipients was given to a connection:
// to an idle one, or queued behind the one it carries out. Both numbers are counted only.
func (c *Controller) SendStart(now time.Time, id ConnID, msgs, rcpts int) {
	now = c.advance(now)
	k := c.find(id)
	if k == nil || !k.established {
		c.counts.Unknown++
		return
	}
	if k.sending == 0 {
		c.busy++
	}
	k.sending++
	k.began = now
	c.pace.take(now)
	c.quota.roll(now, c.bucket())
	msgs, rcpts = max(0, min(msgs, demandMax)), max(0, min(rcpts, demandMax))
	c.quota.spend(rcpts)
	k.rcpts.push(k.sending, rcpts)
	c.counts.Messages += uint64(msgs)
	c.counts.Recipients += uint64(rcpts)
	if a := c.address(k); a != nil && a.open && a.trial == 0 {
		a.trial = id
	}
	if c.stop.on {
		c.stop.trial, c.stop.next = 0, now.Add(c.stop.probeEvery)
	}
	c.settle(now)
}

// SendDone says how a transaction ended. One that was handed back undecided reports IdleClose.
func (c *Controller) SendDone(now time.Time, id ConnID, o Outcome) {
	now = c.advance(now)
	k := c.find(id)
	if k == nil || k.sending == 0 || int(o.Class) >= Classes {
		c.counts.Unknown++
		return
	}
	c.counts.Sends[o.Class]++
	if o.Started.IsZero() {
		o.Started = k.began
	}
	c.transaction(now, k, o)
	c.settleQuota(now, k, o)
	k.sending--
	switch {
	case o.Class == OK || o.Taken > 0:
		k.sent++
	case o.Class == SessionCap:
		c.endedAt(now, k, true)
		k.sent = 0 // it is full; its end says nothing more
	}
	if k.sending == 0 {
		c.busy--
		k.idleSince = now
	}
	if a := c.address(k); a != nil && a.trial == id {
		a.trial = 0
	}
	c.settle(now)
}

// Closed says that an established connection ended, by either side, and is forgotten. If a transaction
// was running and had no SendDone, it ended with the same outcome; otherwise only IdleClose teaches anything.
func (c *Controller) Closed(now time.Time, id ConnID, o Outcome) {
	now = c.advance(now)
	k := c.find(id)
	if k == nil || !k.established || int(o.Class) >= Classes {
		c.counts.Unknown++
		return
	}
	c.counts.Closed[o.Class]++
	if o.Started.IsZero() {
		o.Started = k.began
	}
	switch {
	case k.sending > 0:
		c.transaction(now, k, o)
		c.settleQuota(now, k, o)
		for range k.sending - 1 { // those behind it were not begun
			c.settleQuota(now, k, Outcome{Class: IdleClose})
		}
		c.busy--
	case o.Class == IdleClose && now.Sub(k.idleSince) >= c.cfg.scaled(capAtOnce):
		c.closedIdle(now, k)
	}
	if !k.retiring { // or we ended it ourselves
		c.endedSession(now, k, o.Class)
	}
	gone := *k
	c.remove(id)
	c.established--
	if c.established == 0 && !c.turn.wanting.IsZero() {
		c.turn.ended = now
	}
	if gone.yielding {
		c.yield(now, 0)
	}
	c.disconnected(now, &gone)
	c.settle(now)
}

// SetHint tells what a fleet-wide budget grants; it replaces the hint before. Until it lapses the grant caps the width, even at
// none, and connections beyond it are retired.
func (c *Controller) SetHint(now time.Time, h Hint) {
	now = c.advance(now)
	c.hint = h
	if c.granted(now) && h.Grant > 0 && c.dialReason == reasonNoneFree {
		c.dialAt = time.Time{} // the budget knows better
	}
}

// Stop orders that nothing is sent, for the reason given, but one probe transaction each probeEvery; 0 or
// less: none at all. Sessions stay. A Stop during a Stop replaces it and begins a new period; a connection that was dialled for a probe
// and has not sent it yet still does.
func (c *Controller) Stop(now time.Time, reason string, probeEvery time.Duration) {
	now = c.advance(now)
	probeEvery = max(probeEvery, 0)
	trial := c.stop.trial
	if !c.isEstablished(trial) { // else another address has failed meanwhile
		trial = 0
	}
	c.stop = stop{on: true, trial: trial, at: now, reason: reason, probeEvery: probeEvery, next: now.Add(probeEvery)}
	c.settle(now)
}

// Resume ends a Stop and every pause, so that an operator's word acts at once. What was learnt stays.
func (c *Controller) Resume(now time.Time) {
	now = c.advance(now)
	c.stop = stop{}
	c.endPauses()
	c.settle(now)
}

// ProbeSoon has the next probe transaction of a Stop sent after wait, whatever it would have waited for; those after it come at the
// Stop's interval again. Every pause ends. Without a Stop nothing happens.
func (c *Controller) ProbeSoon(now time.Time, wait time.Duration) {
	now = c.advance(now)
	if !c.stop.on {
		return
	}
	c.stop.next = now.Add(max(wait, 0))
	c.endPauses()
	c.settle(now)
}

func (c *Controller) endPauses() {
	c.dialAt, c.sendAt = time.Time{}, time.Time{}
	for i := range c.addrs {
		c.addrs[i].retryAt, c.addrs[i].openUntil = time.Time{}, time.Time{}
	}
}

// advance returns now, or the latest time seen when that is later, and remembers it.
func (c *Controller) advance(now time.Time) time.Time {
	if now.After(c.now) {
		c.now = now
	}
	return c.now
}
