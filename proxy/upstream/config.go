package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config says how the upstream is reached.
type Config struct {
	URL           string        // smtp://host:25, smtps://host:465?priority=10&weight=2: one host, or several separated by commas
	Username      string        // "": no AUTH
	Password      string        //
	PasswordFile  string        // read again at each login; excludes Password
	TLS           string        // none, opportunistic, require; "": opportunistic
	CAFile        string        // PEM roots in place of the system's; certificates are then verified also when opportunistic
	CertFile      string        // PEM certificate that we show, with the chain to its authority; "": none. Read again at each handshake, as CAFile is
	KeyFile       string        // PEM key of CertFile
	ServerName    string        // in the upstream's certificate; "": the URL's host. If set, certificates are verified also when opportunistic
	PlaintextAuth bool          // allows credentials without TLS
	Auth          string        // one of AuthNames; "": the strongest mechanism offered
	OAuth         bool          // Token takes the place of Password and PasswordFile
	Hostname      string        // in EHLO; "": localhost
	Timeouts      Timeouts      // zero fields mean RFC 5321's
	MessagesMax   int           // rotate after so many; 0: only what the upstream shows
	AgeMax        time.Duration // rotate after; 0: 1 h
	DiscardEHLO   []string      // keywords of EhloKeywords that count as not offered, for relays that get them wrong
	LevelMax      *Level        // the most that may be on the wire unanswered; nil: what the upstream offers. For tests
	EightBit      string        // EightBitSend or EightBitReject, for mail declared 8BITMIME to an upstream without it; "": EightBitSend
	Window        string        // messages that may be in flight on one connection: a number up to WindowMax, or WindowAuto; "": 1
	Rules         Rules         // come before the built-in ones about what replies mean

	// Token returns an access token for Username, when OAuth is set. rejected is one that the upstream has refused, in place of which
	// another is wanted if there is any; "": none. It is called before each dial and keeps its own deadlines. An error that has a method
	// Permanent() bool is a fault of settings when that is true, and one with RetryAfter() time.Duration says how long nothing
	// must be tried; every other error means that tokens are unavailable for the moment. No error may hold a secret.
	Token func(ctx context.Context, rejected string) (string, error)
	// Resolve returns the addresses of a name; nil: none is asked for where Dial is set, which then gets names; else the system's
	// resolver is.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// Dial opens the transport; nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Forbidden recognises our own listeners: a connection that reached one is closed at once and Misconfigured, since
	// mail sent to it would go in circles. nil: nothing is forbidden.
	Forbidden func(remote net.Addr) bool
}

// Timeouts are the longest waits per phase (RFC 5321 section 4.5.3.2). A zero field means the RFC's value.
type Timeouts struct {
	Connect  time.Duration // 30 s; also the TLS handshake
	Greeting time.Duration // 5 min; also EHLO, STARTTLS, AUTH
	Command  time.Duration // 5 min: MAIL, RCPT
	Data     time.Duration // 2 min: the 354
	Block    time.Duration // 3 min: each write of content
	Dot      time.Duration // 10 min: the reply to the content; shorter makes duplicates
}

// The values of Config.TLS.
const (
	tlsNone          = "none"
	tlsOpportunistic = "opportunistic"
	tlsRequire       = "require"
)

// The values of Config.EightBit.
const (
	EightBitSend   = "send"   // as it is, as most relays do
	EightBitReject = "reject" // with 5.6.3
)

const ageMaxDefault = time.Hour

// WindowAuto is the value of Config.Window with which the window is learnt.
const WindowAuto = "auto"

// window returns the number in Window, 0 for WindowAuto, and -1 where it is neither.
func (c Config) window() int {
	switch c.Window {
	case "":
		return 1
	case WindowAuto:
		return 0
	}
	if n, err := strconv.Atoi(c.Window); err == nil && n >= 1 && n <= WindowMax && strconv.Itoa(n) == c.Window {
		return n
	}
	return -1
}

// levelMax returns the most that LevelMax allows.
func (c Config) levelMax() Level {
	if c.LevelMax == nil {
		return L4
	}
	return min(L4, *c.LevelMax)
}

// Validate joins all faults. It reads nothing but c.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("upstream: "+format, args...))
	}
	hosts, wrong := c.parseURL()
	faults = append(faults, wrong...)
	implicit := anyImplicit(hosts)
	switch c.TLS {
	case "", tlsOpportunistic, tlsRequire:
	case tlsNone:
		c.validateClear(implicit, fault)
	default:
		fault("tls: %q is not one of none, opportunistic, require", c.TLS)
	}
	if c.CertFile != "" && c.KeyFile == "" {
		fault("cert_file: is set, but not key_file")
	}
	if c.CertFile == "" && c.KeyFile != "" {
		fault("key_file: is set, but not cert_file")
	}
	if strings.ContainsFunc(c.ServerName, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' || r == '/' }) {
		fault("server_name: is no host name")
	}
	c.validateCredentials(fault)
	if strings.ContainsFunc(c.Hostname, func(r rune) bool { return r <= ' ' || r > '~' }) {
		fault("hostname: has characters that EHLO cannot carry")
	}
	if c.EightBit != "" && c.EightBit != EightBitSend && c.EightBit != EightBitReject {
		fault("eight_bit: %q is neither %s nor %s", c.EightBit, EightBitSend, EightBitReject)
	}
	for _, k := range c.DiscardEHLO {
		if !slices.Contains(EhloKeywords, strings.ToUpper(k)) {
			fault("discard_ehlo: %q is not one of %s", k, strings.Join(EhloKeywords, ", "))
		}
	}
	if c.MessagesMax < 0 {
		fault("messages_per_connection: is negative")
	}
	if c.AgeMax < 0 {
		fault("connection_max_age: is negative")
	}
	if c.window() < 0 {
		fault("window: %q is neither %s nor a number from 1 to %d", c.Window, WindowAuto, WindowMax)
	}
	t := c.Timeouts
	if min(t.Connect, t.Greeting, t.Command, t.Data, t.Block, t.Dot) < 0 {
		fault("timeouts: one is negative")
	}
	return errors.Join(faults...)
}

// validateClear names what has no meaning without TLS.
func (c Config) validateClear(implicit bool, fault func(string, ...any)) {
	for _, x := range []struct{ setting, value string }{{"ca_file", c.CAFile}, {"cert_file", c.CertFile}, {"server_name", c.ServerName}} {
		if x.value != "" {
			fault("tls: none, but %s is set", x.setting)
		}
	}
	if implicit {
		fault("tls: none, but the url says smtps")
	}
	if (c.Username != "" || c.OAuth) && !c.PlaintextAuth {
		fault("tls: none, but there are credentials; plaintext_auth would allow it")
	}
}

func (c Config) validateCredentials(fault func(string, ...any)) {
	secret := c.Password != "" || c.PasswordFile != ""
	switch {
	case c.Password != "" && c.PasswordFile != "":
		fault("password: is set, and password_file too")
	case c.OAuth && c.Password != "":
		fault("password: is set, and OAuth too")
	case c.OAuth && c.PasswordFile != "":
		fault("password_file: is set, and OAuth too")
	case c.Username != "" && !secret && !c.OAuth:
		fault("username: is set, but neither password nor password_file nor OAuth")
	case c.Username == "" && c.OAuth:
		fault("username: is missing; with OAuth it is the mailbox to send as")
	case c.Username == "" && secret:
		fault("password: is set, but no username")
	}
	c.validateAuth(fault)
	if strings.ContainsRune(c.Username, 0) || strings.ContainsRune(c.Password, 0) {
		fault("username, password: one contains a NUL, which AUTH cannot carry")
	} else if strings.ContainsFunc(c.Username, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		fault("username: contains a control character")
	}
}

func (c Config) validateAuth(fault func(string, ...any)) {
	name := strings.ToUpper(c.Auth)
	switch {
	case c.Auth == "" || c.Auth == AuthAuto:
	case !slices.Contains(AuthNames(), c.Auth):
		fault("auth: %q is not one of %s", c.Auth, strings.Join(AuthNames(), ", "))
	case c.Username == "" && !c.OAuth:
		fault("auth: %s, but there are no credentials", c.Auth)
	case isToken(name) && !c.OAuth:
		fault("auth: %s needs OAuth, not a password", c.Auth)
	case isPassword(name) && c.OAuth:
		fault("auth: %s needs a password, not OAuth", c.Auth)
	}
}

// Files are those that may change while we run, by what the settings say of them.
func (c Config) Files() []string {
	return slices.DeleteFunc([]string{c.PasswordFile, c.CAFile, c.CertFile, c.KeyFile}, func(f string) bool { return f == "" })
}

// security returns how TLS is used: one of the values of Config.TLS, and whether certificates are verified. Credentials
// and smtps, of any host in the list, imply verified, required TLS for all of them; PlaintextAuth lifts that for credentials. Without either, opportunistic TLS
// takes any certificate: it defends against listeners only, but more than none at all would (RFC 7435).
func (c Config) security(implicit bool) (mode string, verify bool) {
	mode = c.TLS
	if mode == "" {
		mode = tlsOpportunistic
	}
	if implicit || c.Username != "" && !c.PlaintextAuth {
		mode = tlsRequire
	}
	return mode, mode == tlsRequire || c.Username != "" || c.CAFile != "" || c.ServerName != ""
}

func anyImplicit(hosts []Host) bool {
	return slices.ContainsFunc(hosts, func(h Host) bool { return h.Implicit })
}

// orDefaults fills zero fields with the values of RFC 5321 section 4.5.3.2.
func (t Timeouts) orDefaults() Timeouts {
	or := func(d *time.Duration, rfc time.Duration) {
		if *d == 0 {
			*d = rfc
		}
	}
	or(&t.Connect, 30*time.Second)
	or(&t.Greeting, 5*time.Minute)
	or(&t.Command, 5*time.Minute)
	or(&t.Data, 2*time.Minute)
	or(&t.Block, 3*time.Minute)
	or(&t.Dot, 10*time.Minute)
	return t
}
