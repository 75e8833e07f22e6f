//go:build postfix

package interop

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/rig"
)

// server is one that other people wrote, with what it is known to do to a message.
type server struct {
	name  string
	start func(t *testing.T) (address string, taken func(t *testing.T) []arrival)
	lines int  // octets of the longest line that it takes, CRLF included
	lf    bool // it hands messages on with LF for CRLF
}

// arrival is a message as it came to one recipient, from its X-Id field on.
type arrival struct {
	to      string
	content string
}

var servers = []server{
	{name: "Postfix", start: startPostfix, lines: 998}, // it breaks longer ones
	{name: "Exim", start: startExim, lines: 1 << 20},
	{name: "OpenSMTPD", start: startOpenSMTPD, lines: 1 << 20, lf: true},
	{name: "sendmail", start: startSendmail, lines: 1 << 20},
	{name: "chasquid", start: startChasquid, lines: 1 << 20, lf: true},
	{name: "aiosmtpd", start: startAiosmtpd, lines: 1000}, // more than RFC 5321 section 4.5.3.1.6 allows is refused
	{name: "Haraka", start: startHaraka, lines: 1 << 20},
}

const (
	serverLimit = 20 * time.Second // for its greeting
	nobody      = 65534            // user and group
	mailUser    = 8                // Debian's, also of its group
)

func startPostfix(t *testing.T) (string, func(t *testing.T) []arrival) {
	p := newPostfix(t, stormLimit)
	return p.Address, inSink(p.sink)
}

// inSink are the arrivals at a relay of ours behind the server.
func inSink(sink *relay.Relay) func(t *testing.T) []arrival {
	return func(t *testing.T) []arrival {
		var all []arrival
		for _, m := range sink.Ledger() {
			for _, to := range m.To {
				all = append(all, arrival{to, fromID(t, m.Body)})
			}
		}
		return all
	}
}

// inDirectory are the arrivals that a server wrote, one a file: a line with the recipient, then the message.
func inDirectory(dir string) func(t *testing.T) []arrival {
	return func(t *testing.T) []arrival {
		files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
		if err != nil {
			t.Fatal(err)
		}
		var all []arrival
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			to, message, _ := bytes.Cut(text, []byte("\n"))
			all = append(all, arrival{string(to), fromID(t, message)})
		}
		return all
	}
}

func fromID(t *testing.T, message []byte) string {
	t.Helper()
	i := bytes.Index(message, []byte("X-Id: "))
	if i < 0 {
		t.Fatalf("no X-Id in %.300q", message)
	}
	return string(message[i:])
}

// serve starts a server that stays in the foreground, and ends it, its children too, with the test. user 0 is root.
func serve(t *testing.T, user uint32, environ []string, name string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(scratch(t), "log"))
	if err != nil {
		t.Fatal(err)
	}
	// What is started below is alone in a namespace of processes, and ends with the first of them. That is a shell which stays root: the wish
	// to die with one's parent is lost by whoever changes his user.
	cmd := exec.Command("unshare", append([]string{"--mount", "--pid", "--fork", "--kill-child", "sh", "-c", `setpriv "$@"; exit $?`, "sh",
		fmt.Sprintf("--reuid=%d", user), fmt.Sprintf("--regid=%d", user), "--clear-groups", name}, args...)...)
	cmd.Env = append(os.Environ(), environ...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = cmd.Wait() // that it was killed is known
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		if said, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("%s:\n%s", name, said[max(0, len(said)-4096):])
		}
	})
}

// own makes directories that belong to a user.
func own(t *testing.T, user int, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d, user, user); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, mode os.FileMode, path, format string, args ...any) {
	t.Helper()
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), mode); err != nil {
		t.Fatal(err)
	}
}

func port(t *testing.T, address string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// offers are the keywords of a server's EHLO reply.
func offers(t *testing.T, address string) []string {
	t.Helper()
	var keywords []string
	rig.Await(t, serverLimit, "greeting", func() error {
		c, err := dialSMTP(address)
		if err != nil {
			return err
		}
		defer c.Close()
		_, text, err := c.cmd(250, "EHLO client.example")
		for l := range strings.Lines(text) {
			word, _, _ := strings.Cut(strings.TrimSpace(l), " ")
			keywords = append(keywords, word)
		}
		return err
	})
	return slices.Compact(keywords)
}

// Exim runs as root, in a name space in which its user exists, and sends on to a sink.
func startExim(t *testing.T) (string, func(t *testing.T) []arrival) {
	pkg := unpacked(t, "exim4-daemon-light")
	sink, sinkAddress := newSink(t)
	dir, address := scratch(t), rig.FreeAddress(t)
	own(t, mailUser, filepath.Join(dir, "spool"), filepath.Join(dir, "log"))
	exim := filepath.Join(pkg, "usr/sbin/exim4")
	write(t, 0o644, filepath.Join(dir, "conf"), eximConf, exim, dir, port(t, address), port(t, sinkAddress))
	users(t, dir, "Debian-exim:x:8:8::/nonexistent:/usr/sbin/nologin\n", "Debian-exim:x:8:\n")
	serve(t, 0, nil, "sh", "-c", asUsers+`exec "$2" -C "$1/conf" -bdf -q1m`, "sh", dir, exim)
	return address, inSink(sink)
}

// users writes the machine's users and groups to dir, and more of them. asUsers, for a server's shell, gives it these.
func users(t *testing.T, dir, passwd, group string) {
	t.Helper()
	for file, more := range map[string]string{"passwd": passwd, "group": group} {
		text, err := os.ReadFile("/etc/" + file)
		if err != nil {
			t.Fatal(err)
		}
		write(t, 0o644, filepath.Join(dir, file), "%s%s", text, more)
	}
}

const asUsers = `set -e
for f in passwd group; do mount --bind "$1/$f" /etc/$f; done
`

const eximConf = `
exim_path = %[1]s
keep_environment =
exim_user = mail
exim_group = mail
spool_directory = %[2]s/spool
log_file_path = %[2]s/log/%%slog
primary_hostname = exim.example
daemon_smtp_ports = %[3]s
local_interfaces = 127.0.0.1
disable_ipv6 = true
host_lookup =
tls_advertise_hosts =
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
smtp_accept_max = 100
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin routers
out:
  driver = manualroute
  transport = out
  route_list = * 127.0.0.1 byname
  self = send
begin transports
out:
  driver = smtp
  port = %[4]s
  allow_localhost
  hosts_avoid_tls = *
  message_linelength_limit = 2000000
begin retry
* * F,1h,1s
`

// chasquid delivers to a command, for each of its users.
func startChasquid(t *testing.T) (string, func(t *testing.T) []arrival) {
	pkg := unpacked(t, "chasquid")
	dir, address := scratch(t), rig.FreeAddress(t)
	domain, mail, data, certs := filepath.Join(dir, "conf/domains/interop.example"), filepath.Join(dir, "mail"), filepath.Join(dir, "data"), filepath.Join(dir, "conf/certs/c")
	own(t, nobody, domain, mail, data, certs)
	write(t, 0o644, filepath.Join(dir, "conf/chasquid.conf"), `
hostname: "chasquid.example"
max_data_size_mb: 50
smtp_address: "%s"
data_dir: "%s"
mail_delivery_agent_bin: "/bin/false"
mail_log_path: "<stderr>"
`, address, data)
	write(t, 0o755, filepath.Join(dir, "deliver"), deliverSh, mail)
	var aliases strings.Builder
	for i := range recipientsMost {
		fmt.Fprintf(&aliases, "u%d: | %s/deliver u%d@interop.example\n", i, dir, i)
	}
	write(t, 0o644, filepath.Join(domain, "aliases"), "%s", aliases.String())
	if _, err := rig.Command(serverLimit, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
		"-subj", "/CN=chasquid.example", "-addext", "subjectAltName=DNS:chasquid.example",
		"-keyout", filepath.Join(certs, "privkey.pem"), "-out", filepath.Join(certs, "fullchain.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(certs, "privkey.pem"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	serve(t, nobody, nil, filepath.Join(pkg, "usr/bin/chasquid"), "-config_dir="+filepath.Join(dir, "conf"))
	return address, inDirectory(mail)
}

const deliverSh = `#!/bin/sh
set -e
file=$(mktemp %s/XXXXXXXXXXXX)
{ printf '%%s\n' "$1"; cat; } >"$file"
mv "$file" "$file.eml"
`

func startAiosmtpd(t *testing.T) (string, func(t *testing.T) []arrival) {
	pkg := unpacked(t, "python3-aiosmtpd", "python3-attr", "python3-public")
	dir, address := scratch(t), rig.FreeAddress(t)
	mail := filepath.Join(dir, "mail")
	own(t, nobody, mail)
	text, err := os.ReadFile("testdata/aiosmtpd.py")
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "serve.py")
	write(t, 0o644, script, "%s", text)
	serve(t, nobody, []string{"PYTHONPATH=" + filepath.Join(pkg, "usr/lib/python3/dist-packages")}, "/usr/bin/python3", script, port(t, address), mail)
	return address, inDirectory(mail)
}
