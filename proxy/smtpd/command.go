package smtpd

import (
	"bytes"
	"fmt"
	"strings"
)

const (
	// tlsHandshake begins a TLS ClientHello (RFC 8446 section 5.1), and no command.
	tlsHandshake = 0x16

	// After so many protocol errors or junk commands without an accepted message in between a client
	// is sent away (Postfix: smtpd_hard_error_limit, smtpd_junk_command_limit). Refusals of MAIL, RCPT
	// and content are none: an application that sends to many bad addresses would lose its good mail.
	maxErrors = 20
	maxJunk   = 100

	// A client may use so many commands for each recipient that a message can have before it is sent away
	// for never getting one accepted; a full journal alone must not exhaust it.
	commandsPerRecipient = 10

	// maxReplies is how many octets of replies wait for the next read.
	maxReplies = 16 << 10
)

// What go-smtp is given in place of the client's own arguments, which the session reads from the guard: go-smtp
// unquotes addresses, refuses bare local parts, and echoes what it was given.
const (
	plainGreeting = " client\r\n"
	plainMail     = "MAIL FROM:<>\r\n"
	plainRcpt     = "RCPT TO:<x@y>\r\n"
)

func (s *Server) maxFruitless() int {
	return maxJunk + commandsPerRecipient*s.cfg.MaxRecipients
}

func (s *Server) minRate() int64 {
	if s.cfg.MinBytesPerSec > 0 {
		return s.cfg.MinBytesPerSec
	}
	return defaultMinRate
}

// dispatch hands a command to go-smtp or answers it.
func (g *guard) dispatch(line []byte) {
	if g.challenge {
		// Any line answers, so that client and go-smtp agree about what follows; its reply ends
		// the challenge.
		g.pending = string(line) + "\r\n"
		return
	}
	verb, args, _ := strings.Cut(string(line), " ")
	g.verb, g.args = strings.ToUpper(verb), args
	g.fruitless++
	if bytes.ContainsFunc(line, isControl) {
		g.verb = ""
		g.junk++
		g.say(errControl)
		return
	}
	switch g.verb {
	case "EHLO", "HELO":
		g.greet()
	case "MAIL":
		g.pending = plainMail
	case "RCPT":
		g.pending = plainRcpt
	case "DATA":
		g.handBare()
	case "RSET", "QUIT":
		g.pending = g.verb + "\r\n"
	case "NOOP", "VRFY", "EXPN", "HELP":
		g.junk++
		g.pending = g.verb + "\r\n"
	case "AUTH":
		g.authenticate(line)
	case "STARTTLS":
		g.say(errNotOffered)
	case "BDAT":
		g.bdat()
	default:
		g.unknown()
	}
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

func (g *guard) greet() {
	host, _, _ := strings.Cut(strings.TrimLeft(g.args, " "), " ")
	if host == "" {
		g.say(errSyntax)
		return
	}
	g.helo = host[:min(len(host), maxHelo)]
	g.pending = g.verb + plainGreeting
}

// maxHelo is how many octets of a client's name are kept, as many as a domain may have.
const maxHelo = 255

// handBare hands go-smtp a command that has no arguments.
func (g *guard) handBare() {
	if strings.Trim(g.args, " ") != "" {
		g.say(errSyntax)
		return
	}
	g.pending = g.verb + "\r\n"
}

func (g *guard) authenticate(line []byte) {
	if !g.server.cfg.AcceptAnyAuth {
		g.say(errNotOffered)
		return
	}
	g.pending = string(line) + "\r\n"
}

// unknown answers what is no command of SMTP, and hangs up on other protocols: a browser can be made
// to POST a message to a port of this machine.
func (g *guard) unknown() {
	switch g.verb {
	case "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI":
		g.hangUp(errNotSMTP)
		return
	}
	if strings.HasSuffix(g.verb, ":") || strings.Contains(g.args, " HTTP/") {
		g.hangUp(errNotSMTP)
		return
	}
	g.verb = ""
	g.junk++
	g.say(errUnknown)
}

// Write takes what go-smtp says, which is one whole line at a time, and never fails: a write error is
// found when the replies are flushed.
func (g *guard) Write(line []byte) (int, error) {
	if g.over {
		return len(line), nil
	}
	if g.mute || g.verb == "BDAT" && bytes.HasPrefix(line, []byte("354 ")) {
		g.mute = false
		return len(line), nil
	}
	start := len(g.out)
	g.out = g.appendLine(g.out, line)
	g.challenge = bytes.HasPrefix(line, []byte("334 "))
	g.note(g.out[start:])
	if len(g.out) > maxReplies && g.flush() != nil {
		g.over = true
	}
	return len(line), nil
}

// say appends a reply that is not go-smtp's.
func (g *guard) say(err error) {
	start := len(g.out)
	g.out = appendReply(g.out, reply(err))
	g.note(g.out[start:])
}

// appendLine puts go-smtp's words right: it names the client where RFC 5321 section 4.1.1.1 wants the
// server, echoes what was not the client's, and says 502 for a known command out of sequence.
func (g *guard) appendLine(out, line []byte) []byte {
	has := func(prefix string) bool { return bytes.HasPrefix(line, []byte(prefix)) }
	switch {
	case has("250-Hello "):
		return fmt.Appendf(out, "250-%s\r\n", g.server.cfg.Hostname)
	case has("250 2.0.0 Hello "):
		return fmt.Appendf(out, "250 %s\r\n", g.server.cfg.Hostname)
	case g.verb == "MAIL" && has("250 "):
		return append(out, "250 2.1.0 sender ok\r\n"...)
	case g.verb == "RCPT" && has("250 "):
		return append(out, "250 2.1.5 recipient ok\r\n"...)
	case isTransaction(g.verb) && has("502 5.5.1 "):
		return appendReply(out, reply(errSequence))
	}
	return append(out, line...)
}

func isTransaction(verb string) bool {
	return verb == "MAIL" || verb == "RCPT" || verb == "DATA" || verb == "BDAT"
}

// note counts a reply in its final form, and ends the conversation after a 421 (RFC 5321 section 3.8).
func (g *guard) note(line []byte) {
	if len(line) < 4 || line[3] != ' ' || line[0] < '4' {
		return
	}
	g.server.stats.refused(line)
	if line[0] == '5' && g.verb != "" && !isTransaction(g.verb) {
		g.errors++
	}
	if string(line[:3]) == "421" {
		g.over = true
	}
}
