package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reply is one SMTP reply; its text is joined by spaces, bounded, and free of control characters. The enhanced code of
// RFC 2034 stands in Enhanced and no longer in Text; its parts go to 999 (RFC 3463), as in Exchange Online's 5.7.708.
type Reply struct {
	Code     int
	Enhanced [3]uint16 // 0.0.0: none
	Text     string
}

// String returns the reply as it was on the wire, its lines joined by spaces.
func (r Reply) String() string {
	s := strconv.Itoa(r.Code)
	if r.Enhanced != [3]uint16{} {
		s += fmt.Sprintf(" %d.%d.%d", r.Enhanced[0], r.Enhanced[1], r.Enhanced[2])
	}
	if r.Text != "" {
		s += " " + r.Text
	}
	return s
}

func (r Reply) positive() bool { return r.Code/100 == 2 }
func (r Reply) negative() bool { return r.Code/100 == 4 || r.Code/100 == 5 }

// Bounds of one reply. RFC 5321 section 4.5.3.1.5 allows 512 octets a line; real servers write longer ones.
const (
	replyLineMax  = 4096 // octets of a line, its end included
	replyLinesMax = 100
	replyBytesMax = 64 << 10
	replyTextMax  = 1024 // octets kept as Text
)

var (
	errReplyMalformed = errors.New("malformed reply")
	errReplyTooLong   = errors.New("reply too long")
)

// readReply reads one reply, of several lines perhaps (RFC 5321 section 4.2.1). lines are the texts as they
// stood on the wire. br's buffer has replyLineMax octets, which bounds a line. The error is io.EOF only between
// replies.
func readReply(br *bufio.Reader) (r Reply, lines []string, err error) {
	total := 0
	for range replyLinesMax {
		line, err := br.ReadSlice('\n')
		total += len(line)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) || total > replyBytesMax:
			return Reply{}, nil, errReplyTooLong
		case errors.Is(err, io.EOF) && total > 0:
			return Reply{}, nil, io.ErrUnexpectedEOF
		case err != nil:
			return Reply{}, nil, err
		}
		code, more, text, ok := splitReplyLine(line)
		if !ok || len(lines) > 0 && code != r.Code {
			return Reply{}, nil, errReplyMalformed
		}
		r.Code = code
		lines = append(lines, text)
		if !more {
			r.Enhanced, r.Text = joinReply(lines)
			return r, lines, nil
		}
	}
	return Reply{}, nil, errReplyTooLong
}

func splitReplyLine(line []byte) (code int, more bool, text string, ok bool) {
	s := strings.TrimRight(string(line), "\r\n")
	if len(s) < 3 || s[0] < '2' || s[0] > '5' || s[1] < '0' || s[1] > '9' || s[2] < '0' || s[2] > '9' {
		return 0, false, "", false
	}
	code = int(s[0]-'0')*100 + int(s[1]-'0')*10 + int(s[2]-'0')
	if len(s) == 3 {
		return code, false, "", true
	}
	if s[3] != ' ' && s[3] != '-' {
		return 0, false, "", false
	}
	return code, s[3] == '-', s[4:], true
}

// joinReply takes the enhanced code off each line (RFC 2034 repeats it) and joins what is left.
func joinReply(lines []string) (enh [3]uint16, text string) {
	var b strings.Builder
	for _, l := range lines {
		if e, rest, ok := cutEnhanced(l); ok {
			if enh == [3]uint16{} {
				enh = e
			}
			l = rest
		}
		l = strings.TrimSpace(clean(l))
		if l == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(l)
	}
	return enh, truncate(b.String(), replyTextMax)
}

// cutEnhanced reads class "." subject "." detail at the start of a line (RFC 3463), also with the "#" that some
// appliances put before it.
func cutEnhanced(s string) (enh [3]uint16, rest string, ok bool) {
	word, rest, _ := strings.Cut(strings.TrimLeft(s, " "), " ")
	parts := strings.Split(strings.TrimPrefix(word, "#"), ".")
	if len(parts) != 3 {
		return enh, s, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || len(p) > 3 {
			return enh, s, false
		}
		enh[i] = uint16(n)
	}
	if enh[0] != 2 && enh[0] != 4 && enh[0] != 5 {
		return [3]uint16{}, s, false
	}
	return enh, rest, true
}

// clean replaces what could harm a log or a DSN: control characters and broken UTF-8.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < ' ' || 0x7f <= r && r < 0xa0 || r == utf8.RuneError || r == '\u2028' || r == '\u2029':
			return '?'
		}
		return r
	}, s)
}

// truncate cuts s to at most n octets, not inside a character. What it returns does not keep the rest in memory.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}
