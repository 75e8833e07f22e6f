//go:build backlog

package backlog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mailweir/mailweir/proxy/admin"
)

const (
	startLimit = 2 * time.Minute
	askLimit   = 30 * time.Second
	poll       = 2 * time.Millisecond
	logTail    = 4 << 10 // bytes of its log that a failure shows
)

// process is the real binary on a journal, before a relay that is down.
type process struct {
	door  string
	probe string
	admin *admin.Client
	log   string
	cmd   *exec.Cmd
	took  time.Duration // from exec to ready
}

// start returns when the process is ready. It ends with the test, or by kill.
func start(t *testing.T, journalDir string, messages int) *process {
	t.Helper()
	dir := t.TempDir()
	ports := freeAddresses(t, 3)
	p := &process{door: ports[0], probe: ports[1], log: filepath.Join(dir, "log")}
	socket := "unix:" + filepath.Join(dir, "admin.sock")
	var err error
	if p.admin, err = admin.NewClient(socket); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(binary, "run")
	p.cmd.Env = []string{
		"MAILWEIR_HOSTNAME=weir.example", "MAILWEIR_LISTEN=" + p.door, "MAILWEIR_PROBE_LISTEN=" + p.probe, "MAILWEIR_ADMIN_LISTEN=" + socket,
		"MAILWEIR_UPSTREAM=smtp://" + ports[2], // where nobody listens
		"MAILWEIR_JOURNAL_DIR=" + journalDir, "MAILWEIR_JOURNAL_ALLOW_VOLATILE=true", "MAILWEIR_JOURNAL_MAX_BYTES=" + strconv.Itoa(journalBytes),
		"MAILWEIR_QUEUE_MAX_MESSAGES=" + strconv.Itoa(2*messages+1_000_000),
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it must not outlive a test that crashes
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.kill(t) })
	p.awaitReady(t)
	p.took = time.Since(began)
	return p
}

func (p *process) awaitReady(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	for {
		err := admin.Probe(ctx, p.probe, true)
		if err == nil {
			return
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			t.Fatalf("not ready: %v\n%s", err, p.tail())
		}
	}
}

// kill is what the kernel does when memory is short. A second one does nothing.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Errorf("kill mailweir: %v", err)
	}
	err := p.cmd.Wait()
	if end, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !end.Signaled() {
		t.Errorf("mailweir had ended before it was killed: %v\n%s", err, p.tail())
	}
}

// pending is how many messages it says are pending.
func (p *process) pending(t *testing.T) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askLimit)
	defer cancel()
	s, err := p.admin.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s.Queue.Pending
}

// memory returns a line of /proc/PID/status, in bytes. RssAnon is what a limit can kill for: pages of files can be dropped.
func (p *process) memory(t *testing.T, line string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		value, ok := strings.CutPrefix(l, line+":")
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n << 10
	}
	t.Fatalf("no %s in /proc/PID/status", line)
	return 0
}

// cpu returns the time that it has computed so far.
func (p *process) cpu(t *testing.T) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, behindName, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(behindName) // from the third of proc(5) on
	var ticks time.Duration
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * (time.Second / 100) // USER_HZ is 100 wherever Go runs
}

func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-logTail):])
}

// freeAddresses returns loopback addresses at which nobody listens.
func freeAddresses(t *testing.T, n int) (addrs []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all at the end: no port is given out twice
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}

// evict drops the files of a directory from the page cache, as after a restart of the machine. They must have been synced.
func evict(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}
