package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/config"
)

// small is a storm of a second or two that meets the limit.
var small = demoOptions{messages: 30, connections: 30, size: 1 << 10, limit: 2, rtt: time.Millisecond, service: 10 * time.Millisecond}

// ownTemp makes os.MkdirTemp use a directory of this test's, and returns what is in it.
func ownTemp(t *testing.T) func() []string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return func() []string {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
}

func TestDemoTellsItsStory(t *testing.T) {
	left := ownTemp(t)
	var out bytes.Buffer
	if err := runDemo(t.Context(), newScreen(&out), small, launch); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"upstream: 2 connections at once, then \"421 4.3.2 ",
		"direct: 30 connections at once -> ",
		" refused with 421; those mails are lost unless the application retries\n",
		"mailweir: the same storm; it may open 4 connections to the upstream and is not told the limit\n",
		"accepted 30  failed 0  delivered 30 ",
		"drain time",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Error("control characters in a pipe")
	}
	if names := left(); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

func TestDemoKeepsTheJournalWhenAsked(t *testing.T) {
	left := ownTemp(t)
	o := small
	o.messages, o.keep = 1, true
	var out bytes.Buffer
	if err := runDemo(t.Context(), newScreen(&out), o, launch); err != nil {
		t.Fatal(err)
	}
	if names := left(); len(names) != 1 || !strings.Contains(out.String(), "the journal is kept in "+os.Getenv("TMPDIR")+"/"+names[0]+"\n") {
		t.Errorf("left %v; said\n%s", names, out.String())
	}
}

// standIn is a launch whose mailweir is only a front: it answers by the given script and forwards nothing.
func standIn(t *testing.T, cfg relay.Config, pending int) func(config.Config) (*instance, error) {
	return func(config.Config) (*instance, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		front := relay.New(cfg)
		ended := make(chan struct{})
		var serving sync.WaitGroup
		serving.Go(func() {
			defer close(ended)
			if err := front.Serve(l); err != nil {
				t.Errorf("front: %v", err)
			}
		})
		return &instance{
			addr: l.Addr().String(),
			status: func() admin.Status {
				return admin.Status{Queue: admin.QueueStatus{Pending: pending}}
			},
			ended: ended,
			stop: func() (int, error) {
				front.Close()
				serving.Wait()
				return pending, nil
			},
		}, nil
	}
}

// TestDemoFails: a mailweir that breaks its promise must not look well.
func TestDemoFails(t *testing.T) {
	refuse := func(e relay.Event) relay.Action {
		if e.Stage == relay.StageMail && e.Conn == 1 {
			return relay.Action{Reply: "452 4.3.1 full"}
		}
		return relay.Action{}
	}
	tests := []struct {
		name   string
		launch func(config.Config) (*instance, error)
		want   string
	}{
		{"acknowledged and lost", standIn(t, relay.Config{}, 0), "30 acknowledged and lost"},
		{"not accepted", standIn(t, relay.Config{Reply: refuse}, 0), "1 messages were not accepted"},
		{"does not start", func(config.Config) (*instance, error) { return nil, errors.New("no disk") }, "no disk"},
		{"mail left", func(c config.Config) (*instance, error) {
			in, err := standIn(t, relay.Config{}, 0)(c)
			if err == nil {
				stop := in.stop
				in.stop = func() (int, error) {
					_, err := stop()
					return 3, err
				}
			}
			return in, err
		}, "3 messages are still in the journal"},
		{"ends early", func(c config.Config) (*instance, error) {
			in, err := standIn(t, relay.Config{ServiceTime: time.Hour}, 0)(c)
			if err == nil {
				_, err = in.stop()
			}
			return in, err
		}, "ended early"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			left := ownTemp(t)
			err := runDemo(t.Context(), newScreen(io.Discard), small, tt.launch)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v; want %q", err, tt.want)
			}
			if names := left(); len(names) > 0 {
				t.Errorf("left behind: %v", names)
			}
		})
	}
}

// The first progress line interrupts, so that the storm is under way.
func TestAnInterruptEndsTheDemoAndCleansUp(t *testing.T) {
	left := ownTemp(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := newScreen(writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("accepted")) {
			interrupt()
		}
		return len(p), nil
	}))
	err := runDemo(ctx, out, small, standIn(t, relay.Config{}, 1))
	if err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Error(err)
	}
	if names := left(); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestAScreenThatCannotBeWrittenIsAnError(t *testing.T) {
	broken := errors.New("broken pipe")
	calls := 0
	s := newScreen(writerFunc(func([]byte) (int, error) {
		calls++
		return 0, broken
	}))
	s.printf("one")
	s.printf("two")
	if !errors.Is(s.err, broken) || calls != 1 {
		t.Errorf("%v after %d writes", s.err, calls)
	}
}

func TestATerminalSeesOneLineWrittenOver(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.terminal = true
	var seen progress
	seen.accepted.Store(7)
	s.progress(1500*time.Millisecond, &seen, admin.Status{Upstream: admin.UpstreamStatus{Width: 4}}, relay.Counters{Taken: 5, Current: 3, Refused: 2, Pressed: 1})
	s.endProgress()
	want := "\r    1.5 s  accepted 7  failed 0  delivered 5  width 4.0  connections 3  refusals 2  452s 1\x1b[K\n"
	if out.String() != want {
		t.Errorf("%q\nwant %q", out.String(), want)
	}
}

func TestDemoFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--messages 0":      "--messages: 0 is not in 1..",
		"--connections=-1":  "--connections: -1 is not in 1..",
		"--limit 0":         "--limit: 0 is not in 1..",
		"--size 20MiB":      "--size: 20971520 is not in 1..",
		"--size many":       `"many" is no size: write it like 2KiB`,
		"--rtt 1h":          "--rtt: 1h0m0s is not in 0s..10s",
		"--service=-1s":     "--service: -1s is not in 0s..10s",
		"an-argument":       "unknown command",
		"--keep --limit -3": "--limit: -3",
	} {
		cmd := newDemoCommand()
		cmd.SetArgs(strings.Fields(args))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", args, err, want)
		}
	}
}

func TestByteSizes(t *testing.T) {
	for text, want := range map[string]byteSize{"2048": 2048, "2KiB": 2048, "1MiB": 1 << 20, "7B": 7, "0": 0} {
		var b byteSize
		if err := b.Set(text); err != nil || b != want {
			t.Errorf("%q: %d, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "KiB", "-1", "1.5KiB", "2kb", "2048MiB", "99999999999"} {
		b := byteSize(1)
		if err := b.Set(text); err == nil || b != 1 {
			t.Errorf("%q: taken as %d", text, b)
		}
	}
	for b, want := range map[byteSize]string{2048: "2KiB", 2049: "2049B", 1 << 20: "1MiB", 0: "0B"} {
		if got := b.String(); got != want {
			t.Errorf("%d: %s; want %s", b, got, want)
		}
	}
}
