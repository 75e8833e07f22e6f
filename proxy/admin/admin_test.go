package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func someStatus() Status {
	t0 := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	u := UpstreamStatus{Name: DefaultUpstream, Address: "relay:25", State: "calm", States: []string{"calm", "open"}, Width: 2.5, Ceiling: 4,
		Max: 20, Connections: 3, Busy: 2, Dialing: 1, Rate: 13.5, Addresses: 2, Down: 1, LastMoveAt: t0, NextProbe: t0.Add(time.Second),
		Share: 0.5, Waiting: 12, SessionCap: 350, Pipelining: "L4", Window: 8, StepsDown: 3, QuotaUsed: 40, QuotaLimit: 100, TokenExpiry: t0.Add(time.Minute),
		Held: "misconfigured: 535", Outcomes: map[string]uint64{"ok": 7, "busy": 1},
		Hosts: []AddressStatus{{Address: "a.example[192.0.2.1]:25", Up: true, Connections: 3}, {Address: "b.example[192.0.2.2]:25"}}}
	return Status{
		Signing: SigningStatus{Keys: 2, Unusable: []string{"a key"}, Signed: 4, Unsigned: map[string]uint64{"from": 2, "domain": 0}},
		Version: "v1.2.3", Started: t0, Ready: ReadyYes,
		Queue: QueueStatus{Accepted: 10, Recovered: 2, Delivered: 6, Dead: 1, Pending: 3, Deliveries: 4, InFlight: 2,
			Deferred: 1, DeadRetained: 1, OldestPending: time.Now().Add(-time.Hour), LastDelivered: t0, DuplicatesPossible: 5,
			Held: "misconfigured: 535"},
		Upstream: u, Upstreams: []UpstreamStatus{u, {Name: "bulk", State: "open", Width: 7}},
		Journal: JournalStatus{Dir: "/j", Bytes: 100, MaxBytes: 1000, Segments: 2, Syncs: 9, SyncSeconds: 0.5, SyncFailures: 1, Damaged: 1},
		Front: FrontStatus{Connections: 2, Total: 8, Refused: map[string]uint64{"452 4.3.1": 3},
			AcceptBounds: []float64{0.001, 0.01, 30}, AcceptSeconds: []uint64{1, 2, 0, 4}, AcceptSum: 130},
	}
}

func someSource() Source {
	rows := func(max int) ([]Entry, error) {
		return []Entry{{ID: "a", From: "f@x", To: make([]string, 150), State: "due"}, {ID: "b"}, {ID: "c"}}, nil
	}
	return Source{
		Ready:  func() error { return nil },
		Live:   func() error { return nil },
		Status: someStatus,
		Queue:  rows,
		Dead:   func(int) ([]Entry, error) { return nil, nil },
		Resume: func() string { return "misconfigured: 535" },
	}
}

// serve runs a server until the test ends, and checks that it ends well.
func serve(t *testing.T, cfg Config, src Source) *Server {
	t.Helper()
	s, err := New(cfg, src, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

func socket(t *testing.T) (listen, path string) {
	path = filepath.Join(t.TempDir(), "s")
	if len(path) > socketPathMax {
		t.Fatalf("the temporary directory is too long for a socket: %s", path)
	}
	return unixPrefix + path, path
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestProbesSayWhyNot(t *testing.T) {
	src := someSource()
	var live, ready error
	src.Live, src.Ready = func() error { return live }, func() error { return ready }
	s := serve(t, Config{ProbeListen: "127.0.0.1:0", Listen: Off}, src)
	base := "http://" + s.ProbeAddr().String()
	for _, c := range []struct {
		live, ready error
		path        string
		code        int
		text        string
	}{
		{nil, nil, "/healthz", 200, "ok\n"},
		{nil, nil, "/readyz", 200, "ok\n"},
		{nil, errors.New("draining"), "/healthz", 200, "ok\n"},
		{nil, errors.New("draining"), "/readyz", 503, "draining\n"},
		{errors.New("dispatcher is stuck"), nil, "/healthz", 503, "dispatcher is stuck\n"},
		{nil, nil, "/v1/status", 404, "404 page not found\n"}, // the operator API is not for the network
	} {
		live, ready = c.live, c.ready
		if code, text := get(t, base+c.path); code != c.code || text != c.text {
			t.Errorf("%s with %v, %v: got %d %q", c.path, c.live, c.ready, code, text)
		}
	}
	if resp, err := http.Post(base+"/healthz", "text/plain", strings.NewReader("x")); err != nil || resp.StatusCode != 405 {
		t.Errorf("POST: %v, %v", resp, err)
	}
}

func TestTheProbeClientHearsTheReason(t *testing.T) {
	src := someSource()
	src.Ready = func() error { return errors.New("draining") }
	s := serve(t, Config{ProbeListen: "127.0.0.1:0", Listen: Off}, src)
	_, port, err := net.SplitHostPort(s.ProbeAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, listen := range []string{":" + port, "0.0.0.0:" + port, "127.0.0.1:" + port} {
		if err := Probe(t.Context(), listen, false); err != nil {
			t.Errorf("%s: %v", listen, err)
		}
		if err := Probe(t.Context(), listen, true); err == nil || err.Error() != "admin: probe: draining" {
			t.Errorf("%s: got %v, want draining", listen, err)
		}
	}
	if err := Probe(t.Context(), Off, false); err == nil {
		t.Error("probes that are off succeed")
	}
}

func TestOperatorsSocketIsForItsOwnerOnly(t *testing.T) {
	listen, path := socket(t)
	serve(t, Config{ProbeListen: Off, Listen: listen}, someSource())
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, want a socket with 0600", got)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("beside the socket: %v, %v", names, err)
	}
	c, err := NewClient(listen)
	if err != nil {
		t.Fatal(err)
	}
	status, err := c.Status(t.Context())
	if err != nil || status.Version != "v1.2.3" || status.Queue.Held != "misconfigured: 535" {
		t.Errorf("status: %+v, %v", status, err)
	}
}

func TestListsAreBounded(t *testing.T) {
	listen, _ := socket(t)
	serve(t, Config{ProbeListen: Off, Listen: listen}, someSource())
	c, err := NewClient(listen)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := c.Queue(t.Context(), 2)
	if err != nil || len(rows) != 2 || len(rows[0].To) != toMax || rows[0].ToMore != 50 {
		t.Errorf("queue: %d rows, %v: %+v", len(rows), err, rows)
	}
	if rows, err := c.Dead(t.Context(), 2); err != nil || rows == nil || len(rows) != 0 {
		t.Errorf("dead: %+v, %v, want an empty list", rows, err)
	}
	for _, max := range []int{0, -1, entriesMax + 1} {
		if _, err := c.Queue(t.Context(), max); err == nil || !strings.Contains(err.Error(), "from 1 to 1000") {
			t.Errorf("max %d: got %v", max, err)
		}
	}
}

// It makes a login, and many of these lock an account.
func TestOnlyTheOwnerOfTheSocketMayResume(t *testing.T) {
	listen, _ := socket(t)
	serve(t, Config{ProbeListen: Off, Listen: listen}, someSource())
	c, err := NewClient(listen)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Resume(t.Context()); err != nil || r.Held != "misconfigured: 535" {
		t.Errorf("%+v, %v", r, err)
	}
	src := someSource()
	src.Resume = func() string { t.Error("resumed"); return "" }
	s := serve(t, Config{ProbeListen: Off, Listen: "127.0.0.1:0"}, src)
	if c, err = NewClient(s.AdminAddr().String()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Resume(t.Context()); err == nil || !strings.Contains(err.Error(), "only through a socket") {
		t.Errorf("over TCP: %v", err)
	}
	if code, _ := get(t, "http://"+s.AdminAddr().String()+"/v1/resume"); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", code)
	}
}

func TestTheSourcesErrorReachesTheOperator(t *testing.T) {
	listen, _ := socket(t)
	src := someSource()
	src.Dead = func(int) ([]Entry, error) { return nil, errors.New("journal is closed") }
	src.Status = func() Status { return Status{Upstream: UpstreamStatus{Width: math.NaN()}} }
	serve(t, Config{ProbeListen: Off, Listen: listen}, src)
	c, err := NewClient(listen)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Dead(t.Context(), 1); err == nil || err.Error() != "admin: ask: journal is closed" {
		t.Errorf("got %v", err)
	}
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "JSON") {
		t.Errorf("a status that is no JSON: got %v", err)
	}
}

func TestAStaleSocketIsReplacedALiveOneIsNot(t *testing.T) {
	listen, path := socket(t)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false) // as kill -9 leaves it
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := Config{ProbeListen: Off, Listen: listen}
	serve(t, cfg, someSource())
	second, err := New(cfg, someSource(), zap.NewNop())
	if err == nil {
		t.Fatalf("a second server took the socket over; closed: %v", second.Close(t.Context()))
	}
	if !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("a second server: got %v", err)
	}
	c, err := NewClient(listen)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Errorf("after the second one was refused: %v", err)
	}
}

func TestAFileInPlaceOfTheSocketStays(t *testing.T) {
	listen, path := socket(t)
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{ProbeListen: Off, Listen: listen}, someSource(), zap.NewNop()); err == nil {
		t.Error("it was replaced")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestCloseRemovesOnlyItsOwnSocket(t *testing.T) {
	listen, path := socket(t)
	s, err := New(Config{ProbeListen: "127.0.0.1:0", Listen: listen}, someSource(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil { // before Serve
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if _, err := net.Dial("tcp", s.ProbeAddr().String()); err == nil {
		t.Error("the probes still listen")
	}
	if err := s.Serve(); err != nil {
		t.Errorf("Serve after Close: %v", err)
	}

	if s, err = New(Config{ProbeListen: Off, Listen: listen}, someSource(), zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(t.Context()), s.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("somebody else's file was removed: %v", err)
	}
}

func TestCloseCutsWhatDoesNotEnd(t *testing.T) {
	src := someSource()
	entered, leave := make(chan bool), make(chan bool)
	src.Live = func() error { close(entered); <-leave; return nil }
	s, err := New(Config{ProbeListen: "127.0.0.1:0", Listen: Off}, src, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	served, asked := make(chan error), make(chan error)
	go func() { served <- s.Serve() }()
	go func() { asked <- Probe(context.Background(), s.ProbeAddr().String(), false) }()
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-asked; err == nil {
		t.Error("the request was answered")
	}
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	close(leave)
}

func TestAddressInUseIsFoundAtStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	listen, path := socket(t)
	for _, cfg := range []Config{{l.Addr().String(), listen}, {free.Addr().String(), l.Addr().String()}} {
		if _, err := New(cfg, someSource(), zap.NewNop()); err == nil || !strings.HasPrefix(err.Error(), "admin: listen") {
			t.Errorf("%+v: got %v", cfg, err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a socket was left: %v", err)
	}
	if again, err := net.Listen("tcp", free.Addr().String()); err != nil {
		t.Errorf("the probes of the server that failed are still there: %v", err)
	} else if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestTheOperatorAPIOnTCPAnswersForThisHostOnly(t *testing.T) {
	s := serve(t, Config{ProbeListen: Off, Listen: "127.0.0.1:0"}, someSource())
	for host, code := range map[string]int{
		s.AdminAddr().String(): 200, "localhost": 200, "[::1]:9026": 200,
		"evil.example": 403, "evil.example:9026": 403, "10.0.0.1": 403,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.AdminAddr().String()+"/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != code {
			t.Errorf("Host %s: got %d, want %d", host, resp.StatusCode, code)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	listen, path := socket(t)
	c, err := NewClient(listen)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Status(t.Context())
	if !errors.Is(err, ErrUnreachable) || err.Error() != "admin: ask: nobody answers: no such file or directory" {
		t.Errorf("no socket: %v", err)
	}
	if err := Probe(t.Context(), "127.0.0.1:1", false); !errors.Is(err, ErrUnreachable) {
		t.Errorf("no listener: %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestConfigsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ probe, listen, want string }{
		{":9025", "off", ""},
		{"off", "unix:/run/m.sock", ""},
		{"[::]:9025", "[::1]:9026", ""},
		{"localhost:9025", "localhost:9026", ""},
		{"", "off", "probe.listen"},
		{"9025", "off", "not host:port"},
		{"probes.example:9025", "off", "IP address"},
		{":http", "off", "not a port"},
		{":70000", "off", "not a port"},
		{"off", "", "not host:port"},
		{"off", "0.0.0.0:9026", "loopback"},
		{"off", ":9026", "loopback"},
		{"off", "10.1.2.3:9026", "loopback"},
		{"off", "unix:m.sock", "absolute"},
		{"off", "unix:/" + strings.Repeat("x", socketPathMax), "longer than 90"},
	} {
		err := Config{c.probe, c.listen}.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q, %q: got %v, want %q", c.probe, c.listen, err, c.want)
		}
		if _, nerr := New(Config{c.probe, c.listen}, Source{}, zap.NewNop()); err != nil && fmt.Sprint(nerr) != err.Error() {
			t.Errorf("New: got %v, want %v", nerr, err)
		}
	}
}

func TestLinesOfTheHTTPServerAreFields(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	httpErrors(zap.New(core), "probes").Print("accept: too many open files\n")
	line := logs.All()[0]
	if line.Message != "http server" || line.ContextMap()["error"] != "accept: too many open files" || line.ContextMap()["listener"] != "probes" {
		t.Errorf("got %q %v", line.Message, line.ContextMap())
	}
}
