package source

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/bench/relay"
)

// start serves a relay over memory until the test ends.
func start(t *testing.T, cfg relay.Config) (*relay.Relay, *memconn.Listener) {
	t.Helper()
	r, l := relay.New(cfg), memconn.Listen()
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	t.Cleanup(func() {
		r.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r, l
}

func TestALoadArrivesAsItWasSent(t *testing.T) {
	for name, reuse := range map[string]bool{"a connection each": false, "reused connections": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, l := start(t, relay.Config{RTT: 20 * time.Millisecond})
				var mu sync.Mutex
				var last Progress
				sent := Run(t.Context(), Config{Dial: l.Dial, Messages: 40, Connections: 8, Reuse: reuse, Size: 3000,
					Progress: func(p Progress) {
						mu.Lock()
						defer mu.Unlock()
						last.Acknowledged = max(last.Acknowledged, p.Acknowledged)
						last.Failed = max(last.Failed, p.Failed)
					}})
				if n := sent.Count(Record.Acknowledged); n != 40 || len(sent.Records) != 40 || last != (Progress{40, 0}) {
					t.Fatalf("%d acknowledged; progress %+v", n, last)
				}
				rep := Check(sent, r.Ledger())
				if err := rep.Err(); err != nil || rep.Arrived != 40 || rep.Duplicated != nil || rep.Surplus+rep.Foreign != 0 {
					t.Errorf("%v; %+v", err, rep)
				}
				for _, m := range r.Ledger() {
					if m.Size != 3000 {
						t.Fatalf("%s has %d octets", m.XID, m.Size)
					}
				}
				if v := r.Violations(); v != nil {
					t.Errorf("%+v", v)
				}
				want := 40
				if reuse {
					want = 8
				}
				if n := r.Counters().Accepted; n != want {
					t.Errorf("%d connections; want %d", n, want)
				}
			})
		})
	}
}

// The storm of the founding bug: every message has a connection of its own, and they all come at once.
func TestAStormOverTheLimitIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, relay.Config{MaxConnections: 20, RTT: 20 * time.Millisecond})
		sent := Run(t.Context(), Config{Dial: l.Dial, Messages: 260, Connections: 260})
		if good, refused := sent.Count(Record.Acknowledged), sent.Count(Record.Refused); good != 20 || refused != 240 {
			t.Fatalf("%d acknowledged, %d refused", good, refused)
		}
		for _, rec := range sent.Records {
			if rec.Refused() && (rec.Code != 421 || rec.Reply != relay.ExchangeBusy || rec.Err != nil) {
				t.Fatalf("%+v", rec)
			}
		}
		if err := Check(sent, r.Ledger()).Err(); err != nil {
			t.Error(err)
		}
	})
}

func TestLatenciesAreThoseOfTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 20 * time.Millisecond
		_, l := start(t, relay.Config{RTT: rtt, ServiceTime: time.Second})
		sent := Run(t.Context(), Config{Dial: l.Dial, Messages: 1})
		if got := sent.Quantile(0.5, DotTook); got != time.Second+rtt {
			t.Errorf("dot to reply: %v", got)
		}
		// Greeting two round trips; EHLO, MAIL, RCPT, DATA and the dot one each.
		if got := sent.Quantile(0.99, Took); got != time.Second+7*rtt {
			t.Errorf("connect to reply: %v", got)
		}
	})
}

func TestQuantilesAreNearestRank(t *testing.T) {
	var l Ledger
	for i := range 10 {
		l.Records = append(l.Records, Record{Stage: StageDot, Code: 250, Took: time.Duration(10 - i)})
	}
	l.Records = append(l.Records, Record{Stage: StageGreeting, Code: 421, Took: 1000})
	for q, want := range map[float64]time.Duration{0: 1, 0.1: 1, 0.11: 2, 0.5: 5, 0.99: 10, 1: 10} {
		if got := l.Quantile(q, Took); got != want {
			t.Errorf("%v: %d; want %d", q, got, want)
		}
	}
	if got := (Ledger{}).Quantile(0.5, Took); got != 0 {
		t.Errorf("of nothing: %d", got)
	}
}

// TestRecordsSayHowFarAMessageCame: a script, and what the record of the message then says.
func TestRecordsSayHowFarAMessageCame(t *testing.T) {
	at := func(stage relay.Stage, a relay.Action) func(relay.Event) relay.Action {
		return func(e relay.Event) relay.Action {
			if e.Stage == stage {
				return a
			}
			return relay.Action{}
		}
	}
	tests := []struct {
		name    string
		script  func(relay.Event) relay.Action
		stage   Stage
		code    int
		failed  bool // by an error of the connection
		unheard bool
		refused bool
	}{
		{"banner", at(relay.StageConnect, relay.Action{Reply: "554 no", Close: true}), StageGreeting, 554, false, false, true},
		{"reset at once", at(relay.StageConnect, relay.Action{Reset: true}), StageGreeting, 0, true, false, true},
		{"EHLO", at(relay.StageEHLO, relay.Action{Reply: "421 no"}), StageHello, 421, false, false, false},
		{"MAIL", at(relay.StageMail, relay.Action{Reply: "452 4.3.1 full"}), StageMail, 452, false, false, false},
		{"all recipients", at(relay.StageRcpt, relay.Action{Reply: "550 no"}), StageRcpt, 550, false, false, false},
		{"DATA", at(relay.StageData, relay.Action{Reply: "451 no"}), StageData, 451, false, false, false},
		{"dot refused", at(relay.StageDot, relay.Action{Reply: "452 no"}), StageDot, 452, false, false, false},
		{"taken, no reply", at(relay.StageDot, relay.Action{Take: true, Reset: true}), StageDot, 0, true, true, false},
		{"silence", at(relay.StageDot, relay.Action{Stall: true}), StageDot, 0, true, true, false},
		{"nonsense", at(relay.StageMail, relay.Action{Reply: "hello"}), StageMail, 0, true, false, false},
		{"an endless reply", at(relay.StageMail, relay.Action{Reply: strings.Repeat("250-x\n", 200) + "250 x"}), StageMail, 0, true, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, l := start(t, relay.Config{Reply: tt.script})
				rec := Run(t.Context(), Config{Dial: l.Dial, Messages: 1}).Records[0]
				if rec.Stage != tt.stage || rec.Code != tt.code || (rec.Err != nil) != tt.failed || rec.Unheard() != tt.unheard ||
					rec.Refused() != tt.refused || rec.Acknowledged() {
					t.Errorf("%+v", rec)
				}
			})
		})
	}
}

func TestARefusedConnectAndAClosedContextAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memconn.Listen()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		rec := Run(t.Context(), Config{Dial: l.Dial, Messages: 1}).Records[0]
		if rec.Stage != StageDial || rec.Err == nil || !rec.Refused() {
			t.Errorf("%+v", rec)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, l := start(t, relay.Config{ServiceTime: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		sent := Run(ctx, Config{Dial: l.Dial, Messages: 3, Timeout: 2 * time.Hour})
		if d := sent.Ended.Sub(sent.Began); d != time.Second {
			t.Errorf("ended after %v", d)
		}
		if n := sent.Count(Record.Acknowledged); n != 0 || !sent.Records[0].Unheard() || sent.Records[2].Stage != StageDial {
			t.Errorf("%+v", sent.Records)
		}
	})
}

// A reused connection goes on after a message was refused, and only recipients that were taken stay in the record.
func TestReuseGoesOnAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, relay.Config{PressureEvery: 2, Reply: func(e relay.Event) relay.Action {
			if strings.Contains(e.Line, "<gone@") {
				return relay.Action{Reply: "550 5.1.1 unknown"}
			}
			return relay.Action{}
		}})
		sent := Run(t.Context(), Config{Dial: l.Dial, Messages: 5, Reuse: true, Recipients: func(n int) []string {
			if n == 3 { // whose transaction stays open without a RSET
				return []string{"gone@source.example"}
			}
			return []string{"gone@source.example", "here@source.example"}
		}})
		if good, conns := sent.Count(Record.Acknowledged), r.Counters().Accepted; good != 3 || conns != 1 || r.Violations() != nil {
			t.Errorf("%d acknowledged over %d connections", good, conns)
		}
		rep := Check(sent, r.Ledger())
		if err := rep.Err(); err != nil || rep.Arrived != 3 {
			t.Errorf("%v; %+v", err, rep)
		}
	})
}

func TestOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := relay.New(relay.Config{})
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	sent := Run(t.Context(), Config{Address: l.Addr().String(), Messages: 50, Connections: 10})
	r.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	rep := Check(sent, r.Ledger())
	if err := rep.Err(); err != nil || rep.Arrived != 50 {
		t.Errorf("%v; %+v", err, rep)
	}
}

func TestContentHasTheSizeAskedFor(t *testing.T) {
	least := len(compose(Config{Name: "n", From: "a@b"}, 7).content)
	for size := least; size < least+400; size++ {
		m := compose(Config{Name: "n", From: "a@b", Size: size}, 7)
		want := size
		if size == least+1 {
			want = least // one octet is no line
		}
		if len(m.content) != want || m.record.Size != int64(want) || !strings.HasSuffix(string(m.content), "\r\n") {
			t.Fatalf("size %d: %d octets", size, len(m.content))
		}
	}
	if body := string(compose(Config{Size: 20_000}, 1).content); !strings.Contains(body, "\r\n.") {
		t.Error("no line begins with a dot")
	}
}
