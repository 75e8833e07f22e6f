package proxy

import (
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/oauth"
	"github.com/mailweir/mailweir/proxy/queue"
)

// lane is one upstream with its credentials, and all that is its own: connections, the controller that says how many, messages on
// their way to them, the loaders that prepare these, and why nothing may be sent. Lanes share the queue, of which each has its part,
// the journal, and the goroutine. So what is wrong with one delays no other.
type lane struct {
	*dispatcher
	name    string
	log     *zap.Logger
	address string // of the upstream: its URL

	queue  *queue.Lane
	flow   *flowctl.Controller
	plan   flowctl.Plan // the last one
	fuse   fuse
	pool   *pool
	tokens *oauth.Source // nil: the upstream wants none
	names  resolution

	links    map[flowctl.ConnID]*link
	lastConn flowctl.ConnID
	prepared []*job // loaded, and waiting for a connection
	loading  int
	depth    int       // how many jobs one connection may have
	oldest   time.Time // of what the last plan knew to wait: since when; zero: nothing waited
	mayWork  bool      // the last plan was for something

	ladderSaved  time.Time     // when that of pipelining was last looked at
	fuseSaved    time.Duration // what the journal has of the fuse
	learnt       learnt        // and what it has of the controller
	held         held
	quotaWait    time.Duration     // until the last probe of a quota; 0: a message was taken since
	took         time.Duration     // of the last transaction
	secrets      *secrets          // looked at while held for a fault of a dial
	changed      time.Time         // when a changed secret is tried, or was
	eager        bool              // a login is tried before its time
	tlsFaults    int               // dials in a row that failed at TLS
	lastDial     map[string]string // the last failure to dial each address, so that repeats are not logged again
	lastError    string
	teller       teller
	doubts       []doubt // refusals that do not stand yet, oldest first; bounded by maxDoubts
	dials        uint64  // since the start, as transactions is
	transactions uint64
}

// keep has written down what outlives the process, and gives up a hold that has lasted for as long as a message may wait.
func (d *lane) keep(now time.Time) {
	if d.fuse.spend(d.cfg.Queue.ExpireAfter) {
		d.log.Error("held for as long as a message may wait, refusals stand from now on", d.reply(d.held.why))
		d.flow.Resume(now)
	}
	d.rememberFuse()
	d.rememberSometimes(now)
	d.rememberLadder(now)
}

// pump starts what may be started, and returns when to look again.
func (d *lane) pump(now time.Time) (wake time.Time) {
	wake = now.Add(tick)
	if d.pool.signer != nil && len(d.prepared) > 0 && now.Sub(d.prepared[0].prepared) > preparedMax {
		d.giveBackPrepared()
	}
	ready := d.queue.Ready(now)
	d.depth = d.pool.client.Standing().Window + 1
	demand := d.demand(now)
	known := d.resolve(now, demand.Ready > 0 || len(d.links) > 0)
	if !known {
		demand = flowctl.Demand{}
	}
	plan := d.flow.Plan(now, demand)
	d.plan, d.mayWork = plan, known && (ready > 0 || len(d.prepared) > 0)
	if d.held.why != "" && plan.State != flowctl.Stopped {
		d.resumed(now)
	}
	d.retire(now, plan.Retire)
	dials := plan.Dial
	if d.pool.mayNotSign() && len(d.prepared) == 0 {
		dials = nil // not before there is something that may be sent
	}
	for _, addr := range dials {
		d.dial(now, addr)
	}
	left := d.assign(now, plan)
	d.load(now, plan, len(plan.Dial)-len(dials))
	lingerEnd := d.closeIdle(now, plan.Linger, min(left, len(d.prepared)+d.loading))
	stallEnd := d.takeBackStalled(now)
	doubtEnd := d.askAgain(now)
	for _, t := range []time.Time{plan.Wake, plan.SendAt, lingerEnd, stallEnd, doubtEnd} {
		if t.After(now) && t.Before(wake) {
			wake = t
		}
	}
	return wake
}
