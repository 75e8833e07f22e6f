package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy"
	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/config"
)

// demoOptions are the flags of the demo.
type demoOptions struct {
	messages    int
	connections int
	size        byteSize
	limit       int           // the upstream's connections
	rtt         time.Duration // the upstream's round trip
	service     time.Duration // the upstream's time to take a message
	keep        bool          // the journal
}

const (
	demoPressureEvery  = 50 // transactions; rare enough that a direct storm fails for its connections and little else
	demoMaxConnections = 5000
	demoMaxMessages    = 100_000
	demoMaxSize        = 10 << 20
	demoMaxDelay       = 10 * time.Second
	demoPatience       = time.Minute // without a delivery: the demo has failed
	demoDrain          = time.Second // on an interrupt, for what is under way; otherwise the queue is empty by then
)

// newDemoCommand returns `mailweir demo`. It needs nothing but this machine: its upstream, its applications and its
// journal are its own, and it listens on loopback only.
func newDemoCommand() *cobra.Command {
	o := demoOptions{messages: 260, connections: 260, size: 2 << 10, limit: 20, rtt: 20 * time.Millisecond, service: 200 * time.Millisecond}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show on this machine what mailweir does with a storm of connections",
		Long: "Starts an upstream with the habits of Exchange: so many connections at once and no more, a round trip, and\n" +
			"now and then \"" + relay.ExchangePressure + "\". Sends a storm of connections to it, first directly and then through\n" +
			"mailweir. Everything happens on the loopback interface, and the journal is a temporary one.",
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command) error {
			if err := o.validate(); err != nil {
				return &exitError{exitConfig, err}
			}
			// SIGPIPE too, so that `mailweir demo | head` cleans up.
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
			defer stop()
			context.AfterFunc(ctx, stop) // a second interrupt kills
			return runDemo(ctx, newScreen(cmd.OutOrStdout()), o, launch)
		}),
	}
	f := cmd.Flags()
	f.IntVar(&o.messages, "messages", o.messages, "messages to send")
	f.IntVar(&o.connections, "connections", o.connections, "connections at once, one message each")
	f.Var(&o.size, "size", "size of each message")
	f.IntVar(&o.limit, "limit", o.limit, "connections that the upstream allows at once")
	f.DurationVar(&o.rtt, "rtt", o.rtt, "round trip to the upstream")
	f.DurationVar(&o.service, "service", o.service, "time the upstream takes for each message")
	f.BoolVar(&o.keep, "keep", false, "keep the journal and say where it is")
	return cmd
}

func (o demoOptions) validate() error {
	var errs []error
	inRange := func(name string, n, low, high int) {
		if n < low || n > high {
			errs = append(errs, fmt.Errorf("demo: --%s: %d is not in %d..%d", name, n, low, high))
		}
	}
	inRange("messages", o.messages, 1, demoMaxMessages)
	inRange("connections", o.connections, 1, demoMaxConnections)
	inRange("size", int(o.size), 1, demoMaxSize)
	inRange("limit", o.limit, 1, flowctl.MaxConnsLimit/2)
	for name, d := range map[string]time.Duration{"rtt": o.rtt, "service": o.service} {
		if d < 0 || d > demoMaxDelay {
			errs = append(errs, fmt.Errorf("demo: --%s: %v is not in 0s..%v", name, d, demoMaxDelay))
		}
	}
	return errors.Join(errs...)
}

// instance is a mailweir that runs in this process.
type instance struct {
	addr   string              // of its front door
	status func() admin.Status // while it runs
	ended  <-chan struct{}     // closed when it has stopped, whyever
	stop   func() (left int, err error)
}

// launch starts a mailweir with a configuration; stop must be called, once.
func launch(cfg config.Config) (*instance, error) {
	p, err := proxy.New(cfg, zap.NewNop(), "demo")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var left int
	var ran error
	go func() {
		defer close(ended)
		left, ran = p.Run(ctx)
	}()
	stop := func() (int, error) {
		cancel()
		<-ended
		return left, ran
	}
	return &instance{addr: p.Addrs()[0].String(), status: p.Status, ended: ended, stop: stop}, nil
}

// config is the default configuration but for what keeps the demo to itself. The number of connections is
// deliberately above what the upstream allows: mailweir has to find that out.
func (o demoOptions) config(upstream, journalDir string) config.Config {
	cfg := config.Default()
	cfg.Hostname = "localhost"
	cfg.SMTPD.Hostname, cfg.Upstream.Hostname = cfg.Hostname, cfg.Hostname
	cfg.SMTPD.Listen = []string{"127.0.0.1:0"}
	cfg.Upstream.URL = "smtp://" + upstream
	cfg.Flow.MaxConns = 2 * o.limit
	cfg.Journal.Dir = journalDir
	cfg.JournalAllowVolatile = true
	cfg.QueueMaxMessages = demoMaxMessages
	cfg.Admin.Listen, cfg.Admin.ProbeListen = "off", "off"
	cfg.AcceptAfterTerm, cfg.DrainTimeout = 0, demoDrain
	return cfg
}

// outcome is what became of one storm.
type outcome struct {
	sent   source.Ledger
	report source.Report
	relay  relay.Counters
	faults []relay.Violation
	drain  time.Duration // from the first dial to the last message that the upstream took
	left   int           // messages in the journal at the end
}

// runDemo tells the story. It returns nil only when every acknowledged message reached the upstream and none failed
// on its way through mailweir.
func runDemo(ctx context.Context, out *screen, o demoOptions, launch func(config.Config) (*instance, error)) error {
	out.upstream(o)
	direct, err := o.direct(ctx)
	if err != nil {
		return err
	}
	out.direct(o, direct)
	through, err := o.through(ctx, out, launch)
	if err != nil {
		return err
	}
	out.table(direct, through)
	return errors.Join(through.fault(), out.err)
}

// fault says what mailweir broke.
func (r outcome) fault() error {
	var errs []error
	complain := func(n int, what string) {
		if n > 0 {
			errs = append(errs, fmt.Errorf("demo: %d %s", n, what))
		}
	}
	complain(len(r.sent.Records)-r.sent.Count(source.Record.Acknowledged), "messages were not accepted by mailweir")
	complain(r.left, "messages are still in the journal")
	if err := r.report.Err(); err != nil {
		errs = append(errs, err)
	}
	if len(r.faults) > 0 {
		complain(len(r.faults), "faults of the protocol, the first: "+r.faults[0].Rule)
	}
	return errors.Join(errs...)
}

// serveUpstream starts a relay on loopback; stop joins it and must be called.
func (o demoOptions) serveUpstream() (r *relay.Relay, addr string, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", nil, fmt.Errorf("demo: upstream: %w", err)
	}
	r = relay.New(relay.Config{
		MaxConnections: o.limit, RTT: o.rtt, ServiceTime: o.service, PressureEvery: demoPressureEvery, MaxSize: demoMaxSize,
	})
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	return r, l.Addr().String(), func() error {
		r.Close()
		return <-served
	}, nil
}

func (o demoOptions) load(addr string) source.Config {
	return source.Config{Address: addr, Name: "demo", Messages: o.messages, Connections: o.connections, Size: int(o.size)}
}

// direct sends the storm to the upstream.
func (o demoOptions) direct(ctx context.Context) (outcome, error) {
	r, addr, stop, err := o.serveUpstream()
	if err != nil {
		return outcome{}, err
	}
	sent := source.Run(ctx, o.load(addr))
	if err := errors.Join(stop(), ctx.Err()); err != nil {
		return outcome{}, fmt.Errorf("demo: direct: %w", err)
	}
	return o.judge(sent, r, 0), nil
}

// through sends the storm to a mailweir before a fresh upstream, and waits until its queue is empty.
func (o demoOptions) through(ctx context.Context, out *screen, launch func(config.Config) (*instance, error)) (_ outcome, err error) {
	dir, err := os.MkdirTemp("", "mailweir-demo-")
	if err != nil {
		return outcome{}, fmt.Errorf("demo: journal: %w", err)
	}
	defer func() {
		if o.keep {
			out.printf("the journal is kept in %s\n", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	r, addr, stopUpstream, err := o.serveUpstream()
	if err != nil {
		return outcome{}, err
	}
	weir, err := launch(o.config(addr, dir))
	if err != nil {
		return outcome{}, errors.Join(err, stopUpstream())
	}
	sent, watched := o.storm(ctx, out, weir, r)
	left, stopped := weir.stop()
	err = errors.Join(watched, stopped, stopUpstream())
	return o.judge(sent, r, left), err
}

// storm sends the load through weir and shows what happens until everything sent has left its queue.
func (o demoOptions) storm(ctx context.Context, out *screen, weir *instance, r *relay.Relay) (source.Ledger, error) {
	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen progress
	load := o.load(weir.addr)
	load.Progress = seen.count
	finished := make(chan source.Ledger, 1)
	began := time.Now()
	go func() { finished <- source.Run(sending, load) }()

	tick := time.NewTicker(out.interval)
	defer tick.Stop()
	var sent source.Ledger
	storming, moved := true, began
	for delivered := -1; ; {
		select {
		case sent = <-finished:
			storming = false
		case <-tick.C:
		case <-ctx.Done():
		case <-weir.ended:
		}
		status, upstream := weir.status(), r.Counters()
		out.progress(time.Since(began), &seen, status, upstream)
		if upstream.Taken > delivered {
			delivered, moved = upstream.Taken, time.Now()
		}
		err := stuck(ctx, weir, moved, status)
		if err == nil && (storming || status.Queue.Pending > 0) {
			continue
		}
		out.endProgress()
		cancel()
		if storming {
			sent = <-finished
		}
		return sent, err
	}
}

// stuck says why there is no use in waiting any longer.
func stuck(ctx context.Context, weir *instance, moved time.Time, status admin.Status) error {
	select {
	case <-weir.ended:
		return errors.New("demo: mailweir ended early")
	default:
	}
	if ctx.Err() != nil {
		return errors.New("demo: interrupted")
	}
	if since := time.Since(moved); since > demoPatience {
		return fmt.Errorf("demo: nothing was delivered for %v, %d messages are pending: %s",
			since.Round(time.Second), status.Queue.Pending, status.Upstream.LastError)
	}
	return nil
}

func (o demoOptions) judge(sent source.Ledger, r *relay.Relay, left int) outcome {
	taken := r.Ledger()
	res := outcome{sent: sent, report: source.Check(sent, taken), relay: r.Counters(), faults: r.Violations(), left: left}
	if n := len(taken); n > 0 {
		res.drain = taken[n-1].When.Sub(sent.Began)
	}
	return res
}
