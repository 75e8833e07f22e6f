//go:build postfix

package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/proxy/admin"
)

// mailweir is one process of the real binary after another, on the same journal and the same port.
type mailweir struct {
	address string // host:port of its front door
	journal string
	log     string // path
	environ []string
	probe   string
	admin   *admin.Client

	process *exec.Cmd // nil: none runs
	exited  chan error
}

const (
	startLimit = 15 * time.Second
	exitLimit  = 45 * time.Second // longer than the usual drain
	askLimit   = 5 * time.Second
)

// newMailweir starts one in front of upstream. settings are NAME=value and win over those that make it fit for a test.
func newMailweir(t *testing.T, upstream, journal string, settings ...string) *mailweir {
	t.Helper()
	dir := scratch(t)
	m := &mailweir{address: freeAddress(t), probe: freeAddress(t), journal: journal, log: filepath.Join(dir, "log")}
	if m.journal == "" {
		m.journal = filepath.Join(dir, "journal")
	}
	socket := "unix:" + filepath.Join(dir, "admin.sock")
	var err error
	if m.admin, err = admin.NewClient(socket); err != nil {
		t.Fatal(err)
	}
	m.environ = []string{
		"MAILWEIR_HOSTNAME=mailweir.example",
		"MAILWEIR_UPSTREAM=smtp://" + upstream,
		"MAILWEIR_LISTEN=" + m.address,
		"MAILWEIR_PROBE_LISTEN=" + m.probe,
		"MAILWEIR_ADMIN_LISTEN=" + socket,
		"MAILWEIR_JOURNAL_DIR=" + m.journal,
		"MAILWEIR_LOG_ADDRESSES=plain",
		// What takes minutes in service takes seconds here.
		"MAILWEIR_TIME_SCALE=0.1",
		"MAILWEIR_RETRY_MIN=200ms",
		"MAILWEIR_RETRY_MAX=2s",
		"MAILWEIR_RECIPIENT_RETRY_MIN=500ms",
		"MAILWEIR_RECIPIENT_RETRY_MAX=2s",
	}
	m.set(settings...)
	t.Cleanup(func() {
		if m.process != nil {
			m.kill(t)
		}
		if t.Failed() {
			t.Logf("mailweir:\n%s", tail(m.log))
		}
	})
	m.start(t)
	return m
}

// set adds settings for the starts to come. exec takes the last of two of the same name.
func (m *mailweir) set(settings ...string) { m.environ = append(m.environ, settings...) }

// start returns when the process is ready.
func (m *mailweir) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "run")
	cmd.Env, cmd.Stdout, cmd.Stderr = slices.Clone(m.environ), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it must not outlive a test that crashes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.process, m.exited = cmd, make(chan error, 1)
	exited := m.exited
	go func() { exited <- cmd.Wait() }() // received by kill or terminate, one of which ends every process
	await(t, startLimit, "mailweir's readiness", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), askLimit)
		defer cancel()
		return admin.Probe(ctx, m.probe, true)
	})
}

// kill is what the kernel does when memory is short: no code of mailweir's runs any more. One that has ended on its own
// is a fault.
func (m *mailweir) kill(t *testing.T) {
	t.Helper()
	if err := m.process.Process.Kill(); err != nil {
		t.Errorf("kill mailweir: %v", err)
	}
	err := <-m.exited
	end, ok := m.process.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !end.Signaled() || end.Signal() != syscall.SIGKILL {
		t.Errorf("mailweir had ended before it was killed: %v", err)
	}
	m.process = nil
}

// terminate is what Kubernetes does; it returns the exit code.
func (m *mailweir) terminate(t *testing.T) int {
	t.Helper()
	if err := m.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-m.exited:
		code := m.process.ProcessState.ExitCode()
		m.process = nil
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return code
	case <-time.After(exitLimit):
		t.Fatalf("mailweir still runs %v after SIGTERM", exitLimit)
		return 0
	}
}

func (m *mailweir) status(t *testing.T) admin.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askLimit)
	defer cancel()
	s, err := m.admin.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// awaitStatus waits until a condition of the status holds.
func (m *mailweir) awaitStatus(t *testing.T, limit time.Duration, what string, holds func(admin.Status) bool) admin.Status {
	t.Helper()
	var s admin.Status
	await(t, limit, what, func() error {
		if s = m.status(t); !holds(s) {
			return fmt.Errorf("queue %+v, upstream %+v", s.Queue, s.Upstream)
		}
		return nil
	})
	return s
}

// awaitEmpty waits until nothing is pending, and holds the books to their sum.
func (m *mailweir) awaitEmpty(t *testing.T) admin.Status {
	t.Helper()
	s := m.awaitStatus(t, arrivalLimit, "an empty queue", func(s admin.Status) bool { return s.Queue.Pending == 0 })
	if q := s.Queue; q.Accepted+q.Recovered != q.Delivered || q.Dead != 0 || q.DeadRetained != 0 {
		t.Errorf("not everything was delivered: %+v", q)
	}
	return s
}
