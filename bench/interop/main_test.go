//go:build postfix

package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// binary is the path of the mailweir under test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "interop: these tests must run as root: Postfix starts as root only, and a test mounts a tmpfs")
		return 1
	}
	if _, err := exec.LookPath("postfix"); err != nil {
		fmt.Fprintln(os.Stderr, "interop: Postfix is not installed: apt-get install postfix")
		return 1
	}
	dir, err := os.MkdirTemp("", "interop-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "interop:", err)
			code = 1
		}
	}()
	binary = filepath.Join(dir, "mailweir")
	// A checkout that belongs to somebody else has no version that git would tell root.
	build := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "github.com/mailweir/mailweir/cmd/mailweir")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "interop: build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// scratch returns a new directory that Postfix's own user may pass, with a name short enough for sockets.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "interop-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Pauses between two looks at something that somebody else changes.
const (
	pollMin = 5 * time.Millisecond
	pollMax = 200 * time.Millisecond
)

// poll asks until there is nothing left to wait for; the error says what that is. It returns the last one when the
// time is over.
func poll(ctx context.Context, ask func() error) error {
	for pause := pollMin; ; pause = min(2*pause, pollMax) {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// await is poll for a test, which fails when limit is over.
func await(t *testing.T, limit time.Duration, what string, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := poll(ctx, ask); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
}

// command runs a program that is over within limit, and returns what it wrote.
func command(limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		return string(out), fmt.Errorf("interop: run %s %v: %w\n%s", name, args, err, out)
	}
	return string(out), nil
}
