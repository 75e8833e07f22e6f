package upstream

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// heard is what the reader hands on: a reply, or the end.
type heard struct {
	reply Reply
	err   error
	early bool // the reply answers no command
	more  bool // nothing else is owed, yet more has come
	next  bool // more has come with it
}

// readReplies runs beside Run until the stream ends or a reply comes that was not asked for.
func (c *Conn) readReplies() {
	for {
		r, _, err := readReply(c.br)
		if err != nil {
			c.in <- heard{err: err}
			return
		}
		left := c.owed.Add(-1)
		h := heard{reply: r, early: left < 0, more: left == 0 && c.surplus(), next: c.br.Buffered() > 0}
		c.in <- h
		if h.early {
			return
		}
	}
}

// surplus tells whether octets have come that nobody asked for, other than a 421, which may come at any time
// (RFC 5321 section 3.8).
func (c *Conn) surplus() bool {
	n := min(c.br.Buffered(), 3)
	b, err := c.br.Peek(n)
	return n > 0 && (err != nil || !bytes.HasPrefix([]byte("421"), b))
}

// await hears the next reply, within limit.
func (c *Conn) await(st flowctl.Stage, limit time.Duration) (Reply, *ending) {
	if len(c.ahead) > 0 {
		h := c.ahead[0]
		c.ahead = c.ahead[1:]
		return c.judge(st, h)
	}
	if c.broken != nil {
		limit = min(limit, lastWordsMax)
	}
	c.timer.Reset(limit)
	select {
	case h := <-c.in:
		return c.judge(st, h)
	case <-c.timer.C:
		if c.broken != nil {
			return Reply{}, endErr(st, c.broken)
		}
		return Reply{}, endErr(st, fmt.Errorf("upstream: no reply within %v: %w", limit, os.ErrDeadlineExceeded))
	}
}

// judge tells whether h can be the reply to our next command. A refusal that answers none is returned beside the
// ending: servers say why they are about to close.
func (c *Conn) judge(st flowctl.Stage, h heard) (Reply, *ending) {
	switch {
	case h.err != nil:
		return Reply{}, endErr(st, fmt.Errorf("upstream: read reply: %w", h.err))
	case h.reply.Code == 421, h.early && h.reply.negative():
		return h.reply, c.endReply(st, h.reply)
	case h.early, h.more:
		return Reply{}, c.shifted(st, h.reply)
	}
	c.heardAt = time.Now()
	return h.reply, nil
}

// confirm waits a moment for the replies to next's commands before tx's verdict counts. When a server says
// something unasked around the dot, or leaves its reply out, each reply behind it stands one place off; where
// that shows, tx's verdict is another's. It waits no longer, since a crash before the verdict is written sends
// the message again. An ending is next's.
func (c *Conn) confirm(next *transaction) *ending {
	c.ahead = c.ahead[:0]
	c.timer.Reset(confirmMax)
	for late := false; !late && len(c.ahead) < next.wrote; {
		select {
		case h := <-c.in:
			c.ahead = append(c.ahead, h)
			late = h.err != nil || h.early // there will be no more
		case <-c.timer.C:
			late = true
		}
	}
	if next.wrote > 0 && len(c.ahead) == next.wrote && !slices.ContainsFunc(c.ahead, heard.elseThan503) {
		return c.turnedAway()
	}
	return c.hear(next, len(c.ahead))
}

func (h heard) elseThan503() bool { return h.early || h.more || h.reply.Code != 503 }

// turnedAway ends a connection whose server took the content and answered each command behind it, RSET as well, with 503: so does Haraka 3.3,
// since such commands could be smuggled in. Were the replies one place off, one to RSET would be among them, or one would be missing; so the
// content's verdict is its own. Nothing of the transaction behind it was done.
func (c *Conn) turnedAway() *ending {
	c.client.ladder.lostCount(time.Now(), L2, "what was sent with a content was refused")
	return giveUp(flowctl.StageMail, "503 to all that was sent together with the content before it")
}
