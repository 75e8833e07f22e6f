package upstream

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

const (
	failuresMax  = 5                // refused transactions of one connection: servers count errors (Postfix from 10, Exim 10)
	groupMax     = 128              // commands on the wire unanswered; bounds what the reader must hold while we write
	writeBuffer  = 32 << 10         // octets; also the size of a write of content
	quitLimit    = 2 * time.Second  // for QUIT and its 221 together
	confirmMax   = time.Second      // for the replies that confirm a verdict
	aheadMax     = 20 * time.Second // for the reply to the RSET that went with the content before it, from the reply to that on: nothing is easier to answer
	lastWordsMax = time.Second      // for the reply of a server that no longer reads
	freshFor     = time.Second / 2  // a connection that has been silent for longer may have been given up by the server
)

// Conn is one session with the upstream, ready for MAIL. Run owns it; the other methods may be called by anybody at any
// time.
type Conn struct {
	client  *Client
	raw     net.Conn
	conn    net.Conn
	tls     string
	ext     Extensions
	level   Level // the most that this session can do
	born    time.Time
	expires time.Time
	sent    atomic.Int64

	// The reader's and Run's.
	br   *bufio.Reader
	in   chan heard
	owed atomic.Int32 // commands given to the wire and not yet answered

	// Run's.
	out      *deadlineWriter
	w        *bufio.Writer
	timer    *time.Timer
	broken   error               // the first failed write
	begun    int                 // transactions begun
	used     rung                // of the last one
	failures int                 // transactions with a refusal
	domains  map[string]struct{} // of recipients named so far, where the upstream limits them
	outgrown bool                // a job had only others
	dirty    bool                // the last transaction did not end with its content taken, so RSET must come first
	closed   bool                // the feed is
	lastEnd  time.Time           // when the last reply of the last transaction came
	heardAt  time.Time           // when the last reply came
	ahead    []heard             // received by confirm, for await
	block    []byte
	held     *Job           // taken from the feed, and to be carried out next; nil: none
	flying   []*transaction // L3 and L4: taken from the feed and not yet done, oldest first
	due      time.Time      // when the next reply to one of them must be here
	fullAt   time.Time      // when the window was last full
	leaving  *ending        // the server has said 421; nil: it has not
	blamed   bool           // and a message has it for its answer
	amid     bool           // more replies came with the last one
}

func newConn(s *setup) *Conn {
	now := time.Now()
	c := &Conn{
		client:  s.client,
		raw:     s.raw,
		conn:    s.conn,
		ext:     s.ext,
		br:      s.br,
		born:    now,
		heardAt: now,
		expires: now.Add(s.client.cfg.AgeMax),
		// A reply per command of a group and of the content before it, and then one that is too many or the end:
		// the reader never waits for Run, which may be writing (RFC 2920 section 3.1 on deadlocks).
		in: make(chan heard, groupMax+2),
	}
	c.out = &deadlineWriter{conn: s.conn, limit: s.client.cfg.Timeouts.Block}
	c.w = bufio.NewWriterSize(c.out, writeBuffer)
	switch {
	case s.masked || !s.ext.Pipelining:
	case s.ext.Chunking:
		c.level = L4
	default:
		c.level = L2
	}
	s.client.offered.Store(uint32(c.level))
	if t, ok := s.conn.(*tls.Conn); ok {
		st := t.ConnectionState()
		c.tls = tls.VersionName(st.Version) + " " + tls.CipherSuiteName(st.CipherSuite)
		if s.client.tls.base.InsecureSkipVerify {
			c.tls += ", unverified"
		}
	}
	return c
}

// Messages returns how many contents were sent to their dot.
func (c *Conn) Messages() int { return int(c.sent.Load()) }

// TLS returns version and cipher suite, and whether the certificate went unverified; "": clear text.
func (c *Conn) TLS() string { return c.tls }

// Window returns how many messages may be in flight at present.
func (c *Conn) Window() int { return c.pipelining().window }

// Extensions returns what the upstream offers on this connection.
func (c *Conn) Extensions() Extensions { return c.ext }

// Cut closes the socket at once; Run returns soon after. What was under way is handed back, or uncertain after its dot.
func (c *Conn) Cut() {
	// Under TLS there is no close_notify, which could block; the error tells nothing, the socket is gone either way.
	_ = c.raw.Close()
}

// deadlineWriter gives each write its own deadline.
type deadlineWriter struct {
	conn    net.Conn
	limit   time.Duration
	written int64 // octets that were handed over
}

func (w *deadlineWriter) Write(p []byte) (int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.limit)); err != nil {
		return 0, err
	}
	n, err := w.conn.Write(p)
	w.written += int64(n)
	if err != nil {
		return n, err
	}
	// Left standing it would expire, and TLS may write on its own while we only read (key update).
	return n, w.conn.SetWriteDeadline(time.Time{})
}

// Run sends the jobs of feed, one transaction after the other, until feed is closed or the connection ends. It
// may be called once, and returns with the socket closed and its reader joined.
//
// done is called on the goroutine of Run, exactly once for each job received from feed, in their order. It may
// block; no more messages than Window are sent to their end before done has returned for the first of them. With pipelining the commands of
// one more may be on the wire: a job that is waiting in feed when the content before it has been written is taken along. Run never waits
// for one.
//
// When Run returns, every job it received has had its done. Jobs that are still in feed were not touched and
// remain the feeder's, who alone knows whether more are coming: stop sending, then drain feed.
//
// The Outcome says why it ended: OK when feed was closed or we rotated (Config.MessagesMax, Config.AgeMax, refusals), IdleClose when
// the server closed while nothing was under way (or Cut was called), SessionCap when the server said so, else the class of the
// failure.
func (c *Conn) Run(feed <-chan *Job, done func(*Result)) flowctl.Outcome {
	started := time.Now()
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		c.readReplies()
	}()
	c.timer = time.NewTimer(time.Hour) // reset before each use
	defer c.timer.Stop()
	end := c.work(feed, done)
	if end.polite {
		c.quit()
	}
	c.Cut()
	<-joined
	out := end.outcome
	out.Started, out.Took = started, time.Since(started)
	return out
}

// work carries out jobs until there are no more, or until the connection ends.
func (c *Conn) work(feed <-chan *Job, done func(*Result)) *ending {
	for {
		job, end := c.idle(feed)
		switch {
		case end != nil:
		case c.mayFly(job):
			c.held = job
			end = c.fly(feed, done)
		default:
			end = c.converse(c.begin(job, verbData), feed, done)
		}
		if end != nil {
			if job := c.held; job != nil {
				done(handBack(&transaction{job: job, reused: c.begun > 0, started: time.Now()}))
			}
			return end
		}
	}
}

// converse carries out tx, and those after it that were taken along with a content.
func (c *Conn) converse(tx *transaction, feed <-chan *Job, done func(*Result)) *ending {
	for {
		next, end := c.transact(tx, feed)
		if next == nil {
			done(c.result(tx, end))
			return end
		}
		if end != nil {
			c.cut(tx.used, end)
			done(c.result(tx, end))
			done(handBack(next))
			return end
		}
		if end = c.confirm(next); end != nil && end.shifted {
			tx.doubt()
			done(c.result(tx, end))
			done(handBack(next))
			return end
		}
		done(c.result(tx, nil))
		if end != nil {
			done(c.result(next, end))
			return end
		}
		tx = next
	}
}

// idle waits for a job, and for the server to leave.
func (c *Conn) idle(feed <-chan *Job) (*Job, *ending) {
	select {
	case h := <-c.in: // before a job that would come back at once
		return nil, c.left(h)
	default:
	}
	if why := c.spent(); why != "" {
		return nil, retire(flowctl.OK, why)
	}
	if job := c.held; job != nil {
		c.held = nil
		return job, nil
	}
	if c.closed {
		return nil, retire(flowctl.OK, "no more to send")
	}
	c.timer.Reset(time.Until(c.expires))
	select {
	case h := <-c.in:
		return nil, c.left(h)
	case <-c.timer.C:
		return nil, retire(flowctl.OK, c.spent())
	case job, open := <-feed:
		if !open {
			return nil, retire(flowctl.OK, "no more to send")
		}
		return job, nil
	}
}

// left judges what came while nothing was under way.
func (c *Conn) left(h heard) *ending {
	switch {
	case h.err != nil:
		return endErr(flowctl.StageIdle, fmt.Errorf("upstream: closed by the server while idle: %w", h.err))
	case h.reply.negative():
		return c.endReply(flowctl.StageIdle, h.reply)
	}
	return c.lost(flowctl.StageIdle, h.reply)
}

// spent says why the connection takes no further job; "" when it does.
func (c *Conn) spent() string {
	limit := c.client.cfg.MessagesMax
	limited := c.limited()
	switch {
	case limited != "":
		return limited
	case limit > 0 && c.Messages() >= limit:
		return fmt.Sprintf("rotated after %d messages", limit)
	case c.failures >= failuresMax:
		return fmt.Sprintf("rotated after %d transactions with refusals", failuresMax)
	case !time.Now().Before(c.expires):
		return fmt.Sprintf("rotated after %v", c.client.cfg.AgeMax)
	}
	return ""
}

// pipelining is what this session may do now.
func (c *Conn) pipelining() rung {
	if r := c.client.ladder.rung(); r.level <= c.level {
		return r
	}
	return rung{c.level, 1}
}

// flush puts on the wire what is buffered. A failure is not reported here: the server may have answered before
// it, and await tells either way.
func (c *Conn) flush() {
	if err := c.w.Flush(); err != nil && c.broken == nil {
		c.broken = fmt.Errorf("upstream: write: %w", err)
	}
}

// quit takes leave. Whatever comes of it, nothing is under way and the socket is closed next, so errors change nothing.
func (c *Conn) quit() {
	c.owed.Add(1)
	if err := c.conn.SetWriteDeadline(time.Now().Add(quitLimit)); err != nil {
		return
	}
	if _, err := c.conn.Write([]byte("QUIT\r\n")); err != nil {
		return
	}
	c.timer.Reset(quitLimit)
	select {
	case <-c.in:
	case <-c.timer.C:
	}
}
