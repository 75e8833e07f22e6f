package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// L3 and L4: a message travels whole, {RSET, MAIL, RCPT*, BDAT size LAST and the content}, and several may be under way. Nothing is asked for in between, so
// that nothing can be taken back any more: a job is claimed, and its content read, before its first command is written.

const (
	flightMax     = 64 << 10     // octets of content, which is read into memory first; beyond it a refused recipient would cost too much
	windowOctets  = 256 << 10    // unanswered on one connection
	flightRcptMax = groupMax - 3 // all commands of a flight are one group
)

var errTooLong = errors.New("upstream: read content: it is longer than its envelope says")

// mayFly tells whether job may go in a flight now: not after a silence, since what is sent whole to a server that has left is uncertain.
func (c *Conn) mayFly(job *Job) bool {
	return c.pipelining().level >= L3 && c.client.ladder.canTell() &&
		(len(c.flying) > 0 || time.Since(c.heardAt) < freshFor) &&
		job.size() <= flightMax && len(job.To) <= flightRcptMax
}

// fly sends c.held and whatever of feed may go the same way, until nothing is in flight. What may not is then in c.held. Replies that came
// together are all heard before anything else is sent: what answers no command that was written by then must not pass for the answer
// to a later one.
func (c *Conn) fly(feed <-chan *Job, done func(*Result)) *ending {
	for {
		if !c.amid {
			c.launch(feed)
			c.flush()
		}
		switch {
		case c.leaving != nil && c.turn() == nil:
			return c.ground(c.farewell(), done)
		case !c.amid && c.leaving == nil && c.release(done):
		case len(c.flying) == 0:
			return nil
		case c.turn() == nil: // and more has come, so that a server takes its leave; or a refusal is not certain
			more := c.more(feed)
			c.amid = false
			c.release(done)
			if end := c.leave(more); end != nil {
				return c.ground(end, done)
			}
		default:
			if end := c.listen(feed); end != nil {
				return c.ground(end, done)
			}
		}
	}
}

// launch buffers as many messages as are waiting and the window allows.
func (c *Conn) launch(feed <-chan *Job) {
	for c.hasRoom() {
		if c.held == nil && !c.closed {
			select {
			case job, open := <-feed:
				c.held, c.closed = job, !open
			default:
			}
		}
		job := c.held
		if job == nil || !c.mayFly(job) || !c.fits(job) {
			return
		}
		c.held = nil
		c.board(c.begin(job, verbBdat))
	}
}

// hasRoom tells whether the window allows one message more.
func (c *Conn) hasRoom() bool {
	return c.inFlight() < c.pipelining().window && c.broken == nil && c.leaving == nil && c.spent() == ""
}

// inFlight counts what may have to be sent again if the connection ends: all but what was refused and waits for that to be certain.
func (c *Conn) inFlight() (n int) {
	for _, tx := range c.flying {
		if !tx.complete() || tx.tookAny() {
			n++
		}
	}
	return n
}

// fits tells whether job may follow what is in flight.
func (c *Conn) fits(job *Job) bool {
	commands, octets := int(c.owed.Load())+len(job.To)+3, job.size()
	for _, tx := range c.flying {
		octets += tx.job.size()
	}
	return c.inFlight() == 0 || commands <= groupMax && octets <= windowOctets
}

// board reads tx's content and buffers it with its commands. Where it cannot be read, or was taken back, nothing is written.
func (c *Conn) board(tx *transaction) {
	c.flying = append(c.flying, tx)
	if len(tx.commands) == 0 {
		return
	}
	if tx.claimed = tx.job.claim(); !tx.claimed {
		tx.back = "withdrawn"
	} else if tx.chunk, tx.err = wholeContent(tx.job); tx.err == nil {
		c.write(tx)
		return
	}
	tx.commands = nil
	c.begun--
}

func (c *Conn) write(tx *transaction) {
	tx.started = time.Now()
	if c.turn() == tx {
		c.due = tx.started.Add(c.patience(tx))
	}
	c.owed.Add(int32(len(tx.commands)))
	tx.wrote = len(tx.commands)
	for _, cmd := range tx.commands {
		c.put(c.line(tx, cmd))
	}
	if _, err := c.w.Write(tx.chunk); err != nil {
		c.flush()
	}
	tx.chunk = nil
	tx.endsAt = c.out.written + int64(c.w.Buffered())
	if c.broken != nil {
		tx.endsAt = c.out.written + 1 // it did not come to its end
	}
	c.dirty = true
	c.sent.Add(1)
	if c.inFlight() >= tx.used.window {
		c.fullAt = tx.started
	}
}

// wholeContent returns the content with what goes before it, which ends in CRLF. Dots are not stuffed.
func wholeContent(job *Job) ([]byte, error) {
	body, err := job.Open()
	if err != nil {
		return nil, fmt.Errorf("upstream: open content: %w", err)
	}
	b := make([]byte, len(job.Head), job.size()+int64(bytes.MinRead))
	copy(b, job.Head)
	b, err = readAll(b, body)
	if e := body.Close(); e != nil && err == nil {
		err = fmt.Errorf("upstream: close content: %w", e)
	}
	switch {
	case err != nil:
		return nil, err
	case bytes.HasSuffix(b, []byte("\r\n")):
		return b, nil
	case bytes.HasSuffix(b, []byte("\r")):
		return append(b, '\n'), nil
	}
	return append(b, "\r\n"...), nil
}

// readAll appends what body has to b, up to flightMax in all.
func readAll(b []byte, body io.Reader) ([]byte, error) {
	for empty := 0; empty < emptyReadsMax; {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if empty++; n > 0 {
			empty = 0
		}
		switch {
		case len(b) > flightMax:
			return nil, errTooLong
		case err == io.EOF:
			return b, nil
		case err != nil:
			return nil, fmt.Errorf("upstream: read content: %w", err)
		}
	}
	return nil, fmt.Errorf("upstream: read content: %w", io.ErrNoProgress)
}

// turn is the transaction whose replies come next; nil: all are answered.
func (c *Conn) turn() *transaction {
	for _, tx := range c.flying {
		if !tx.complete() {
			return tx
		}
	}
	return nil
}

func (tx *transaction) complete() bool { return tx.heard == len(tx.commands) }

// patience is how long the next reply to tx may take.
func (c *Conn) patience(tx *transaction) time.Duration {
	if tx.commands[tx.heard].verb == verbBdat {
		return c.client.cfg.Timeouts.Dot
	}
	return c.client.cfg.Timeouts.Command
}

// listen takes the next reply, or the next job, or waits until the first verdict needs no further confirmation.
func (c *Conn) listen(feed <-chan *Job) *ending {
	tx := c.turn()
	select {
	case h := <-c.in: // it may have been here since before the time was over
		return c.take(tx, h)
	default:
	}
	now := time.Now()
	until := c.due
	if last := now.Add(lastWordsMax); (c.broken != nil || c.leaving != nil) && last.Before(until) {
		until = last
		c.due = last
	}
	if first := c.flying[0]; first.complete() && first.endedAt.Add(confirmMax).Before(until) {
		until = first.endedAt.Add(confirmMax)
	}
	if rest := c.heardAt.Add(confirmMax); c.amid && rest.Before(until) {
		until = rest
	}
	c.timer.Reset(until.Sub(now))
	select {
	case h := <-c.in:
		return c.take(tx, h)
	case job, open := <-c.more(feed):
		c.held, c.closed = job, !open
	case <-c.timer.C:
		c.amid = false // what has come of the next reply does not become one
		st := verbStages[tx.commands[tx.heard].verb]
		switch {
		case time.Now().Before(c.due):
		case c.broken != nil:
			return endErr(st, c.broken)
		default:
			return endErr(st, fmt.Errorf("upstream: no reply within %v: %w", c.patience(tx), os.ErrDeadlineExceeded))
		}
	}
	return nil
}

// more is the feed while a job of it may be taken along; nil: it may not.
func (c *Conn) more(feed <-chan *Job) <-chan *Job {
	if c.held != nil || c.closed || c.amid || !c.hasRoom() {
		return nil
	}
	return feed
}

// farewell hears what comes after a 421 when all is answered. Anything but the end says that the answers were not where they belonged.
func (c *Conn) farewell() *ending {
	c.timer.Reset(lastWordsMax)
	select {
	case h := <-c.in:
		if h.err == nil && h.reply.Code != 421 {
			return c.shifted(flowctl.StageDot, h.reply)
		}
	case <-c.timer.C:
	}
	return c.leaving
}

// leave hears what comes when all is answered. Any reply but a 421 says that those to a message that is not certain were not where they belonged.
// A job of more says that as well, by what it is answered.
func (c *Conn) leave(more <-chan *Job) *ending {
	c.timer.Reset(confirmMax)
	select {
	case job, open := <-more:
		c.held, c.closed = job, !open
		return nil
	case h := <-c.in:
		if len(c.flying) > 0 && h.err == nil && h.reply.Code != 421 {
			return c.shifted(flowctl.StageDot, h.reply)
		}
		return c.left(h)
	case <-c.timer.C:
		return nil
	}
}

// take matches what was heard with the next command of tx. Behind a 421 servers close, or go on and answer what is in flight: Exim does so with a
// MAIL too many. Either way each answer stands in its place.
func (c *Conn) take(tx *transaction, h heard) *ending {
	cmd := tx.commands[tx.heard]
	st := verbStages[cmd.verb]
	r, end := c.judge(st, h)
	goodbye := end != nil && r.Code == 421 && !h.early
	switch {
	case goodbye && c.leaving == nil:
		c.leaving = end
	case end != nil && !goodbye:
		return end
	}
	c.amid = h.next
	if tx.heard++; tx.heard == 1 {
		tx.firstAt = c.heardAt
	}
	c.blamed = c.blamed || goodbye && (cmd.verb == verbMail || cmd.verb == verbBdat)
	switch {
	case goodbye && cmd.verb == verbRset:
	case goodbye && cmd.verb == verbMail:
		tx.closing(st, r, c.leaving)
	default:
		if end := c.answer(tx, cmd, r); end != nil {
			return end
		}
	}
	if tx.complete() {
		tx.endedAt = c.heardAt
	}
	if next := c.turn(); next != nil {
		c.due = c.heardAt.Add(c.patience(next))
	}
	return nil
}

// believable tells whether a positive reply to a content can be just that. One for which MAIL or every RCPT was refused has none to differ from.
func (c *Conn) believable(tx *transaction, r Reply) bool {
	return tx.endsAt <= c.out.written && tx.differs(r) && !c.client.ladder.knows(r)
}

// differs tells whether a positive reply to the content is another than those to RSET, MAIL and the last recipient, all of which must be known, and
// none about an address: by its code (RFC 3463 section 3.2), or because it names one. Without the 354 between them nothing else shows that replies
// are one place off.
func (tx *transaction) differs(r Reply) bool {
	return !slices.Contains(tx.said[:], Reply{}) && !slices.Contains(tx.said[:], r) && r.Enhanced[1] != 1 &&
		!slices.ContainsFunc(tx.job.To, func(n int) bool { return strings.Contains(r.Text, tx.job.Env.To[n].Addr) })
}

// release ends those at the head whose verdicts are certain, and reports whether there were any.
func (c *Conn) release(done func(*Result)) (any bool) {
	for len(c.flying) > 0 && c.certain() {
		tx := c.flying[0]
		c.flying = c.flying[1:]
		tx.row = !c.fullAt.Before(tx.started)
		done(c.result(tx, nil))
		any = true
	}
	return any
}

// certain tells whether the first in flight is answered and what is heard of the one behind it stands where it should. When a server says
// something unasked, or leaves a reply out, each one behind stands one place off; a taken message waits for the reply to RSET to show that, a
// refused one, which can wait, for all of the next, or for the reply that is left over when there is no next. It waits no longer than confirmMax,
// and a taken one for none that was sent so late that its reply cannot be here.
func (c *Conn) certain() bool {
	tx := c.flying[0]
	if !tx.complete() {
		return false
	}
	if time.Since(tx.endedAt) >= confirmMax {
		return true
	}
	for _, next := range c.flying[1:] {
		if len(next.commands) == 0 {
			continue
		}
		if !tx.tookAny() {
			return next.complete()
		}
		return next.heard > 0 || time.Since(next.started) < tx.firstAt.Sub(tx.started)
	}
	return tx.tookAny() || len(tx.taken) == 0
}

func (tx *transaction) tookAny() bool {
	return slices.ContainsFunc(tx.verdicts, func(v Verdict) bool { return v.Class == flowctl.OK })
}

// ground ends what was in flight when the connection did. What was written whole and not answered is uncertain, but where the server said
// 421 and closed: then it carried out nothing more. It returns why the connection is over.
func (c *Conn) ground(end *ending, done func(*Result)) *ending {
	flying := c.flying
	c.flying = nil
	nonsense := end.shifted || errors.Is(end.err, errReplyMalformed) || errors.Is(end.err, errReplyTooLong)
	over := c.leaving != nil && end.unexplained() && !timedOut(end.err) && !nonsense
	if c.leaving != nil && end.unexplained() {
		end = c.leaving
	}
	lost, first := 0, !c.blamed
	for _, tx := range flying {
		if nonsense {
			tx.doubtAll()
		}
		e := end
		if len(tx.commands) > 0 && tx.undecided() > 0 {
			tx.dotted = tx.endsAt <= c.out.written && !over
			if tx.dotted {
				lost++
			}
			if !first {
				e = &ending{outcome: nothingSaid("a message before it ended the connection: " + end.outcome.Text), err: end.err}
			}
			first = false
		}
		done(c.result(tx, e))
	}
	if lost > 1 || lost == 1 && c.used.level == L3 {
		c.cut(c.used, end)
	}
	return end
}

// doubtAll takes back all that was understood of a server's replies.
func (tx *transaction) doubtAll() {
	if len(tx.commands) == 0 {
		return
	}
	for i := range tx.verdicts {
		if !tx.verdicts[i].Local {
			tx.verdicts[i] = Verdict{}
		}
	}
}
