package smtpd

import (
	"strconv"
	"strings"

	"github.com/emersion/go-smtp"
)

// CHUNKING (RFC 3030 section 2) does not reach go-smtp, which takes a chunk that broke off for a whole one. It hears DATA and finds an
// empty body, as it does for any content, and all chunks of a message are received within that one command. What else the
// client says between chunks is answered here, or ends the message and is the next command.

// chunk is one BDAT command; its octets follow it at once.
type chunk struct {
	size int64
	last bool
}

// smallChunk is what a chunk must have, in octets, not to count as a command that achieves nothing.
const smallChunk = 1 << 10

func parseChunk(args string) (k chunk, ok bool) {
	words := strings.FieldsFunc(args, isSpace)
	if len(words) == 0 || len(words) > 2 || len(words) == 2 && !strings.EqualFold(words[1], "LAST") {
		return chunk{}, false
	}
	size, err := strconv.ParseUint(words[0], 10, 63)
	return chunk{int64(size), len(words) == 2}, err == nil
}

// bdat begins a message in chunks, or passes over a chunk that belongs to none.
func (g *guard) bdat() {
	k, ok := parseChunk(g.args)
	switch {
	case !ok:
		g.hangUp(errChunk) // where the chunk ends, and commands begin, nobody knows
	case g.session == nil || !g.session.mayReceive():
		g.passOver(k)
	default:
		g.chunk, g.pending = k, "DATA\r\n"
	}
}

// passOver reads a chunk that cannot be taken. Clients send it without waiting for a reply.
func (g *guard) passOver(k chunk) {
	if k.size/2 > g.server.cfg.MaxMessageBytes {
		g.hangUp(errEndless)
		return
	}
	left := k.size
	err := g.receive(func(in []byte) (used int, end bool, err error) {
		n := min(left, int64(len(in)))
		left -= n
		return int(n), left == 0, nil
	})
	switch {
	case err != nil && g.sentAway():
		g.hangUp(ErrClosing)
	case err != nil:
		g.hangUp(err)
	default:
		g.say(errSequence)
	}
}

// receiveChunks receives content up to its last chunk, or to the first that has a fault, which c knows then. whole is false when the
// client has given the message up: go-smtp's next reply is not heard. An error means that the connection is over.
func (g *guard) receiveChunks(c *content, refused func()) (whole bool, err error) {
	k, more := g.chunk, true
	for more {
		left := k.size
		err := g.receive(c.taking(refused, func(in []byte) (used int, end bool) {
			n := min(left, int64(len(in)))
			left -= n
			c.takeRaw(in[:n])
			return int(n), left == 0
		}))
		if err != nil {
			return false, err
		}
		if k.last {
			c.complete()
		}
		if k.last || c.err != nil {
			return true, nil
		}
		if k.size < smallChunk {
			g.fruitless++
		}
		g.out = appendReply(g.out, chunkTaken(k.size))
		if k, more, err = g.nextChunk(); err != nil {
			return false, err
		}
	}
	return false, nil
}

// nextChunk waits for the next BDAT. more is false when the client has given the message up.
func (g *guard) nextChunk() (k chunk, more bool, err error) {
	for {
		if g.isAbused() {
			return k, false, errAbuse
		}
		line, err := g.readLine()
		if err != nil {
			return k, false, err
		}
		verb, args, _ := strings.Cut(string(line), " ")
		switch strings.ToUpper(verb) {
		case "BDAT":
			k, ok := parseChunk(args)
			if !ok {
				return k, false, errChunk
			}
			return k, true, nil
		case "RSET", "EHLO", "HELO", "QUIT":
			g.again, g.mute = string(line), true
			return k, false, nil
		case "NOOP":
			g.junk++
			g.out = appendReply(g.out, &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "ok"})
		default:
			g.junk++
			g.say(errSequence)
		}
	}
}
