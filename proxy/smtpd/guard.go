package smtpd

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// guard is the connection as go-smtp sees it. Read yields one checked command line at a time, Write collects
// replies until the guard is about to wait for the client. All methods belong to go-smtp's goroutine for
// this connection, but for drain and cut.
type guard struct {
	net.Conn
	server *Server
	client string // address and port
	log    *zap.Logger

	in      input
	pending string // what go-smtp reads next
	again   string // a command that was read within content and comes next; "": none
	over    bool   // go-smtp reads EOF from now on, and what it still says is dropped
	spoke   bool   // the client has sent something

	out    []byte // replies not yet written
	outErr error  // of the first write that failed

	session   *session // nil before the first EHLO
	verb      string   // of the command that is being answered
	args      string   // of MAIL, RCPT and BDAT, behind the verb and one space
	chunk     chunk    // that BDAT announced
	mute      bool     // go-smtp's next reply is not for the client
	helo      string
	challenge bool // the next line answers a 334

	errors    int // protocol errors since the last accepted message
	junk      int // commands that achieve nothing, likewise
	fruitless int // commands, likewise

	bareLF, bareCR uint64 // repaired on this connection
	storeFailed    bool   // logged once

	closing sync.Once
	closed  error // of Close

	mu       sync.Mutex // held over setting a deadline, which does not wait, and never over I/O
	draining bool
	busy     bool // a transaction is open; never becomes true while draining
}

func newGuard(conn net.Conn, s *Server) *guard {
	client := conn.RemoteAddr().String()
	g := &guard{
		Conn:   conn,
		server: s,
		client: client,
		log:    s.log.WithLazy(zap.String("client", client)), // most connections log nothing
	}
	g.log.Debug("connection opened")
	return g
}

// Read hands go-smtp the next command, and io.EOF for every end of the connection: the cause was dealt
// with here.
func (g *guard) Read(p []byte) (int, error) {
	for g.pending == "" && !g.over {
		g.next()
	}
	if g.over {
		return 0, io.EOF
	}
	n := copy(p, g.pending)
	g.pending = g.pending[n:]
	return n, nil
}

// next reads one line and decides what becomes of it.
func (g *guard) next() {
	if g.isAbused() {
		g.hangUp(errAbuse)
		return
	}
	if line := g.again; line != "" {
		g.again = ""
		g.dispatch([]byte(line))
		return
	}
	line, err := g.readLine()
	if err != nil {
		g.hangUp(err)
		return
	}
	g.dispatch(line)
}

func (g *guard) isAbused() bool {
	return g.errors >= maxErrors || g.junk >= maxJunk || g.fruitless >= g.server.maxFruitless()
}

var (
	errNotSMTP = errors.New("smtpd: client does not speak SMTP")
	errEndless = &refusal{errTooBig.code, errTooBig.enhanced, errTooBig.text + ", closing connection"}
)

// readLine waits for a command line until the idle timeout, which a trickle does not renew. It returns
// ErrClosing when the server drains and no transaction is open.
func (g *guard) readLine() ([]byte, error) {
	deadline := time.Now().Add(g.server.cfg.IdleTimeout)
	for {
		if err := g.await(deadline); err != nil {
			return nil, err
		}
		if line, ok := g.in.line(); ok {
			return line, nil
		}
		if len(g.in.unread()) >= maxCommandLine {
			return nil, errLineTooLong
		}
		g.in.narrow()
		if err := g.flush(); err != nil {
			return nil, err
		}
		if _, err := g.in.fill(g.Conn); err != nil && !g.sentAway() {
			return nil, err
		}
		if !g.spoke && len(g.in.unread()) > 0 {
			g.spoke = true
			if g.in.unread()[0] == tlsHandshake {
				return nil, errNotSMTP
			}
		}
	}
}

// await arms the deadline of a read that drain may interrupt.
func (g *guard) await(deadline time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining && !g.busy {
		return ErrClosing
	}
	return g.Conn.SetReadDeadline(deadline)
}

// sentAway says whether await returns ErrClosing from now on.
func (g *guard) sentAway() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining && !g.busy
}

// drain sends the client away, now or after its transaction. Any goroutine may call it.
func (g *guard) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	if !g.busy {
		// A read for a command, or for a chunk that is passed over, ends at once and finds out why; there is no other without
		// a transaction. An error means that the connection is closed.
		_ = g.Conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// cut closes the connection under the guard, whose own Close follows in its goroutine. Any goroutine may
// call it. An error means that the connection is closed already.
func (g *guard) cut() { _ = g.Conn.Close() }

// begin marks the begin of a transaction. None can begin while the server drains: ErrClosing.
func (g *guard) begin() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return ErrClosing
	}
	g.busy = true
	return nil
}

// idle marks the end of the transaction, if one is open.
func (g *guard) idle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy = false
}

// accepted forgives what went wrong before a message that went well.
func (g *guard) accepted() { g.errors, g.junk, g.fruitless = 0, 0, 0 }

// repaired counts what was put right in c.
func (g *guard) repaired(c *content) {
	g.bareLF += c.bareLF
	g.bareCR += c.bareCR
	g.server.stats.repaired(c.bareLF, c.bareCR)
}

// receive reads content until feed, which says how much of its argument belongs to it, has found the end. An error means that
// the end was never seen: nothing may be committed, and the connection is over.
func (g *guard) receive(feed func(in []byte) (used int, end bool, err error)) error {
	g.in.widen()
	rate := g.server.minRate()
	var p pace
	for {
		used, end, err := feed(g.in.unread())
		g.in.skip(used)
		if end || err != nil {
			return err
		}
		if err := g.flush(); err != nil {
			return err
		}
		start := time.Now()
		if err := g.Conn.SetReadDeadline(start.Add(g.server.cfg.IdleTimeout)); err != nil {
			return err
		}
		n, err := g.in.fill(g.Conn)
		if err != nil {
			return err
		}
		if p.tooSlow(n, time.Since(start), rate) {
			return errSlow
		}
	}
}

// hangUp ends the conversation, with a reply where the client can still hear one.
func (g *guard) hangUp(cause error) {
	var r *refusal
	switch {
	case g.over:
		return
	case errors.As(cause, &r), errors.Is(cause, ErrClosing):
		g.say(cause)
	case errors.Is(cause, os.ErrDeadlineExceeded):
		g.say(errIdle)
	}
	g.over = true
	g.in.drop()
	g.log.Debug("connection ends", zap.Error(cause))
}

// flush writes the replies that are owed, within the idle timeout.
func (g *guard) flush() error {
	if len(g.out) == 0 || g.outErr != nil {
		return g.outErr
	}
	if g.outErr = g.Conn.SetWriteDeadline(time.Now().Add(g.server.cfg.IdleTimeout)); g.outErr == nil {
		_, g.outErr = g.Conn.Write(g.out)
	}
	g.out = g.out[:0]
	return g.outErr
}

// Close writes the replies that are owed and closes the connection. Later calls do nothing.
func (g *guard) Close() error {
	g.closing.Do(func() {
		g.over = true
		err := g.flush()
		g.closed = errors.Join(err, g.Conn.Close())
		g.in.drop()
		g.log.Debug("connection closed", zap.NamedError("write_error", err))
		if g.bareLF+g.bareCR > 0 {
			g.log.Warn("line ends in content repaired", zap.Uint64("bare_lf", g.bareLF), zap.Uint64("bare_cr", g.bareCR))
		}
		g.server.unregister(g)
	})
	return g.closed
}
