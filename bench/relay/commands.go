package relay

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// groupEnds are the verbs that must be the last of a group (RFC 2920 section 3.1).
const groupEnds = " EHLO HELO DATA VRFY EXPN TURN QUIT NOOP STARTTLS AUTH "

// execute answers one command. It returns errEnded when the connection is to be closed in an orderly way.
func (s *session) execute(raw string) error {
	s.judgeTiming(raw)
	s.last = false
	line, ok := strings.CutSuffix(raw, "\r\n")
	if !ok || strings.ContainsAny(line, "\r\x00") {
		s.violated(RuleCommandEnd, raw)
		_, err := s.answer(StageOther, line, "500 5.5.2 Malformed line end")
		return err
	}
	verb, args, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	s.last = strings.Contains(groupEnds, " "+verb+" ")
	switch verb {
	case "EHLO", "HELO":
		return s.hello(verb, args, line)
	case "STARTTLS":
		return s.startTLS(line)
	case "AUTH":
		return s.auth(args)
	case "MAIL":
		return s.mail(args, line)
	case "RCPT":
		return s.rcpt(args, line)
	case "DATA":
		return s.data(line)
	case "BDAT":
		return s.bdat(args, line)
	case "RSET":
		return s.rset(line)
	case "NOOP":
		_, err := s.answer(StageNoop, line, "250 2.0.0 OK")
		return err
	case "QUIT":
		return s.quit(line)
	}
	s.violated(RuleNotOffered, line)
	_, err := s.answer(StageOther, line, "500 5.5.1 Unrecognized command")
	return err
}

// judgeTiming records a command that came before the client can have heard the replies it had to wait for.
func (s *session) judgeTiming(line string) {
	if !s.unheard() {
		return
	}
	switch {
	case !s.helloed && !s.last:
		s.violated(RuleBeforeHello, line)
	case s.last:
		s.violated(RuleGroup, line)
	case !s.r.offers("PIPELINING"):
		s.violated(RuleEarly, line)
	}
}

func (s *session) hello(verb, name, line string) error {
	own := "250 " + s.r.cfg.Hostname
	if verb == "EHLO" {
		own = s.capabilities()
	}
	if name == "" || strings.ContainsAny(name, " <>") {
		s.violated(RuleSyntax, line)
		own = "501 5.5.4 A name is needed"
	}
	code, err := s.answer(StageEHLO, line, own)
	if code/100 == 2 {
		s.helloed, s.tx = true, transaction{}
	}
	return err
}

func (s *session) capabilities() string {
	lines := []string{s.r.cfg.Hostname}
	offer := func(keyword, value string, when bool) {
		if when && s.r.offers(keyword) {
			lines = append(lines, strings.TrimSpace(keyword+" "+value))
		}
	}
	offer("PIPELINING", "", true)
	offer("8BITMIME", "", true)
	offer("SIZE", strconv.FormatInt(s.r.cfg.MaxSize, 10), true)
	offer("SMTPUTF8", "", true)
	offer("DSN", "", true)
	offer("CHUNKING", "", true)
	offer("ENHANCEDSTATUSCODES", "", true)
	offer("LIMITS", s.r.cfg.Limits, s.r.cfg.Limits != "")
	offer("STARTTLS", "", s.mayStartTLS())
	offer("AUTH", strings.Join(s.r.mechanisms(), " "), s.r.wantsAuth())
	for i := range lines[:len(lines)-1] {
		lines[i] = "250-" + lines[i]
	}
	lines[len(lines)-1] = "250 " + lines[len(lines)-1]
	return strings.Join(lines, "\n")
}

func (s *session) mayStartTLS() bool {
	return s.r.cfg.TLS != nil && !s.isTLS() && s.r.offers("STARTTLS")
}

func (s *session) startTLS(line string) error {
	if !s.mayStartTLS() {
		s.violated(RuleNotOffered, line)
		_, err := s.answer(StageStartTLS, line, "503 5.5.1 Not offered")
		return err
	}
	code, err := s.answer(StageStartTLS, line, "220 2.0.0 Ready to start TLS")
	if err != nil || code != 220 {
		return err
	}
	if s.in.Buffered() > 0 {
		s.violated(RuleStartTLS, line)
	}
	s.flush()
	s.out.finish()
	s.out = nil
	return s.handshake()
}

func (s *session) mail(args, line string) error {
	own := s.judgeMail(args, line)
	number := 0
	if replyCode(own)/100 == 2 {
		number = s.r.add(&s.r.count.Transactions)
		s.tx = transaction{number: number, tried: true}
		if s.r.cfg.PressureAtMail && s.pressed() {
			own = ExchangePressure
		}
	}
	code, err := s.answer(StageMail, line, own)
	s.tx.tried = true
	if code/100 == 2 {
		path, params, _ := parsePath(args, "FROM:")
		s.tx.open, s.tx.from, s.tx.mailParams = true, path, params
		s.tx.utf8 = hasParam(params, "SMTPUTF8")
	}
	return err
}

// pressed is whether this is one of the transactions that PressureEvery hits.
func (s *session) pressed() bool {
	every := s.r.cfg.PressureEvery
	if every <= 0 || s.tx.number%every != 0 {
		return false
	}
	s.r.add(&s.r.count.Pressed)
	return true
}

func (s *session) judgeMail(args, line string) string {
	cfg := &s.r.cfg
	switch {
	case !s.helloed:
		s.violated(RuleOrder, line)
		return "503 5.5.1 EHLO first"
	case s.tx.open:
		s.violated(RuleNestedMail, line)
		return "503 5.5.1 Nested MAIL command"
	case cfg.RequireTLS && !s.isTLS():
		return "530 5.7.0 Must issue a STARTTLS command first"
	case cfg.Username != "" && !s.authed:
		return "530 5.7.0 Authentication required"
	case cfg.MessagesPerConnection > 0 && s.taken >= cfg.MessagesPerConnection:
		s.r.add(&s.r.count.Capped)
		return cfg.CapReply
	}
	path, params, err := parsePath(args, "FROM:")
	if err == nil && path != "" {
		err = checkAddress(path, hasParam(params, "SMTPUTF8"))
	}
	if err != nil {
		s.violated(RuleSyntax, line)
		return fmt.Sprintf("501 5.1.7 Bad sender: %v", err)
	}
	return s.judgeParams(params, mailParams, line, "250 2.1.0 Sender OK")
}

func (s *session) rcpt(args, line string) error {
	own := s.judgeRcpt(args, line)
	code, err := s.answer(StageRcpt, line, own)
	if code/100 == 2 {
		path, params, _ := parsePath(args, "TO:")
		s.tx.to = append(s.tx.to, path)
		s.tx.rcptParams = append(s.tx.rcptParams, strings.Join(params, " "))
	}
	return err
}

func (s *session) judgeRcpt(args, line string) string {
	if !s.tx.open {
		if !s.tx.tried {
			s.violated(RuleOrder, line)
		}
		return "503 5.5.1 MAIL first"
	}
	path, params, err := parsePath(args, "TO:")
	if err == nil {
		err = checkAddress(path, s.tx.utf8)
	}
	switch {
	case err != nil:
		s.violated(RuleSyntax, line)
		return fmt.Sprintf("501 5.1.3 Bad recipient: %v", err)
	case len(s.tx.to) >= s.r.cfg.MaxRecipients:
		return "452 4.5.3 Too many recipients"
	}
	return s.judgeParams(params, rcptParams, line, "250 2.1.5 Recipient OK")
}

// judgeParams returns own when every parameter was offered and is well-formed and small enough.
func (s *session) judgeParams(params []string, known map[string]param, line, own string) string {
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		rule, ok := known[strings.ToUpper(name)]
		switch {
		case !ok || !s.offersParam(rule.keyword):
			s.violated(RuleNotOffered, line)
			return "555 5.5.4 Parameter not recognized"
		case !rule.valid(value):
			s.violated(RuleSyntax, line)
			return "501 5.5.4 Bad parameter"
		case rule.keyword == "SIZE":
			if n, err := strconv.ParseInt(value, 10, 64); err != nil || n > s.r.cfg.MaxSize {
				return "552 5.3.4 Message size exceeds the limit"
			}
		}
	}
	return own
}

func (s *session) offersParam(keyword string) bool {
	return s.r.offers(keyword) && (keyword != "AUTH" || s.r.wantsAuth())
}

func (s *session) rset(line string) error {
	code, err := s.answer(StageRset, line, "250 2.0.0 Reset")
	if code/100 == 2 {
		s.tx = transaction{}
	}
	return err
}

func (s *session) quit(line string) error {
	act, reply, _ := s.decide(StageQuit, line, "221 2.0.0 Bye")
	if err := s.carryOut(act); err != nil {
		return err
	}
	if reply != "" {
		s.sayLast(reply)
	}
	return errEnded
}

// data answers DATA and, after a 354, takes the content.
func (s *session) data(line string) error {
	own := "354 Go ahead"
	switch {
	case s.tx.chunks != nil:
		s.violated(RuleMixed, line)
		own = "503 5.5.1 BDAT has begun"
	case !s.tx.open:
		if !s.tx.tried {
			s.violated(RuleOrder, line)
		}
		own = "503 5.5.1 MAIL first"
	case len(s.tx.to) == 0:
		own = "554 5.5.1 No valid recipients"
	}
	code, err := s.answer(StageData, line, own)
	if err != nil || code != 354 {
		return err
	}
	s.last = false // the content may be followed by commands in its group
	c, err := s.content()
	if err == io.ErrUnexpectedEOF {
		s.r.add(&s.r.count.Truncated)
	}
	if err != nil {
		return err
	}
	return s.dot(c)
}
