//go:build crash

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// child is one process after another, to be stopped and killed.
type child struct {
	log     string    // path; all processes append to it
	process *exec.Cmd // nil: none runs
	exited  chan error
	leaving bool // it was asked to end and may have, between any two steps
}

const (
	exitLimit = 45 * time.Second // longer than mailweir's usual drain
	stopLimit = 10 * time.Second // until all threads of a process are stopped
	logTail   = 4 << 10          // bytes of the log that a failed test shows

	mailLeft = 75 // exit code of a mailweir that was stopped before everything was delivered
)

// begin starts a process. It must not outlive a test that crashes.
func (c *child) begin(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	c.process, c.exited = cmd, exited
	go func() { exited <- cmd.Wait() }() // received by kill or wait, one of which ends every process
}

// pid is that of the process that runs.
func (c *child) pid() int { return c.process.Process.Pid }

func (c *child) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := c.process.Process.Signal(s); err != nil && !(c.leaving && errors.Is(err, os.ErrProcessDone)) {
		t.Errorf("%v to %s: %v", s, c.process.Path, err)
	}
}

// kill ends the process with SIGKILL: no code of its runs any more. One that has ended on its own is a fault.
func (c *child) kill(t *testing.T) {
	t.Helper()
	c.signal(t, syscall.SIGKILL)
	left := c.leaving
	end := c.wait(t, exitLimit)
	if left && (end == 0 || end == mailLeft) {
		return
	}
	if end != -int(syscall.SIGKILL) {
		t.Errorf("the process had ended with %d before it was killed\n%s", end, tail(c.log))
	}
}

// leave is SIGTERM without waiting.
func (c *child) leave(t *testing.T) {
	t.Helper()
	c.signal(t, syscall.SIGTERM)
	c.leaving = true
}

// terminate is SIGTERM and waiting; it returns the exit code.
func (c *child) terminate(t *testing.T) int {
	t.Helper()
	c.signal(t, syscall.SIGTERM)
	return c.wait(t, exitLimit)
}

// wait returns the exit code of the process, or the negative number of the signal that ended it.
func (c *child) wait(t *testing.T, limit time.Duration) int {
	t.Helper()
	select {
	case err := <-c.exited:
		process := c.process
		c.process, c.leaving = nil, false
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if end, ok := process.ProcessState.Sys().(syscall.WaitStatus); ok && end.Signaled() {
			return -int(end.Signal())
		}
		return process.ProcessState.ExitCode()
	case <-time.After(limit):
		t.Fatalf("the process still runs after %v", limit)
		return 0
	}
}

// freeze stops the process and returns when it does nothing any more: a system call that was under way has ended then.
func (c *child) freeze(t *testing.T) {
	t.Helper()
	c.signal(t, syscall.SIGSTOP)
	await(t, stopLimit, "all threads of the process to stop", func() error { return stopped(c.pid()) })
}

// stopped returns nil when every thread of a process is stopped, or over.
func stopped(pid int) error {
	tasks := filepath.Join("/proc", strconv.Itoa(pid), "task")
	threads, err := os.ReadDir(tasks)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, thread := range threads {
		text, err := os.ReadFile(filepath.Join(tasks, thread.Name(), "stat"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return err
		}
		// The name before the state is in parentheses and may hold anything.
		state := text[bytes.LastIndexByte(text, ')')+2]
		if !strings.ContainsRune("TtZX", rune(state)) {
			return fmt.Errorf("thread %s is in state %c", thread.Name(), state)
		}
	}
	return nil
}

// judgeLog fails the test if any process has panicked, and shows the log of a test that failed.
func (c *child) judgeLog(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(c.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, word := range []string{"panic", "fatal error"} {
		if at := bytes.Index(text, []byte(word)); at >= 0 {
			t.Errorf("the log knows of a %s: %.2000s", word, text[at:])
		}
	}
	if t.Failed() && len(text) > 0 {
		t.Logf("the end of the log:\n%s", tail(c.log))
	}
}

func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-logTail):])
}
