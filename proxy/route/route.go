// Package route says which upstream a recipient's mail goes to, by the domains of sender and recipient. It is pure.
package route

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/mailweir/mailweir/proxy/message"
)

// Table is a list of rules, of which the first that fits wins. The empty table fits nothing.
type Table []Rule

// Rule names a lane for mail whose sender is in one of From and whose recipient is in one of To; an empty list fits everybody, the null
// sender included.
type Rule struct {
	From, To []Pattern
	Lane     int
}

// Pattern is a domain, or all domains below one. Parse makes it.
type Pattern struct {
	domain string // lower case; of a wildcard what follows the *, with its dot
	below  bool
}

// Lane returns the lane for a sender and a recipient, given by their domains in lower case, and 0 when no rule fits.
func (t Table) Lane(from, to string) int {
	from, to = ascii(from), ascii(to)
	for _, r := range t {
		if fits(r.From, from) && fits(r.To, to) {
			return r.Lane
		}
	}
	return 0
}

func fits(any []Pattern, domain string) bool {
	return len(any) == 0 || slices.ContainsFunc(any, func(p Pattern) bool { return p.fits(domain) })
}

func (p Pattern) fits(domain string) bool {
	if p.below {
		return len(domain) > len(p.domain) && strings.HasSuffix(domain, p.domain)
	}
	return domain == p.domain
}

// Parse reads "example.com", or "*.example.com" for what is below it at any depth and not for itself.
func Parse(text string) (Pattern, error) {
	domain, below := strings.CutPrefix(strings.ToLower(text), "*.")
	switch {
	case text == "":
		return Pattern{}, errors.New("is empty")
	case strings.Contains(domain, "@"):
		return Pattern{}, errors.New("is an address; only domains can be named")
	case strings.Contains(domain, "*"):
		return Pattern{}, errors.New(`has a * elsewhere than at its beginning, as in "*.example.com"`)
	}
	if _, err := message.ParseAddress("a@"+domain, true); err != nil {
		return Pattern{}, errors.New("is no domain")
	}
	domain = ascii(domain)
	if below {
		domain = "." + domain
	}
	return Pattern{domain, below}, nil
}

// String is what Parse reads.
func (p Pattern) String() string {
	if p.below {
		return "*" + p.domain
	}
	return p.domain
}

// ascii is a domain as DNS has it: one that is not ASCII (RFC 5890) may be written in two ways. What IDNA does not know stays as it is.
func ascii(domain string) string {
	if !strings.ContainsFunc(domain, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return domain
	}
	if a, err := idna.Lookup.ToASCII(domain); err == nil {
		return a
	}
	return domain
}
