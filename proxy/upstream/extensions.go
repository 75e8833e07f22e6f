package upstream

import (
	"slices"
	"strconv"
	"strings"
)

// Extensions are what the upstream offered in its last EHLO. The zero value is what HELO offers.
type Extensions struct {
	Pipelining bool
	Chunking   bool
	StartTLS   bool
	EightBit   bool // 8BITMIME
	UTF8       bool // SMTPUTF8
	DSN        bool
	Size       bool
	SizeMax    int64 // octets; 0: no limit named
	Limits     Limits
	Auth       []string // mechanisms, upper case
}

// EhloKeywords are those that Config.DiscardEHLO may hold: without them mail is sent in another way, or refused here. TLS and logins are not
// among them, which have settings of their own.
var EhloKeywords = []string{"PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8", "DSN", "SIZE", "LIMITS"}

// parseExtensions reads the lines of an EHLO reply (RFC 5321 section 4.1.1.1), but for the keywords in discard; keywords are case-insensitive.
func parseExtensions(lines, discard []string) Extensions {
	var e Extensions
	for i, l := range lines {
		f := strings.Fields(strings.ToUpper(l))
		if i == 0 || len(f) == 0 { // the first line is the server's name
			continue
		}
		if slices.ContainsFunc(discard, func(k string) bool { return strings.EqualFold(k, f[0]) }) {
			continue
		}
		switch f[0] {
		case "PIPELINING":
			e.Pipelining = true
		case "CHUNKING":
			e.Chunking = true
		case "STARTTLS":
			e.StartTLS = true
		case "8BITMIME":
			e.EightBit = true
		case "SMTPUTF8":
			e.UTF8 = true
		case "DSN":
			e.DSN = true
		case "SIZE":
			e.Size = true
			if len(f) > 1 {
				if n, err := strconv.ParseInt(f[1], 10, 64); err == nil && n > 0 {
					e.SizeMax = n
				}
			}
		case "LIMITS":
			e.Limits = parseLimits(f[1:])
		case "AUTH":
			e.Auth = append(e.Auth, f[1:]...)
		default:
			if first, ok := strings.CutPrefix(f[0], "AUTH="); ok { // the form before RFC 2554, still seen
				e.Auth = append(append(e.Auth, first), f[1:]...)
			}
		}
	}
	return e
}
