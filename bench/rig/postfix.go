//go:build linux

package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Postfix is an instance with its own directories and a port on loopback; one that is installed stays as it is. What it takes, it
// sends to its relay.
type Postfix struct {
	Address string // host:port of its smtpd

	dir string // etc, log and queue, and data, which Postfix makes for its user
}

const (
	postfixLimit = 30 * time.Second // for each of its commands

	// whole is the bit that Postfix sets on a queue file when it has all of a message. One without it was given up by a client
	// that was killed, or by a reload; Postfix removes it when it is a day old.
	whole fs.FileMode = 0o100
)

// NewPostfix starts an instance in dir, which must be empty and open to other users, before a relay at host:port. parameters are
// name=value, as postconf(5) has them, beside those of mainCF.
func NewPostfix(t testing.TB, dir, relay string, parameters ...string) *Postfix {
	t.Helper()
	host, port, err := net.SplitHostPort(relay)
	if err != nil {
		t.Fatal(err)
	}
	p := &Postfix{dir: dir, Address: FreeAddress(t)}
	for _, sub := range []string{"etc", "log", "queue"} {
		if err := os.Mkdir(filepath.Join(p.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"main.cf": fmt.Sprintf(mainCF, p.dir, host, port) + strings.Join(parameters, "\n") + "\n",
		// The services that a relay needs, without chroot.
		"master.cf": p.Address + masterCF,
	} {
		if err := os.WriteFile(filepath.Join(p.etc(), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Postfix:\n%s", tail(p.log()))
		}
		if err := p.control("abort"); err != nil && p.answers() == nil {
			t.Error(err)
		}
	})
	p.Start(t)
	return p
}

const mainCF = `
compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/log/postfix.log
maillog_file_prefixes = %[1]s

# Loopback only, no names to look up, nothing of this machine.
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = postfix.example
mydestination =
alias_maps =
alias_database =
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_tls_security_level = none
smtp_tls_security_level = none
relayhost = [%[2]s]:%[3]s

mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_forbid_bare_newline = reject
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = yes

# What arrives must be what was sent.
local_header_rewrite_clients =
append_dot_mydomain = no

# What the test wants.
`

const masterCF = ` inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

func (p *Postfix) etc() string { return filepath.Join(p.dir, "etc") }
func (p *Postfix) log() string { return filepath.Join(p.dir, "log", "postfix.log") }

// control runs a command of postfix(1).
func (p *Postfix) control(verb string) error {
	_, err := Command(postfixLimit, "postfix", "-c", p.etc(), verb)
	return err
}

// Start returns when the smtpd greets.
func (p *Postfix) Start(t testing.TB) {
	t.Helper()
	if err := p.control("start"); err != nil {
		t.Fatal(err)
	}
	Await(t, postfixLimit, "Postfix's greeting", p.answers)
}

func (p *Postfix) answers() error { return greets(p.Address) }

// Stop ends the instance; sessions under way may finish what they do.
func (p *Postfix) Stop(t testing.TB) {
	t.Helper()
	if err := p.control("stop"); err != nil {
		t.Fatal(err)
	}
}

// Configure changes parameters, for processes that start or reload later.
func (p *Postfix) Configure(t testing.TB, parameters ...string) {
	t.Helper()
	if _, err := Command(postfixLimit, "postconf", append([]string{"-c", p.etc(), "-e"}, parameters...)...); err != nil {
		t.Fatal(err)
	}
}

// Reload has all processes begin anew, with the parameters of now.
func (p *Postfix) Reload(t testing.TB) {
	t.Helper()
	if err := p.control("reload"); err != nil {
		t.Fatal(err)
	}
}

// PassedOn returns nil when no message is in the queue.
func (p *Postfix) PassedOn() error {
	for _, queue := range []string{"incoming", "active", "deferred"} {
		err := filepath.WalkDir(filepath.Join(p.dir, "queue", queue), func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist): // it has moved on while we looked
				return nil
			case err != nil || !d.Type().IsRegular():
				return err
			}
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && info.Mode()&whole != 0 {
				err = fmt.Errorf("Postfix has messages in its %s queue", queue)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Logged counts the lines of the log that contain text.
func (p *Postfix) Logged(t testing.TB, text string) int {
	t.Helper()
	return Logged(t, p.log(), text)
}
