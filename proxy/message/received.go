package message

import (
	"strings"
	"time"
)

// AppendReceived appends our trace header for e, folded and ended by CRLF (RFC 5321 section 4.4).
// by is our own host name. Neither the application's name nor its address can add a line or
// change how the header parses; recipients are left out, since a Bcc must stay blind.
func (e *Envelope) AppendReceived(b []byte, by string) []byte {
	proto := "ESMTP"
	if e.UTF8 {
		proto = "UTF8SMTP"
	}
	b = append(b, "Received: from "...)
	b = append(b, traceWord(e.Helo)...)
	b = append(b, " (["...)
	b = append(b, traceAddress(e.Client)...)
	b = append(b, "])\r\n\tby "...)
	b = append(b, traceWord(by)...)
	b = append(b, " (mailweir) with "...)
	b = append(b, proto...)
	b = append(b, " id "...)
	b = append(b, e.ID.String()...)
	b = append(b, ";\r\n\t"...)
	b = e.Received.AppendFormat(b, time.RFC1123Z)
	return append(b, '\r', '\n')
}

const maxTraceWord = 255

// traceWord keeps what a host name or an address literal may hold and replaces the rest.
func traceWord(s string) string {
	if len(s) > maxTraceWord {
		s = s[:maxTraceWord]
	}
	s = strings.Map(traceRune, s)
	if s == "" {
		return "unknown"
	}
	return s
}

func traceRune(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		return r
	case r == '-', r == '.', r == '_', r == ':', r == '[', r == ']':
		return r
	}
	return '?'
}

func traceAddress(hostPort string) string {
	host := hostPort
	if i := strings.LastIndexByte(hostPort, ':'); i >= 0 {
		host = hostPort[:i]
	}
	return traceWord(strings.Trim(host, "[]"))
}
