//go:build linux

package rig

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
)

const (
	// Pauses between two looks at something that somebody else changes.
	pollMin = 5 * time.Millisecond
	pollMax = 200 * time.Millisecond

	// Below the ports that the system gives to clients, so that one stays ours while nobody listens.
	portFrom  = 20000
	portTo    = 30000
	portTries = 100

	greetLimit = 5 * time.Second
	tailBytes  = 4 << 10  // of a log that a failed test shows
	logLine    = 64 << 10 // bytes of the longest line of one
)

// Build makes the command.
func Build(to string) error {
	// A checkout that belongs to somebody else has no version that git would tell root.
	build := exec.Command("go", "build", "-buildvcs=false", "-o", to, "github.com/mailweir/mailweir/cmd/mailweir")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("rig: build: %w\n%s", err, out)
	}
	return nil
}

// Scratch returns a new directory below base ("": the system's for temporary files) that other users may pass, Postfix's among them,
// with a name short enough for sockets. The test's end removes it.
func Scratch(t testing.TB, base string) string {
	t.Helper()
	dir, err := os.MkdirTemp(base, "rig-")
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

// Poll asks until there is nothing left to wait for; the error says what that is. It returns the last one when the
// time is over.
func Poll(ctx context.Context, ask func() error) error {
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

// Await is Poll for a test, which fails when limit is over.
func Await(t testing.TB, limit time.Duration, what string, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := Poll(ctx, ask); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
}

// Command runs a program that is over within limit, and returns what it wrote.
func Command(limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(err, ctx.Err())
	}
	if err != nil {
		return string(out), fmt.Errorf("rig: run %s %v: %w\n%s", name, args, err, out)
	}
	return string(out), nil
}

// Serve serves a relay until the test ends, and then closes it. address is host:port of where; "": on a port of the system's
// choice. It returns where.
func Serve(t testing.TB, address string, r *relay.Relay) string {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	t.Cleanup(func() {
		r.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// FreeAddress returns a loopback address at which nobody listens.
func FreeAddress(t testing.TB) string {
	t.Helper()
	var last error
	for range portTries {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(portFrom+rand.IntN(portTo-portFrom)))
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
		if err != nil {
			last = err
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return address
	}
	t.Fatalf("no free port: %v", last)
	return ""
}

// greets returns nil when whoever listens at address greets as an SMTP server does.
func greets(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(greetLimit)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "220 ") {
		err = errors.New(strings.TrimSpace(line))
	}
	return err
}

// Logged counts the lines of a file that contain text.
func Logged(t testing.TB, path, text string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, logLine)
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			n++
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return n
}

// tail is the end of a log, or why there is none.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tailBytes):])
}
