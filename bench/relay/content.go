package relay

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

const maxPrefix = 16 << 10 // octets of what was prepended to a message that are kept

// content is what came between 354 and the dot, dots unstuffed.
type content struct {
	size    int64
	sum     hash.Hash
	fromID  hash.Hash // nil before the line of X-Id
	prefix  []byte
	body    []byte
	keep    int64 // octets of body kept; 0: none
	inHead  bool
	id      string // X-Id
	msgID   string
	bareCR  bool
	bareLF  bool
	nul     bool
	eight   bool
	hadCR   bool // the last octet was CR
	newLine bool // at the start of a line, as the end of data counts it
}

// content reads until CRLF.CRLF and nothing else. io.ErrUnexpectedEOF: the client ended the connection before.
func (s *session) content() (*content, error) {
	early := s.in.Buffered() > 0
	s.flush()
	c := &content{sum: sha256.New(), inHead: true, newLine: true}
	if s.r.cfg.KeepBodies {
		c.keep = s.r.cfg.MaxSize
	}
	for first := true; ; first = false {
		if err := s.expect(); err != nil {
			return nil, err
		}
		if first {
			if err := s.contentBegins(early, true); err != nil {
				return nil, err
			}
		}
		line, err := s.in.ReadSlice('\n')
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, s.idle()
		case err == io.EOF:
			return nil, io.ErrUnexpectedEOF
		case err != nil && err != bufio.ErrBufferFull:
			return nil, err
		}
		if c.newLine && string(line) == ".\r\n" {
			return c, nil
		}
		if c.newLine && line[0] == '.' {
			line = line[1:]
		}
		c.add(line)
	}
}

// contentBegins waits for the first octet and carries out what the script wants done then. dots: it ends with one, and had to wait for 354. A connection that fails
// before is left to the read that follows.
func (s *session) contentBegins(early, dots bool) error {
	if _, err := s.in.Peek(1); err != nil {
		return nil
	}
	if dots && (early || s.unheard()) {
		s.violated(RuleEarlyContent, "")
	}
	act, _, _ := s.decide(StageContent, "", "")
	if !act.Stall {
		if err := s.carryOut(act); err != nil {
			return err
		}
		if act.Close {
			return errEnded
		}
		return nil
	}
	select { // without reading: the client's writes fill up
	case <-s.wasCut:
	case <-s.r.done:
	}
	return net.ErrClosed
}

// add takes a line with its LF, or a part of an overlong one.
func (c *content) add(line []byte) {
	if c.inHead && c.newLine {
		c.header(line)
	}
	c.inspect(line)
	c.size += int64(len(line))
	c.sum.Write(line)
	if c.fromID != nil {
		c.fromID.Write(line)
	} else if room := maxPrefix - len(c.prefix); room > 0 {
		c.prefix = append(c.prefix, line[:min(room, len(line))]...)
	}
	if c.size <= c.keep {
		c.body = append(c.body, line...)
	}
}

func (c *content) header(line []byte) {
	if len(bytes.TrimRight(line, "\r\n")) == 0 {
		c.inHead = false
		return
	}
	name, value, ok := strings.Cut(string(line), ":")
	if !ok {
		return
	}
	value = strings.TrimSpace(value)
	switch strings.ToLower(name) {
	case "x-id":
		if c.fromID == nil {
			c.id, c.fromID = value, sha256.New()
		}
	case "message-id":
		c.msgID = value
	}
}

// inspect looks at every octet; c.hadCR carries a CR over the end of a part.
func (c *content) inspect(line []byte) {
	for _, b := range line {
		switch {
		case b == '\n' && !c.hadCR:
			c.bareLF = true
		case b != '\n' && c.hadCR:
			c.bareCR = true
		}
		c.nul = c.nul || b == 0
		c.eight = c.eight || b > 0x7f
		c.newLine = b == '\n' && c.hadCR
		c.hadCR = b == '\r'
	}
}

// dot answers the content and, when it takes it, enters it into the ledger first: a client that has heard
// 250 finds it there.
func (s *session) dot(c *content) error {
	for rule, broken := range map[string]bool{RuleBareCR: c.bareCR, RuleBareLF: c.bareLF, RuleNUL: c.nul} {
		if broken {
			s.violated(rule, "")
		}
	}
	own := s.r.enter(len(s.tx.to))
	if own == "" {
		served := s.r.sleep(s.r.cfg.ServiceTime)
		s.r.finished()
		if !served {
			return net.ErrClosed
		}
		own = s.judgeContent(c)
	}
	act, reply, code := s.decide(StageDot, "", own)
	if act.Take || code/100 == 2 {
		s.taken++
		s.r.take(s.message(c, reply))
	}
	s.tx = transaction{number: s.tx.number}
	if err := s.carryOut(act); err != nil {
		return err
	}
	return s.conclude(act, reply, code)
}

func (s *session) judgeContent(c *content) string {
	switch {
	case c.size > s.r.cfg.MaxSize:
		return "552 5.3.4 Message size exceeds the limit"
	case s.r.ledgerFull():
		return "452 4.3.1 The ledger is full"
	case !s.r.cfg.PressureAtMail && s.pressed():
		return ExchangePressure
	}
	return "250 2.0.0 Taken"
}

func (s *session) message(c *content, reply string) Message {
	m := Message{
		Conn: s.id, Transaction: s.tx.number, From: s.tx.from, To: s.tx.to,
		MailParams: s.tx.mailParams, RcptParams: s.tx.rcptParams,
		Size: c.size, Sum: Sum(c.sum.Sum(nil)), MessageID: c.msgID, XID: c.id, EightBit: c.eight,
		When: time.Now(), Reply: reply, Body: c.body,
	}
	if c.fromID != nil {
		m.SumFromID, m.Prefix = Sum(c.fromID.Sum(nil)), string(c.prefix)
	}
	return m
}
