//go:build crash

package crash

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A role is what this test binary does in a process of its own, so that it can be stopped and killed while the test looks on. It
// tells what it does by lines on its standard output, each of one write: what was said before the kill is heard.
var roles = map[string]func(dir string, say func(format string, args ...any)) error{
	"spool":   playSpool,
	"journal": playJournal,
}

const (
	roleVariable      = "CRASH_ROLE"
	directoryVariable = "CRASH_DIRECTORY"
)

// playRole returns an exit code.
func playRole(name string) int {
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	if err := roles[name](os.Getenv(directoryVariable), say); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", name, err)
		return 1
	}
	return 0
}

// actor is one process after another that plays a role.
type actor struct {
	child
	role  string
	first chan struct{} // closed at the first line that begins as was asked for, and at the end
	said  chan []string // all lines, when the process is over
}

func newActor(t *testing.T, role string) *actor {
	t.Helper()
	a := &actor{child: child{log: filepath.Join(scratch(t), "log")}, role: role}
	t.Cleanup(func() {
		if a.process != nil {
			a.kill(t)
		}
		a.judgeLog(t)
	})
	return a
}

// play starts the next process. settings are NAME=value.
func (a *actor) play(t *testing.T, dir, first string, settings ...string) {
	t.Helper()
	log, err := os.OpenFile(a.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), roleVariable+"="+a.role, directoryVariable+"="+dir), settings...)
	cmd.Stdout, cmd.Stderr = write, log
	a.begin(t, cmd)
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	a.first, a.said = make(chan struct{}), make(chan []string, 1)
	go listen(read, first, a.first, a.said)
}

// listen ends with the process, which alone writes to the pipe; actor.lines receives its result.
func listen(from *os.File, wanted string, first chan<- struct{}, said chan<- []string) {
	defer from.Close()
	var all []string
	waiting := true
	for in := bufio.NewScanner(from); in.Scan(); {
		all = append(all, in.Text())
		if waiting && strings.HasPrefix(in.Text(), wanted) {
			waiting = false
			close(first)
		}
	}
	if waiting {
		close(first)
	}
	said <- all
}

// hear waits for the first line that begins as was asked for. A process that ends before is for lines to judge.
func (a *actor) hear(t *testing.T) {
	t.Helper()
	select {
	case <-a.first:
	case <-time.After(startLimit):
		t.Fatalf("%s says nothing of the kind within %v", a.process.Path, startLimit)
	}
}

// lines returns what the process said, once it is over.
func (a *actor) lines() []string { return <-a.said }
