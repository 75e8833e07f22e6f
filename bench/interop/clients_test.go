//go:build postfix

package interop

import (
	"bytes"
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

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/proxy/admin"
)

const (
	clientLimit = 30 * time.Second
	fetchLimit  = 2 * time.Minute // npm's
	sender      = "client@interop.example"
)

// text is what every client sends: lines that begin with dots, which the client and mailweir stuff and Postfix
// unstuffs, and one that could end the message too early.
const text = "first line\n.hidden\n..two dots\n.\nafter a lone dot\n"

// client is a program that sends one message with the text on its standard input.
type client struct {
	name string
	argv func(host, port, to string) []string
	file bool // it wants a whole message, header included, on its input
	dir  string
}

var clients = []client{
	{name: "swaks", argv: func(host, port, to string) []string {
		return []string{"swaks", "--server", host, "--port", port, "--from", sender, "--to", to, "--header", "Subject: " + to, "--body", "-", "--suppress-data"}
	}},
	{name: "curl", file: true, argv: func(host, port, to string) []string {
		return []string{"curl", "--silent", "--show-error", "--crlf", "--url", "smtp://" + net.JoinHostPort(host, port), "--mail-from", sender, "--mail-rcpt", to, "--upload-file", "-"}
	}},
	{name: "smtplib", argv: func(host, port, to string) []string {
		return []string{"python3", "testdata/send.py", host, port, sender, to, to}
	}},
	{name: "nodemailer", argv: func(host, port, to string) []string {
		return []string{"node", "send.js", host, port, sender, to, to}
	}},
}

func TestEveryClientIsUnderstood(t *testing.T) {
	p := newPostfix(t, stormLimit)
	m := newMailweir(t, p.Address)
	host, port, err := net.SplitHostPort(m.Address)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "nodemailer" {
				c.dir = fromNpm(t, "nodemailer", "send.js")
			}
			to := c.name + "@interop.example"
			c.send(t, host, port, to)
			got := awaitMessage(t, p.sink, to)
			if got.From != sender {
				t.Errorf("from %s", got.From)
			}
			header, body, _ := strings.Cut(string(got.Body), "\r\n\r\n")
			if !strings.Contains(header, "Subject: "+to) {
				t.Errorf("the header has no such subject:\n%s", header)
			}
			// Some add an empty line at the end; nothing else may differ.
			if got, want := strings.TrimRight(body, "\r\n"), strings.TrimRight(strings.ReplaceAll(text, "\n", "\r\n"), "\r\n"); got != want {
				t.Errorf("body %q; want %q", got, want)
			}
		})
	}
	if s := m.awaitEmpty(t); int(s.Queue.Accepted) != len(clients) {
		t.Errorf("%d accepted of %d", s.Queue.Accepted, len(clients))
	}
}

func (c client) send(t *testing.T, host, port, to string) {
	t.Helper()
	argv := c.argv(host, port, to)
	if _, err := exec.LookPath(argv[0]); err != nil {
		t.Fatalf("%s is not installed: apt-get install swaks curl python3 nodejs npm", argv[0])
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = c.dir
	input := text
	if c.file {
		input = fmt.Sprintf("From: <%s>\nTo: <%s>\nSubject: %s\n\n%s", sender, to, to, text)
	}
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

// awaitMessage waits for a message to one recipient.
func awaitMessage(t *testing.T, sink *relay.Relay, to string) relay.Message {
	t.Helper()
	var found relay.Message
	rig.Await(t, arrivalLimit, "the message to "+to, func() error {
		ledger := sink.Ledger()
		i := slices.IndexFunc(ledger, func(m relay.Message) bool { return slices.Contains(m.To, to) })
		if i < 0 {
			return fmt.Errorf("%d messages, none of them", len(ledger))
		}
		found = ledger[i]
		return nil
	})
	return found
}

// fromNpm returns a directory with the package of a name, which npm fetches once, and with a script; testdata has the script and the versions.
func fromNpm(t *testing.T, pkg, script string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "mailweir-interop", pkg)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh := true // is what is installed what is wanted?
	for _, name := range []string{"package.json", "package-lock.json", script} {
		want, err := os.ReadFile(filepath.Join("testdata", pkg, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, name)); err == nil && bytes.Equal(got, want) {
			continue
		}
		fresh = fresh && name == script
		if err := os.WriteFile(filepath.Join(dir, name), want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", pkg)); err == nil && fresh {
		return dir
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Fatal("npm is not installed: apt-get install npm")
	}
	if _, err := rig.Command(fetchLimit, "npm", "ci", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestPostfixsOwnLoadGeneratorLosesNothing: 500 messages, 50 at a time, each with a recipient and a connection of its own.
func TestPostfixsOwnLoadGeneratorLosesNothing(t *testing.T) {
	const messages = 500
	p := newPostfix(t, 20)
	m := newMailweir(t, p.Address)
	if _, err := rig.Command(arrivalLimit, "smtp-source", "-s", "50", "-m", fmt.Sprint(messages), "-N", "-l", "2000",
		"-f", sender, "-t", "load@interop.example", "inet:"+m.Address); err != nil {
		t.Fatal(err)
	}
	s := m.AwaitStatus(t, arrivalLimit, "delivery", func(s admin.Status) bool { return s.Queue.Delivered == messages })
	if s.Queue.Accepted != messages || s.Queue.DuplicatesPossible != 0 {
		t.Errorf("%+v", s.Queue)
	}
	rig.Await(t, arrivalLimit, "arrival", func() error {
		to := map[string]int{}
		for _, m := range p.sink.Ledger() {
			to[strings.Join(m.To, " ")]++
		}
		for recipient, n := range to {
			if n > 1 {
				t.Fatalf("%s has %d", recipient, n)
			}
		}
		if len(to) != messages {
			return fmt.Errorf("%d of %d recipients", len(to), messages)
		}
		return nil
	})
}
