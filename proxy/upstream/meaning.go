package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// Meaning is what a reply, or the lack of one, says. The zero value is: taken.
type Meaning struct {
	Class      flowctl.Class
	Word       string        // finer than Class: one of the keys of classes; "": taken
	Split      bool          // too many recipients in one transaction
	RetryAfter time.Duration // named by the text, at most a day; 0: none
	Limit      int           // the number of connections or messages that the text names; 0: none
}

// classes are the words' classes.
var classes = map[string]flowctl.Class{
	"conc-source":   flowctl.Busy,
	"conc-server":   flowctl.Overload,
	"conn-cap":      flowctl.SessionCap,
	"idle":          flowctl.IdleClose,
	"rate":          flowctl.RateLimited,
	"quota":         flowctl.Quota,
	"auth-churn":    flowctl.AuthThrottle,
	"auth-temp":     flowctl.AuthThrottle,
	"misconfigured": flowctl.Misconfigured,
	"pressure":      flowctl.Overload,
	"reputation":    flowctl.Reputation,
	"unavailable":   flowctl.Unavailable,
	"rcpt":          flowctl.PerMessage,
	"split":         flowctl.PerMessage,
	"temp":          flowctl.PerMessage,
	"perm":          flowctl.Permanent,
}

func mean(word string) Meaning { return Meaning{Class: classes[word], Word: word} }

// classifyMax is how much of a text is looked at, in octets; what a reply means stands at its beginning.
const classifyMax = 512

// Classify gives a reply its meaning: the first rule that fits, else what the first digit says at this stage. It
// is a pure function of its arguments. text is the reply's without its enhanced code enh, which is 0.0.0 where
// there is none.
//
// At RCPT and after the content a relay may quote a remote server ("host x said: ..."): what that said
// concerns neither us nor the relay, so nothing but the first digit of the relay's own code counts then.
// Otherwise a class found there may still be meant for this message alone; the guards against that are the
// caller's, who sees more than one message.
func Classify(st flowctl.Stage, code int, enh [3]uint16, text string) Meaning {
	if code/100 == 2 || code/100 == 3 {
		return Meaning{}
	}
	if st == flowctl.StageRcpt && code == 552 {
		code = 452 // RFC 5321 section 4.5.3.1.10
	}
	text = strings.ToLower(text)
	if quotes(st, text) {
		return fallback(st, code, enh, 0, "")
	}
	text = essence(text)
	hint := retryHint(text)
	for i := range rules {
		if rules[i].fits(st, code, enh, text) {
			m := mean(rules[i].word)
			m.RetryAfter, m.Split = hint, rules[i].word == "split"
			if rules[i].counts {
				m.Limit = namedLimit(text)
			}
			return m
		}
	}
	return fallback(st, code, enh, hint, text)
}

// essence is what the rules see of a lower-cased text.
func essence(lower string) string { return truncate(uncanned(lower), classifyMax) }

// uncanned takes away the words that RFC 5321 section 4.2.3 gives to 450 and 550, if a server has words of its own after them:
// then it is they that say what happened, and no mailbox need be concerned.
func uncanned(lower string) string {
	_, own, found := strings.Cut(lower, "action not taken: mailbox unavailable")
	if own = strings.Trim(own, " .;:-"); found && own != "" {
		return own
	}
	return lower
}

// quoting is how relays begin what a remote server told them.
var quoting = []string{"said:", "remote server returned", "remote server responded", "from remote mail server", "error from remote", "<<< "}

func quotes(st flowctl.Stage, lower string) bool {
	return st >= flowctl.StageRcpt && st <= flowctl.StageDot && holdsOne(lower, quoting)
}

// fallback judges by the first digit. A reply outside 2yz to 5yz is unknown, and unknown means temporary.
func fallback(st flowctl.Stage, code int, enh [3]uint16, hint time.Duration, lower string) Meaning {
	word := "temp"
	switch st {
	case flowctl.StageConnect, flowctl.StageGreeting, flowctl.StageEHLO:
		word = "conc-server" // a 4yz without a word of explanation is how servers turn away what is too much
	case flowctl.StageTLS:
		word = "unavailable"
	case flowctl.StageAuth:
		word = "auth-temp"
	case flowctl.StageIdle:
		word = "idle"
	}
	if code/100 == 5 {
		switch {
		case st <= flowctl.StageAuth:
			word = "misconfigured"
		case st == flowctl.StageIdle:
		case hint > 0, comeBack.MatchString(lower): // whoever says when to come back does not mean for good
		case (code == 500 || code == 502 || code == 503) && (enh[0] == 0 || enh[1] == 5) && !size.MatchString(lower):
			// About the command or its place in the session (RFC 5321 section 4.2.2), hence not about this message.
		case st == flowctl.StageMail && !aboutMessage(code, enh, lower):
			word = "misconfigured" // about the client or the sender, which all our mail has in common
		default:
			word = "perm"
		}
	}
	m := mean(word)
	m.RetryAfter = hint
	return m
}

// aboutMessage reports whether a 5yz to MAIL is about the one message: its size, its parameters, or how its sender is written.
func aboutMessage(code int, enh [3]uint16, lower string) bool {
	switch [2]uint16{enh[1], enh[2]} {
	case [2]uint16{1, 1}, [2]uint16{1, 3}, [2]uint16{1, 7}, [2]uint16{2, 3}, [2]uint16{3, 4}, [2]uint16{5, 4}: // RFC 3463 section 3
		return true
	}
	return code == 501 || code == 552 || code == 555 || enh[1] == 6 || size.MatchString(lower)
}

var (
	comeBack   = regexp.MustCompile(`\b(?:try|retry|resend|come back)\b[^.;]{0,30}\b(?:later|sometime|after|in (?:a|some|\d+)\b)|temporar\w+ (?:not |un|lock|reject|defer|fail|error|problem|block)|could not be saved`)
	size       = regexp.MustCompile(`\b(?:size|too (?:large|big|long)|syntax)\b`)
	limitWords = regexp.MustCompile(`\b(?:limit|max|maximum|maximal|most|only)(?: (?:number|of|is|allowed|connections?|sessions?|messages?|to|=))*[\s:=(]+(\d{1,5})(?:[^.\d]|$)`)
)

func namedLimit(lower string) int {
	if m := limitWords.FindStringSubmatch(lower); m != nil {
		return number(m[1])
	}
	return 0
}

// number reads digits that a pattern has bounded to six.
func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}

// ClassifyErr gives an error of I/O, of name resolution or of TLS its meaning at a stage. nil is: taken. A name
// that does not exist is Unavailable as well: it may be back in a minute, and mail is never given up for our own
// resolver.
func ClassifyErr(st flowctl.Stage, err error) Meaning {
	var timeout interface{ Timeout() bool }
	var token interface {
		Permanent() bool
		RetryAfter() time.Duration
	}
	switch {
	case err == nil:
		return Meaning{}
	case errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return mean("idle") // we closed it ourselves: says nothing of the upstream
	case errors.As(err, &token): // Config.Token's
		return tokenMeaning(token.Permanent(), token.RetryAfter())
	case isCertificate(err), isTLSRefusal(err), errors.Is(err, errSettings):
		return mean("misconfigured")
	case errors.Is(err, errSequence), errors.Is(err, errReplyMalformed), errors.Is(err, errReplyTooLong):
		return mean("unavailable")
	case st == flowctl.StageIdle:
		return mean("idle")
	case (errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)) && answered(st):
		return mean("pressure") // it took the connection and some commands, and then a reply did not come
	}
	return mean("unavailable")
}

// answered tells whether the server has said anything when a session gets to st.
func answered(st flowctl.Stage) bool {
	return st != flowctl.StageConnect && st != flowctl.StageGreeting && st != flowctl.StageTLS
}

func isCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}

// tokenMeaning is that of a failure to get a token: too many requests, or a service that is away.
func tokenMeaning(permanent bool, wait time.Duration) Meaning {
	switch {
	case permanent:
		return mean("misconfigured")
	case wait > 0:
		m := mean("auth-churn")
		m.RetryAfter = wait
		return m
	}
	return mean("unavailable")
}

// tlsRefusals are the alerts and errors of crypto/tls, which has no types for them, that come again until one side is configured
// anew: what the server has against our certificate, and no version or cipher suite in common. With TLS 1.3 the server's word about
// our certificate comes after the handshake.
var tlsRefusals = regexp.MustCompile(`remote error: tls: (bad|unsupported|revoked|expired|unknown) certificate|remote error: tls: (unknown certificate authority|access denied|` +
	`certificate required|handshake failure|protocol version not supported|insufficient security level)|tls: server selected unsupported protocol version`)

func isTLSRefusal(err error) bool { return tlsRefusals.MatchString(err.Error()) }
