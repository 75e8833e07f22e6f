package smtpd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/mailweir/mailweir/proxy/message"
)

// Config says where the front door listens and what it takes.
type Config struct {
	Listen          []string      // host:port; loopback only, until an allow-list or AUTH exists
	Hostname        string        // in greeting and EHLO
	MaxMessageBytes int64         // octets of content as received
	MaxRecipients   int           // RCPTs of one message
	MaxConnections  int           // beyond it the listener stops accepting and the kernel's backlog waits
	MaxHops         int           // Received header fields
	QualifyDomain   string        // given to a bare local part; "": refused, but for postmaster
	AcceptAnyAuth   bool          // offers AUTH and takes whatever credentials come
	BareNewline     string        // "normalize": bare LF becomes CRLF, stray CR a space; "reject": 550
	IdleTimeout     time.Duration // longest wait for a command, or for the next octet of content
	MinBytesPerSec  int64         // slower content is cut; 0: 500 B/s
}

// Values of Config.BareNewline.
const (
	normalizeNewline = "normalize"
	rejectNewline    = "reject"
)

// Validate reports every fault at once, joined. It changes nothing and knows no defaults.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("smtpd: "+format, args...))
	}
	for _, addr := range c.Listen {
		if err := CheckListen(addr); err != nil {
			faults = append(faults, err)
		}
	}
	if len(c.Listen) == 0 {
		fault("listen: no address")
	}
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"max_message_bytes", c.MaxMessageBytes},
		{"max_recipients", int64(c.MaxRecipients)},
		{"max_connections", int64(c.MaxConnections)},
		{"max_hops", int64(c.MaxHops)},
		{"idle_timeout", int64(c.IdleTimeout)},
	} {
		if limit.value <= 0 {
			fault("%s: must be more than 0", limit.name)
		}
	}
	if c.MinBytesPerSec < 0 {
		fault("minimum rate: must not be negative")
	}
	if c.BareNewline != normalizeNewline && c.BareNewline != rejectNewline {
		fault("bare_newline: %q is neither %q nor %q", c.BareNewline, normalizeNewline, rejectNewline)
	}
	if !isDomain(c.Hostname) {
		fault("hostname: %q is not a domain name", c.Hostname)
	}
	if c.QualifyDomain != "" && !isDomain(c.QualifyDomain) {
		fault("qualify_domain: %q is not a domain name", c.QualifyDomain)
	}
	return errors.Join(faults...)
}

// isDomain says whether s can stand behind the @ of an address.
func isDomain(s string) bool {
	_, err := message.ParseAddress("x@"+s, false)
	return err == nil
}

// CheckListen returns nil when addr, a host:port with a numeric port, can be reached from this machine
// only: its host is "localhost" or a loopback IP address. The front door knows no access rules yet, so
// that any other address would be an open relay.
func CheckListen(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("smtpd: listen %q: %w", addr, err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("smtpd: listen %q: port is not a number below 65536", addr)
	}
	if strings.EqualFold(host, "localhost") {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Unmap().IsLoopback() {
		return nil
	}
	return fmt.Errorf("smtpd: listen %q: host is not localhost or a loopback address, and anybody who reaches it could send mail", addr)
}
