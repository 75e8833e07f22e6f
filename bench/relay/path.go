package relay

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	errPath    = errors.New("no path in angle brackets")
	errAddress = errors.New("not an address")
)

// parsePath reads "FROM:<path> parameters" (RFC 5321 section 4.1.2), no blank tolerated before the path.
func parsePath(args, keyword string) (path string, params []string, err error) {
	if len(args) <= len(keyword) || !strings.EqualFold(args[:len(keyword)], keyword) || args[len(keyword)] != '<' {
		return "", nil, errPath
	}
	rest := args[len(keyword)+1:]
	end := closingBracket(rest)
	if end < 0 {
		return "", nil, errPath
	}
	path, rest = rest[:end], rest[end+1:]
	if rest == "" {
		return path, nil, nil
	}
	if rest[0] != ' ' {
		return "", nil, errPath
	}
	params = strings.Split(rest[1:], " ")
	for _, p := range params {
		if p == "" {
			return "", nil, errPath
		}
	}
	return path, params, nil
}

// closingBracket passes over quoted strings, in which > is an ordinary character.
func closingBracket(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}

// checkAddress looks for what would make an address ambiguous or unsafe to pass on; it is no full parser of section 4.1.2.
func checkAddress(addr string, smtputf8 bool) error {
	if strings.EqualFold(addr, "postmaster") {
		return nil
	}
	at := strings.LastIndexByte(addr, '@')
	if at <= 0 || at == len(addr)-1 || addr[0] == '@' || len(addr) > 254 || !utf8.ValidString(addr) {
		return errAddress
	}
	local, domain := addr[:at], addr[at+1:]
	quoted := len(local) >= 2 && local[0] == '"' && local[len(local)-1] == '"'
	for _, r := range addr {
		if r < ' ' || r == 0x7f || r >= utf8.RuneSelf && !smtputf8 {
			return errAddress
		}
	}
	if strings.ContainsAny(domain, " <>()\",;\\") || !quoted && strings.ContainsAny(local, " <>()\",;:\\@[]") {
		return errAddress
	}
	return nil
}

// param says which EHLO keyword a parameter needs, and what its value may be.
type param struct {
	keyword string
	valid   func(value string) bool
}

var mailParams = map[string]param{
	"SIZE":     {"SIZE", isNumber},
	"BODY":     {"8BITMIME", func(v string) bool { return v == "7BIT" || v == "8BITMIME" }},
	"SMTPUTF8": {"SMTPUTF8", func(v string) bool { return v == "" }},
	"RET":      {"DSN", func(v string) bool { return v == "FULL" || v == "HDRS" }},
	"ENVID":    {"DSN", isXtext},
	"AUTH":     {"AUTH", isXtext},
}

var rcptParams = map[string]param{
	"NOTIFY": {"DSN", isNotify},
	"ORCPT":  {"DSN", func(v string) bool { kind, addr, ok := strings.Cut(v, ";"); return ok && kind != "" && isXtext(addr) }},
}

func isNumber(v string) bool {
	_, err := strconv.ParseUint(v, 10, 63)
	return err == nil
}

func isNotify(v string) bool {
	for w := range strings.SplitSeq(v, ",") {
		switch w {
		case "NEVER":
			if v != w {
				return false
			}
		case "SUCCESS", "FAILURE", "DELAY":
		default:
			return false
		}
	}
	return true
}

// isXtext follows RFC 3461 section 4.
func isXtext(v string) bool {
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c == '+':
			if i+2 >= len(v) || strings.Trim(v[i+1:i+3], "0123456789ABCDEF") != "" {
				return false
			}
			i += 2
		case c < '!' || c > '~' || c == '=':
			return false
		}
	}
	return v != ""
}

func hasParam(params []string, name string) bool {
	for _, p := range params {
		n, _, _ := strings.Cut(p, "=")
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
