//go:build linux

package rig

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

// Weir is one process of the real binary after another, on the same journal and the same port.
type Weir struct {
	Address string // host:port of its front door
	Log     string // path

	binary  string // path
	environ []string
	admin   *admin.Client
	process *exec.Cmd // nil: none runs
	exited  chan error
}

const (
	startLimit = 15 * time.Second
	exitLimit  = 45 * time.Second // longer than the usual drain
	askLimit   = 5 * time.Second
)

// NewWeir describes a process in front of upstream, a host:port, that keeps what it needs in dir; Start starts it. settings
// are NAME=value and win over those that make it fit for a test.
func NewWeir(t testing.TB, binary, dir, upstream string, settings ...string) *Weir {
	t.Helper()
	w := &Weir{binary: binary, Address: FreeAddress(t), Log: filepath.Join(dir, "log")}
	socket := "unix:" + filepath.Join(dir, "admin.sock")
	var err error
	if w.admin, err = admin.NewClient(socket); err != nil {
		t.Fatal(err)
	}
	w.environ = []string{
		"MAILWEIR_HOSTNAME=mailweir.example",
		"MAILWEIR_UPSTREAM=smtp://" + upstream,
		"MAILWEIR_LISTEN=" + w.Address,
		"MAILWEIR_PROBE_LISTEN=off",
		"MAILWEIR_ADMIN_LISTEN=" + socket,
		"MAILWEIR_JOURNAL_DIR=" + filepath.Join(dir, "journal"),
	}
	w.Set(settings...)
	t.Cleanup(func() {
		if w.process != nil {
			w.Kill(t)
		}
		if said := tail(w.Log); t.Failed() && said != "" {
			t.Logf("mailweir:\n%s", said)
		}
	})
	return w
}

// Set adds settings for the starts to come. exec takes the last of two of the same name.
func (w *Weir) Set(settings ...string) { w.environ = append(w.environ, settings...) }

// Start returns when the front door greets.
func (w *Weir) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(w.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(w.binary, "run")
	cmd.Env, cmd.Stdout, cmd.Stderr = slices.Clone(w.environ), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it must not outlive a test that crashes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.process, w.exited = cmd, make(chan error, 1)
	exited := w.exited
	go func() { exited <- cmd.Wait() }() // received by Kill or Terminate, one of which ends every process
	Await(t, startLimit, "mailweir's greeting", func() error { return greets(w.Address) })
}

// Kill is what the kernel does when memory is short: no code of mailweir's runs any more. One that has ended on its own
// is a fault.
func (w *Weir) Kill(t testing.TB) {
	t.Helper()
	if err := w.process.Process.Kill(); err != nil {
		t.Errorf("kill mailweir: %v", err)
	}
	err := <-w.exited
	end, ok := w.process.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !end.Signaled() || end.Signal() != syscall.SIGKILL {
		t.Errorf("mailweir had ended before it was killed: %v", err)
	}
	w.process = nil
}

// Terminate is what Kubernetes does; it returns the exit code.
func (w *Weir) Terminate(t testing.TB) int {
	t.Helper()
	if err := w.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-w.exited:
		code := w.process.ProcessState.ExitCode()
		w.process = nil
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return code
	case <-time.After(exitLimit):
		t.Fatalf("mailweir still runs %v after SIGTERM", exitLimit)
		return 0
	}
}

// Status asks the running process.
func (w *Weir) Status(t testing.TB) admin.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askLimit)
	defer cancel()
	s, err := w.admin.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// AwaitStatus waits until a condition of the status holds.
func (w *Weir) AwaitStatus(t testing.TB, limit time.Duration, what string, holds func(admin.Status) bool) admin.Status {
	t.Helper()
	var s admin.Status
	Await(t, limit, what, func() error {
		if s = w.Status(t); !holds(s) {
			return fmt.Errorf("queue %+v, upstream %+v", s.Queue, s.Upstream)
		}
		return nil
	})
	return s
}
