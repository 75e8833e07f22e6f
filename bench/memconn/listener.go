package memconn

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// backlog is how many connections wait to be accepted; beyond it Dial waits, as a SYN does.
const backlog = 1024

// Listener accepts what its own Dial connects.
type Listener struct {
	addr   net.Addr
	oneWay time.Duration
	queue  chan pending
	done   chan struct{}
	once   sync.Once
}

type pending struct {
	conn *Conn
	due  time.Time // when the last packet of the handshake arrives
}

// Listen returns a listener whose connections have no latency.
func Listen() *Listener { return ListenLatency(0) }

// ListenLatency returns a listener whose connections are those of PipeLatency. Dial takes a round trip and
// Accept sees the connection half a round trip later, as with TCP.
func ListenLatency(oneWay time.Duration) *Listener {
	return &Listener{
		addr:   nextAddr(),
		oneWay: oneWay,
		queue:  make(chan pending, backlog),
		done:   make(chan struct{}),
	}
}

// Accept returns net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, l.closedError()
	default:
	}
	select {
	case <-l.done:
		return nil, l.closedError()
	case p := <-l.queue:
		if err := sleep(context.Background(), l.done, time.Until(p.due)); err != nil {
			p.refuse()
			return nil, l.closedError()
		}
		return p.conn, nil
	}
}

// Close refuses what was not accepted yet; connections that were stay open.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	l.refuseQueued()
	return nil
}

// Addr is a *net.TCPAddr on 127.0.0.1; no other listener or connection has its port at the same time, up to tens
// of thousands of them.
func (l *Listener) Addr() net.Addr { return l.addr }

// Dial connects to l, whatever network and address say, so that it fits where a net.Dialer's DialContext does. It
// returns syscall.ECONNREFUSED after Close, within a *net.OpError, and the context's error when that ends first.
func (l *Listener) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := sleep(ctx, l.done, 2*l.oneWay); err != nil {
		return nil, l.dialError(err)
	}
	client, server := pair(nextAddr(), l.addr, l.oneWay)
	select {
	case <-ctx.Done():
		return nil, l.dialError(ctx.Err())
	case <-l.done:
		return nil, l.dialError(syscall.ECONNREFUSED)
	case l.queue <- pending{server, time.Now().Add(l.oneWay)}:
	}
	select {
	case <-l.done:
		l.refuseQueued() // Close may have emptied the queue before this connection was in it
	default:
	}
	return client, nil
}

// refuseQueued cannot miss a connection: done is closed before it runs, and whoever queues one looks at done
// afterwards.
func (l *Listener) refuseQueued() {
	for {
		select {
		case p := <-l.queue:
			p.refuse()
		default:
			return
		}
	}
}

// refuse cannot fail: nobody else has closed this end.
func (p pending) refuse() { _ = p.conn.CloseWithReset() }

func (l *Listener) closedError() error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
}

func (l *Listener) dialError(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Addr: l.addr, Err: err}
}

// sleep waits for d; it returns the context's error, or ECONNREFUSED once done is closed.
func sleep(ctx context.Context, done <-chan struct{}, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return syscall.ECONNREFUSED
	default:
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-done:
		return syscall.ECONNREFUSED
	case <-t.C:
		return nil
	}
}

const (
	firstPort = 20000
	ports     = 45000 // ports are used again after so many
)

var portsUsed atomic.Uint32

func nextAddr() net.Addr {
	n := portsUsed.Add(1) % ports
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: firstPort + int(n)}
}
