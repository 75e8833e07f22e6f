package relay

import (
	"io"
	"net"
	"slices"
	"time"
)

// Stage is where in a session a reply is due.
type Stage string

// The stages. A connection over MaxConnections asks the script nothing.
const (
	StageConnect  Stage = "connect" // the greeting
	StageEHLO     Stage = "ehlo"    // HELO too
	StageStartTLS Stage = "starttls"
	StageAuth     Stage = "auth" // after the credentials came
	StageMail     Stage = "mail"
	StageRcpt     Stage = "rcpt"
	StageData     Stage = "data"    // the 354
	StageContent  Stage = "content" // the first octets of content are there; Reply is not sent
	StageDot      Stage = "dot"     // the reply to the content
	StageRset     Stage = "rset"
	StageNoop     Stage = "noop"
	StageQuit     Stage = "quit"
	StageOther    Stage = "other" // any other command
)

// Event is what a script sees. Its slices are its own.
type Event struct {
	Conn        int // number of the connection, from 1, refused ones included
	Transaction int // Counters.Transactions at its MAIL, from 1; 0 before the first MAIL of a connection
	OnConn      int // messages taken on this connection so far
	Stage       Stage
	Line        string   // the command without its CRLF; of AUTH the mechanism alone
	From        string   // of the transaction, "" also before MAIL
	To          []string // recipients taken so far
}

// Action is what a script wants done. The zero value lets the relay answer as it would. Where several are set, they happen in
// the order of the fields.
type Action struct {
	Take  bool          // at StageDot: the message goes into the ledger whatever the reply; with Close or Reset, a relay that dies between taking and answering
	Delay time.Duration // waits; later commands wait too
	Stall bool          // answers nothing more and lets the connection be. At StageContent it also stops reading, until Cut or Close
	Reset bool          // resets the connection without a reply
	Reply string        // sent in place of the relay's own, lines joined by "\n", exactly as given. Its code decides what happens: 2yz takes the command, 354 the content
	Close bool          // closes the connection, after Reply if there is one and without a reply if not
}

func (r *Relay) script(e Event) Action {
	if r.cfg.Reply == nil {
		return Action{}
	}
	return r.cfg.Reply(e)
}

// decide asks the script. code is that of the reply, 0 for none.
func (s *session) decide(stage Stage, line, own string) (act Action, reply string, code int) {
	act = s.r.script(Event{
		Conn: s.id, Transaction: s.tx.number, OnConn: s.taken, Stage: stage,
		Line: line, From: s.tx.from, To: slices.Clone(s.tx.to),
	})
	switch {
	case act.Stall, act.Reset:
	case act.Reply != "":
		reply = act.Reply
	case !act.Close:
		reply = s.plain(own)
	}
	return act, reply, replyCode(reply)
}

// carryOut does what comes before the reply.
func (s *session) carryOut(act Action) error {
	if act.Delay > 0 {
		s.flush()
		if !s.r.sleep(act.Delay) {
			return net.ErrClosed
		}
	}
	switch {
	case act.Stall:
		return s.stall()
	case act.Reset:
		s.cut()
		return net.ErrClosed
	}
	return nil
}

// answer decides and says the reply to a command; own is the relay's. It returns the code of what was said.
func (s *session) answer(stage Stage, line, own string) (code int, err error) {
	act, reply, code := s.decide(stage, line, own)
	if err := s.carryOut(act); err != nil {
		return 0, err
	}
	return code, s.conclude(act, reply, code)
}

func (s *session) conclude(act Action, reply string, code int) error {
	switch {
	case reply == "":
		return errEnded
	case act.Close || code == 421:
		s.sayLast(reply)
		return errEnded
	}
	s.say(reply)
	return nil
}

// stall answers nothing more and reads until the client goes away. Replies decided before are still sent.
func (s *session) stall() error {
	s.flush()
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s.in); err != nil {
		return err
	}
	return io.EOF
}

// replyCode is the code of a reply's first line, 0 when it has none.
func replyCode(reply string) int {
	if len(reply) < 3 {
		return 0
	}
	code := 0
	for _, c := range []byte(reply[:3]) {
		if c < '0' || c > '9' {
			return 0
		}
		code = code*10 + int(c-'0')
	}
	return code
}
