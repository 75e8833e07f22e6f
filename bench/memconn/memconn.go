// Package memconn gives buffered connections in memory that behave as TCP over loopback does: a writer goes on
// until the buffer is full, deadlines work in both directions, a close lets the peer read what was sent
// before it, a reset does not.
//
// net.Pipe has no buffer, so a pipelining client and server dead-lock on it. Everything here waits
// only on channels and timers, so it is usable inside testing/synctest bubbles; a connection belongs to the
// bubble in which it was made.
package memconn

import (
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is one end of a connection. It is safe for concurrent use, as a net.Conn must be.
type Conn struct {
	in, out       *stream
	local, remote net.Addr
	closed        atomic.Bool
	reset         atomic.Bool // Close resets
}

// Pipe returns the two ends of a connection without latency. Both are *Conn.
func Pipe() (a, b net.Conn) { return PipeLatency(0) }

// PipeLatency returns the two ends of a connection on which everything, a close included, is seen by the
// other end oneWay after it was done. Bytes under way do not hold back those that follow them.
func PipeLatency(oneWay time.Duration) (a, b net.Conn) {
	x, y := pair(nextAddr(), nextAddr(), oneWay)
	return x, y
}

func pair(addrA, addrB net.Addr, oneWay time.Duration) (a, b *Conn) {
	ab, ba := &stream{oneWay: oneWay}, &stream{oneWay: oneWay}
	return &Conn{in: ba, out: ab, local: addrA, remote: addrB},
		&Conn{in: ab, out: ba, local: addrB, remote: addrA}
}

// Read returns io.EOF after the peer's close, syscall.ECONNRESET after its reset, os.ErrDeadlineExceeded
// after the deadline and net.ErrClosed after an own close; all but io.EOF within a *net.OpError.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	if err == io.EOF {
		return n, err
	}
	return n, c.opError("read", err)
}

// Write returns syscall.EPIPE once the peer's close or reset is known here. What is written while the close is
// still under way is lost without an error, as with TCP.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.opError("write", err)
}

// Close ends both directions: the peer reads what was written before, then io.EOF. A second Close returns
// net.ErrClosed.
func (c *Conn) Close() error {
	if !c.closed.CompareAndSwap(false, true) {
		return c.opError("close", net.ErrClosed)
	}
	end := io.EOF
	if c.reset.Load() {
		end = syscall.ECONNRESET
	}
	c.out.finish(end)
	c.in.abandon()
	return nil
}

// CloseWithReset closes as a TCP RST does: the peer loses what it has not read yet.
func (c *Conn) CloseWithReset() error {
	c.reset.Store(true)
	return c.Close()
}

// SetLinger makes the next Close reset the connection when sec is 0, as net.TCPConn's does; other values
// restore the ordinary close.
func (c *Conn) SetLinger(sec int) error {
	c.reset.Store(sec == 0)
	return nil
}

// CloseWrite ends the outgoing direction alone: the peer reads io.EOF after the buffered bytes.
func (c *Conn) CloseWrite() error {
	if c.closed.Load() {
		return c.opError("close", net.ErrClosed)
	}
	c.out.finish(io.EOF)
	return nil
}

// LocalAddr is a *net.TCPAddr on 127.0.0.1, of its own for each end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end's LocalAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is SetReadDeadline and SetWriteDeadline. The zero time means no deadline.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

// SetReadDeadline also ends a Read that is already waiting.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.closed.Load() {
		return c.opError("set", net.ErrClosed)
	}
	c.in.setDeadline(&c.in.readDeadline, t)
	return nil
}

// SetWriteDeadline also ends a Write that is already waiting.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.closed.Load() {
		return c.opError("set", net.ErrClosed)
	}
	c.out.setDeadline(&c.out.writeDeadline, t)
	return nil
}

func (c *Conn) opError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}
