package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

// kills is how often the real process is killed in the middle of a storm; each costs about a third of a second.
const kills = 12

// Whatever the process had acknowledged when kill -9 came is delivered by the next one. At most what was under way
// on a connection at that moment arrives twice.
func TestKillNineLosesNothing(t *testing.T) {
	const width = 8
	r, upstream := serveRelay(t, relay.Config{MaxConnections: width, RTT: 2 * time.Millisecond})
	addrs, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	door := addrs[0]
	dir := filepath.Join(t.TempDir(), "journal")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	var sent source.Ledger
	for i := range kills {
		process := startMailweir(t, door, upstream, dir)
		killed := make(chan error, 1)
		go func() {
			<-time.After(time.Duration(20+random.IntN(150)) * time.Millisecond) // the moment does not matter
			killed <- process.Process.Kill()
		}()
		l := source.Run(context.Background(), source.Config{
			Address: door, Name: fmt.Sprintf("storm%d", i), Messages: 400, Connections: 20, Size: 3000, Timeout: 10 * time.Second,
		})
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		_ = process.Wait() // "signal: killed"
		sent.Records = append(sent.Records, l.Records...)
	}
	if n := sent.Count(source.Record.Acknowledged); n < 10*kills {
		t.Fatalf("only %d messages were acknowledged in %d storms: nothing was tested", n, kills)
	}
	process := startMailweir(t, door, upstream, dir)
	report := waitForAll(t, sent, r)
	t.Logf("%d acknowledged, %d arrived, %d twice, %d unacknowledged arrived", report.Acknowledged, report.Arrived, len(report.Duplicated), report.Surplus)
	interrupt(t, process)
	if most := width * kills; len(report.Duplicated) > most {
		t.Errorf("%d arrived twice, more than the %d that can have been under way", len(report.Duplicated), most)
	}
	if v := r.Violations(); len(v) > 0 {
		t.Errorf("protocol broken: %+v", v[0])
	}
	taken := len(r.Ledger())
	interrupt(t, startMailweir(t, door, upstream, dir))
	if again := len(r.Ledger()) - taken; again > 0 {
		t.Errorf("%d of %d messages went out again after all had ended", again, taken)
	}
}

// interrupt lets a process drain, and wants it to leave nothing.
func interrupt(t *testing.T, process *exec.Cmd) {
	t.Helper()
	if err := process.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Errorf("after the drain: %v", err)
	}
}

// serveRelay serves a relay on a port of its own.
func serveRelay(t *testing.T, cfg relay.Config) (*relay.Relay, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := relay.New(cfg)
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	t.Cleanup(func() {
		r.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r, "smtp://" + l.Addr().String()
}

// startMailweir starts this test's binary as mailweir, and waits until its front door answers.
func startMailweir(t *testing.T, door, upstream, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &exec.Cmd{Path: self, Args: []string{"mailweir", "run"}, Stderr: &tail{t: t}, Env: []string{
		"PATH=" + os.Getenv("PATH"),
		"MAILWEIR_LISTEN=" + door, "MAILWEIR_UPSTREAM=" + upstream, "MAILWEIR_JOURNAL_DIR=" + dir,
		"MAILWEIR_JOURNAL_ALLOW_VOLATILE=true", "MAILWEIR_PROBE_LISTEN=off", "MAILWEIR_UPSTREAM_MAX_CONNECTIONS=8",
		"MAILWEIR_LOG_LEVEL=error", "MAILWEIR_RECIPIENT_RETRY_MIN=200ms", // the pause after several crashes with the same message under way
		"MAILWEIR_JOURNAL_MAX_BYTES=32MiB", "MAILWEIR_MAX_MESSAGE_BYTES=1MiB", // segments of 2 MiB
	}}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() }) // an error: it has ended
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", door)
		if err == nil {
			conn.Close()
			return c
		}
		if time.Now().After(deadline) {
			t.Fatalf("mailweir does not answer: %v", err)
		}
	}
}

// tail shows what a process says.
type tail struct{ t *testing.T }

func (w *tail) Write(p []byte) (int, error) {
	w.t.Logf("mailweir: %s", p)
	return len(p), nil
}

// waitForAll returns when every acknowledged message has arrived.
func waitForAll(t *testing.T, sent source.Ledger, r *relay.Relay) source.Report {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		report := source.Check(sent, r.Ledger())
		if len(report.Lost) == 0 && len(report.Altered) == 0 {
			return report
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d lost, %d altered: %v", len(report.Lost), len(report.Altered), report.Err())
		}
	}
}
