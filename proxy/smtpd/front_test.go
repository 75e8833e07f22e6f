package smtpd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/proxy/message"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func testConfig() Config {
	return Config{
		Listen:          []string{"127.0.0.1:0"},
		Hostname:        "weir.example",
		MaxMessageBytes: 1 << 20,
		MaxRecipients:   1000,
		MaxConnections:  16,
		MaxHops:         25,
		BareNewline:     normalizeNewline,
		IdleTimeout:     5 * time.Minute,
	}
}

// memory is a Store that keeps what was committed.
type memory struct {
	beginErr, writeErr, commitErr error
	onCommit                      func()

	mu       sync.Mutex
	ids      message.IDs
	messages []kept
	begun    int
	ended    int // drafts committed or aborted
	sizes    []int64
}

type kept struct {
	env  message.Envelope
	all  string // as the journal has it
	body string // without our Received header
}

func (m *memory) store() Store {
	return Store{Begin: func(env *message.Envelope, size int64) (Draft, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.beginErr != nil {
			return nil, m.beginErr
		}
		m.begun++
		m.sizes = append(m.sizes, size)
		env.Received = time.Now()
		env.ID = m.ids.Next(env.Received)
		return &memoryDraft{memory: m}, nil
	}}
}

func (m *memory) kept() []kept {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]kept(nil), m.messages...)
}

type memoryDraft struct {
	memory *memory
	text   strings.Builder
	over   bool
}

func (d *memoryDraft) Write(p []byte) (int, error) {
	if d.over {
		panic("write to a draft that has ended")
	}
	if err := d.memory.writeErr; err != nil {
		return 0, err
	}
	return d.text.Write(p)
}

func (d *memoryDraft) Commit(env *message.Envelope) error {
	d.end()
	if d.memory.onCommit != nil {
		d.memory.onCommit()
	}
	if err := d.memory.commitErr; err != nil {
		return err
	}
	d.memory.mu.Lock()
	defer d.memory.mu.Unlock()
	all := d.text.String()
	ours := string(env.AppendReceived(nil, "weir.example"))
	d.memory.messages = append(d.memory.messages, kept{*env, all, strings.TrimPrefix(all, ours)})
	return nil
}

func (d *memoryDraft) Abort() { d.end() }

func (d *memoryDraft) end() {
	if d.over {
		panic("draft ended twice")
	}
	d.over = true
	d.memory.mu.Lock()
	defer d.memory.mu.Unlock()
	d.memory.ended++
}

// front is a server on a listener in memory, within a bubble.
type front struct {
	*Server
	memory *memory
	lis    *memconn.Listener
	served chan error
	logs   *observer.ObservedLogs
}

// bubble runs story with a front door whose clock is the bubble's; afterwards every draft must have ended
// and every goroutine be gone.
func bubble(t *testing.T, cfg Config, story func(t *testing.T, f *front)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := open(t, cfg, &memory{})
		defer f.close(t)
		story(t, f)
	})
}

func open(t *testing.T, cfg Config, m *memory) *front {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.DebugLevel)
	f := &front{
		Server: New(cfg, m.store(), zap.New(core)),
		memory: m,
		lis:    memconn.Listen(),
		served: make(chan error, 1),
		logs:   logs,
	}
	go func() { f.served <- f.Serve(f.lis) }()
	return f
}

// close cuts what is still connected, and joins.
func (f *front) close(t *testing.T) {
	t.Helper()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Close(now); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	if err := <-f.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if f.memory.begun != f.memory.ended {
		t.Errorf("%d drafts were begun, %d have ended", f.memory.begun, f.memory.ended)
	}
	for _, report := range f.logs.FilterMessage("go-smtp reported").All() {
		if text := report.ContextMap()["report"].(string); !strings.Contains(text, "panic of a test") {
			t.Errorf("go-smtp reported %s", text)
		}
	}
	if n := f.Stats().Connections; n != 0 {
		t.Errorf("%d connections after Close", n)
	}
}

// pass lets the bubble's time pass.
func pass(d time.Duration) { <-time.After(d) }

// client speaks raw SMTP.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

const clientPatience = 24 * time.Hour // of the bubble's time

func (f *front) dial(t *testing.T) *client {
	t.Helper()
	conn, err := f.lis.Dial(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(clientPatience)); err != nil {
		t.Fatal(err)
	}
	return &client{conn, t, bufio.NewReader(conn)}
}

// greeted returns a client that has said EHLO.
func (f *front) greeted(t *testing.T) *client {
	t.Helper()
	c := f.dial(t)
	c.want("220")
	c.send("EHLO app\r\n")
	c.want("250")
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatalf("send %.40q: %v", text, err)
	}
}

// reply reads one reply and returns its last line.
func (c *client) reply() (string, error) {
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return line, err
		}
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimSuffix(line, "\r\n"), nil
		}
	}
}

// want reads one reply for each prefix.
func (c *client) want(prefixes ...string) {
	c.t.Helper()
	for _, prefix := range prefixes {
		got, err := c.reply()
		if err != nil || !strings.HasPrefix(got, prefix) {
			c.t.Fatalf("reply %q (%v), want %q", got, err, prefix)
		}
	}
}

// wantEnd expects the server's close and nothing before it.
func (c *client) wantEnd() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Fatalf("at the end %q, %v", rest, err)
	}
}

// toData opens a transaction up to the 354.
func (c *client) toData() {
	c.t.Helper()
	c.send("MAIL FROM:<a@app.example>\r\nRCPT TO:<b@to.example>\r\nDATA\r\n")
	c.want("250 2.1.0", "250 2.1.5", "354")
}

func wantBodies(t *testing.T, f *front, want ...string) {
	t.Helper()
	got := f.memory.kept()
	if len(got) != len(want) {
		t.Fatalf("%d messages accepted, want %d: %+v", len(got), len(want), got)
	}
	for i, k := range got {
		if k.body != want[i] {
			t.Errorf("message %d is %.300q, want %.300q", i, k.body, want[i])
		}
		if k.env.Size != int64(len(k.all)) || !strings.HasPrefix(k.all, "Received: from ") {
			t.Errorf("message %d: size %d of %d octets, begins %.20q", i, k.env.Size, len(k.all), k.all)
		}
	}
}
