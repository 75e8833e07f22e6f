package smtpd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"sync"
	"unicode/utf8"
)

// content carries one message from the wire to its draft: the framer decides where it ends, then it
// is counted, normalised and written. After the first fault it only looks for the end, so that the client can
// be told at the place where it listens.
type content struct {
	limit  int64 // octets
	hops   int
	strict bool // bare CR and LF are faults
	sink   *bufio.Writer

	begun   bool // an octet of content was written
	open    bool // the last of them ended no line
	frame   framer
	trace   trace
	heldCR  bool  // the last segment ended in a CR that may begin a line end
	raw     int64 // octets of content seen, without stuffed dots, before normalising
	written int64 // octets given to the sink
	bareLF  uint64
	bareCR  uint64
	err     error // the first fault
}

// smallWrites collects what normalising cuts into pieces; long runs go through unbuffered.
const smallWrites = 4 << 10

var sinks = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, smallWrites) }}

// newContent returns the content of a message that goes to w. The caller calls release in the end.
func newContent(cfg *Config, w io.Writer) *content {
	c := &content{
		limit:  cfg.MaxMessageBytes,
		hops:   cfg.MaxHops,
		strict: cfg.BareNewline == rejectNewline,
		sink:   sinks.Get().(*bufio.Writer),
	}
	c.sink.Reset(w)
	return c
}

func (c *content) release() {
	c.sink.Reset(nil)
	sinks.Put(c.sink)
	c.sink = nil
}

// feed takes the bytes of in that belong to the content; the rest follows its end.
func (c *content) feed(in []byte) (used int, end bool) {
	for used < len(in) && !end {
		var segment []byte
		var n int
		segment, n, end = c.frame.next(in[used:])
		used += n
		c.takeRaw(segment)
	}
	return used, end
}

// taking returns what guard.receive wants: it calls next, which puts content into c, has a message with a fault given up at once,
// and gives up the connection where the content is far too long. At its end c knows whether it can be accepted.
func (c *content) taking(refused func(), next func(in []byte) (used int, end bool)) func([]byte) (int, bool, error) {
	return func(in []byte) (used int, end bool, err error) {
		used, end = next(in)
		if c.err != nil {
			refused()
		}
		if !end && c.raw/2 > c.limit {
			err = errEndless
		}
		return used, end, err
	}
}

// takeRaw takes content that no dots are stuffed into.
func (c *content) takeRaw(in []byte) {
	if len(in) > 0 {
		c.raw += int64(len(in))
		c.take(in)
	}
}

// take checks a segment and writes it with proper line ends.
func (c *content) take(segment []byte) {
	switch {
	case c.err != nil:
	case c.raw > c.limit:
		c.err = errTooBig
	case bytes.IndexByte(segment, 0) >= 0:
		c.err = errNUL
	default:
		c.normalise(segment)
		if c.err == nil && c.trace.fields > c.hops {
			c.err = errHops
		}
	}
}

// normalise writes segment, with every bare LF as CR LF and every other CR that is not part of a line end as
// a space. Nothing here can move the end of the data, which was decided before.
func (c *content) normalise(segment []byte) {
	if c.heldCR {
		c.heldCR = false
		if segment[0] == '\n' {
			c.write(crlf)
			segment = segment[1:]
		} else {
			c.strayCR()
		}
	}
	run, pos := 0, 0 // segment[run:pos] is clean and not written yet
	for pos < len(segment) {
		lf := bytes.IndexByte(segment[pos:], '\n')
		end := pos + lf
		if lf < 0 {
			end = len(segment)
		}
		for pos < end { // the CRs of one line
			i := bytes.IndexByte(segment[pos:end], '\r')
			if i < 0 {
				pos = end
				break
			}
			pos += i
			if pos+1 == end {
				break
			}
			c.write(segment[run:pos])
			c.strayCR()
			pos++
			run = pos
		}
		switch {
		case pos+1 == end && segment[pos] == '\r' && lf >= 0: // CR LF
			pos += 2
		case pos+1 == end && segment[pos] == '\r':
			c.write(segment[run:pos])
			c.heldCR = true
			return
		case lf >= 0:
			c.write(segment[run:end])
			c.bareNewline()
			pos = end + 1
			run = pos
		}
	}
	c.write(segment[run:])
}

var (
	crlf  = []byte("\r\n")
	space = []byte(" ")
)

func (c *content) strayCR() {
	c.bareCR++
	c.repair(space)
}

func (c *content) bareNewline() {
	c.bareLF++
	c.repair(crlf)
}

func (c *content) repair(with []byte) {
	if c.strict && c.err == nil {
		c.err = errBareNewline
	}
	c.write(with)
}

func (c *content) write(p []byte) {
	if c.err != nil || len(p) == 0 {
		return
	}
	if !c.begun && (p[0] == ' ' || p[0] == '\t') {
		// A line that begins with white space continues the one before, which would be our Received field. As Postfix's
		// cleanup(8) has it, the message has no header then, and this is its body.
		c.writeRaw(crlf)
		c.trace.body = true
	}
	c.begun = true
	c.trace.scan(p)
	c.writeRaw(p)
	c.open = p[len(p)-1] != '\n'
}

// complete ends the last line, which a chunk may leave open.
func (c *content) complete() {
	if c.heldCR {
		c.heldCR = false
		c.strayCR()
	}
	if c.open {
		c.write(crlf)
	}
}

// writeRaw writes what is not content of the client, our own header.
func (c *content) writeRaw(p []byte) {
	n, err := c.sink.Write(p)
	c.written += int64(n)
	if err != nil {
		c.err = fmt.Errorf("smtpd: write draft: %w", err)
	}
}

// finish writes what is still buffered and returns the fault of the whole content, nil when it may be committed.
func (c *content) finish() error {
	if c.err != nil {
		return c.err
	}
	if err := c.sink.Flush(); err != nil {
		c.err = fmt.Errorf("smtpd: write draft: %w", err)
	}
	return c.err
}

// trace counts the Received fields of a header that comes in pieces, and sees whether it is ASCII. The zero value stands at its begin.
type trace struct {
	fields int
	eight  bool // an octet above 127
	match  int  // octets of the field name that fit so far
	skip   bool // the rest of this line does not matter
	body   bool // the header has ended
}

const traceField = "received"

// scan reads normalised content. White space before the colon is counted too: RFC 5322 section 4.5 has it
// as obsolete, and others along the loop may count it.
func (t *trace) scan(p []byte) {
	for len(p) > 0 && !t.body {
		if t.skip {
			line, rest, ended := bytes.Cut(p, crlf[1:])
			t.eight = t.eight || !isASCII(line)
			if !ended {
				return
			}
			t.skip, t.match = false, 0
			p = rest
			continue
		}
		t.step(p[0])
		p = p[1:]
	}
}

func (t *trace) step(c byte) {
	switch {
	case t.match == 0 && c == '\r': // LF follows
	case t.match == 0 && c == '\n':
		t.body = true
	case t.match < len(traceField) && c|0x20 == traceField[t.match]:
		t.match++
	case t.match == len(traceField) && c == ':':
		t.fields++
		t.skip = true
	case t.match == len(traceField) && (c == ' ' || c == '\t'):
	default:
		t.eight = t.eight || c >= utf8.RuneSelf
		t.skip = true
	}
}
