package smtpd

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mailweir/mailweir/proxy/message"
)

// Bounds of RFC 3461 sections 4.2 and 4.4, in octets as they are on the wire.
const (
	maxEnvID = 100
	maxORcpt = 500
)

// parseMail reads what follows MAIL and a space. size is that of SIZE=, 0 without one.
func parseMail(args string, cfg *Config) (env *message.Envelope, size uint64, err error) {
	path, list, ok := cutPath(args, "FROM:")
	if !ok {
		return nil, 0, errSyntax
	}
	params, err := parseParams(list)
	if err != nil {
		return nil, 0, err
	}
	env = &message.Envelope{}
	for _, p := range params {
		if p.key == "SIZE" {
			size, err = parseSize(p)
		} else {
			err = setMailParam(env, p)
		}
		if err != nil {
			return nil, 0, err
		}
	}
	if path == "" {
		return env, size, nil
	}
	if env.From, err = parseMailbox(path, env.UTF8, cfg); err != nil {
		return nil, 0, errSender
	}
	return env, size, nil
}

func setMailParam(env *message.Envelope, p param) error {
	value := strings.ToUpper(p.value)
	switch p.key {
	case "BODY":
		switch value {
		case "7BIT":
		case "8BITMIME":
			env.Body8 = true
		default: // BINARYMIME needs BDAT
			return errUnsupported
		}
	case "SMTPUTF8":
		if p.hasValue {
			return errParameter
		}
		env.UTF8 = true
	case "RET":
		if value != "FULL" && value != "HDRS" {
			return errParameter
		}
		env.Ret = value
	case "ENVID":
		if len(p.value) > maxEnvID || !isXtext(p.value) {
			return errParameter
		}
		env.EnvID = p.value
	case "AUTH": // RFC 4954 section 5: checked and dropped, nobody here is trusted to vouch for others
		if !isXtext(p.value) {
			return errParameter
		}
	default:
		return errUnsupported
	}
	return nil
}

// parseSize takes the 20 digits of RFC 1870 section 4; what does not fit a number is larger than any limit.
func parseSize(p param) (uint64, error) {
	if len(p.value) == 0 || len(p.value) > 20 || strings.Trim(p.value, "0123456789") != "" {
		return 0, errParameter
	}
	size, err := strconv.ParseUint(p.value, 10, 64)
	if err != nil {
		return math.MaxUint64, nil
	}
	return size, nil
}

// parseRcpt reads what follows RCPT and a space, in a transaction with or without SMTPUTF8.
func parseRcpt(args string, smtputf8 bool, cfg *Config) (to message.Recipient, err error) {
	path, list, ok := cutPath(args, "TO:")
	if !ok {
		return to, errSyntax
	}
	params, err := parseParams(list)
	if err != nil {
		return to, err
	}
	for _, p := range params {
		switch p.key {
		case "NOTIFY":
			to.Notify = strings.ToUpper(p.value)
			ok = isNotify(to.Notify)
		case "ORCPT":
			to.ORcpt = p.value
			ok = len(p.value) <= maxORcpt && isTypedAddress(p.value)
		default:
			return to, errUnsupported
		}
		if !ok {
			return to, errParameter
		}
	}
	if !smtputf8 && !isASCII(to.ORcpt) {
		return to, errParameter
	}
	if to.Addr, err = parseMailbox(path, smtputf8, cfg); err != nil {
		return to, errRecipient
	}
	return to, nil
}

// parseMailbox checks what stood between angle brackets. The configured domain completes a bare local part;
// no address is valid both with and without it.
func parseMailbox(wire string, smtputf8 bool, cfg *Config) (string, error) {
	if cfg.QualifyDomain != "" {
		if addr, err := message.ParseAddress(wire+"@"+cfg.QualifyDomain, smtputf8); err == nil {
			return addr, nil
		}
	}
	return message.ParseAddress(wire, smtputf8)
}

// cutPath splits "FROM:<path> params" after a check of its shape, and takes off angle brackets and source
// route. Spaces after the colon and a path without brackets, that ends at a space, are let through, as
// other servers do.
func cutPath(args, keyword string) (path, params string, ok bool) {
	args = strings.TrimLeft(args, " ")
	if len(args) < len(keyword) || !strings.EqualFold(args[:len(keyword)], keyword) {
		return "", "", false
	}
	args = strings.TrimLeft(args[len(keyword):], " ")
	if !strings.HasPrefix(args, "<") {
		path, params, _ = strings.Cut(args, " ")
		return path, params, path != ""
	}
	end := pathEnd(args)
	if end < 0 {
		return "", "", false
	}
	path, params = args[1:end], args[end+1:]
	if params != "" && params[0] != ' ' {
		return "", "", false
	}
	path, ok = cutRoute(path)
	return path, params, ok
}

// pathEnd returns where the angle bracket stands that closes s[0], outside of quoted strings; -1: nowhere.
func pathEnd(s string) int {
	quoted := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == '>' && !quoted:
			return i
		}
	}
	return -1
}

// cutRoute takes off a source route, "@a,@b:", which is checked and not followed (RFC 5321 section 4.1.1.3).
func cutRoute(path string) (mailbox string, ok bool) {
	if !strings.HasPrefix(path, "@") {
		return path, true
	}
	route, mailbox, ok := strings.Cut(path, ":")
	if !ok || mailbox == "" {
		return "", false
	}
	for host := range strings.SplitSeq(route, ",") {
		if _, err := message.ParseAddress("x"+host, false); err != nil || host[0] != '@' {
			return "", false
		}
	}
	return mailbox, true
}

// param is one esmtp-param of RFC 5321 section 4.1.2.
type param struct {
	key      string // upper case
	value    string
	hasValue bool
}

// parseParams splits a list that may begin with spaces. A keyword that comes twice is refused.
func parseParams(list string) ([]param, error) {
	var params []param
	for _, word := range strings.FieldsFunc(list, isSpace) {
		var p param
		p.key, p.value, p.hasValue = strings.Cut(word, "=")
		p.key = strings.ToUpper(p.key)
		if !isKeyword(p.key) || p.hasValue && !isValue(p.value) {
			return nil, errParameter
		}
		for _, other := range params {
			if other.key == p.key {
				return nil, errParameter
			}
		}
		params = append(params, p)
	}
	return params, nil
}

func isSpace(r rune) bool { return r == ' ' }

func isKeyword(s string) bool {
	for i := range len(s) {
		letter := 'A' <= s[i] && s[i] <= 'Z' || '0' <= s[i] && s[i] <= '9'
		if !letter && (s[i] != '-' || i == 0) {
			return false
		}
	}
	return s != ""
}

// isValue accepts an esmtp-value, with UTF-8 as RFC 6531 section 3.3 extends it.
func isValue(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == '=' || s[i] == 0x7f {
			return false
		}
	}
	return s != "" && utf8.ValidString(s)
}

// isXtext says whether s is xtext (RFC 3461 section 4) and hides nothing but printable characters: decoded, it
// will stand in a header of a delivery report.
func isXtext(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' || s[i] == '=' {
			return false
		}
		if s[i] != '+' {
			continue
		}
		if i+2 >= len(s) || !isUpperHex(s[i+1]) || !isUpperHex(s[i+2]) {
			return false
		}
		if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err != nil || n < ' ' || n > '~' {
			return false
		}
		i += 2
	}
	return s != ""
}

func isUpperHex(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }

// isNotify accepts NEVER, or each of SUCCESS, FAILURE and DELAY at most once (RFC 3461 section 4.1).
func isNotify(s string) bool {
	if s == "NEVER" {
		return true
	}
	seen := map[string]bool{}
	for word := range strings.SplitSeq(s, ",") {
		if seen[word] || word != "SUCCESS" && word != "FAILURE" && word != "DELAY" {
			return false
		}
		seen[word] = true
	}
	return true
}

// isTypedAddress accepts the ORCPT of RFC 3461 section 4.2, and of RFC 6533 section 3 for the type utf-8.
func isTypedAddress(s string) bool {
	kind, addr, ok := strings.Cut(s, ";")
	if !ok || !isKeyword(strings.ToUpper(kind)) {
		return false
	}
	if strings.EqualFold(kind, "utf-8") {
		return isUnitext(addr)
	}
	return isXtext(addr)
}

// isUnitext accepts both utf-8-addr forms of RFC 6533 section 3, in which \x{HEX} stands for a character that
// may not stand for itself; as in isXtext it may not be a control character.
func isUnitext(s string) bool {
	rest := s
	for {
		before, escape, found := strings.Cut(rest, `\`)
		if strings.ContainsAny(before, "+=") {
			return false
		}
		if !found {
			return s != ""
		}
		digits, after, ok := strings.Cut(escape, "}")
		if !ok || !strings.HasPrefix(digits, "x{") {
			return false
		}
		n, err := strconv.ParseUint(digits[2:], 16, 21)
		if err != nil || n < ' ' || n == 0x7f || !utf8.ValidRune(rune(n)) {
			return false
		}
		rest = after
	}
}

func isASCII[text string | []byte](s text) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
