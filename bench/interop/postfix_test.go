//go:build postfix

package interop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
)

// postfix is an instance of its own: what it takes goes over loopback to a sink that keeps a ledger.
type postfix struct {
	dir     string // etc, log and queue, and data, which Postfix makes for its user
	address string // host:port of its smtpd
	sink    *relay.Relay
}

const (
	postfixLimit  = 30 * time.Second // for each of its commands
	logLine       = 64 << 10         // bytes of its longest line
	portFrom      = 20000            // below the ports that the system gives to clients, so that one stays ours while nobody listens
	portTo        = 30000
	portTries     = 100
	processesEach = 100 // default_process_limit: more sessions than any test opens

	// whole is the bit that Postfix sets on a queue file when it has all of a message. One without it was given up by a client
	// that was killed, or by a reload; Postfix removes it when it is a day old.
	whole fs.FileMode = 0o100
)

// newPostfix starts an instance that lets each client have limit connections, as a relay does that many applications share.
func newPostfix(t *testing.T, limit int) *postfix {
	t.Helper()
	sink, sinkAddress := newSink(t)
	p := &postfix{dir: scratch(t), address: freeAddress(t), sink: sink}
	for _, sub := range []string{"etc", "log", "queue"} {
		if err := os.Mkdir(filepath.Join(p.dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"main.cf": fmt.Sprintf(mainCF, p.dir, sinkAddress.Port, limit, processesEach),
		// The services that a relay needs, without chroot.
		"master.cf": p.address + masterCF,
	} {
		if err := os.WriteFile(filepath.Join(p.etc(), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Postfix:\n%s", tail(filepath.Join(p.dir, "log", "postfix.log")))
		}
		if err := p.control("abort"); err != nil && p.answers() == nil {
			t.Error(err)
		}
	})
	p.start(t)
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
relayhost = [127.0.0.1]:%[2]d

# anvil counts, and exempts nobody: by default all of mynetworks would be.
smtpd_client_connection_count_limit = %[3]d
smtpd_client_event_limit_exceptions =
default_process_limit = %[4]d

mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_forbid_bare_newline = reject
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = yes

# What arrives must be what was sent.
local_header_rewrite_clients =
append_dot_mydomain = no
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

func (p *postfix) etc() string { return filepath.Join(p.dir, "etc") }

// control runs a command of postfix(1).
func (p *postfix) control(verb string) error {
	_, err := command(postfixLimit, "postfix", "-c", p.etc(), verb)
	return err
}

func (p *postfix) start(t *testing.T) {
	t.Helper()
	if err := p.control("start"); err != nil {
		t.Fatal(err)
	}
	await(t, postfixLimit, "Postfix's greeting", p.answers)
}

// answers returns nil when the smtpd greets.
func (p *postfix) answers() error {
	conn, err := net.DialTimeout("tcp", p.address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "220 ") {
		err = errors.New(strings.TrimSpace(line))
	}
	return err
}

// stop ends the instance; sessions under way may finish what they do.
func (p *postfix) stop(t *testing.T) {
	t.Helper()
	if err := p.control("stop"); err != nil {
		t.Fatal(err)
	}
}

// configure changes parameters, for processes that start or reload later.
func (p *postfix) configure(t *testing.T, parameters ...string) {
	t.Helper()
	if _, err := command(postfixLimit, "postconf", append([]string{"-c", p.etc(), "-e"}, parameters...)...); err != nil {
		t.Fatal(err)
	}
}

// reload has all processes begin anew, with the parameters of now.
func (p *postfix) reload(t *testing.T) {
	t.Helper()
	if err := p.control("reload"); err != nil {
		t.Fatal(err)
	}
}

// passedOn returns nil when no message is in the queue.
func (p *postfix) passedOn() error {
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

// logged counts the lines of the log that contain text.
func (p *postfix) logged(t *testing.T, text string) int {
	t.Helper()
	f, err := os.Open(filepath.Join(p.dir, "log", "postfix.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, logLine)
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			n++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// refusals counts the connections that were answered 421 because the client had too many.
func (p *postfix) refusals(t *testing.T) int {
	t.Helper()
	return p.logged(t, "Connection concurrency limit exceeded")
}

// newSink serves a relay without limits until the test ends.
func newSink(t *testing.T) (*relay.Relay, *net.TCPAddr) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sink := relay.New(relay.Config{Hostname: "sink.example", KeepBodies: true})
	served := make(chan error, 1)
	go func() { served <- sink.Serve(l) }()
	t.Cleanup(func() {
		sink.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return sink, l.Addr().(*net.TCPAddr)
}

// freeAddress returns a loopback address at which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	var last error
	for range portTries {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(portFrom+rand.IntN(portTo-portFrom)))
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
		if err != nil {
			last = err
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return address
	}
	t.Fatalf("no free port: %v", last)
	return ""
}

// tailBytes is how much of a log a failed test shows.
const tailBytes = 4 << 10

func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailBytes):])
}
