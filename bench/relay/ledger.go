package relay

import (
	"crypto/sha256"
	"slices"
	"time"
)

// Sum is a SHA-256.
type Sum = [sha256.Size]byte

// Message is what the relay took.
type Message struct {
	Conn        int
	Transaction int
	From        string
	To          []string // as taken, in their order
	MailParams  []string // of MAIL, as given
	RcptParams  []string // of each of To, joined by spaces

	Size      int64 // octets of content, dots unstuffed
	Sum       Sum   // of the content
	MessageID string
	XID       string // value of the header field X-Id, which a load source writes first
	SumFromID Sum    // of the content from the line of X-Id on, so that prepended fields do not count; zero without one
	Prefix    string // what stood before that line, up to 16 KiB of it
	EightBit  bool   // octets above 127 in the content

	When  time.Time // when it was taken
	Reply string    // what was answered; "" for a message that was taken without an answer
	Body  []byte    // with Config.KeepBodies
}

// Violation is a rule of the protocol that the client broke.
type Violation struct {
	Conn int
	Rule string // one of the Rule constants
	Line string // the command, or ""
	When time.Time
}

// The rules. All are of RFC 5321 but where another is named.
const (
	RuleBareCR       = "bare CR in the content"            // section 2.3.8
	RuleBareLF       = "bare LF in the content"            // section 2.3.8
	RuleNUL          = "NUL in the content"                // RFC 5322 section 4
	RuleCommandEnd   = "command with a bare CR, LF or NUL" // section 2.3.8
	RuleLongLine     = "command line too long"             // section 4.5.3.1.4
	RuleNestedMail   = "MAIL within a transaction"         // section 4.1.4
	RuleOrder        = "command out of order"              // section 4.1.4
	RuleSyntax       = "malformed command"                 // section 4.1.2
	RuleNotOffered   = "parameter or verb that was not offered"
	RuleEarly        = "command sent before the reply to the last one, without PIPELINING"
	RuleGroup        = "command in a group after one that must be its last" // RFC 2920 section 3.1
	RuleBeforeHello  = "talked before the greeting"                         // section 4.3.1
	RuleMixed        = "DATA after BDAT in one transaction"                 // RFC 3030 section 2
	RuleEarlyContent = "content sent before the 354"                        // section 3.3
	RuleStartTLS     = "octets sent in clear after STARTTLS"                // RFC 3207 section 5
)

const (
	maxLedger     = 1 << 20 // messages; beyond it the relay answers 452
	maxViolations = 10_000  // later ones are dropped: the first tell enough
)

// Ledger returns the messages taken so far, in their order. The bodies are shared.
func (r *Relay) Ledger() []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ledger)
}

// Since returns the messages taken after the first n, for who looks again and again. The bodies are shared.
func (r *Relay) Since(n int) []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ledger[min(max(n, 0), len(r.ledger)):])
}

// Violations returns what the clients broke so far.
func (r *Relay) Violations() []Violation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.violations)
}

func (r *Relay) take(m Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger = append(r.ledger, m)
}

func (r *Relay) ledgerFull() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ledger) >= maxLedger
}

func (r *Relay) violated(conn int, rule, line string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.violations) < maxViolations {
		r.violations = append(r.violations, Violation{conn, rule, line, time.Now()})
	}
}
