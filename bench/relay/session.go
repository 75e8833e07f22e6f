package relay

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	readBuffer       = 64 << 10
	maxCommandLine   = 12288 // octets with CRLF; RFC 4954 section 4.5.3.1.1 asks for this much for AUTH
	handshakeTimeout = 30 * time.Second
	lingerTime       = time.Second // for the client's close after ours, so that its unread input does not turn our last reply into a reset
	lingerBytes      = 1 << 20
)

// errEnded ends a session; whatever was to be said has been said.
var errEnded = errors.New("relay: session ended")

// session is one connection. Its own goroutine reads and decides; only cut is for others.
type session struct {
	r       *Relay
	id      int
	raw     net.Conn
	refused bool // over the limit
	left    bool // its place is free again; guarded by r.mu

	cutOnce sync.Once
	wasCut  chan struct{}

	conn    net.Conn // raw, or TLS over it
	in      *bufio.Reader
	out     *sender
	pending []byte // replies decided and not given to out: they leave together, before the next wait

	helloed bool
	authed  bool
	last    bool // the command before had to be the last of its group
	taken   int  // messages
	tx      transaction
}

// transaction is from MAIL to the reply to the content.
type transaction struct {
	number     int
	tried      bool // a MAIL was sent, taken or not: what follows it in a group is no fault
	open       bool // a MAIL was taken
	utf8       bool
	from       string
	mailParams []string
	to         []string
	rcptParams []string
	chunks     *content // what BDAT has brought so far; nil: nothing
}

func newSession(r *Relay, id int, conn net.Conn) *session {
	return &session{r: r, id: id, raw: conn, wasCut: make(chan struct{}), conn: conn}
}

// cut resets the connection.
func (s *session) cut() {
	s.cutOnce.Do(func() {
		close(s.wasCut)
		reset(s.raw)
	})
}

// reset falls back to an ordinary close where the connection knows no other. What closing says is of no use: the
// connection is gone either way.
func reset(conn net.Conn) {
	if l, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(0)
	}
	_ = conn.Close()
}

func (s *session) serve() {
	clean := s.dialogue()
	if s.out != nil {
		s.flush()
		s.out.finish()
	}
	s.r.leave(s)
	if clean {
		s.linger()
	}
	_ = s.raw.Close() // nothing is left to be sent
}

// dialogue returns whether the connection is to be ended in an orderly way.
func (s *session) dialogue() bool {
	if s.refused && s.r.cfg.BusyInClear || !s.r.cfg.ImplicitTLS {
		s.begin(s.raw)
	} else if err := s.handshake(); err != nil {
		return false
	}
	if err := s.greet(); err != nil {
		return err == errEnded
	}
	for {
		line, err := s.command()
		if err == nil {
			err = s.execute(line)
		}
		if err != nil {
			return err == errEnded
		}
	}
}

func (s *session) begin(conn net.Conn) {
	s.conn = conn
	s.in = bufio.NewReaderSize(conn, readBuffer)
	s.out = newSender(conn, s.r.done)
}

// handshake begins TLS on the raw connection; what was learnt before it is forgotten (RFC 3207 section 4.2).
func (s *session) handshake() error {
	conn := tls.Server(s.raw, s.r.cfg.TLS)
	err := conn.SetDeadline(time.Now().Add(handshakeTimeout))
	if err == nil {
		err = conn.Handshake()
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		s.r.add(&s.r.count.TLSFailed)
		return err
	}
	s.helloed, s.authed, s.tx = false, false, transaction{}
	s.begin(conn)
	return nil
}

func (s *session) isTLS() bool {
	_, ok := s.conn.(*tls.Conn)
	return ok
}

func (s *session) greet() error {
	due := time.Now().Add(2 * s.r.cfg.RTT)
	if s.refused {
		s.sayAt(due, s.r.cfg.Busy, true)
		return errEnded
	}
	act, reply, code := s.decide(StageConnect, "", "220 "+s.r.cfg.Hostname+" ESMTP")
	if err := s.carryOut(act); err != nil {
		return err
	}
	if reply == "" {
		return errEnded
	}
	closing := act.Close || code == 421
	s.sayAt(due, reply, closing)
	if closing {
		return errEnded
	}
	return nil
}

// command waits for the next line and returns it without its CRLF.
func (s *session) command() (string, error) {
	if !s.lineBuffered() {
		s.flush()
	}
	if err := s.expect(); err != nil {
		return "", err
	}
	line, err := s.in.ReadSlice('\n')
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", s.idle()
	case err == bufio.ErrBufferFull || err == nil && len(line) > maxCommandLine:
		s.violated(RuleLongLine, string(line[:100]))
		s.sayLast(s.plain("500 5.5.2 Line too long"))
		return "", errEnded
	case err != nil:
		return "", err
	}
	return string(line), nil
}

// expect sets the deadline for the next input.
func (s *session) expect() error {
	if s.r.cfg.IdleTimeout <= 0 {
		return nil
	}
	return s.conn.SetReadDeadline(time.Now().Add(s.r.cfg.IdleTimeout))
}

func (s *session) idle() error {
	s.r.add(&s.r.count.Idled)
	s.sayLast(s.plain("421 4.4.2 " + s.r.cfg.Hostname + " Error: timeout exceeded"))
	return errEnded
}

// unheard is whether replies are on their way that the client cannot have seen.
func (s *session) unheard() bool { return len(s.pending) > 0 || s.out.unsent.Load() > 0 }

func (s *session) lineBuffered() bool {
	buffered, err := s.in.Peek(s.in.Buffered())
	return err == nil && bytes.IndexByte(buffered, '\n') >= 0
}

// say queues a reply; it leaves with others before the session waits for input.
func (s *session) say(reply string) {
	s.pending = append(s.pending, strings.ReplaceAll(reply, "\n", "\r\n")...)
	s.pending = append(s.pending, '\r', '\n')
}

func (s *session) flush() { s.flushAt(time.Now().Add(s.r.cfg.RTT), false) }

// sayLast says the last reply of the connection.
func (s *session) sayLast(reply string) {
	s.sayAt(time.Now().Add(s.r.cfg.RTT), reply, true)
}

func (s *session) sayAt(due time.Time, reply string, last bool) {
	s.say(reply)
	s.flushAt(due, last)
}

func (s *session) flushAt(due time.Time, last bool) {
	if len(s.pending) == 0 {
		return
	}
	b := batch{text: s.pending, due: due}
	if last {
		b.before = func() { s.r.leave(s) }
	}
	s.out.send(b)
	s.pending = nil
}

// plain takes the enhanced status code out of a reply where they are not offered.
func (s *session) plain(reply string) string {
	if s.r.offers("ENHANCEDSTATUSCODES") {
		return reply
	}
	code, rest, _ := strings.Cut(reply, " ")
	enhanced, text, _ := strings.Cut(rest, " ")
	if strings.Count(enhanced, ".") == 2 && strings.Trim(enhanced, "0123456789.") == "" {
		return code + " " + text
	}
	return reply
}

// linger closes our direction and waits a moment for the client to close its own.
func (s *session) linger() {
	half, ok := s.raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || s.raw.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	// However this ends, the connection is closed next.
	_, _ = io.CopyN(io.Discard, s.raw, lingerBytes)
}

func (s *session) violated(rule, line string) {
	s.r.violated(s.id, rule, strings.TrimRight(line, "\r\n"))
}
