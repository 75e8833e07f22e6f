//go:build commit && linux && postfix

package commit

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Postfix takes mail for a relay to which it never tries to deliver: defer_transports is for that.
//
// The first of the two has the defaults that concern speed. The second has a process for each sender, and takes mail
// however much faster it comes in than it goes out.

func rivals() []server {
	return []server{
		{"Postfix, defaults", func(t *testing.T, l load) result { return measurePostfix(t, l, "") }},
		{"Postfix, raised", func(t *testing.T, l load) result {
			return measurePostfix(t, l, fmt.Sprintf("default_process_limit = %d\nin_flow_delay = 0\n", l.Senders+spareProcesses))
		}},
	}
}

const (
	postfixLimit   = 30 * time.Second // for a command of its, and for its greeting
	spareProcesses = 20               // a session that was just cut is still ending
	processStart   = 10 * time.Millisecond
)

func measurePostfix(t *testing.T, l load, settings string) result {
	t.Helper()
	dir, remove := scratch(t)
	defer remove()
	if err := os.Chmod(dir, 0o755); err != nil { // Postfix's own user has to get through
		t.Fatal(err)
	}
	l.Address = freeAddress(t)
	etc := filepath.Join(dir, "etc")
	for _, sub := range []string{"etc", "log", "queue"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"main.cf":   fmt.Sprintf(mainCF, dir) + settings,
		"master.cf": l.Address + masterCF,
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if err := control(etc, "abort"); err != nil {
			t.Error(err)
		}
		awaitEnd(t, dir)
	}()
	if err := control(etc, "start"); err != nil {
		t.Fatal(err)
	}
	awaitGreeting(t, l.Address)
	l.Warm += time.Duration(l.Senders) * processStart
	r := result{yield: drive(t, l)}
	r.rates(l)
	return r
}

// awaitEnd waits for the last process: hundreds that end are a load for whoever is measured next.
func awaitEnd(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(postfixLimit); ; <-time.After(10 * time.Millisecond) {
		links, err := filepath.Glob("/proc/[0-9]*/cwd")
		if err != nil {
			t.Fatal(err)
		}
		working := slices.ContainsFunc(links, func(link string) bool {
			at, err := os.Readlink(link)
			return err == nil && strings.HasPrefix(at, dir) // one that has ended meanwhile has none
		})
		if !working {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("Postfix still has processes after %v", postfixLimit)
		}
	}
}

func control(etc, verb string) error {
	ctx, cancel := context.WithTimeout(context.Background(), postfixLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, "postfix", "-c", etc, verb).CombinedOutput()
	if err != nil {
		return fmt.Errorf("postfix %s: %w\n%s", verb, err, out)
	}
	return nil
}

func awaitGreeting(t *testing.T, address string) {
	t.Helper()
	end := time.Now().Add(postfixLimit)
	for {
		err := greets(address)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no greeting within %v: %v", postfixLimit, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func greets(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "220 ") {
		err = fmt.Errorf("greeting %q", line)
	}
	return err
}

// freeAddress is one that was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return address
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
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:9
defer_transports = smtp
`

const masterCF = ` inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
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
