package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
)

// The tests here run a whole Proxy between a load source and a scripted relay, over in-memory connections and in
// virtual time; only the journal is on a real disk.

// world is a Proxy and what is around it.
type world struct {
	t     *testing.T
	log   *zap.Logger
	cfg   config.Config
	relay *relay.Relay

	proxy *Proxy
	door  *memconn.Listener
	stop  context.CancelFunc
	ended chan struct{}
	left  int
	err   error

	mu    sync.Mutex
	dials int   // attempts to reach the upstream
	down  error // what they meet, if not the relay
	up    *memconn.Listener
}

// newWorld starts a relay and a Proxy before it.
func newWorld(t *testing.T, rc relay.Config, set ...func(*config.Config)) *world {
	t.Helper()
	w := &world{t: t, log: zap.NewNop(), cfg: config.Default()}
	w.cfg.Hostname, w.cfg.SMTPD.Hostname, w.cfg.Upstream.Hostname = "weir.example", "weir.example", "weir.example"
	w.cfg.SMTPD.Listen = []string{"door"}
	w.cfg.Upstream.URL = "smtp://relay.example:25"
	w.cfg.Upstream.Dial = w.dial
	w.cfg.Journal.Dir = t.TempDir()
	w.cfg.Journal.MaxBytes = 64 << 20
	w.cfg.Admin.Listen, w.cfg.Admin.ProbeListen = "off", "off"
	for _, s := range set {
		s(&w.cfg)
	}
	r, up := relay.New(rc), memconn.Listen()
	w.relay, w.up = r, up // a test may put others in their place
	go func() {
		if err := r.Serve(up); err != nil {
			t.Errorf("relay: %v", err)
		}
	}()
	t.Cleanup(r.Close)
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	var err error
	w.door = memconn.Listen()
	w.proxy, err = open(w.cfg, w.log, "test", func(string) (net.Listener, error) { return w.door, nil })
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.ended = cancel, make(chan struct{})
	go func() {
		w.left, w.err = w.proxy.Run(ctx)
		close(w.ended)
	}()
	w.t.Cleanup(func() { w.finish() })
}

// finish ends the Proxy as SIGTERM does, and returns how many messages it left.
func (w *world) finish() int {
	w.t.Helper()
	w.stop()
	<-w.ended
	if w.err != nil {
		w.t.Errorf("Run: %v", w.err)
	}
	return w.left
}

func (w *world) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dials++
	down := w.down
	w.mu.Unlock()
	if down != nil {
		return nil, down
	}
	return w.up.Dial(ctx, network, addr)
}

// setDown makes dials fail; nil ends it.
func (w *world) setDown(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = err
}

func (w *world) dialled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials
}

// send sends messages as an application does and wants each of them acknowledged.
func (w *world) send(messages, connections int, set ...func(*source.Config)) source.Ledger {
	w.t.Helper()
	c := source.Config{Dial: w.door.Dial, Messages: messages, Connections: connections, Size: 2048}
	for _, s := range set {
		s(&c)
	}
	ledger := source.Run(context.Background(), c)
	if n := ledger.Count(source.Record.Acknowledged); n != messages {
		for _, r := range ledger.Records {
			if !r.Acknowledged() {
				w.t.Fatalf("%d of %d messages acknowledged; one: stage %s, %q, %v", n, messages, r.Stage, r.Reply, r.Err)
			}
		}
	}
	return ledger
}

// settle waits until nothing is pending.
func (w *world) settle(within time.Duration) {
	w.t.Helper()
	w.until(within, "nothing is pending", func() bool { return w.proxy.Status().Queue.Pending == 0 })
}

// until waits, in virtual time, for a condition.
func (w *world) until(within time.Duration, what string, is func() bool) {
	w.t.Helper()
	began := time.Now()
	for !is() {
		waited := time.Since(began)
		if waited > within {
			w.t.Fatalf("not so within %s: %s\n%+v", within, what, w.proxy.Status())
		}
		time.Sleep(10*time.Millisecond + waited/50)
	}
}

// arrived wants every delivery of the ledger at the relay, once and unaltered.
func (w *world) arrived(ledger source.Ledger) {
	w.t.Helper()
	report := source.Check(ledger, w.relay.Ledger())
	if err := report.Err(); err != nil {
		w.t.Error(err)
	}
	if len(report.Duplicated) > 0 {
		w.t.Errorf("sent twice: %v", report.Duplicated)
	}
	if v := w.relay.Violations(); len(v) > 0 {
		w.t.Errorf("protocol broken: %+v", v[0])
	}
}

// counts wants the sum of all ends to be what was accepted.
func (w *world) balanced() {
	w.t.Helper()
	if q := w.proxy.Status().Queue; q.Accepted+q.Recovered != q.Delivered+q.Dead+uint64(q.Pending) {
		w.t.Errorf("the books do not balance: %+v", q)
	}
}

func in(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestAStormReachesARelayThatTakesFew(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxConnections: 20, RTT: 20 * time.Millisecond, PressureEvery: 60})
		ledger := w.send(260, 260)
		w.settle(10 * time.Minute)
		w.arrived(ledger)
		w.balanced()
		c := w.relay.Counters()
		if c.Refused > 10 {
			t.Errorf("%d connections were refused", c.Refused)
		}
		if left := w.finish(); left != 0 {
			t.Errorf("%d messages left", left)
		}
	})
}

func TestARefusalOfOurWidthCostsNoAttempt(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxConnections: 2, RTT: 20 * time.Millisecond})
		began := time.Now()
		ledger := w.send(400, 50)
		w.settle(time.Minute)
		w.arrived(ledger)
		// Two connections at a message a round trip or better, and not one message that waited for a retry.
		if took := time.Since(began); took > 400*20*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if c := w.relay.Counters(); c.Refused == 0 || c.Peak > 2 {
			t.Errorf("%+v: want refusals, and a peak of 2", c)
		}
	})
}

func TestADeadUpstreamCostsTheApplicationNothing(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{})
		w.setDown(errors.New("connection refused"))
		ledger := w.send(500, 20)
		if w.proxy.Ready() != nil || w.proxy.Live() != nil {
			t.Errorf("ready: %v, live: %v; neither may depend on the upstream", w.proxy.Ready(), w.proxy.Live())
		}
		time.Sleep(6 * time.Hour)
		if err := w.proxy.Live(); err != nil {
			t.Errorf("after six hours: %v", err)
		}
		if n := w.dialled(); n > 6*60*3 {
			t.Errorf("%d dials in 6 hours", n)
		}
		w.setDown(nil)
		w.settle(5 * time.Minute)
		w.arrived(ledger)
		w.balanced()
	})
}

func TestATemporaryRefusalIsTheRecipientsOwn(t *testing.T) {
	in(t, func(t *testing.T) {
		var mu sync.Mutex
		refusals := map[string]int{}
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageRcpt && strings.Contains(e.Line, "grey.example") {
				mu.Lock()
				defer mu.Unlock()
				if refusals[e.Line]++; refusals[e.Line] < 3 {
					return relay.Action{Reply: "450 4.2.0 greylisted, come back later"}
				}
			}
			return relay.Action{}
		}})
		began := time.Now()
		ledger := w.send(20, 4, func(c *source.Config) {
			c.Recipients = func(n int) []string {
				return []string{fmt.Sprintf("a%d@fast.example", n), fmt.Sprintf("b%d@grey.example", n)}
			}
		})
		w.until(time.Minute, "the others have it at once", func() bool { return w.proxy.Status().Queue.RecipientsDelivered == 20 })
		w.settle(time.Hour)
		w.arrived(ledger)
		if waited := time.Since(began); waited < 7*time.Minute {
			t.Errorf("two recipient pauses took %s", waited)
		}
	})
}

func TestAPermanentFailureIsKeptDead(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageRcpt && strings.Contains(e.Line, "nobody") {
				return relay.Action{Reply: "550 5.1.1 user unknown"}
			}
			return relay.Action{}
		}}, func(c *config.Config) { c.DeadKeep = 24 * time.Hour })
		w.send(1, 1, func(c *source.Config) {
			c.Recipients = func(int) []string { return []string{"somebody@x.example", "nobody@x.example"} }
		})
		w.settle(time.Minute)
		w.balanced()
		rows, err := w.proxy.deadRows(10)
		if err != nil || len(rows) != 1 || rows[0].Reason != "550 5.1.1 user unknown" || fmt.Sprint(rows[0].To) != "[nobody@x.example]" {
			t.Fatalf("%+v, %v", rows, err)
		}
		if n := len(w.relay.Ledger()); n != 1 {
			t.Errorf("the relay has %d messages, want the one for somebody", n)
		}
		w.finish()
		w.start()
		if rows, _ := w.proxy.deadRows(10); len(rows) != 1 || rows[0].Reason != "550 5.1.1 user unknown" {
			t.Fatalf("after a restart: %+v", rows)
		}
		time.Sleep(25 * time.Hour)
		if rows, _ := w.proxy.deadRows(10); len(rows) != 0 {
			t.Fatalf("kept too long: %+v", rows)
		}
	})
}

func TestAMisconfiguredRelayBouncesNoBacklog(t *testing.T) {
	for name, refusal := range map[string]struct {
		stage relay.Stage
		reply string
	}{
		"any 5xx":           {relay.StageRcpt, "550 no"},
		"any 5xx to MAIL":   {relay.StageMail, "550 5.1.0 sender rejected"},
		"blocked":           {relay.StageRcpt, "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using dnsbl.example"},
		"relay denied":      {relay.StageRcpt, "554 5.7.1 <x>: Relay access denied"},
		"sender not one's":  {relay.StageDot, "550 5.7.60 SMTP; Client does not have permissions to send as this sender"},
		"not verified":      {relay.StageDot, "554 Message rejected: Email address is not verified."},
		"daily limit (5xx)": {relay.StageDot, "550 5.4.5 Daily user sending limit exceeded."},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				var mu sync.Mutex
				broken := true
				w := newWorld(t, relay.Config{MaxConnections: 5, Reply: func(e relay.Event) relay.Action {
					mu.Lock()
					defer mu.Unlock()
					if broken && e.Stage == refusal.stage {
						return relay.Action{Reply: refusal.reply}
					}
					return relay.Action{}
				}})
				w.send(300, 30, func(c *source.Config) {
					c.Recipients = func(n int) []string { return []string{fmt.Sprintf("u@d%d.example", n%40)} }
				})
				time.Sleep(2 * time.Hour)
				s := w.proxy.Status()
				if s.Queue.Dead >= fuseMessages || name != "any 5xx" && s.Queue.Dead > 0 || s.Queue.Held == "" {
					t.Fatalf("%d dead, held: %q", s.Queue.Dead, s.Queue.Held)
				}
				mu.Lock()
				broken = false
				mu.Unlock()
				within := 90 * time.Second
				if strings.Contains(name, "limit") { // asked for seldom
					within = quotaProbeMax
				}
				w.until(within, "resumed", func() bool { return w.proxy.Status().Queue.Held == "" })
				w.settle(time.Hour)
				w.balanced()
				if got := len(w.relay.Ledger()); got != 300-int(s.Queue.Dead) {
					t.Errorf("%d delivered, %d dead", got, s.Queue.Dead)
				}
			})
		})
	}
}

func TestALoginFaultHoldsTheMailAndSparesTheAccount(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Username: "app", Password: "right"}, func(c *config.Config) {
			c.Upstream.Username, c.Upstream.Password, c.Upstream.PlaintextAuth = "app", "wrong", true
		})
		w.send(50, 5)
		time.Sleep(24 * time.Hour)
		s := w.proxy.Status()
		if s.Queue.Dead != 0 || s.Queue.Pending != 50 || !strings.Contains(s.Queue.Held, "535") {
			t.Fatalf("%+v", s.Queue)
		}
		if n := w.dialled(); n > 24*4+2 {
			t.Errorf("%d logins in a day", n)
		}
		if strings.Contains(fmt.Sprintf("%+v", s), "wrong") {
			t.Error("the password is in the status")
		}
	})
}

func TestAMessageExpiresAfterOneMoreTry(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageRcpt {
				return relay.Action{Reply: "450 4.2.1 mailbox busy"}
			}
			return relay.Action{}
		}})
		w.send(3, 1)
		time.Sleep(95 * time.Hour)
		if q := w.proxy.Status().Queue; q.Pending != 3 {
			t.Fatalf("before the deadline: %+v", q)
		}
		w.settle(4 * time.Hour)
		rows, err := w.proxy.deadRows(10)
		if err != nil || len(rows) != 3 || !strings.Contains(rows[0].Reason, "expired") || !strings.Contains(rows[0].Reason, "mailbox busy") {
			t.Fatalf("%+v, %v", rows, err)
		}
	})
}

func TestWhatIsLeftGoesOutAfterTheNextStart(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxConnections: 3})
		w.setDown(errors.New("no route to host"))
		ledger := w.send(100, 10)
		began := time.Now()
		if left := w.finish(); left != 100 {
			t.Fatalf("%d left, want 100", left)
		}
		if took := time.Since(began); took > w.cfg.DrainTimeout+2*cutGrace {
			t.Errorf("stopping took %s", took)
		}
		w.setDown(nil)
		w.start()
		w.settle(time.Minute)
		w.arrived(ledger)
		if q := w.proxy.Status().Queue; q.Recovered != 100 || q.Delivered != 100 || q.DuplicatesPossible != 0 {
			t.Errorf("%+v", q)
		}
		if left := w.finish(); left != 0 {
			t.Fatalf("%d left", left)
		}
		w.start()
		if q := w.proxy.Status().Queue; q.Recovered != 0 {
			t.Errorf("delivered messages came back: %+v", q)
		}
	})
}

func TestADrainFinishesWhatItCan(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxConnections: 4, RTT: 50 * time.Millisecond})
		ledger := w.send(200, 20)
		if err := w.proxy.Ready(); err != nil {
			t.Errorf("before: %v", err)
		}
		if left := w.finish(); left != 0 {
			t.Fatalf("%d left", left)
		}
		w.arrived(ledger)
		if w.proxy.Ready() == nil {
			t.Error("ready after SIGTERM")
		}
		if c, err := w.door.Dial(context.Background(), "tcp", "door"); err == nil {
			c.Close()
			t.Error("the front door is still open")
		}
	})
}

func TestMessagesDoNotWaitBehindAStalledOne(t *testing.T) {
	in(t, func(t *testing.T) {
		var once sync.Once
		w := newWorld(t, relay.Config{MaxConnections: 2, RTT: 20 * time.Millisecond, Reply: func(e relay.Event) (a relay.Action) {
			if e.Stage == relay.StageDot && e.Transaction > 5 {
				once.Do(func() { a.Stall = true })
			}
			return a
		}})
		w.send(50, 10)
		w.until(30*time.Second, "all but the stalled one are delivered", func() bool { return w.proxy.Status().Queue.Delivered == 49 })
		if err := w.proxy.Live(); err != nil {
			t.Errorf("a slow reply is healthy: %v", err)
		}
		w.until(time.Hour, "the stalled one is tried again", func() bool { return w.proxy.Status().Queue.Pending == 0 })
		if q := w.proxy.Status().Queue; q.DuplicatesPossible != 1 {
			t.Errorf("%+v", q)
		}
	})
}

func TestAFullQueueRefusesAndStaysReady(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{}, func(c *config.Config) { c.QueueMaxMessages = 30 })
		w.setDown(errors.New("connection refused"))
		ledger := source.Run(context.Background(), source.Config{Dial: w.door.Dial, Messages: 100, Connections: 5, Size: 1000})
		taken := ledger.Count(source.Record.Acknowledged)
		full := ledger.Count(func(r source.Record) bool { return strings.HasPrefix(r.Reply, "452 4.3.1") })
		if taken < 30 || taken > 35 || taken+full != 100 {
			t.Fatalf("%d taken, %d refused with 452", taken, full)
		}
		if err := w.proxy.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		w.setDown(nil)
		w.settle(10 * time.Minute)
		w.send(10, 1, func(c *source.Config) { c.Name = "later" })
		w.settle(time.Minute)
		w.arrived(ledger)
	})
}

func TestOurOwnListenerAsUpstreamIsRefused(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{})
		w.mu.Lock()
		w.up = w.door
		w.mu.Unlock()
		w.send(3, 1)
		w.until(time.Minute, "held", func() bool { return w.proxy.Status().Queue.Held != "" })
		if q := w.proxy.Status().Queue; q.Accepted != 3 || q.Dead != 0 {
			t.Errorf("mail went in circles: %+v", q)
		}
	})
}

// Whatever the upstream keeps saying, we ask at a pace that it can bear, and lose nothing.
func TestNoReplyMakesUsHammer(t *testing.T) {
	for _, reply := range []string{
		"421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel",
		"421 4.4.5 Service unavailable, concurrency limit reached",
		"421 Too many messages in this connection",
		"421 4.4.2 Timeout - closing connection.",
		"421 Service not available, closing transmission channel",
		"432 4.3.2 Concurrent connections limit exceeded.",
		"450 4.7.1 too much mail from you",
		"451 4.7.500 Server busy. Please try again later.",
		"452 4.3.1 Insufficient system resources",
		"452 4.5.3 Too many recipients",
		"454 Throttling failure: Maximum sending rate exceeded",
		"454 4.7.0 Too many login attempts, please try again later.",
		"499 what no table knows",
		"535 5.7.8 Authentication failed",
		"550 5.4.5 Daily user sending limit exceeded.",
		"554 5.7.1 Relay access denied",
		"5",
		"",
	} {
		for _, stage := range []relay.Stage{relay.StageConnect, relay.StageEHLO, relay.StageMail, relay.StageRcpt, relay.StageData, relay.StageDot} {
			if (stage == relay.StageEHLO || stage == relay.StageData) && reply != "" && !strings.HasPrefix(reply, "421") {
				continue // as at the greeting and at MAIL
			}
			t.Run(fmt.Sprintf("%s/%.12s", stage, reply), func(t *testing.T) {
				t.Parallel()
				in(t, func(t *testing.T) {
					var mu sync.Mutex
					asked, cured := 0, false
					w := newWorld(t, relay.Config{RTT: 10 * time.Millisecond, Reply: func(e relay.Event) relay.Action {
						mu.Lock()
						defer mu.Unlock()
						if e.Stage != stage || cured {
							return relay.Action{}
						}
						asked++
						return relay.Action{Reply: reply, Close: reply == "" || strings.HasPrefix(reply, "421")}
					}})
					w.send(12, 4, func(c *source.Config) {
						c.Size = 300
						c.Recipients = func(n int) []string { return []string{fmt.Sprintf("a%d@d%d.example", n, n), "b@x.example"} }
					})
					time.Sleep(10 * time.Minute)
					mu.Lock()
					if asked > 2000 { // two recipients, so some two transactions a second
						t.Errorf("asked %d times in ten minutes", asked)
					}
					cured = true
					mu.Unlock()
					if err := w.proxy.Live(); err != nil {
						t.Errorf("not alive: %v", err)
					}
					w.settle(26 * time.Hour)
					w.balanced()
				})
			})
		}
	}
}

// What the dead hold back is room for the living when the journal runs full.
func TestDeadMessagesMakeRoomInAFullJournal(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageRcpt && strings.Contains(e.Line, "nobody") {
				return relay.Action{Reply: "550 5.1.1 user unknown"}
			}
			return relay.Action{}
		}}, func(c *config.Config) { c.Journal.MaxBytes = 16 << 20 })
		big := func(name string, to string) func(*source.Config) {
			return func(c *source.Config) {
				c.Name, c.Size = name, 200<<10
				c.Recipients = func(n int) []string { return []string{to} }
			}
		}
		for i := range 90 {
			w.send(1, 1, big(fmt.Sprintf("bad%d", i), "nobody@x.example"))
			w.send(1, 1, big(fmt.Sprintf("good%d", i), "somebody@x.example"))
			w.settle(time.Minute)
			time.Sleep(3 * time.Second)
		}
		if s := w.proxy.Status(); s.Queue.Dead != 90 || s.Queue.DeadRetained == 0 || s.Queue.DeadRetained == 90 {
			t.Errorf("%+v", s.Queue)
		}
	})
}

func TestAFullJournalRefusesStaysReadyAndRecovers(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{}, func(c *config.Config) { c.Journal.MaxBytes = 16 << 20 })
		w.setDown(errors.New("connection refused"))
		ledger := source.Run(context.Background(), source.Config{Dial: w.door.Dial, Messages: 1000, Connections: 8, Size: 50_000})
		taken := ledger.Count(source.Record.Acknowledged)
		full := ledger.Count(func(r source.Record) bool { return strings.HasPrefix(r.Reply, "452 4.3.1") })
		if taken < 100 || full < 100 || taken+full != 1000 {
			t.Fatalf("%d taken, %d refused with 452, of 1000", taken, full)
		}
		if err := w.proxy.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
		w.setDown(nil)
		w.settle(10 * time.Minute)
		w.arrived(ledger)
		w.until(5*time.Second, "room again", func() bool { return w.proxy.Status().Journal.Bytes < 8<<20 })
		later := w.send(50, 5, func(c *source.Config) { c.Name, c.Size = "later", 50_000 })
		w.settle(time.Minute)
		w.arrived(later)
	})
}
