//go:build crash

package crash

import (
	"bufio"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/proxy/admin"
)

// weir is one process of mailweir after another, on the same journal and the same port.
type weir struct {
	child
	binary  string // path; changed between processes to run a variant
	address string // host:port of its front door
	journal string // directory
	environ []string
	admin   *admin.Client
	prepare func(*exec.Cmd) // called before each start, for limits, tracers and groups; nil: nothing to prepare
}

const (
	startLimit = 20 * time.Second
	askLimit   = 5 * time.Second
)

// newWeir prepares one in front of upstream and starts nothing. settings are NAME=value and win over those that make it fit
// for a test. When the test ends the process is killed, and its log must not know of a panic.
func newWeir(t *testing.T, upstream, journal string, settings ...string) *weir {
	t.Helper()
	dir := scratch(t)
	w := &weir{binary: mailweirBinary, address: freeAddress(t), journal: journal, child: child{log: filepath.Join(dir, "log")}}
	socket := "unix:" + filepath.Join(dir, "sock")
	var err error
	if w.admin, err = admin.NewClient(socket); err != nil {
		t.Fatal(err)
	}
	w.environ = []string{
		"PATH=" + os.Getenv("PATH"),
		"MAILWEIR_HOSTNAME=mailweir.example",
		"MAILWEIR_UPSTREAM=smtp://" + upstream,
		"MAILWEIR_LISTEN=" + w.address,
		"MAILWEIR_PROBE_LISTEN=off",
		"MAILWEIR_ADMIN_LISTEN=" + socket,
		"MAILWEIR_JOURNAL_DIR=" + journal,
		"MAILWEIR_JOURNAL_ALLOW_VOLATILE=true",
		"MAILWEIR_UPSTREAM_MAX_CONNECTIONS=8",
		"MAILWEIR_LOG_LEVEL=error",
		// What takes minutes in service takes fractions of a second here.
		"MAILWEIR_TIME_SCALE=0.01",
		"MAILWEIR_RETRY_MIN=100ms",
		"MAILWEIR_RETRY_MAX=200ms",
		"MAILWEIR_RECIPIENT_RETRY_MIN=100ms",
		"MAILWEIR_RECIPIENT_RETRY_MAX=200ms",
	}
	w.set(settings...)
	t.Cleanup(func() {
		if w.process != nil {
			w.kill(t)
		}
		w.judgeLog(t)
	})
	return w
}

// set adds settings for the starts to come. The last of two of the same name counts.
func (w *weir) set(settings ...string) { w.environ = append(w.environ, settings...) }

// start returns when the front door answers.
func (w *weir) start(t *testing.T) {
	t.Helper()
	w.launch(t)
	w.ready(t)
}

// launch starts the process and waits for nothing.
func (w *weir) launch(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(w.binary, "run")
	cmd.Env, cmd.Stdout, cmd.Stderr = slices.Clone(w.environ), log, log
	if w.prepare != nil {
		w.prepare(cmd)
	}
	w.child.begin(t, cmd)
}

// ready waits until the front door greets. A process that ends before is a fault.
func (w *weir) ready(t *testing.T) {
	t.Helper()
	await(t, startLimit, "mailweir's greeting", func() error {
		select {
		case err := <-w.exited:
			w.process = nil
			t.Fatalf("mailweir has ended before it greeted: %v\n%s", err, tail(w.log))
		default:
		}
		return w.greets()
	})
}

// greets returns nil when the front door greets with 220.
func (w *weir) greets() error { return greets(w.address) }

func greets(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askLimit)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "220 ") {
		err = errors.New(strings.TrimSpace(line))
	}
	return err
}

func (w *weir) status(t *testing.T) admin.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), askLimit)
	defer cancel()
	s, err := w.admin.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The ports are below those that the system gives to clients, so that one stays ours while nobody listens.
const (
	portFrom  = 20000
	portTo    = 30000
	portTries = 100
)

// freeAddress returns a loopback address at which nobody listens.
func freeAddress(t *testing.T) string {
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
