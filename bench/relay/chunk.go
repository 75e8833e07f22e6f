package relay

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
)

// bdat takes a chunk (RFC 3030 section 2). What it brings is read in any case, so that commands and content keep apart; it counts if a transaction with
// recipients is open. A chunk that is not the last is answered at once.
func (s *session) bdat(args, line string) error {
	number, word, more := strings.Cut(args, " ")
	size, err := strconv.ParseInt(number, 10, 63)
	last := more && strings.EqualFold(word, "LAST")
	if err != nil || more && !last || !s.r.offers("CHUNKING") {
		s.violated(RuleSyntax, line) // how much follows is not known
		s.sayLast(s.plain("501 5.5.4 Bad chunk"))
		return errEnded
	}
	c := s.tx.chunks
	if c == nil {
		c = &content{sum: sha256.New(), inHead: true, newLine: true}
		if s.r.cfg.KeepBodies {
			c.keep = s.r.cfg.MaxSize
		}
	}
	if err := s.readChunk(c, size); err != nil {
		return err
	}
	switch {
	case !s.tx.open:
		if !s.tx.tried {
			s.violated(RuleOrder, line)
		}
		_, err := s.answer(StageDot, line, "503 5.5.1 MAIL first")
		return err
	case len(s.tx.to) == 0:
		_, err := s.answer(StageDot, line, "554 5.5.1 No valid recipients")
		return err
	case last:
		return s.dot(c)
	}
	s.tx.chunks = c
	_, err = s.answer(StageOther, line, "250 2.0.0 Chunk taken")
	return err
}

// readChunk reads exactly size octets. io.ErrUnexpectedEOF: the client ended the connection before.
func (s *session) readChunk(c *content, size int64) error {
	if s.in.Buffered() == 0 {
		s.flush()
	}
	if err := s.expect(); err != nil {
		return err
	}
	if size > 0 {
		if err := s.contentBegins(false, false); err != nil {
			return err
		}
	}
	chunk := bufio.NewReaderSize(io.LimitReader(s.in, size), readBuffer)
	for {
		line, err := chunk.ReadSlice('\n')
		size -= int64(len(line))
		if len(line) > 0 {
			c.add(line)
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, os.ErrDeadlineExceeded):
			return s.idle()
		case err == io.EOF && size == 0:
			return nil
		case err == io.EOF:
			s.r.add(&s.r.count.Truncated)
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
}
