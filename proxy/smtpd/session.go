package smtpd

import (
	"fmt"
	"io"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/mailweir/mailweir/proxy/message"
	"go.uber.org/zap"
)

// session gives the commands that go-smtp found in order their meaning. Its methods run in the connection's
// goroutine; arguments come from the guard, in the form they had on the wire.
type session struct {
	guard *guard
	tx    *transaction // nil outside of one
}

const (
	// maxEnvelopeBytes bounds the recipients of all open transactions together: as many clients as there may be, each with as
	// many recipients as it may name, would take many times as much.
	maxEnvelopeBytes = 16 << 20
	// recipientOverhead is what a recipient takes beside its text, in octets.
	recipientOverhead = 64
)

// transaction is one message from MAIL on. It is committed or aborted exactly once.
type transaction struct {
	env   *message.Envelope
	draft Draft // nil once it was committed or aborted
	room  int64 // octets of its recipients, counted in Server.envelopes
}

// newSession is called by go-smtp at the first EHLO or HELO of a connection.
func newSession(c *smtp.Conn) (smtp.Session, error) {
	g, ok := c.Conn().(*guard)
	if !ok {
		return nil, fmt.Errorf("smtpd: session on a %T", c.Conn())
	}
	g.session = &session{guard: g}
	return g.session, nil
}

// Mail begins a transaction.
func (s *session) Mail(string, *smtp.MailOptions) error {
	if s.tx != nil {
		return errorReply(errNested)
	}
	cfg := &s.guard.server.cfg
	env, size, err := parseMail(s.guard.args, cfg)
	if err != nil {
		return errorReply(err)
	}
	if size > uint64(cfg.MaxMessageBytes) {
		return errorReply(errTooBig)
	}
	env.Client = s.guard.client
	env.Helo = s.guard.helo
	if err := s.guard.begin(); err != nil {
		return errorReply(err)
	}
	draft, err := s.guard.server.store.Begin(env, int64(size))
	if err != nil {
		s.end()
		return s.storeFault("begin message", err)
	}
	s.tx = &transaction{env: env, draft: draft}
	return nil
}

// Rcpt adds a recipient.
func (s *session) Rcpt(string, *smtp.RcptOptions) error {
	if s.tx == nil {
		return errorReply(errSequence)
	}
	cfg := &s.guard.server.cfg
	if len(s.tx.env.To) >= cfg.MaxRecipients {
		return errorReply(errRecipients)
	}
	to, err := parseRcpt(s.guard.args, s.tx.env.UTF8, cfg)
	if err != nil {
		return errorReply(err)
	}
	room := int64(recipientOverhead + len(to.Addr) + len(to.Notify) + len(to.ORcpt))
	if s.guard.server.envelopes.Add(room) > maxEnvelopeBytes {
		s.guard.server.envelopes.Add(-room)
		return errorReply(errRoom)
	}
	s.tx.room += room
	s.tx.env.To = append(s.tx.env.To, to)
	return nil
}

// Data receives the content beside go-smtp, which finds an empty body in its own reader, and commits.
func (s *session) Data(io.Reader) error {
	if !s.mayReceive() {
		return errorReply(errSequence)
	}
	defer s.end()
	s.guard.pending = ".\r\n"
	server := s.guard.server
	c := newContent(&server.cfg, s.tx.draft)
	defer c.release()
	c.writeRaw(s.tx.env.AppendReceived(c.sink.AvailableBuffer(), server.cfg.Hostname))
	whole, err := s.receive(c)
	s.guard.repaired(c)
	if err != nil {
		s.guard.hangUp(err)
	}
	if !whole {
		return errorReply(errSequence) // not heard
	}
	ended := time.Now()
	if err := c.finish(); err != nil {
		return s.storeFault("receive message", err)
	}
	// A client that cannot hear the 250 must not have its message taken.
	if err := s.guard.flush(); err != nil {
		s.guard.hangUp(err)
		return errorReply(err)
	}
	s.tx.env.Header8 = c.trace.eight
	if err := s.tx.commit(c.written); err != nil {
		return s.storeFault("commit message", err)
	}
	server.stats.accepted(time.Since(ended))
	s.guard.accepted()
	return queued(s.tx.env.ID.String())
}

// mayReceive says whether DATA or BDAT is in order.
func (s *session) mayReceive() bool { return s.tx != nil && len(s.tx.env.To) > 0 }

// receive takes the content that follows DATA, or that BDAT announced. whole is false when its end did not come: with an
// error the connection is over, without one the client has thought better of it.
func (s *session) receive(c *content) (whole bool, err error) {
	if s.guard.verb == "BDAT" {
		return s.guard.receiveChunks(c, s.tx.abort)
	}
	err = s.guard.receive(c.taking(s.tx.abort, c.feed))
	return err == nil, err
}

// Reset ends the transaction at RSET, EHLO and after DATA.
func (s *session) Reset() { s.end() }

// Logout ends it with the connection.
func (s *session) Logout() error {
	s.end()
	return nil
}

// end aborts what was not committed and makes the client idle.
func (s *session) end() {
	if s.tx != nil {
		s.tx.abort()
		s.guard.server.envelopes.Add(-s.tx.room)
		s.tx = nil
	}
	s.guard.idle()
}

// storeFault returns the reply to err, and logs an unknown one, the first of a connection; all are counted.
func (s *session) storeFault(doing string, err error) error {
	if !isKnown(err) && !s.guard.storeFailed {
		s.guard.storeFailed = true
		s.guard.log.Error("message refused by a local error", zap.String("doing", doing), zap.Error(err))
	}
	return errorReply(err)
}

// errorReply is reply as an error that go-smtp takes.
func errorReply(err error) error { return reply(err) }

func (t *transaction) abort() {
	if t.draft != nil {
		t.draft.Abort()
		t.draft = nil
	}
}

func (t *transaction) commit(size int64) error {
	draft := t.draft
	t.draft = nil
	t.env.Size = size
	return draft.Commit(t.env)
}
