//go:build crash

package crash

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

var postfixCuts = flag.Int("postfix-cuts", 33, "power cuts of a Postfix, which must lose nothing either")

const (
	postfixStart  = 30 * time.Second
	postfixDrain  = 60 * time.Second
	postfixMoment = 200 * time.Millisecond
)

// postfix is an instance of its own whose queue is on a volume. Its configuration and its log are not.
type postfix struct {
	child
	dir     string // etc and log
	queue   string
	address string
}

const postfixMain = `
compatibility_level = 3.6
queue_directory = %[1]s
data_directory = %[2]s/data
maillog_file = %[2]s/log
maillog_file_prefixes = %[2]s
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
relayhost = [127.0.0.1]:%[3]s
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_connection_count_limit = 0
local_header_rewrite_clients =
append_dot_mydomain = no
# Everything waits in the queue until this is taken out.
defer_transports = smtp
minimal_backoff_time = 1s
queue_run_delay = 1s
`

const postfixMaster = ` inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
retry unix - - n - - error
showq unix n - n - - showq
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`

func newPostfix(t *testing.T, volume, sink string) *postfix {
	t.Helper()
	dir := scratch(t)
	p := &postfix{child: child{log: filepath.Join(dir, "log")}, dir: dir, queue: filepath.Join(volume, "queue"), address: freeAddress(t)}
	_, port, _ := strings.Cut(sink, ":")
	for _, sub := range []string{filepath.Join(dir, "etc"), p.queue} {
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"main.cf":   fmt.Sprintf(postfixMain, p.queue, dir, port),
		"master.cf": p.address + postfixMaster,
	} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What finds the remains of a crash at the start writes that to the log before the daemon for it runs, as Postfix's own user.
	if err := errors.Join(os.WriteFile(p.log, nil, 0o666), os.Chmod(p.log, 0o666)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.process != nil {
			p.end(t)
		}
		if t.Failed() {
			t.Logf("the end of Postfix's log:\n%s\nand what its commands said:\n%s", tail(p.log), tail(filepath.Join(p.dir, "said")))
		}
	})
	return p
}

// start runs the master in the foreground, so that it ends with this process.
func (p *postfix) start(t *testing.T) {
	t.Helper()
	said, err := os.OpenFile(filepath.Join(p.dir, "said"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command("postfix", "-c", filepath.Join(p.dir, "etc"), "start-fg")
	cmd.Stdout, cmd.Stderr = said, said
	p.begin(t, cmd)
	await(t, postfixStart, "Postfix's greeting", func() error { return greets(p.address) })
}

// processes are those that work in the queue: the master and everything it started.
func (p *postfix) processes() (pids []int, err error) {
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		cwd, err := os.Readlink(link)
		if err != nil || cwd != p.queue && !strings.HasPrefix(cwd, p.queue+"/") {
			continue // an error: that process has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// freezeAll returns when no process of the instance runs any more. One that was being started when its parent stopped is found by
// looking again until nothing has changed.
func (p *postfix) freezeAll(t *testing.T) {
	t.Helper()
	var before []int
	await(t, stopLimit, "Postfix to stop", func() error {
		pids, err := p.processes()
		if err != nil || len(pids) == 0 {
			t.Fatalf("%d processes of Postfix: %v", len(pids), err)
		}
		var running []error
		for _, pid := range pids {
			if err := stopped(pid); err != nil {
				running = append(running, err, gone(syscall.Kill(pid, syscall.SIGSTOP)))
			}
		}
		if len(running) == 0 && !slices.Equal(pids, before) {
			running = append(running, errors.New("looking again"))
		}
		before = pids
		return errors.Join(running...)
	})
}

// gone is nil for a process that has ended meanwhile.
func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// end kills all processes and returns when there are none.
func (p *postfix) end(t *testing.T) {
	t.Helper()
	await(t, stopLimit, "Postfix to end", func() error {
		pids, err := p.processes()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := gone(syscall.Kill(pid, syscall.SIGKILL)); err != nil {
				return err
			}
		}
		return fmt.Errorf("%d processes are left", len(pids))
	})
	p.wait(t, exitLimit)
}

// queued lists the files of the queue, for who wonders what became of a message.
func (p *postfix) queued(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, name := range []string{"maildrop", "incoming", "active", "deferred", "corrupt", "hold"} {
		err := filepath.WalkDir(filepath.Join(p.queue, name), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			_, id, _ := strings.Cut(string(text), "X-Id: ")
			info, _ := d.Info()
			fmt.Fprintf(&out, "%s %v %d octets, id %.20q, %v\n", path, info.Mode(), len(text), id, err)
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	return out.String()
}

// TestPostfixLosesNothingEither shows that the cut is fair: Postfix is known to sync what it acknowledges.
func TestPostfixLosesNothingEither(t *testing.T) {
	if _, err := exec.LookPath("postfix"); err != nil {
		t.Fatalf("Postfix is not installed: %v", err)
	}
	v := newVolume(t, volumeBytes)
	random := newRandom(t)
	s := newSink(t, relay.Config{})
	p := newPostfix(t, v.dir, s.address)
	b := &book{sinks: []*sink{s}}
	began := time.Now()
	p.start(t)
	v.sync(t) // the empty queue is not what is tested
	for i := range *postfixCuts {
		if i > 0 {
			p.start(t)
		}
		l := sendBeside(t, source.Config{
			Address: p.address, Name: fmt.Sprintf("storm%d", i), Messages: 500,
			Connections: 1 + random.IntN(20), Reuse: i%2 == 0, Size: 1000 + random.IntN(5000),
		})
		<-l.first
		<-time.After(time.Duration(random.Int64N(int64(postfixMoment))))
		p.freezeAll(t)
		down := time.Now()
		v.powerOff(t)
		p.end(t)
		b.add(l.stop())
		v.powerOn(t)
		b.crashed(down, time.Now())
	}
	if out, err := exec.Command("postconf", "-c", filepath.Join(p.dir, "etc"), "-e", "defer_transports=").CombinedOutput(); err != nil {
		t.Fatalf("postconf: %v\n%s", err, out)
	}
	p.start(t)
	if out, err := exec.Command("postqueue", "-c", filepath.Join(p.dir, "etc"), "-f").CombinedOutput(); err != nil {
		t.Fatalf("postqueue: %v\n%s", err, out)
	}
	a := b.settle(t, postfixDrain)
	if len(a.Lost) > 0 {
		t.Logf("what the queue still has:\n%s", p.queued(t))
	}
	p.end(t)
	v.fsck(t)
	t.Logf("%d cuts, %d acknowledged, %d lost, %d twice, %.1f s", *postfixCuts, a.Acknowledged,
		len(a.Lost)+len(a.Altered), len(a.Duplicated), time.Since(began).Seconds())
	if a.Acknowledged < 5**postfixCuts {
		t.Errorf("only %d messages were acknowledged before %d cuts: little was tested", a.Acknowledged, *postfixCuts)
	}
}
