//go:build crash

package crash

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tracer is one strace on a process that runs.
type tracer struct {
	cmd    *exec.Cmd
	out    string // path of what it saw
	exited chan error
}

const (
	traceLimit  = 10 * time.Second
	detachLimit = 500 * time.Millisecond
)

// diskCalls are the system calls of the journal, but for close and what only looks (statfs, fstat).
const diskCalls = "openat,flock,getdents64,pread64,pwrite64,fallocate,ftruncate,fdatasync,fsync,renameat,unlinkat"

// trace attaches to a process and returns when all its threads are traced. paths, if there are any, are the only files whose calls
// are seen, and count. expressions are those of strace -e. Each thread has
// counters of its own, from now on, for what an expression says about "when".
func trace(t *testing.T, pid int, paths []string, expressions ...string) *tracer {
	t.Helper()
	s := &tracer{out: filepath.Join(scratch(t), "trace"), exited: make(chan error, 1)}
	args := []string{"-f", "-y", "-o", s.out, "-p", strconv.Itoa(pid)}
	for _, p := range paths {
		args = append(args, "-P", p)
	}
	for _, e := range expressions {
		args = append(args, "-e", e)
	}
	s.cmd = exec.Command("strace", args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make(chan string, 1)
	go func() { // received by detach, which every tracer ends with
		lines := bufio.NewReader(said)
		line, err := lines.ReadString('\n')
		first <- line
		if err == nil {
			_, err = io.Copy(io.Discard, lines) // one line for each new thread
		}
		if err == io.EOF {
			err = nil
		}
		s.exited <- errors.Join(err, s.cmd.Wait())
	}()
	t.Cleanup(func() { s.detach(t) })
	select {
	case line := <-first:
		if !strings.Contains(line, "attached") {
			t.Fatalf("strace does not attach: %s", line)
		}
	case <-time.After(traceLimit):
		t.Fatal("strace does not attach")
	}
	return s
}

// detach lets the process run on as if nothing had been. It may be called again, and after the end of the process.
func (s *tracer) detach(t *testing.T) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	// Gone already, if what it traced is.
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	select {
	case <-s.exited: // with the end of what it traced, whatever that was
	case <-time.After(detachLimit):
		// It waits for the first thread of a process that was just killed, and that one for the others, whose end nobody but the
		// tracer is told. Its own end frees them all.
		if err := s.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-s.exited
	}
	s.cmd = nil
}

// seen returns what was traced, once the process or detach has ended it.
func (s *tracer) seen(t *testing.T) []call {
	t.Helper()
	return parseTrace(string(s.text(t)))
}

func (s *tracer) text(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(s.out)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// call is one entry into the kernel.
type call struct {
	thread string
	name   string
	path   string // of the file it is about, the first of two; "": of none
	cut    bool   // it has no result: the process ended in it
}

var (
	traceLine = regexp.MustCompile(`^(\d+)\s+(\w+)\((.*)$`)
	tracePath = regexp.MustCompile(`^(?:AT_FDCWD<[^>]*>, )?(?:\d+<([^>]*)>|"([^"]*)")`)
)

// parseTrace reads the output of strace -f -y. What was going on when it came is left out.
func parseTrace(text string) []call {
	var calls []call
	open := map[string]int{} // by thread, the call whose result is a line of its own
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if thread, rest, _ := strings.Cut(line, " "); strings.HasPrefix(strings.TrimLeft(rest, " "), "<... ") {
			if i, ok := open[thread]; ok {
				calls[i].cut = strings.HasSuffix(line, "= ?")
			}
			continue
		}
		m := traceLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		c := call{thread: m[1], name: m[2]}
		if p := tracePath.FindStringSubmatch(m[3]); p != nil {
			c.path = p[1] + p[2]
		}
		unfinished := strings.HasSuffix(line, "<unfinished ...>")
		c.cut = unfinished || strings.HasSuffix(line, "= ?")
		delete(open, c.thread)
		if unfinished {
			open[c.thread] = len(calls)
		}
		calls = append(calls, c)
	}
	return calls
}

// launchStopped starts the process and stops it before its first instruction, so that a tracer misses nothing; SIGCONT
// has it begin.
func (w *weir) launchStopped(t *testing.T) {
	t.Helper()
	prepare := w.prepare
	w.prepare = func(c *exec.Cmd) {
		if prepare != nil {
			prepare(c)
		}
		c.Path, c.Args = "/bin/sh", append([]string{"sh", "-c", `kill -STOP $$; exec "$0" "$@"`}, c.Args...)
	}
	w.launch(t)
	w.prepare = prepare
	await(t, stopLimit, "the new process to stop", func() error { return stopped(w.pid()) })
}

// newFiles is how many segments a stage makes at most.
const newFiles = 8

// ownFiles are the files of the journal that there are and the segments that are next: of one kind as in site, or all for "".
func (r *rig) ownFiles(t *testing.T, kind string) (list []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(r.w.journal, "*"))
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, p := range paths {
		if n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(p), ".seg")); err == nil {
			last = max(last, n)
		}
	}
	for n := range newFiles {
		name := filepath.Join(r.w.journal, fmt.Sprintf("%08d.seg", last+1+n))
		paths = append(paths, name, name+".tmp")
	}
	for _, p := range append(paths, filepath.Join(r.w.journal, "lock"), r.w.journal) {
		s, ok := siteOf(starting, r.w.journal, call{path: p})
		if ok && (kind == "" || s.file == kind) && !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

func TestTracesAreRead(t *testing.T) {
	got := parseTrace(`12 openat(AT_FDCWD</x>, "/j/00000001.seg.tmp", O_RDWR|O_CREAT, 0600) = 5</j/00000001.seg.tmp>
12 pwrite64(5</j/00000001.seg>, "ab\") = \"..., 10, 0) = 10
13 fdatasync(6</j/a.body> <unfinished ...>
12 renameat(AT_FDCWD</x>, "/j/00000001.seg.tmp", AT_FDCWD</x>, "/j/00000001.seg" <unfinished ...>
13 <... fdatasync resumed>)          = 0
12 --- SIGTERM {si_signo=SIGTERM} ---
14 flock(5</j/lock>, LOCK_EX|LOCK_NB) = ?
12 <... renameat resumed>)           = ?
12 +++ killed by SIGKILL +++
`)
	want := []call{
		{"12", "openat", "/j/00000001.seg.tmp", false},
		{"12", "pwrite64", "/j/00000001.seg", false},
		{"13", "fdatasync", "/j/a.body", false},
		{"12", "renameat", "/j/00000001.seg.tmp", true},
		{"14", "flock", "/j/lock", true},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
