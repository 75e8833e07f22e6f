package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
)

// A relay, or something on the way to it, that ends connections which are idle.

// impatient is a listener that ends each connection after a random time in which the client has sent nothing.
type impatient struct {
	net.Listener
	how    func(*idleConn) error // ends it, and returns what the server finds
	lo, hi time.Duration
	open   atomic.Int64 // connections that were not ended, by either side
	ended  atomic.Int64 // and those that were ended here
}

// The ways to end a connection.
var idleEnds = map[string]func(*idleConn) error{
	"with a FIN":   func(*idleConn) error { return io.EOF },
	"with a 421":   (*idleConn).takeLeave,
	"with a reset": (*idleConn).reset,
	"silently, and a reset when it is used": func(c *idleConn) error {
		c.end() // nobody is told
		if _, err := c.Conn.Read(make([]byte, 1)); err != nil {
			return err
		}
		return c.reset()
	},
}

func (l *impatient) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &idleConn{Conn: conn, from: l, patience: l.lo + rand.N(l.hi-l.lo)}, nil
}

type idleConn struct {
	net.Conn
	from     *impatient
	patience time.Duration
	once     sync.Once
}

func (c *idleConn) end() { c.once.Do(func() { c.from.open.Add(-1) }) }

func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.Conn.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	c.from.ended.Add(1)
	if err := c.Conn.SetReadDeadline(time.Time{}); err != nil {
		return 0, err
	}
	return 0, c.from.how(c)
}

func (c *idleConn) Close() error {
	c.end()
	return c.Conn.Close()
}

func (c *idleConn) takeLeave() error {
	if _, err := io.WriteString(c.Conn, "421 4.4.2 relay.example Error: timeout exceeded\r\n"); err != nil {
		return err
	}
	return io.EOF
}

func (c *idleConn) reset() error {
	if err := c.Conn.(interface{ SetLinger(int) error }).SetLinger(0); err != nil {
		return err
	}
	return errors.Join(net.ErrClosed, c.Close())
}

// unharmed wants to have heard of no failure, and no message to have been deferred.
func unharmed(t *testing.T, p *Proxy, logs *observer.ObservedLogs) {
	t.Helper()
	for _, e := range logs.All() {
		if e.Message == "deferred" || e.Level >= zapcore.WarnLevel {
			t.Fatalf("%s %v", e.Message, e.ContextMap())
		}
	}
	if s := p.Status(); s.Queue.DuplicatesPossible+s.Queue.Dead > 0 || s.Upstream.Ceiling != 0 || s.Queue.Held != "" {
		t.Errorf("%+v, %+v", s.Queue, s.Upstream)
	}
}

func TestAnIdleConnectionThatEndsCostsNothing(t *testing.T) {
	const rounds, messages = 6, 1000
	for name, how := range idleEnds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in(t, func(t *testing.T) {
				core, logs := observer.New(zap.DebugLevel)
				w := newWorld(t, relay.Config{})
				w.finish()
				w.log = zap.New(core)
				w.up = memconn.Listen()
				served := &impatient{Listener: w.up, how: how, lo: time.Second, hi: 4 * time.Second}
				r := relay.New(relay.Config{RTT: 20 * time.Millisecond})
				go func() {
					if err := r.Serve(served); err != nil {
						t.Error(err)
					}
				}()
				t.Cleanup(r.Close)
				w.relay = r
				w.start()
				for round := range rounds {
					ledger := w.send(messages, 50, func(c *source.Config) { c.Name = fmt.Sprintf("round%d", round) })
					w.settle(time.Minute)
					w.arrived(ledger)
					unharmed(t, w.proxy, logs)
					time.Sleep(time.Duration(rand.N(int64(10 * time.Second))))
				}
				if served.ended.Load() == 0 { // both the pauses and the patience are random
					t.Errorf("%d connections ended while idle, so nothing is shown", served.ended.Load())
				}
			})
		})
	}
}

// The same over TCP, in real time.
func TestAnIdleConnectionThatEndsCostsNothingOnLoopback(t *testing.T) {
	const rounds, messages = 2, 1000
	for name, how := range idleEnds {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits
			core, logs := observer.New(zap.DebugLevel)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := &impatient{Listener: l, how: how, lo: time.Second, hi: 1500 * time.Millisecond}
			r := relay.New(relay.Config{})
			go func() {
				if err := r.Serve(served); err != nil {
					t.Error(err)
				}
			}()
			defer r.Close()
			p := onLoopback(t, "smtp://"+l.Addr().String(), zap.New(core))
			for round := range rounds {
				ledger := source.Run(t.Context(), source.Config{Address: p.Addrs()[0].String(), Name: fmt.Sprintf("round%d", round), Messages: messages, Connections: 20, Reuse: true})
				awaitReal(t, "delivery", func() bool { return p.Status().Queue.Pending == 0 })
				if report := source.Check(ledger, r.Ledger()); report.Err() != nil || len(report.Duplicated) > 0 || report.Arrived != messages {
					t.Fatalf("%d arrived, %v, twice %v", report.Arrived, report.Err(), report.Duplicated)
				}
				unharmed(t, p, logs)
				awaitReal(t, "the end of idle connections", func() bool { return served.open.Load() == 0 })
			}
			if served.ended.Load() == 0 {
				t.Errorf("%d connections ended while idle, so nothing is shown", served.ended.Load())
			}
		})
	}
}

// onLoopback runs a Proxy over real sockets until the test ends.
func onLoopback(t *testing.T, upstream string, log *zap.Logger) *Proxy {
	t.Helper()
	cfg := config.Default()
	cfg.SMTPD.Listen, cfg.Journal.Dir = []string{"127.0.0.1:0"}, t.TempDir()
	cfg.Upstream.URL, cfg.Upstream.Hostname, cfg.SMTPD.Hostname = upstream, "weir.example", "weir.example"
	cfg.Admin.Listen, cfg.Admin.ProbeListen = "off", "off"
	p, err := New(cfg, log, "test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := p.Run(ctx)
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

// awaitReal polls in real time.
func awaitReal(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within a minute: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
