package proxy

import (
	"context"
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
	router     *router
	accepter   *accepter
	dispatcher *dispatcher
	recorder   *recorder
	restart    restart
	draining   atomic.Bool

	giveUp context.CancelFunc // cuts connections and what cannot be written
	noDial context.CancelFunc // gives up what is being dialled
}

// cutGrace is how long transactions under way may go on after the drain has timed out.
const cutGrace = 2 * time.Second

// New recovers what the journal holds and opens every listener; nothing is served or sent before Run. cfg must
// have been validated. On an error nothing stays open.
func New(cfg config.Config, log *zap.Logger, version string) (*Proxy, error) {
	return open(cfg, log, version, listen)
}

// open is New with a choice of listeners.
func open(cfg config.Config, log *zap.Logger, version string, listen func(addr string) (net.Listener, error)) (_ *Proxy, err error) {
	p := &Proxy{cfg: cfg, log: log, version: version, started: time.Now(), restart: restart{files: cfg.AtStart, log: log}}
	defer func() {
		if err != nil {
			p.abandon()
		}
	}()
	ids := new(message.IDs)
	p.router = newRouter(cfg)
	found := newRecovery(ids, log.Named("journal"))
	found.router = p.router
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
	p.accepter = &accepter{journal: p.journal, log: log, addresses: cfg.Log.Addresses, intake: p.dispatcher.intake, ids: ids, router: p.router}
	p.front = smtpd.New(cfg.SMTPD, smtpd.Store{Begin: p.accepter.begin}, log.Named("smtpd"))
	p.admin, err = admin.New(cfg.Admin, p.source(), log.Named("admin"))
	return p, err
}

// build makes the dispatcher and all that it owns.
func (p *Proxy) build(now time.Time, found *recovery) error {
	cut, giveUp := context.WithCancel(context.Background())
	dialing, noDial := context.WithCancel(cut)
	p.giveUp, p.noDial = giveUp, noDial
	p.recorder = newRecorder(cut, p.journal, p.log.Named("journal"))
	seed := rand.Uint64()
	d := &dispatcher{
		cfg: p.cfg, log: p.log.Named("deliver"), queue: queue.New(p.cfg.Queue, seed, now), router: p.router,
		journal: p.journal, recorder: p.recorder, intake: newIntake(p.cfg.QueueMaxMessages),
		failures: map[message.ID]failure{}, reasons: map[queue.Ref]string{},
		events: make(chan func(time.Time), maxEvents), finished: make(chan struct{}), pulse: new(pulse),
	}
	p.dispatcher = d
	shared := pool{journal: p.journal, dialing: dialing, cut: cut, post: d.post}
	if len(p.cfg.DKIM) > 0 {
		shared.signer = dkim.New(p.cfg.DKIM, p.log.Named("dkim"))
	}
	for _, up := range p.cfg.Upstreams() {
		if err := p.addLane(now, up, &shared, seed); err != nil {
			return err
		}
	}
	d.forgetStrangers()
	found.ids.Seen(message.ID(p.journal.MaxID()))
	found.into(d, now)
	if n := d.counts.recovered; n > 0 {
		p.log.Info("recovered", zap.Uint64("pending", n), zap.Int("dead", len(d.dead.rows)))
	}
	return nil
}

// addLane makes the lane of an upstream; shared is what all pools have in common.
func (p *Proxy) addLane(now time.Time, up config.Upstream, shared *pool, seed uint64) error {
	d := p.dispatcher
	l := &lane{
		dispatcher: d, name: up.Name, log: d.log, address: up.Relay.URL, queue: d.queue.Lane(len(d.lanes)),
		links: map[flowctl.ConnID]*link{}, lastDial: map[string]string{},
	}
	if len(p.cfg.Others) > 0 {
		l.log = d.log.With(zap.String("upstream", up.Name))
	}
	relay := up.Relay
	relay.Forbidden = p.isOurs
	if up.OAuth.Enabled() {
		l.tokens = oauth.New(up.OAuth)
		relay.Token = l.tokens.Token
	}
	client, err := upstream.New(relay)
	if err != nil {
		return err
	}
	if l.flow, err = flowctl.New(up.Flow, seed+uint64(len(d.lanes)), now); err != nil {
		return err
	}
	l.names.known = client.Addresses()
	l.flow.SetAddresses(now, l.names.known)
	l.pool = &pool{
		client: client, journal: shared.journal, signer: shared.signer, log: l.log,
		dialing: shared.dialing, cut: shared.cut, post: shared.post, width: 2*up.Flow.MaxConns + loaders,
	}
	l.secrets = newSecrets(append(relay.Files(), up.OAuth.Files()...))
	d.lanes = append(d.lanes, l)
	l.restoreBlobs(now)
	return nil
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
	watching, watched := context.WithCancel(ctx)
	defer watched()
	observing.Go(func() { p.restart.watch(watching) })
	stop := make(chan struct{})
	for _, l := range d.lanes {
		l.pool.start(l.pool.width, l.loaded)
	}
	var dispatching sync.WaitGroup
	dispatching.Go(func() { d.run(stop) })
	p.log.Info("ready", zap.Strings("listen", p.cfg.SMTPD.Listen), zap.String("upstream", d.lanes[0].address))

	accepting := p.cfg.AcceptAfterTerm
	select {
	case <-ctx.Done():
	case err = <-failed:
		accepting = 0
	}
	watched()
	// Whatever hangs from here on, a disk or a relay, is cut when the time is over.
	cut := time.AfterFunc(accepting+p.cfg.DrainTimeout+cutGrace, p.giveUp)
	p.drain(accepting)
	serving.Wait()

	close(stop)
	p.noDial()
	cut.Reset(cutGrace)
	dispatching.Wait()
	for _, l := range d.lanes {
		l.pool.wait()
	}
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
