//go:build commit && linux

package commit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/mailweir/mailweir/proxy"
	"github.com/mailweir/mailweir/proxy/config"
)

// sourceRole in the environment makes this program the source.
const sourceRole = "MAILWEIR_BENCH_SOURCE"

func TestMain(m *testing.M) {
	if os.Getenv(sourceRole) == "" {
		os.Exit(m.Run())
	}
	if err := runSource(os.Stdin, os.Stdout); err != nil {
		_, _ = os.Stderr.WriteString("source: " + err.Error() + "\n") // nowhere else to say it
		os.Exit(1)
	}
}

// sourceGrace is what a source may take beside its measuring, on a machine that is busy.
const sourceGrace = 30 * time.Second

// drive runs a source against a server.
func drive(t *testing.T, l load) yield {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), l.Warm+l.Measure+sourceGrace)
	defer cancel()
	order, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), sourceRole+"=1", "GOMAXPROCS=1")
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(order), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%d senders: %v\n%s", l.Senders, err, stderr.Bytes())
	}
	var y yield
	if err := json.Unmarshal(out, &y); err != nil {
		t.Fatal(err)
	}
	if y.Messages == 0 {
		t.Fatalf("%d senders: nothing was accepted", l.Senders)
	}
	return y
}

// result is one measurement of one server.
type result struct {
	yield
	Rate  float64       // messages a second
	Syncs float64       // a message
	Spent time.Duration // of the server's CPU, a message
	Asked time.Duration // of the source's
}

// measureDoor has a front door of its own, on an empty journal, take a load.
func measureDoor(t *testing.T, l load, synced bool) result {
	t.Helper()
	dir, remove := scratch(t)
	defer remove()
	cfg := config.Default()
	cfg.Journal.Dir = dir
	if !synced {
		cfg.Journal.FS = unsynced{dir}
	}
	cfg.Hostname, cfg.SMTPD.Hostname, cfg.Upstream.Hostname = "weir.example", "weir.example", "weir.example"
	cfg.SMTPD.Listen, cfg.Admin.Listen, cfg.Admin.ProbeListen = []string{"127.0.0.1:0"}, "off", "off"
	cfg.Upstream.URL, cfg.DrainTimeout = "smtp://relay.example", 0
	cfg.Upstream.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("relay is down") }
	p, err := proxy.New(cfg, logger(t), "bench")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if _, err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	defer running.Wait()
	defer cancel()
	l.Address = p.Addrs()[0].String()

	before, cpu := p.Status(), ownTime(t)
	r := result{yield: drive(t, l)}
	after := p.Status()
	r.Spent = (ownTime(t) - cpu) / time.Duration(r.Total)
	r.rates(l)
	// What the senders had under way when they were cut was synced too.
	r.Syncs = float64(after.Journal.Syncs-before.Journal.Syncs) / float64(after.Queue.Accepted-before.Queue.Accepted)
	return r
}

func (r *result) rates(l load) {
	r.Rate = float64(r.Messages) / l.Measure.Seconds()
	r.Asked = r.CPU / time.Duration(r.Total)
}

// logger writes what the program writes, to nowhere.
func logger(t *testing.T) *zap.Logger {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime, enc.EncodeDuration = "time", zapcore.ISO8601TimeEncoder, zapcore.SecondsDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(f), zap.InfoLevel))
}

// scratch returns a directory. remove brings the disk to rest as well: what a journal without syncs leaves for the kernel to write
// would slow down the next measurement.
func scratch(t *testing.T) (dir string, remove func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "commit-")
	if err != nil {
		t.Fatal(err)
	}
	return dir, func() {
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
		above, err := os.Open(filepath.Dir(dir))
		if err != nil {
			t.Error(err)
			return
		}
		if err := errors.Join(unix.Syncfs(int(above.Fd())), above.Close()); err != nil {
			t.Error(err)
		}
	}
}

// removeLimit is how long a server that was ended may still make files.
const removeLimit = 10 * time.Second

func removeAll(dir string) error {
	for end := time.Now().Add(removeLimit); ; <-time.After(10 * time.Millisecond) {
		if err := os.RemoveAll(dir); err == nil || time.Now().After(end) {
			return err
		}
	}
}

func ownTime(t *testing.T) time.Duration {
	t.Helper()
	d, err := cpuTime()
	if err != nil {
		t.Fatal(err)
	}
	return d
}
