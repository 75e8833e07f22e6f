package proxy

import (
	"context"
	"fmt"
	"net"
	"testing"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
)

// BenchmarkWay sends messages of 2 KiB all the way, from a number of senders with a connection each, to a relay that takes
// whatever comes. It reports messages accepted a second, syncs a message, and messages a second until the last was delivered.
func BenchmarkWay(b *testing.B) {
	for _, senders := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("senders=%d", senders), func(b *testing.B) { benchmarkWay(b, senders) })
	}
}

func benchmarkWay(b *testing.B, senders int) {
	r := relay.New(relay.Config{})
	up, door := memconn.Listen(), memconn.Listen()
	served := make(chan error, 1)
	go func() { served <- r.Serve(up) }()
	cfg := config.Default()
	cfg.SMTPD.Listen, cfg.Journal.Dir = []string{"door"}, b.TempDir()
	cfg.Hostname, cfg.SMTPD.Hostname, cfg.Upstream.Hostname = "weir.example", "weir.example", "weir.example"
	cfg.Upstream.URL, cfg.Upstream.Dial = "smtp://relay.example", up.Dial
	cfg.Admin.Listen, cfg.Admin.ProbeListen = "off", "off"
	p, err := open(cfg, zap.NewNop(), "bench", func(string) (net.Listener, error) { return door, nil })
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan int, 1)
	go func() {
		left, err := p.Run(ctx)
		if err != nil {
			b.Error(err)
		}
		ended <- left
	}()
	before := p.journal.Stats().Syncs
	b.ResetTimer()
	ledger := source.Run(ctx, source.Config{Dial: door.Dial, Messages: b.N, Connections: senders, Reuse: true, Size: 2048})
	accepted := b.Elapsed()
	syncs := p.journal.Stats().Syncs - before
	cancel()
	if left := <-ended; left != 0 {
		b.Errorf("%d left", left)
	}
	b.StopTimer()
	if err := source.Check(ledger, r.Ledger()).Err(); err != nil {
		b.Error(err)
	}
	r.Close()
	if err := <-served; err != nil {
		b.Error(err)
	}
	b.ReportMetric(float64(b.N)/accepted.Seconds(), "accepted/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "delivered/s")
	b.ReportMetric(float64(syncs)/float64(b.N), "syncs/msg")
}
