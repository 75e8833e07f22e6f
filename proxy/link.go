package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/dkim"
	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// maxFed is how many jobs one connection has at most: as many under way as a window may hold, and one behind them. Where the window is one,
// the commands of the second may travel with the content of the first.
const maxFed = upstream.WindowMax + 1

// link is one connection as the dispatcher sees it. Only the dispatcher touches its fields; the goroutine
// behind it has the connection and the receiving end of the feed.
type link struct {
	id        flowctl.ConnID
	addr      string         // that was dialled
	conn      *upstream.Conn // nil while it is being dialled
	feed      chan *upstream.Job
	jobs      []*job    // fed and not yet reported, oldest first
	busySince time.Time // when the oldest began to be the oldest
	idleSince time.Time
	closing   bool // the feed is closed
}

// job is a delivery on its way.
type job struct {
	upstream.Job
	delivery  queue.Delivery
	settles   bool          // if every recipient takes it, the message is settled
	body      io.ReadCloser // nil once it was handed to the connection
	begun     bool          // a Started record was written
	probe     bool          // chosen while the upstream was held
	prepared  time.Time     // when it was made ready to be sent
	withdrawn bool          // taken back: its result changes nothing
}

func (j *job) discard() {
	if j.body != nil {
		_ = j.body.Close() // read only: nothing can be lost by it
		j.body = nil
	}
}

// pool runs what the dispatcher plans: connections, and the workers that load messages. Every goroutine ends
// before wait returns.
type pool struct {
	client  *upstream.Client
	journal *journal.Journal
	signer  *dkim.Signer // nil: nothing is signed
	log     *zap.Logger
	dialing context.Context // done: give up what is being dialled
	cut     context.Context // done: cut what is connected
	post    func(func(now time.Time))
	width   int // messages that may be on their way from disk
	load    chan *job
	done    sync.WaitGroup
}

// loaders is how many messages are read from the journal at once.
const loaders = 4

func (p *pool) start(maxLoading int, loaded func(now time.Time, j *job, err error)) {
	p.load = make(chan *job, maxLoading)
	for range loaders {
		p.done.Go(func() {
			for j := range p.load {
				err := p.prepare(j)
				p.post(func(now time.Time) { loaded(now, j, err) })
			}
		})
	}
}

// wait joins everything; every feed has been closed by then.
func (p *pool) wait() {
	close(p.load)
	p.done.Wait()
}

// prepare loads, verifies and signs a message, before a connection is claimed. A message that makes our code panic waits, as if it
// could not be read now; the process lives on.
func (p *pool) prepare(j *job) (err error) {
	defer func() {
		if v := recover(); v != nil {
			p.log.Error("panic while loading", zap.Stringer("id", j.delivery.ID), zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
			err = errPanic
		}
	}()
	id := j.delivery.ID
	meta, body, err := p.journal.Read(uint64(id))
	if err != nil {
		return err
	}
	env := new(message.Envelope)
	if err := env.UnmarshalBinary(meta); err != nil {
		_ = body.Close() // read only
		return fmt.Errorf("%w: %w", journal.ErrDamaged, err)
	}
	to := j.delivery.To
	if to == nil {
		to = indices(len(env.To))
	}
	for _, i := range to {
		if i >= len(env.To) {
			_ = body.Close() // read only
			return fmt.Errorf("%w: recipient %d of %d", journal.ErrDamaged, i, len(env.To))
		}
	}
	if p.signer != nil {
		if j.Head, body, err = p.sign(id, body); err != nil {
			return err
		}
	}
	j.Env, j.To, j.body = env, to, body
	j.Open = func() (io.ReadCloser, error) { return p.begin(j) }
	return nil
}

// mayNotSign reports whether a key is missing, so that what waits may have to go on waiting.
func (p *pool) mayNotSign() bool { return p.signer != nil && p.signer.Blocked() }

// sign reads body to its end, since a signature stands before what it covers, and opens it anew.
func (p *pool) sign(id message.ID, body io.ReadCloser) (head []byte, again io.ReadCloser, err error) {
	head, err = p.signer.Sign(body)
	_ = body.Close() // read only
	if err != nil {
		return nil, nil, err
	}
	_, again, err = p.journal.Read(uint64(id))
	return head, again, err
}

// indices returns 0 to n-1.
func indices(n int) []int {
	to := make([]int, n)
	for i := range to {
		to[i] = i
	}
	return to
}

var errPanic = errors.New("proxy: internal error while loading")

// errNotStarted is a message that was not sent because it could not be noted that it would be.
var errNotStarted = errors.New("proxy: start of delivery not recorded")

// begin notes that the content is about to be sent, the moment from which on it may be delivered without our knowing.
func (p *pool) begin(j *job) (io.ReadCloser, error) {
	if err := p.journal.Append(started(j.delivery.ID, j.delivery.To)); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotStarted, err)
	}
	body := j.body
	j.body, j.begun = nil, true
	return body, nil
}

// dial opens a connection in the background and runs it until it ends.
func (p *pool) dial(l *link, addr string, on linkEvents) {
	p.done.Go(func() {
		conn, outcome := p.client.Connect(p.dialing, addr)
		p.post(func(now time.Time) { on.dialed(now, l, conn, outcome) })
		if conn == nil {
			return
		}
		stop := context.AfterFunc(p.cut, conn.Cut)
		defer stop()
		end, sound := p.run(conn, l, on)
		p.post(func(now time.Time) { on.ended(now, l, end, sound) })
	})
}

// linkEvents are called on the dispatcher's goroutine.
type linkEvents struct {
	dialed func(now time.Time, l *link, conn *upstream.Conn, o flowctl.Outcome)
	result func(now time.Time, l *link, r *upstream.Result)
	ended  func(now time.Time, l *link, o flowctl.Outcome, sound bool)
}

// run feeds the connection until it ends. A message that makes our code panic takes down its connection and not
// the process; sound is false then.
func (p *pool) run(conn *upstream.Conn, l *link, on linkEvents) (end flowctl.Outcome, sound bool) {
	defer func() {
		if v := recover(); v != nil {
			p.log.Error("panic while sending", zap.Any("panic", v), zap.ByteString("stack", debug.Stack()))
			conn.Cut()
			end = flowctl.Outcome{Class: flowctl.PerMessage, Stage: flowctl.StageDot, Text: "internal error while sending"}
		}
	}()
	end = conn.Run(l.feed, func(r *upstream.Result) {
		p.recordDelivered(r)
		p.post(func(now time.Time) { on.result(now, l, r) })
	})
	return end, true
}

// recordDelivered writes who has the message before the connection goes on: from here on a crash sends
// nothing twice. If the disk is full it waits, since sending on would only make more that cannot be recorded.
func (p *pool) recordDelivered(r *upstream.Result) {
	var to []int
	for i, v := range r.Verdicts {
		if v.Class == flowctl.OK {
			to = append(to, r.Job.To[i])
		}
	}
	if len(to) == 0 {
		return
	}
	j := r.Job.Tag.(*job)
	records := []journal.Record{verdict{Delivered: to}.record(j.delivery.ID)}
	if j.settles && len(to) == len(r.Job.To) {
		records = append(records, settled(j.delivery.ID))
	}
	if err := keepTrying(p.cut, p.log, func() error { return p.journal.Append(records...) }); err != nil {
		p.log.Error("delivery not recorded, the message will be sent again", zap.Stringer("id", j.delivery.ID), zap.Error(err))
	}
}

// lost reports whether a message can never be read again.
func lost(err error) bool {
	return errors.Is(err, journal.ErrDamaged) || errors.Is(err, journal.ErrNotFound)
}
