package proxy

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
)

// blackHole returns an address of loopback that drops every SYN, as a kernel does for a listener whose backlog is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 8 {
		c, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Skip("this kernel accepts more than a backlog of 0 lets it")
	return ""
}

// Over real sockets: everything is delivered before the first attempt at the dead host has even ended.
func TestAHostThatDropsEverythingIsNotWaitedFor(t *testing.T) {
	dead := blackHole(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := relay.New(relay.Config{})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := r.Serve(l); err != nil {
			t.Error(err)
		}
	})
	cfg := config.Default()
	cfg.SMTPD.Listen, cfg.Journal.Dir = []string{"door"}, t.TempDir()
	cfg.Hostname, cfg.SMTPD.Hostname, cfg.Upstream.Hostname = "weir.example", "weir.example", "weir.example"
	cfg.Upstream.URL = "smtp://" + dead + "?weight=1000,smtp://" + l.Addr().String()
	cfg.Admin.Listen, cfg.Admin.ProbeListen = "off", "off"
	var mu sync.Mutex
	dialing, most := 0, 0
	cfg.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == dead {
			mu.Lock()
			dialing++
			most = max(most, dialing)
			mu.Unlock()
			defer func() { mu.Lock(); dialing--; mu.Unlock() }()
		}
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	door := memconn.Listen()
	p, err := open(cfg, zap.NewNop(), "test", func(string) (net.Listener, error) { return door, nil })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := p.Run(ctx)
		ended <- err
	}()
	began := time.Now()
	ledger := source.Run(ctx, source.Config{Dial: door.Dial, Messages: 500, Connections: 10, Reuse: true, Size: 500})
	stop() // the drain ends when everything is delivered
	if err := <-ended; err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	report := source.Check(ledger, r.Ledger())
	if err := report.Err(); err != nil || len(report.Duplicated) > 0 {
		t.Errorf("%v, %d sent twice", err, len(report.Duplicated))
	}
	t.Logf("500 messages in %s beside a host that drops everything; %d attempts at it at one time", took, most)
	if took > 20*time.Second || most != 1 { // an attempt takes 30 s
		t.Errorf("took %s; %d attempts at the dead host at one time", took, most)
	}
	r.Close()
	serving.Wait()
}
