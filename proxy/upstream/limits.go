package upstream

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
)

// Limits are what the upstream says it takes (LIMITS, RFC 9422 section 4). 0: it does not say.
type Limits struct {
	Mails   int // MAILMAX: transactions of one session
	Rcpts   int // RCPTMAX: recipients of one transaction
	Domains int // RCPTDOMAINMAX: different domains of recipients of one session
}

// parseLimits reads the parameters of the keyword. Limits that nobody knows and values that are none are passed over (section 3).
func parseLimits(params []string) (l Limits) {
	for _, p := range params {
		name, value, _ := strings.Cut(p, "=")
		n := limitValue(value)
		if n == 0 {
			continue
		}
		switch name {
		case "MAILMAX":
			l.Mails = n
		case "RCPTMAX":
			l.Rcpts = n
		case "RCPTDOMAINMAX":
			l.Domains = n
		}
	}
	return l
}

// limitValue reads one to six digits of which the first is not 0, as section 4 has it for all three; 0: not that.
func limitValue(s string) int {
	if len(s) > 6 || s == "" || s[0] == '0' || strings.Trim(s, "0123456789") != "" {
		return 0
	}
	return number(s)
}

// within chooses those of tx's undecided recipients that this transaction may name. The others are tx.later: they are told to try
// again at once when the upstream has taken MAIL, and share the fate of all if it has not. None at all: the session has had its share of
// domains, and another one must take the job.
func (c *Conn) within(tx *transaction) (now []int) {
	limits := c.ext.Limits
	for i, n := range tx.job.To {
		switch {
		case tx.decided(i):
		case limits.Rcpts > 0 && len(now) >= limits.Rcpts, !c.admits(message.Domain(tx.job.Env.To[n].Addr)):
			tx.later = append(tx.later, i)
		default:
			now = append(now, i)
		}
	}
	return now
}

// admits takes note of a recipient's domain, unless it is one too many for the session.
func (c *Conn) admits(domain string) bool {
	limit := c.ext.Limits.Domains
	if _, known := c.domains[domain]; limit == 0 || known {
		return true
	}
	if len(c.domains) >= limit {
		return false
	}
	if c.domains == nil {
		c.domains = map[string]struct{}{}
	}
	c.domains[domain] = struct{}{}
	return true
}

// limited says which of the upstream's limits this session has come to; "": none.
func (c *Conn) limited() string {
	switch limits := c.ext.Limits; {
	case limits.Mails > 0 && c.begun >= limits.Mails:
		return fmt.Sprintf("rotated after %d transactions, the upstream's limit", limits.Mails)
	case c.outgrown:
		return fmt.Sprintf("rotated after %d recipient domains, the upstream's limit", limits.Domains)
	}
	return ""
}

var replyLater = Reply{Code: 452, Enhanced: [3]uint16{4, 5, 3}, Text: "mailweir: the upstream takes no more recipients at once"}

// postpone gives those that were not named the verdict of a server that would have been asked for too many. It is no signal: nobody was
// asked.
func (tx *transaction) postpone() {
	for _, i := range tx.later {
		tx.verdicts[i] = Verdict{Reply: replyLater, Class: flowctl.PerMessage, Split: true, Local: true}
	}
}

// asciiORcpt writes an original recipient without octets above 127, for an upstream that does not take them (RFC 6533 section 3).
func asciiORcpt(typed string) string {
	if ascii(typed) {
		return typed
	}
	var b strings.Builder
	for _, r := range typed {
		if r > '~' {
			b.WriteString(`\x{` + strings.ToUpper(strconv.FormatInt(int64(r), 16)) + "}")
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
