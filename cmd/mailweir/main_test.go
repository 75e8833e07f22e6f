package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/config"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"mailweir": main}) }

// The sessions of testdata/script are what a user types. Beside testscript's commands there are:
//
//	exits CODE PROGRAM ARGS...   the program ends with that code
//	answers ADMIN                waits until the operator API answers
//	terminate                    sends SIGTERM to what runs in the background
//	submit ADDRESS               sends a message by SMTP, which must be taken
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			ports, err := freePorts(3)
			if err != nil {
				return err
			}
			env.Setenv("SMTP", ports[0])
			env.Setenv("PROBE", ports[1])
			env.Setenv("NOBODY", ports[2])
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "answers": answers, "submit": submit, "terminate": terminate,
		},
	})
}

// freePorts returns loopback addresses at which nobody listens.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end: no port is given out twice
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func answers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: answers ADMIN")
	}
	c, err := admin.NewClient(args[0])
	ts.Check(err)
	deadline := time.After(10 * time.Second)
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		if _, err = c.Status(context.Background()); err == nil {
			return
		}
		select {
		case <-retry.C:
		case <-deadline:
			ts.Fatalf("no answer: %v", err)
		}
	}
}

func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: terminate")
	}
	for _, cmd := range ts.BackgroundCmds() {
		ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	}
}

func submit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: submit ADDRESS")
	}
	ts.Check(smtp.SendMail(args[0], nil, "app@example.com", []string{"user@example.org"},
		[]byte("Subject: hello\r\n\r\nhello\r\n")))
}

const regenerate = "go run ./cmd/mailweir config --markdown"

func TestTheReadmesTableIsTheGeneratedOne(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := sameTable(string(text), config.Markdown()); err != nil {
		t.Errorf("%v; put the output of %q between the markers", err, regenerate)
	}
}

// sameTable compares what stands between the markers with the table.
func sameTable(readme, table string) error {
	const begin, end = "<!-- config:begin -->", "<!-- config:end -->"
	_, rest, ok := strings.Cut(readme, begin)
	between, _, ok2 := strings.Cut(rest, end)
	switch {
	case !ok || !ok2:
		return fmt.Errorf("README.md has no %s ... %s", begin, end)
	case strings.TrimSpace(between) != strings.TrimSpace(table):
		return errors.New("the table of settings in README.md is not the generated one")
	}
	return nil
}

func TestAnOldTableIsNoticed(t *testing.T) {
	table := config.Markdown()
	wrapped := func(table string) string {
		return "# x\n<!-- config:begin -->\n" + table + "\n<!-- config:end -->\ny"
	}
	if err := sameTable(wrapped(table), table); err != nil {
		t.Error(err)
	}
	for name, readme := range map[string]string{
		"no markers": table, "no end": "<!-- config:begin -->\n" + table, "old": wrapped(strings.Replace(table, "50MiB", "25MiB", 1)),
	} {
		if sameTable(readme, table) == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}
