package smtpd

import "bytes"

// framer finds the end of the content that follows DATA, on the bytes as they came, and takes out
// stuffed dots (RFC 5321 section 4.5.2). Only CR LF is a line end here and only CR LF . CR LF the end of the
// data; every more generous reading lets one client's content end early and go on as commands (SMTP
// smuggling). The zero value stands at the begin of the content.
type framer struct{ state frameState }

type frameState uint8

const (
	atLineStart frameState = iota // after CR LF, or at the begin
	atDot                         // after a dot at the line start, which is held back
	atDotCR                       // after CR behind that dot, both are held back
	inLine
	afterCR
)

var (
	stuffedLine = []byte("\r\n.")
	heldCR      = []byte("\r")
)

// next takes used bytes off the begin of in, which must not be empty, and returns the content that they
// are: a part of in, or a CR that was held back. When end is true the content is complete. used may be 0, but not
// twice in a row.
func (f *framer) next(in []byte) (segment []byte, used int, end bool) {
	switch f.state {
	case atLineStart:
		if in[0] == '.' {
			f.state = atDot
			return nil, 1, false
		}
	case atDot:
		if in[0] == '\r' {
			f.state = atDotCR
			return nil, 1, false
		}
	case atDotCR:
		if in[0] == '\n' {
			return nil, 1, true
		}
		f.state = afterCR // the dot was a stuffed one, the CR content
		return heldCR, 0, false
	case afterCR:
		if in[0] == '\n' {
			f.state = atLineStart
			return in[:1], 1, false
		}
	}
	if i := bytes.Index(in, stuffedLine); i >= 0 {
		f.state = atDot
		return in[:i+2], i + 3, false
	}
	f.state = stateAfter(in)
	return in, len(in), false
}

func stateAfter(in []byte) frameState {
	switch {
	case bytes.HasSuffix(in, stuffedLine[:2]):
		return atLineStart
	case in[len(in)-1] == '\r':
		return afterCR
	}
	return inLine
}
