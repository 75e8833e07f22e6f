//go:build linux

package rig

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const eximLimit = 15 * time.Second

// Exim is a daemon with its own directories and a port on loopback. What it takes stays in its queue.
type Exim struct {
	Address string // host:port
}

const eximConf = `
exim_user = root
exim_group = root
never_users =
primary_hostname = exim.example
spool_directory = %[1]s/spool
log_file_path = %[1]s/log-%%s
pid_file_path = %[1]s/pid
local_interfaces = <; 127.0.0.1.%[2]s
disable_ipv6
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
smtp_accept_max = 100
queue_only
acl_smtp_mail = all
acl_smtp_rcpt = all
acl_smtp_data = all
%[3]s

begin acl
all:
  accept

begin routers
drop:
  driver = redirect
  data = :blackhole:
`

// eximStart gives Debian's Exim the user that its package would have made, in a mount namespace of its own: the machine keeps its users.
const eximStart = `set -e
for f in passwd group; do cp /etc/$f "$1/$f"; grep -q ^Debian-exim: /etc/$f || echo Debian-exim:x:64999:64999::/: >>"$1/$f"; mount --bind "$1/$f" /etc/$f; done
exec "$2" -C "$3" -bdf`

// NewExim starts binary in dir, which must be empty. options are lines of the main part of its configuration.
func NewExim(t testing.TB, binary, dir string, options ...string) *Exim {
	t.Helper()
	e := &Exim{Address: FreeAddress(t)}
	_, port, err := net.SplitHostPort(e.Address)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "spool"), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, eximConf, dir, port, strings.Join(options, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", eximStart, "sh", dir, binary, conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Exim:\n%s%s", tail(log.Name()), tail(filepath.Join(dir, "log-main")))
		}
		_ = cmd.Process.Kill() // one that has ended already is told by the greeting that does not come
		_ = cmd.Wait()
		_ = log.Close() // written by Exim alone
	})
	Await(t, eximLimit, "Exim's greeting", func() error { return greets(e.Address) })
	return e
}
