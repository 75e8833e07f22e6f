package proxy

import (
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/config"
	"github.com/mailweir/mailweir/proxy/dkim"
	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// dispatcher decides what is sent when. One goroutine owns it, and with it the queue and the lanes with their controllers, so that
// nothing needs a lock. It does no I/O, and waits for the disk only when maxUnwritten decisions do. Everything that
// happens elsewhere reaches it as a function to call.
type dispatcher struct {
	cfg config.Config
	log *zap.Logger

	queue    *queue.Queue
	lanes    []*lane // one for each upstream; the first is the default one. Never empty
	router   *router
	journal  *journal.Journal
	recorder *recorder
	intake   *intake
	dead     morgue
	failures map[message.ID]failure // messages of which a recipient has failed and others are pending
	reasons  map[queue.Ref]string   // why a delivery waits; bounded by maxReasons

	relieved   time.Time     // when room was last looked for among the dead
	stopping   bool          // nothing is started any more
	empty      chan struct{} // closed when nothing is pending and nothing will come; nil: nobody waits for it
	drainBy    time.Time     // until when whoever waits for empty would wait
	events     chan func(time.Time)
	finished   chan struct{} // closed when run returns
	afterwards sync.Mutex    // serialises who looks after that
	counts     counts
	pulse      *pulse
}

// failure collects the recipients of a message that can never be delivered.
type failure struct {
	to    []int
	reply string
}

// counts are since the start, in messages unless the name says otherwise.
type counts struct {
	accepted, recovered, delivered, dead  uint64
	recipientsDelivered, recipientsFailed uint64
	duplicatesPossible                    uint64
	lastDelivered                         time.Time
}

const (
	// maxReasons bounds the replies remembered for lists.
	maxReasons = 10_000
	// maxEvents is how many events may wait for the dispatcher; who posts more waits.
	maxEvents = 256
	// prefetchPatience is how long a message may wait behind another one on the same connection before it is
	// given to somebody else.
	prefetchPatience = 5 * time.Second
	// preparedMax is how long a signed message may wait for a connection, then it is signed anew: keys change.
	preparedMax = time.Minute
	// tick is the longest time between two looks at what is due.
	tick = 10 * time.Second
	// behindPause is the wait for the journal to catch up with the decisions.
	behindPause = 20 * time.Millisecond
	// addressesTold is for how many addresses the log's last word is remembered.
	addressesTold = 128
	// tlsFaultsMax is how many dials in a row may fail at TLS. An upstream that answers and yet brings no TLS about is not busy.
	tlsFaultsMax = 5
)

// run is the dispatcher's goroutine. It returns when stop is closed and every link has ended.
func (d *dispatcher) run(stop <-chan struct{}) {
	defer close(d.finished)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		d.pulse.beat(now)
		d.takeIn(now)
		wake := d.pump(now)
		if d.stopping && d.idle() {
			for _, l := range d.lanes {
				l.giveBackPrepared()
				l.remember(now)
				l.rememberLadder(now)
			}
			return
		}
		timer.Reset(time.Until(wake))
		select {
		case f := <-d.events:
			f(time.Now())
			d.moreEvents()
		case <-d.intake.signal:
		case <-timer.C:
		case <-stop:
			d.closeAll()
			stop = nil
		}
		for _, l := range d.lanes {
			l.logMoves(time.Now())
		}
	}
}

// idle reports whether nothing is under way any more.
func (d *dispatcher) idle() bool {
	return !slices.ContainsFunc(d.lanes, func(l *lane) bool { return len(l.links) > 0 || l.loading > 0 || l.names.asking })
}

// moreEvents handles what else has arrived before anything new is planned.
func (d *dispatcher) moreEvents() {
	for range maxEvents {
		select {
		case f := <-d.events:
			f(time.Now())
		default:
			return
		}
	}
}

// post hands an event to the dispatcher. It waits while maxEvents are waiting.
func (d *dispatcher) post(f func(now time.Time)) { d.events <- f }

// call runs f on the dispatcher's goroutine and waits for it. After the dispatcher has ended f runs here.
func (d *dispatcher) call(f func(now time.Time)) {
	done := make(chan struct{})
	select {
	case d.events <- func(now time.Time) { f(now); close(done) }:
		select {
		case <-done:
			return
		case <-d.finished:
		}
	case <-d.finished:
	}
	d.afterwards.Lock()
	defer d.afterwards.Unlock()
	f(time.Now())
}

// takeIn moves what was accepted into the queue.
func (d *dispatcher) takeIn(now time.Time) {
	for _, a := range d.intake.take() {
		d.queue.Add(now, a.id, a.received, a.recipients, a.groups)
		d.counts.accepted++
	}
}

// pump has every lane start what it may start, and returns when to look again. No lane waits for another.
func (d *dispatcher) pump(now time.Time) (wake time.Time) {
	wake = now.Add(tick)
	d.buryDead(now)
	for _, l := range d.lanes {
		l.keep(now)
	}
	if d.stopping {
		return wake
	}
	if d.recorder.behind() {
		return now.Add(behindPause)
	}
	for _, l := range d.lanes {
		if next := l.pump(now); next.Before(wake) {
			wake = next
		}
	}
	d.reportEmpty()
	d.report(now)
	if next := d.queue.NextDue(); next.After(now) && next.Before(wake) {
		wake = next
	}
	return wake
}

// demand is what waits and is not on a connection: in the queue, being loaded, or loaded.
func (d *lane) demand(now time.Time) flowctl.Demand {
	oldest := d.queue.ReadySince(now)
	switch {
	case len(d.prepared) > 0: // in the order in which they left the queue
		oldest = d.prepared[0].delivery.Since
	case d.loading > 0:
		oldest = d.oldest // it was the oldest before it left the queue
	}
	d.oldest = oldest
	return flowctl.Demand{Ready: d.queue.Ready(now) + len(d.prepared) + d.loading, Oldest: oldest, Depth: d.depth}
}

func (d *lane) dial(now time.Time, addr string) {
	d.lastConn++
	d.dials++
	l := &link{id: d.lastConn, addr: addr, feed: make(chan *upstream.Job, maxFed)}
	d.links[l.id] = l
	d.flow.DialStart(now, l.id, addr)
	d.pool.dial(l, addr, linkEvents{dialed: d.dialed, result: d.result, ended: d.ended})
}

func (d *lane) dialed(now time.Time, l *link, conn *upstream.Conn, o flowctl.Outcome) {
	if o.Stage == flowctl.StageTLS && o.Class == flowctl.Unavailable {
		if d.tlsFaults++; d.tlsFaults >= tlsFaultsMax {
			o.Class = flowctl.Misconfigured
		}
	}
	if o.Class == flowctl.Misconfigured && o.Stage != flowctl.StageAuth && d.flow.OthersServe(l.addr) {
		o.Class = flowctl.Unavailable // one of several has a bad certificate, or turns us away: the others go on
	}
	d.flow.DialDone(now, l.id, o)
	if conn != nil {
		l.conn, l.idleSince = conn, now
		delete(d.lastDial, l.addr)
		d.eager, d.tlsFaults = false, 0
		return
	}
	delete(d.links, l.id)
	d.lastError = o.Text
	if what := o.Class.String() + " " + o.Stage.String(); what != d.lastDial[l.addr] {
		d.noteDial(l.addr, what)
		log := d.log.Warn
		if o.Class == flowctl.Busy && d.teller.shared {
			log = d.log.Debug // somebody else's turn; the state tells that
		}
		log("no connection", zap.String("address", l.addr), zap.Stringer("class", o.Class), zap.Stringer("stage", o.Stage), d.reply(o.Text))
	}
	eager := d.eager
	d.eager = false
	switch {
	case o.Class == flowctl.Misconfigured && o.Stage == flowctl.StageAuth:
		d.hold(now, o, loginProbe)
	case o.Class == flowctl.Misconfigured:
		d.hold(now, o, faultProbe-min(o.Took, faultProbe/2)) // a minute from probe to probe, also where each hangs for a while
	case o.Class == flowctl.Quota:
		d.holdQuota(now, o.Started, o)
	case eager && d.held.why != "":
		d.flow.Stop(now, d.held.why, d.scaled(faultProbe))
		return
	default:
		return
	}
	d.held.atDial = true
	if o.Class == flowctl.Misconfigured {
		d.watchSecrets()
	}
}

// noteDial remembers why an address could not be dialled, of a bounded number: names lead to ever new ones.
func (d *lane) noteDial(addr, what string) {
	if len(d.lastDial) >= addressesTold {
		clear(d.lastDial)
	}
	d.lastDial[addr] = what
}

// assign gives loaded messages to connections: first to idle ones, then one more to those that are busy, whose
// commands save a round trip. It returns how many more idle ones may be used.
func (d *lane) assign(now time.Time, plan flowctl.Plan) (left int) {
	for left = plan.Send; left > 0; left-- {
		l := d.links[plan.Try]
		if l == nil || !l.idle() || left < plan.Send {
			l = d.idleLink()
		}
		if l == nil || len(d.prepared) == 0 {
			break
		}
		d.feed(now, l)
	}
	for ahead := plan.Ahead; ahead > 0 && len(d.prepared) > 0; ahead-- {
		l := d.leastQueued(now)
		if l == nil {
			break
		}
		d.feed(now, l)
	}
	return left
}

// leastQueued returns the busy connection on which one more job would wait for the least others; nil: it may wait on none.
func (d *lane) leastQueued(now time.Time) *link {
	var best *link
	for _, l := range d.links {
		if (best == nil || len(l.jobs) < len(best.jobs) || len(l.jobs) == len(best.jobs) && l.id < best.id) && d.mayQueue(now, l) {
			best = l
		}
	}
	return best
}

// mayQueue reports whether one more job may wait behind those under way: its connection has room, and it would not wait for long.
func (d *lane) mayQueue(now time.Time, l *link) bool {
	return l.conn != nil && !l.closing && len(l.jobs) > 0 && len(l.jobs) <= l.conn.Window() &&
		d.took*time.Duration(len(l.jobs)) < prefetchPatience/2 && d.flow.Room(now, l.id, d.depth) > 0
}

func (l *link) idle() bool { return l.conn != nil && !l.closing && len(l.jobs) == 0 }

// idleLink returns the connection that was used last, so that the others can go.
func (d *lane) idleLink() *link {
	var best *link
	for _, l := range d.links {
		if !l.idle() {
			continue
		}
		if best == nil || l.idleSince.After(best.idleSince) || l.idleSince.Equal(best.idleSince) && l.id < best.id {
			best = l
		}
	}
	return best
}

// feed never blocks: the channel holds maxFed jobs, and l has fewer.
func (d *lane) feed(now time.Time, l *link) {
	j := d.prepared[0]
	d.prepared = d.prepared[1:]
	if len(l.jobs) == 0 {
		l.busySince = now
	}
	l.jobs = append(l.jobs, j)
	d.transactions++
	d.flow.SendStart(now, l.id, 1, len(j.To))
	l.feed <- &j.Job
}

// load has as many messages read as connections can soon take, those included that are not dialled yet.
func (d *lane) load(now time.Time, plan flowctl.Plan, undialled int) {
	want := plan.Send + undialled
	for _, l := range d.links {
		if l.conn == nil {
			want++ // it will be idle soon
		}
	}
	want = min(want+plan.Ahead, cap(d.pool.load)) - len(d.prepared) - d.loading
	for range want {
		next, ok := d.next(now, plan.State)
		if !ok {
			return
		}
		_, failed := d.failures[next.ID]
		j := &job{delivery: next, settles: next.Last && !failed, probe: plan.State == flowctl.Stopped}
		j.Tag = j
		d.loading++
		d.pool.load <- j
	}
}

// next is whose turn it is. A probe takes what came last: behind ten that were refused, the next ten may be refused too.
func (d *lane) next(now time.Time, s flowctl.State) (queue.Delivery, bool) {
	if s == flowctl.Stopped {
		return d.queue.NextNewest(now)
	}
	return d.queue.Next(now)
}

func (d *lane) loaded(now time.Time, j *job, err error) {
	d.loading--
	ref := j.delivery.Ref
	switch {
	case err == nil && d.held.why != "" && !j.probe: // chosen before the hold
		j.discard()
		d.queue.Return(ref, j.delivery.Since)
	case err == nil:
		j.prepared = now
		d.prepared = append(d.prepared, j)
	case lost(err):
		d.log.Error("message cannot be read", zap.Stringer("id", j.delivery.ID), zap.Error(err))
		to := j.delivery.To
		if to == nil {
			to = indices(j.delivery.Recipients)
		}
		d.fail(j.delivery.ID, to, "the message is damaged in the journal")
		d.end(now, ref, j, false)
	case errors.Is(err, dkim.ErrKey): // the signer has raised the alarm; no clock of expiry ends the wait
		d.explain(ref, err.Error())
		d.queue.Defer(now, ref, queue.ByUpstream, 0)
	default:
		d.log.Warn("message not ready to be sent", zap.Stringer("id", j.delivery.ID), zap.Error(err))
		d.explain(ref, err.Error())
		d.queue.Defer(now, ref, queue.ByUpstream, 0)
	}
}
