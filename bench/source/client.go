package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

const maxReplyLines = 100

var errReply = errors.New("source: not an SMTP reply")

// client is one connection, used by one worker.
type client struct {
	conn    net.Conn
	in      *bufio.Reader
	timeout time.Duration
	release func() bool // ends the watch over the context
	broken  bool
}

// connect dials and says EHLO; on a failure the record is complete and the result nil.
func (r *run) connect(ctx context.Context, m *mail) *client {
	rec := &m.record
	rec.Stage = StageDial
	dialing, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	conn, err := r.cfg.Dial(dialing, "tcp", r.cfg.Address)
	if err != nil {
		rec.Err, rec.Took = err, time.Since(rec.Began)
		return nil
	}
	c := &client{conn: conn, in: bufio.NewReader(conn), timeout: r.cfg.Timeout}
	// Closing is how the context reaches a Read that waits; its error would say nothing new.
	c.release = context.AfterFunc(ctx, func() { _ = conn.Close() })
	ok := c.step(m, StageGreeting, "", 220) && c.step(m, StageHello, "EHLO source.example", 250)
	rec.Took = time.Since(rec.Began)
	if !ok {
		c.quit()
		return nil
	}
	return c
}

// transfer sends one message and completes its record but for Took.
func (c *client) transfer(m *mail) {
	if !c.step(m, StageMail, "MAIL FROM:<"+m.record.From+">", 250) {
		return
	}
	var taken []string
	for _, to := range m.record.To {
		if c.step(m, StageRcpt, "RCPT TO:<"+to+">", 250) {
			taken = append(taken, to)
		}
		if c.broken || m.record.Code == 421 {
			return
		}
	}
	if len(taken) == 0 {
		return
	}
	m.record.To = taken
	if !c.step(m, StageData, "DATA", 354) {
		return
	}
	c.content(m)
}

// content counts as sent, StageDot, from the moment the last write begins: the dot may arrive although the write fails.
func (c *client) content(m *mail) {
	m.record.Stage, m.record.Code, m.record.Reply = StageContent, 0, ""
	stuffed := stuff(m.content)
	m.record.Stage = StageDot
	if err := c.write(stuffed); err != nil {
		c.fail(m, err)
		return
	}
	sent := time.Now()
	code, text, err := c.reply()
	if err != nil {
		c.fail(m, err)
		return
	}
	m.record.Code, m.record.Reply, m.record.DotTook = code, text, time.Since(sent)
}

// reset makes the connection fit for the next message.
func (c *client) reset(m *mail) bool {
	if m.record.Acknowledged() {
		return true
	}
	if err := c.write([]byte("RSET\r\n")); err != nil {
		return false
	}
	code, _, err := c.reply()
	return err == nil && code == 250
}

// quit ends the connection; nil is allowed. What the server says to it changes nothing for any message, so errors are
// left alone.
func (c *client) quit() {
	if c == nil {
		return
	}
	if !c.broken && c.write([]byte("QUIT\r\n")) == nil {
		_, _, _ = c.reply()
	}
	c.release()
	_ = c.conn.Close()
}

// step sends a command, if there is one, and enters the reply into the record; it is true when the reply is the
// one wanted.
func (c *client) step(m *mail, stage Stage, command string, want int) bool {
	m.record.Stage, m.record.Code, m.record.Reply = stage, 0, ""
	if command != "" {
		if err := c.write([]byte(command + "\r\n")); err != nil {
			c.fail(m, err)
			return false
		}
	}
	code, text, err := c.reply()
	if err != nil {
		c.fail(m, err)
		return false
	}
	m.record.Code, m.record.Reply = code, text
	return code/100 == want/100
}

func (c *client) fail(m *mail, err error) {
	c.broken = true
	m.record.Err = err
}

func (c *client) write(b []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

// reply reads one reply of at most maxReplyLines lines, each no longer than the reader's buffer.
func (c *client) reply() (code int, text string, err error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, "", err
	}
	var lines []string
	for range maxReplyLines {
		raw, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, "", err
		}
		line := strings.TrimRight(string(raw), "\r\n")
		code, err = strconv.Atoi(line[:min(3, len(line))])
		if err != nil || code < 200 || code > 599 {
			return 0, "", fmt.Errorf("%w: %.80q", errReply, line)
		}
		lines = append(lines, line)
		if len(line) == 3 || line[3] != '-' {
			return code, strings.Join(lines, " "), nil
		}
	}
	return 0, "", fmt.Errorf("%w: more than %d lines", errReply, maxReplyLines)
}

// stuff doubles leading dots and appends the end of data (RFC 5321 section 4.5.2). content ends in CRLF.
func stuff(content []byte) []byte {
	out := make([]byte, 0, len(content)+len(content)/64+3)
	for line := range bytes.Lines(content) {
		if line[0] == '.' {
			out = append(out, '.')
		}
		out = append(out, line...)
	}
	return append(out, ".\r\n"...)
}
