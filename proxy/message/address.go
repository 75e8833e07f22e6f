package message

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// Bounds of RFC 5321 section 4.5.3.1, in octets.
const (
	maxLocalPart = 64
	maxDomain    = 255
	maxAddress   = 254 // a path has 256 with its angle brackets
)

// ErrAddress is wrapped by every error of ParseAddress.
var ErrAddress = errors.New("not an RFC 5321 mailbox")

// ParseAddress checks a mailbox in the form it has on the wire between angle brackets, without a
// source route, and returns it unchanged: what was parsed can be sent on as it is, and nothing in it
// can end the brackets early or start a parameter. The local part is a Dot-string or a
// Quoted-string (RFC 5321 section 4.1.2), the domain a name or an address literal. Octets above 127
// are accepted only with smtputf8 (RFC 6531) and only as valid UTF-8. A bare "postmaster", in any case, is
// accepted (RFC 5321 section 4.5.1).
func ParseAddress(wire string, smtputf8 bool) (string, error) {
	if strings.EqualFold(wire, "postmaster") {
		return wire, nil
	}
	fail := func(why string) (string, error) { return "", fmt.Errorf("%w: %s", ErrAddress, why) }
	if len(wire) > maxAddress {
		return fail(fmt.Sprintf("longer than %d octets", maxAddress))
	}
	if !smtputf8 && !isASCII(wire) {
		return fail("8-bit characters without SMTPUTF8")
	}
	if !utf8.ValidString(wire) {
		return fail("invalid UTF-8")
	}
	n := localPartLength(wire)
	switch {
	case n <= 0:
		return fail("malformed local part")
	case n > maxLocalPart:
		return fail(fmt.Sprintf("local part longer than %d octets", maxLocalPart))
	case n == len(wire) || wire[n] != '@':
		return fail("no domain")
	}
	if d := wire[n+1:]; !isDomain(d) && !isAddressLiteral(d) {
		return fail("malformed domain")
	}
	return wire, nil
}

// Domain returns the lower-cased domain of an address that ParseAddress accepted, "" for a bare
// postmaster and for the null reverse-path.
func Domain(addr string) string {
	at := strings.LastIndexByte(addr, '@')
	if at < 0 {
		return ""
	}
	return strings.ToLower(addr[at+1:])
}

// localPartLength returns how many octets of s are its local part, 0 when there is none.
func localPartLength(s string) int {
	if s != "" && s[0] == '"' {
		return quotedStringLength(s)
	}
	end := strings.IndexByte(s, '@')
	if end < 0 {
		end = len(s)
	}
	if !isDotString(s[:end]) {
		return 0
	}
	return end
}

// quotedStringLength reads DQUOTE *QcontentSMTP DQUOTE at the start of s.
func quotedStringLength(s string) int {
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			i++
			if i == len(s) || s[i] < ' ' || s[i] > '~' {
				return 0
			}
		case c < ' ' || c == 0x7f:
			return 0
		}
	}
	return 0
}

func isDotString(s string) bool {
	for atom := range strings.SplitSeq(s, ".") {
		if atom == "" || strings.IndexFunc(atom, notAtext) >= 0 {
			return false
		}
	}
	return true
}

func notAtext(r rune) bool {
	return r <= ' ' || r == 0x7f || strings.ContainsRune(`()<>[]:;@\,."`, r)
}

// isDomain accepts what resolvers accept: labels of letters, digits, hyphens and, as seen in
// real mail, underscores; U-labels are checked for valid UTF-8 by the caller.
func isDomain(s string) bool {
	if len(s) > maxDomain {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
			if !letter && r != '-' && r != '_' && r < utf8.RuneSelf {
				return false
			}
		}
	}
	return true
}

func isAddressLiteral(s string) bool {
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return false
	}
	in := s[1 : len(s)-1]
	if len(in) > 5 && strings.EqualFold(in[:5], "IPv6:") {
		ip, err := netip.ParseAddr(in[5:])
		return err == nil && ip.Is6() && ip.Zone() == ""
	}
	ip, err := netip.ParseAddr(in)
	return err == nil && ip.Is4()
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
