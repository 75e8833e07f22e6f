package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/config"
	"github.com/mailweir/mailweir/proxy/dkim"
	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/oauth"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/smtpd"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// Proxy is one mailweir: a front door, a journal, a dispatcher. New makes it, Run runs it, once.
type Proxy struct {
	cfg     config.Config
	log     *zap.Logger
	version string
	started time.Time

	journal    *journal.Journal
	front      *smtpd.Server
	listeners  []net.Listener
	admin      *admin.Server
	accepter   *accepter
	dispatcher *dispatcher
	recorder   *recorder
	pool       *pool
	tokens     *oauth.Source // nil: the upstream wants none
	draining   atomic.Bool

	giveUp context.CancelFunc // cuts connections and what cannot be written
	noDial context.CancelFunc // gives up what is being dialled
}

// Blobs in the journal.
const (
	blobFlow   = "flow"   // what the controller learnt
	blobPauses = "pauses" // when the clock of expiry stood still
	blobLadder = "ladder" // how much the upstream can be given at once
	blobFuse   = "fuse"   // since when the fuse has tripped; absent: it has not
)

// cutGrace is how long transactions under way may go on after the drain has timed out.
const cutGrace = 2 * time.Second

// New recovers what the journal holds and opens every listener; nothing is served or sent before Run. cfg must
// have been validated. On an error nothing stays open.
func New(cfg config.Config, log *zap.Logger, version string) (*Proxy, error) {
	return open(cfg, log, version, listen)
}

// open is New with a choice of listeners.
func open(cfg config.Config, log *zap.Logger, version string, listen func(addr string) (net.Listener, error)) (_ *Proxy, err error) {
	p := &Proxy{cfg: cfg, log: log, version: version, started: time.Now()}
	defer func() {
		if err != nil {
			p.abandon()
		}
	}()
	ids := new(message.IDs)
	found := newRecovery(ids, log.Named("journal"))
	found.group = cfg.Queue.Group()
	if p.journal, err = journal.Open(cfg.Journal, found.replay); err != nil {
		return nil, err
	}
	var missing error
	for _, addr := range cfg.SMTPD.Listen {
		l, err := listen(addr)
		switch {
		case err == nil:
			p.listeners = append(p.listeners, l)
		case absent(err):
			log.Warn("not listening there, this host has no such address", zap.String("listen", addr), zap.Error(err))
			missing = err
		default:
			return nil, fmt.Errorf("proxy: %w", err)
		}
	}
	if len(p.listeners) == 0 {
		return nil, fmt.Errorf("proxy: nowhere to listen: %w", missing)
	}
	if err = p.build(p.started, found); err != nil {
		return nil, err
	}
	p.accepter = &accepter{journal: p.journal, log: log, addresses: cfg.Log.Addresses, intake: p.dispatcher.intake, ids: ids, group: cfg.Queue.Group()}
	p.front = smtpd.New(cfg.SMTPD, smtpd.Store{Begin: p.accepter.begin}, log.Named("smtpd"))
	p.admin, err = admin.New(cfg.Admin, p.source(), log.Named("admin"))
	return p, err
}

// build makes the dispatcher and all that it owns.
func (p *Proxy) build(now time.Time, found *recovery) error {
	cfg := p.cfg
	seed := rand.Uint64()
	cfg.Upstream.Forbidden = p.isOurs
	if cfg.OAuth.Enabled() {
		p.tokens = oauth.New(cfg.OAuth)
		cfg.Upstream.Token = p.tokens.Token
	}
	client, err := upstream.New(cfg.Upstream)
	if err != nil {
		return err
	}
	address, _, err := cfg.Upstream.Address()
	if err != nil {
		return err
	}
	flow, err := flowctl.New(cfg.Flow, seed, now)
	if err != nil {
		return err
	}
	flow.SetAddresses(now, []string{address})
	cut, giveUp := context.WithCancel(context.Background())
	dialing, noDial := context.WithCancel(cut)
	p.giveUp, p.noDial = giveUp, noDial
	p.recorder = newRecorder(cut, p.journal, p.log.Named("journal"))
	d := &dispatcher{
		cfg: cfg, log: p.log.Named("deliver"), address: address,
		queue: queue.New(cfg.Queue, seed, now), flow: flow, recorder: p.recorder, intake: newIntake(cfg.QueueMaxMessages),
		failures: map[message.ID]failure{}, reasons: map[queue.Ref]string{}, links: map[flowctl.ConnID]*link{},
		events: make(chan func(time.Time), maxEvents), finished: make(chan struct{}), pulse: new(pulse),
	}
	p.pool = &pool{client: client, journal: p.journal, log: d.log, dialing: dialing, cut: cut, post: d.post}
	if len(cfg.DKIM) > 0 {
		p.pool.signer = dkim.New(cfg.DKIM, p.log.Named("dkim"))
	}
	d.pool, p.dispatcher = p.pool, d
	d.secrets = newSecrets(append(cfg.Upstream.Files(), cfg.OAuth.Files()...))
	p.restoreBlobs(now)
	found.ids.Seen(message.ID(p.journal.MaxID()))
	found.into(d, now)
	if n := d.counts.recovered; n > 0 {
		p.log.Info("recovered", zap.Uint64("pending", n), zap.Int("dead", len(d.dead.rows)))
	}
	return nil
}

// restoreBlobs takes back what earlier runs learnt. What cannot be read is learnt again.
func (p *Proxy) restoreBlobs(now time.Time) {
	d := p.dispatcher
	if b := p.journal.Blob(blobFlow); b != nil {
		if err := d.flow.Restore(now, b); err != nil {
			p.log.Warn("controller state not restored", zap.Error(err))
		}
	}
	if b := p.journal.Blob(blobLadder); b != nil {
		if err := p.pool.client.Restore(now, b); err != nil {
			p.log.Warn("level of pipelining not restored", zap.Error(err))
		}
	}
	if b := p.journal.Blob(blobPauses); b != nil {
		pauses, err := decodePauses(b)
		if err != nil {
			p.log.Warn("pauses not restored", zap.Error(err))
		}
		d.queue.RestorePauses(now, pauses)
	}
	if b := p.journal.Blob(blobFuse); len(b) > 0 {
		waited, n := binary.Varint(b)
		if n <= 0 {
			p.log.Warn("state of the fuse not restored")
			return
		}
		d.fuse.restore(time.Duration(waited))
		d.fuseSaved = d.fuse.waited
	}
}

// listen leaves out TCP's keep-alive, four calls a connection: clients are on this host, where the end of one is seen at once.
func listen(addr string) (net.Listener, error) {
	without := net.ListenConfig{KeepAlive: -1}
	return without.Listen(context.Background(), "tcp", addr)
}

// absent reports whether an address cannot be listened on because the host has none of its kind, as [::1] where IPv6 is off:
// no client can want it then.
func absent(err error) bool {
	return errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// isOurs reports whether an address is one of our own listeners: mail sent there would go in circles.
func (p *Proxy) isOurs(remote net.Addr) bool {
	for _, l := range p.listeners {
		if l.Addr().String() == remote.String() {
			return true
		}
	}
	return false
}

// Addrs returns the addresses of the front door.
func (p *Proxy) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(p.listeners))
	for i, l := range p.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Run serves and delivers until ctx is done; then it refuses new clients, lets transactions finish, and drains the
// queue until it is empty, nothing more can be sent in time, or DrainTimeout is over. left is how many messages stay in the journal for the next start. err is a
// failure that ended it early, or one to close cleanly.
func (p *Proxy) Run(ctx context.Context) (left int, err error) {
	failed := make(chan error, len(p.listeners)+1)
	var serving sync.WaitGroup
	for _, l := range p.listeners {
		serving.Go(func() {
			if err := p.front.Serve(l); err != nil {
				failed <- err
			}
		})
	}
	d := p.dispatcher
	var observing sync.WaitGroup
	observing.Go(func() {
		if err := p.admin.Serve(); err != nil {
			failed <- err
		}
	})
	stop := make(chan struct{})
	p.pool.start(2*p.cfg.Flow.MaxConns+loaders, d.loaded)
	var dispatching sync.WaitGroup
	dispatching.Go(func() { d.run(stop) })
	p.log.Info("ready", zap.Strings("listen", p.cfg.SMTPD.Listen), zap.String("upstream", d.address))

	accepting := p.cfg.AcceptAfterTerm
	select {
	case <-ctx.Done():
	case err = <-failed:
		accepting = 0
	}
	// Whatever hangs from here on, a disk or a relay, is cut when the time is over.
	cut := time.AfterFunc(accepting+p.cfg.DrainTimeout+cutGrace, p.giveUp)
	p.drain(accepting)
	serving.Wait()

	close(stop)
	p.noDial()
	cut.Reset(cutGrace)
	dispatching.Wait()
	p.pool.wait()
	p.recorder.close()
	cut.Stop()
	p.giveUp()
	d.call(func(time.Time) { left = d.queue.Stats().Messages })
	err = errors.Join(err, p.journal.Close(), p.closeAdmin())
	observing.Wait()
	p.log.Info("stopped", zap.Int("left", left))
	return left, err
}

// closeAdmin lets answers under way finish.
func (p *Proxy) closeAdmin() error {
	ctx, cancel := context.WithTimeout(context.Background(), cutGrace)
	defer cancel()
	return p.admin.Close(ctx)
}

// drain goes on accepting for a while, closes the front door, and waits for the queue to become empty, for DrainTimeout at most.
func (p *Proxy) drain(accepting time.Duration) {
	p.draining.Store(true)
	if accepting > 0 {
		p.log.Info("still accepting", zap.Duration("for", accepting))
		<-time.After(accepting)
	}
	p.log.Info("draining", zap.Duration("timeout", p.cfg.DrainTimeout), zap.Int64("pending", p.dispatcher.intake.pending.Load()))
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.DrainTimeout)
	defer cancel()
	p.front.Drain()
	if err := p.front.Close(ctx); err != nil {
		p.log.Warn("front door closed with clients in the middle of a message", zap.Error(err))
	}
	empty := make(chan struct{})
	deadline, _ := ctx.Deadline()
	p.dispatcher.call(func(time.Time) { p.dispatcher.empty, p.dispatcher.drainBy = empty, deadline })
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// abandon closes what New had opened before it failed.
func (p *Proxy) abandon() {
	for _, l := range p.listeners {
		_ = l.Close() // the error that ended New is the one to report
	}
	if p.giveUp != nil {
		p.giveUp()
		p.recorder.close()
	}
	if p.journal != nil {
		_ = p.journal.Close() // likewise
	}
}
