//go:build crash

package crash

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// room is the directory of this run, removed when it is over; mailweirBinary in it is the mailweir under test.
var (
	room           string
	mailweirBinary string
)

// roomVariable tells a test process that it runs in the mount name space made for it, and where its room is.
const roomVariable = "CRASH_ROOM"

// roomBase is where rooms are made: in memory, since what a power cut loses is decided by the file system on the loop device and
// not by what lies below its image.
var roomBase = flag.String("room", "/dev/shm", "directory in which file system images and logs are kept during the run")

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(playRole(role))
	}
	flag.Parse()
	room = os.Getenv(roomVariable)
	if room == "" {
		os.Exit(outside())
	}
	os.Exit(inside(m))
}

// outside runs this binary again in a mount name space of its own and tidies up after it, also when a time limit ended it.
func outside() (code int) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "crash: these tests must run as root: they mount file systems and shut them down")
		return 1
	}
	dir, err := os.MkdirTemp(*roomBase, "crash-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		return 1
	}
	defer func() {
		if err := errors.Join(deviceless(dir), os.RemoveAll(dir)); err != nil {
			fmt.Fprintln(os.Stderr, "crash:", err)
			code = 1
		}
	}()
	// The inner process gets an interrupt too and ends by it, and then the room goes. Ignoring would be inherited by everything started.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM)
	inner := exec.Command(os.Args[0], os.Args[1:]...)
	inner.Stdin, inner.Stdout, inner.Stderr = os.Stdin, os.Stdout, os.Stderr
	inner.Env = append(os.Environ(), roomVariable+"="+dir)
	inner.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = inner.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		return 1
	}
	return 0
}

const (
	releasePause = 20 * time.Millisecond
	releaseTries = 250
)

// deviceless waits until no loop device has an image below a directory. The kernel lets go of them when the last process of the run
// has ended.
func deviceless(dir string) error {
	var left []string
	for range releaseTries {
		backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
		if err != nil {
			return err
		}
		left = left[:0]
		for _, name := range backing {
			text, err := os.ReadFile(name)
			if err == nil && strings.HasPrefix(string(text), dir+"/") { // an error: it has just been given back
				left = append(left, name)
			}
		}
		if len(left) == 0 {
			return nil
		}
		<-time.After(releasePause)
	}
	return fmt.Errorf("loop devices are left: %v", left)
}

func inside(m *testing.M) int {
	// What is mounted here must not be seen outside, where nobody would take it off again.
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "crash: make mounts private:", err)
		return 1
	}
	if err := os.Chmod(room, 0o755); err != nil { // Postfix's own user has to get through
		fmt.Fprintln(os.Stderr, "crash:", err)
		return 1
	}
	mailweirBinary = filepath.Join(room, "mailweir")
	if err := build(mailweirBinary, ""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// root is the module's directory, as seen from this package's.
const root = "../.."

// build makes the command; overlay is a file for go build -overlay, or "".
func build(to, overlay string) error {
	// A checkout that belongs to somebody else has no version that git would tell root.
	args := []string{"build", "-buildvcs=false", "-o", to}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.Command("go", append(args, "github.com/mailweir/mailweir/cmd/mailweir")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("crash: build: %w\n%s", err, out)
	}
	return nil
}

// edit is one change of a source file.
type edit struct {
	file     string // path below the module's directory
	old, new string // old must occur exactly once
}

// variant builds mailweir with faults planted and returns its path. The sources stay as they are.
func variant(t *testing.T, name string, edits ...edit) string {
	t.Helper()
	dir := scratch(t)
	replace := map[string]string{}
	for i, e := range edits {
		from, err := filepath.Abs(filepath.Join(root, e.file))
		if err != nil {
			t.Fatal(err)
		}
		to := replace[from]
		if to == "" {
			to = filepath.Join(dir, fmt.Sprintf("%d.go", i))
			replace[from] = to
			copyFile(t, from, to)
		}
		text, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), e.old); n != 1 {
			t.Fatalf("variant %s: %s has %d times what is to be changed: %s", name, e.file, n, e.old)
		}
		if err := os.WriteFile(to, []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, name)
	if err := build(binary, path); err != nil {
		t.Fatal(err)
	}
	return binary
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// scratch returns a new directory in the room, with a name short enough for sockets.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(room, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// await asks every millisecond, later less often, until there is nothing left to wait for; the error says what that is.
func await(t *testing.T, limit time.Duration, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(pause*5/4, maxPause) {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		<-time.After(pause)
	}
}

const maxPause = 50 * time.Millisecond
