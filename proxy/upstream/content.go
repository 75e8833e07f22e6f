package upstream

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

const (
	rateMin       = 500 // octets a second; slower content is given up (Postfix smtp_min_data_rate)
	emptyReadsMax = 100 // reads in a row that bring nothing
)

// transact carries tx to its end. next is the job that was taken along with the content, its commands on the wire.
func (c *Conn) transact(tx *transaction, feed <-chan *Job) (next *transaction, end *ending) {
	if end := c.envelope(tx); end != nil || !tx.content {
		return nil, end
	}
	const st = flowctl.StageDot
	if end := c.stream(tx); end != nil {
		return nil, end
	}
	if next = c.prefetch(feed); next != nil {
		next.ahead = true
		c.offer(next)
	}
	tx.row = next != nil || c.held != nil
	c.flush()
	r, end := c.await(st, c.client.cfg.Timeouts.Dot)
	switch {
	case end != nil:
		tx.closing(st, r, end)
	case r.positive():
		c.dirty = next != nil
		tx.decideRest(st, r, Meaning{})
		if c.level > L2 && tx.differs(r) {
			c.client.ladder.tell(tx.said)
		}
	case r.negative():
		tx.refuseAll(st, r)
	default:
		end = c.shifted(st, r)
	}
	return next, end
}

// prefetch takes the next job if one is waiting, so that its commands share a group with the content before it. One that will go in a
// flight of its own is held until then: more than the window allows must not be in flight.
func (c *Conn) prefetch(feed <-chan *Job) *transaction {
	if c.pipelining().level < L2 || c.closed || c.held != nil || c.spent() != "" {
		return nil
	}
	select {
	case job, open := <-feed:
		switch {
		case !open:
			c.closed = true
		case c.mayFly(job):
			c.held = job
		default:
			return c.begin(job, verbData)
		}
	default:
	}
	return nil
}

// stream claims the job and buffers its content with its dot, sending all but the end. Where the content cannot
// be had whole, there is no dot: the connection ends instead.
func (c *Conn) stream(tx *transaction) *ending {
	if tx.claimed = tx.job.claim(); !tx.claimed {
		tx.back = "withdrawn"
		return giveUp(flowctl.StageData, "withdrawn after 354")
	}
	body, err := tx.job.Open()
	if err != nil {
		return tx.unreadable(fmt.Errorf("upstream: open content: %w", err))
	}
	s := stuffer{fresh: true}
	c.putAll(s.stuff(tx.job.Head))
	end := c.copy(tx, &s, body)
	if err := body.Close(); err != nil && end == nil {
		end = tx.unreadable(fmt.Errorf("upstream: close content: %w", err))
	}
	if end != nil {
		return end
	}
	tx.dotted = true
	c.sent.Add(1)
	c.owed.Add(1)
	c.put(s.ending())
	return nil
}

// copy sends body in blocks until it ends, the server objects, or the time for it is over.
func (c *Conn) copy(tx *transaction, s *stuffer, body io.Reader) *ending {
	const st = flowctl.StageDot
	deadline := time.Now().Add(c.client.cfg.Timeouts.Block + time.Duration(tx.job.size()/rateMin)*time.Second)
	if c.block == nil {
		c.block = make([]byte, writeBuffer)
	}
	for empty := 0; empty < emptyReadsMax; {
		n, err := body.Read(c.block)
		if n > 0 {
			empty = 0
			c.putAll(s.stuff(c.block[:n]))
		} else {
			empty++
		}
		if end := c.objection(tx); end != nil {
			return end
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return tx.unreadable(fmt.Errorf("upstream: read content: %w", err))
		case time.Now().After(deadline):
			return endErr(st, fmt.Errorf("upstream: send content: slower than %d octets a second: %w", rateMin, os.ErrDeadlineExceeded))
		}
	}
	return tx.unreadable(fmt.Errorf("upstream: read content: %w", io.ErrNoProgress))
}

// objection hears what a server says before it has the dot. A refusal then is the verdict on the content.
func (c *Conn) objection(tx *transaction) *ending {
	const st = flowctl.StageDot
	var r Reply
	var end *ending
	if c.broken != nil {
		r, end = c.await(st, lastWordsMax)
	} else {
		select {
		case h := <-c.in:
			r, end = c.judge(st, h)
		default:
			return nil
		}
	}
	tx.closing(st, r, end)
	return end
}

// unreadable is the end of a transaction whose content we could not read: temporary for those that the server took.
func (tx *transaction) unreadable(err error) *ending {
	tx.err = err
	return giveUp(flowctl.StageData, "content could not be read")
}

// put buffers s; an error shows in flush, since bufio keeps it.
func (c *Conn) put(s string) {
	if _, err := c.w.WriteString(s); err != nil {
		c.flush()
	}
}

func (c *Conn) putAll(parts func(yield func([]byte) bool)) {
	for p := range parts {
		if _, err := c.w.Write(p); err != nil {
			c.flush()
			return
		}
	}
}

// stuffer puts a dot before each line that begins with one (RFC 5321 section 4.5.2). A line begins after any LF:
// content has CRLF only, and should it not, servers that are lax about line ends are not misled.
type stuffer struct {
	fresh bool // at the beginning of a line
	last  byte // the last octet; 0: none yet
}

var dot = []byte{'.'}

// stuff yields b in parts, which are valid until the next call.
func (s *stuffer) stuff(b []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		if len(b) == 0 {
			return
		}
		if s.fresh && b[0] == '.' && !yield(dot) {
			return
		}
		s.last = b[len(b)-1]
		s.fresh = s.last == '\n'
		for {
			i := bytes.Index(b, []byte("\n."))
			if i < 0 {
				yield(b)
				return
			}
			if !yield(b[:i+1]) || !yield(dot) {
				return
			}
			b = b[i+1:]
		}
	}
}

// ending is the line end that the content lacks, if it does, and the dot.
func (s *stuffer) ending() string {
	switch {
	case s.fresh:
		return ".\r\n"
	case s.last == '\r':
		return "\n.\r\n"
	}
	return "\r\n.\r\n"
}
