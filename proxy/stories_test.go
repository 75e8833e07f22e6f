package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/config"
	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
)

// Stories of single messages and single faults that must not become everybody's.

func rcpts(f func(n int) []string) func(*source.Config) {
	return func(c *source.Config) { c.Recipients = f }
}

func deadAt(stage relay.Stage, word, reply string) func(relay.Event) relay.Action {
	return func(e relay.Event) relay.Action {
		if e.Stage == stage && strings.Contains(e.Line, word) {
			return relay.Action{Reply: reply}
		}
		return relay.Action{}
	}
}

func login(broken *atomic.Bool, rest func(relay.Event) relay.Action) func(relay.Event) relay.Action {
	return func(e relay.Event) relay.Action {
		if e.Stage == relay.StageAuth && broken.Load() {
			return relay.Action{Reply: "535 5.7.8 no"}
		}
		return rest(e)
	}
}

func creds(c *config.Config) {
	c.Upstream.Username, c.Upstream.Password, c.Upstream.PlaintextAuth = "app", "right", true
}

// The fuse cannot tell dead addresses from a broken relay. When no success comes for as long as a message may wait, refusals stand.
func TestAHoldEndsWhenNothingGoodEverComes(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: deadAt(relay.StageRcpt, "dead", "550 5.1.1 user unknown")})
		w.send(30, 1, rcpts(func(n int) []string { return []string{fmt.Sprintf("dead%d@d%d.example", n, n)} }))
		time.Sleep(30 * 24 * time.Hour)
		q := w.proxy.Status().Queue
		if q.Pending != 0 {
			t.Errorf("after 30 days: pending %d, dead %d, held %q", q.Pending, q.Dead, q.Held)
		}
	})
}

// A probe takes what came last.
func TestAPasswordResetGetsThroughBehindABadNewsletter(t *testing.T) {
	for name, many := range map[string]int{"of its own domain": 0, "of many domains": 1} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				w := newWorld(t, relay.Config{Reply: deadAt(relay.StageRcpt, "dead", "550 5.1.1 user unknown")})
				w.send(500, 10, rcpts(func(n int) []string { return []string{fmt.Sprintf("dead%d@d%d.example", n, n*many)} }))
				good := fmt.Sprintf("good@d%d.example", 500*many) // a probe is for the domain that came last
				w.send(1, 1, rcpts(func(n int) []string { return []string{good} }), func(c *source.Config) { c.Name = "good" })
				began := time.Now()
				w.until(1000*time.Hour, "good", func() bool { return w.proxy.Status().Queue.RecipientsDelivered == 1 })
				if d := time.Since(began); d > 10*time.Minute {
					t.Errorf("a password reset waited %s behind 500 dead addresses", d)
				}
			})
		})
	}
}

func TestAProbeThatDeliversToSomebodyEndsAHold(t *testing.T) {
	in(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		w := newWorld(t, relay.Config{Username: "app", Password: "right",
			Reply: login(&broken, deadAt(relay.StageRcpt, "archive", "550 5.1.1 user unknown"))}, creds)
		w.send(100, 5, rcpts(func(n int) []string {
			return []string{fmt.Sprintf("good%d@d%d.example", n, n%7), "archive@own.example"}
		}))
		time.Sleep(time.Minute)
		broken.Store(false)
		time.Sleep(10 * time.Hour)
		q := w.proxy.Status().Queue
		if q.Held != "" {
			t.Errorf("10 h after the cure: held %q, recipients delivered %d, pending %d", q.Held, q.RecipientsDelivered, q.Pending)
		}
	})
}

func TestAGreylistedProbeShowsThatTheLoginWorks(t *testing.T) {
	in(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		var mu sync.Mutex
		seen := map[string]bool{}
		w := newWorld(t, relay.Config{Username: "app", Password: "right",
			Reply: login(&broken, func(e relay.Event) relay.Action {
				mu.Lock()
				defer mu.Unlock()
				if e.Stage == relay.StageRcpt && !seen[e.Line] {
					seen[e.Line] = true
					return relay.Action{Reply: "450 4.2.0 greylisted"}
				}
				return relay.Action{}
			})}, creds)
		w.send(100, 5, rcpts(func(n int) []string { return []string{fmt.Sprintf("g%d@x.example", n)} }))
		time.Sleep(time.Minute)
		broken.Store(false)
		began := time.Now()
		w.until(200*time.Hour, "resumed", func() bool { return w.proxy.Status().Queue.Held == "" })
		if d := time.Since(began); d > time.Hour {
			t.Errorf("resumed %s after the cure", d)
		}
	})
}

func TestOneMessageDoesNotTripTheFuse(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageDot && len(e.To) == 3 {
				return relay.Action{Reply: "550 5.7.60 SMTP; Client does not have permissions to send as this sender"}
			}
			return relay.Action{}
		}})
		w.send(1, 1, rcpts(func(n int) []string { return []string{"a@a.example", "b@b.example", "c@c.example"} }))
		time.Sleep(time.Second)
		if q := w.proxy.Status().Queue; q.Held != "" {
			t.Errorf("one message: held %q", q.Held)
		}
	})
}

func TestOurOwnVerdictsDoNotTripTheFuse(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxSize: 10_000})
		w.send(12, 1, func(c *source.Config) { c.Size = 20_000 })
		time.Sleep(time.Minute)
		if q := w.proxy.Status().Queue; q.Held != "" || q.Dead != 12 {
			t.Errorf("dead %d, pending %d, held %q; transactions at the relay: %d", q.Dead, q.Pending, q.Held, w.relay.Counters().Transactions)
		}
	})
}

// Behind a message that takes long nothing is queued: taking it back would cost the connection.
func TestASlowRelayKeepsItsConnections(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxConnections: 4, RTT: 20 * time.Millisecond, ServiceTime: 6 * time.Second})
		w.send(100, 10)
		w.settle(time.Hour)
		c := w.relay.Counters()
		s := w.proxy.dispatcher.lanes[0].flow
		var linger time.Duration
		w.proxy.dispatcher.call(func(now time.Time) { linger = s.Snapshot(now).Linger })
		if c.Accepted > 20 {
			t.Errorf("100 messages took %d connections (4 at once), %d contents truncated, linger now %s", c.Accepted, c.Truncated, linger)
		}
	})
}

func TestATarpitIsAlive(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageRcpt {
				return relay.Action{Delay: 40 * time.Second}
			}
			return relay.Action{}
		}})
		w.send(1, 1, rcpts(func(n int) []string {
			var to []string
			for i := range 100 {
				to = append(to, fmt.Sprintf("u%d@x.example", i))
			}
			return to
		}))
		for i := range 65 {
			time.Sleep(time.Minute)
			if err := w.proxy.Live(); err != nil {
				t.Fatalf("after %d min: %v; pending %d", i, err, w.proxy.Status().Queue.Pending)
			}
		}
	})
}

func TestNothingExpiresWithoutAnAttempt(t *testing.T) {
	in(t, func(t *testing.T) {
		var shaky atomic.Bool
		shaky.Store(true)
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageMail && shaky.Load() {
				return relay.Action{Reply: "421 4.3.2 Service not available, shutting down", Close: true}
			}
			return relay.Action{}
		}})
		w.setDown(errors.New("no route to host"))
		w.send(50, 5)
		time.Sleep(97 * time.Hour)
		w.setDown(nil)
		time.Sleep(10 * time.Minute)
		shaky.Store(false)
		time.Sleep(2 * time.Hour)
		if q := w.proxy.Status().Queue; q.Dead > 0 {
			rows, _ := w.proxy.deadRows(1)
			t.Errorf("%d dead, %d delivered; e.g. %s", q.Dead, q.Delivered, rows[0].Reason)
		}
	})
}

// Who has a message does not get it again because of a restart while others still wait for it.
func TestARestartSendsNothingToThoseWhoHaveIt(t *testing.T) {
	in(t, func(t *testing.T) {
		var grey atomic.Bool
		grey.Store(true)
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			if grey.Load() && e.Stage == relay.StageRcpt && strings.Contains(e.Line, "grey.example") {
				return relay.Action{Reply: "450 4.2.0 greylisted, come back later"}
			}
			return relay.Action{}
		}})
		ledger := w.send(20, 4, rcpts(func(n int) []string {
			return []string{fmt.Sprintf("a%d@fast.example", n), fmt.Sprintf("b%d@grey.example", n)}
		}))
		w.until(time.Minute, "the others have it", func() bool { return w.proxy.Status().Queue.RecipientsDelivered == 20 })
		if left := w.finish(); left != 20 {
			t.Fatalf("%d left, want 20", left)
		}
		grey.Store(false)
		w.start()
		w.settle(time.Hour)
		w.arrived(ledger)
	})
}

func TestARestartDoesNotLetTheNextTenDie(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageRcpt {
				return relay.Action{Reply: "550 no"}
			}
			return relay.Action{}
		}})
		w.send(100, 5)
		time.Sleep(time.Minute)
		for range 4 {
			w.finish()
			w.start()
			time.Sleep(30 * time.Minute)
		}
		if q := w.proxy.Status().Queue; q.DeadRetained >= fuseMessages {
			t.Errorf("%d dead after four restarts, held %q", q.DeadRetained, q.Held)
		}
	})
}

func TestOneMessagesRefusalStopsNobodyElse(t *testing.T) {
	for name, reply := range map[string]string{
		"reputation": "451 4.7.1 This message looks like spam, try again later",
		"rate":       "451 4.7.1 Rate limit exceeded for this destination",
		"pressure":   "452 4.3.1 Insufficient system storage",
		"busy":       "451 4.7.1 Too many concurrent connections to remote host",
		"auth":       "454 4.7.0 Too many logins",
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				w := newWorld(t, relay.Config{RTT: 20 * time.Millisecond, Reply: func(e relay.Event) relay.Action {
					if e.Stage == relay.StageDot && len(e.To) > 0 && strings.Contains(e.To[0], "spam") {
						return relay.Action{Reply: reply}
					}
					return relay.Action{}
				}})
				w.send(1, 1, rcpts(func(n int) []string { return []string{"spam@s.example"} }), func(c *source.Config) { c.Name = "spam" })
				time.Sleep(time.Minute)
				began := time.Now()
				for i := range 100 { // a message every 10 s
					w.send(1, 1, func(c *source.Config) { c.Name = fmt.Sprintf("n%d", i) })
					time.Sleep(10 * time.Second)
				}
				w.until(200*time.Hour, "others", func() bool { return w.proxy.Status().Queue.RecipientsDelivered == 100 })
				if d := time.Since(began); d > 30*time.Minute {
					t.Errorf("100 messages at one per 10 s (17 min) took %s because of one", d.Round(time.Minute))
				}
			})
		})
	}
}

func TestManyLongRepliesFitIntoASmallJournal(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{}, func(c *config.Config) { c.Journal.MaxBytes = 16 << 20; c.SMTPD.MaxMessageBytes = 10 << 20 })
		r := w.proxy.recorder
		for i := range 600 { // 600 recipients deferred with a long reply while the disk paused
			r.write(attempt{To: []int{0}, Due: time.Now(), Reply: strings.Repeat("x", 512)}.record(message.ID(i + 1)))
		}
		w.send(20, 2)
		w.until(time.Minute, "delivered", func() bool { return w.proxy.Status().Queue.RecipientsDelivered == 20 })
		time.Sleep(time.Hour)
		if n := len(r.entries); n != 0 {
			t.Errorf("an hour later %d entries still wait; live: %v, ready: %v, journal error: %v", n, w.proxy.Live(), w.proxy.Ready(), w.proxy.journal.Err())
		}
	})
}

func TestADamagedMessageIsDeadForAllItsRecipients(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{})
		w.setDown(errors.New("refused"))
		w.send(30, 1, rcpts(func(n int) []string { return []string{"a@x.example", "b@x.example"} }))
		files, err := filepath.Glob(w.cfg.Journal.Dir + "/*.seg")
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			h, err := os.OpenFile(f, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; ; {
				i := bytes.Index(b[at:], []byte("Received: from"))
				if i < 0 {
					break
				}
				if _, err := h.WriteAt([]byte("XXXXXXXX"), int64(at+i)+20); err != nil {
					t.Fatal(err)
				}
				at += i + 20
			}
			h.Close()
		}
		w.setDown(nil)
		w.settle(time.Hour)
		q := w.proxy.Status().Queue
		if q.RecipientsFailed != 2*q.Dead {
			t.Errorf("dead %d, recipients failed %d, want two each", q.Dead, q.RecipientsFailed)
		}
		var row corpse
		w.proxy.dispatcher.call(func(time.Time) {
			if len(w.proxy.dispatcher.dead.rows) > 0 {
				row = w.proxy.dispatcher.dead.rows[0]
			}
		})
		if len(row.Failed) != 2 {
			t.Errorf("the Dead record names %v", row.Failed)
		}
	})
}

func TestDeadMessagesGoByAgeOfDeathAfterARestart(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: func(e relay.Event) relay.Action {
			switch {
			case e.Stage != relay.StageRcpt:
			case strings.Contains(e.Line, "late"):
				return relay.Action{Reply: "450 4.2.0 later"}
			case strings.Contains(e.Line, "dead"):
				return relay.Action{Reply: "550 5.1.1 no"}
			}
			return relay.Action{}
		}}, func(c *config.Config) { c.DeadKeep = 24 * time.Hour })
		w.send(1, 1, rcpts(func(int) []string { return []string{"late@x.example"} }), func(c *source.Config) { c.Name = "l" })
		w.send(1, 1, rcpts(func(int) []string { return []string{"dead@x.example"} }), func(c *source.Config) { c.Name = "d" })
		time.Sleep(80 * time.Hour)
		w.send(1, 1, rcpts(func(int) []string { return []string{"dead@x.example"} }), func(c *source.Config) { c.Name = "e" })
		w.settle(40 * time.Hour) // the late one expires at 96 h
		w.finish()
		w.start()
		time.Sleep(15 * time.Hour)
		w.proxy.dispatcher.call(func(now time.Time) {
			for _, r := range w.proxy.dispatcher.dead.rows {
				if now.Sub(r.At) > 24*time.Hour+time.Minute {
					t.Error("kept beyond dead.keep")
				}
			}
		})
	})
}

func TestADrainIsOverInTimeThoughNobodyAnswers(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxConnections: 3, Reply: func(e relay.Event) relay.Action {
			return relay.Action{Stall: e.Stage == relay.StageDot}
		}})
		w.send(20, 4)
		time.Sleep(time.Second)
		began := time.Now()
		left := w.finish()
		if took := time.Since(began); left != 20 || took > w.cfg.DrainTimeout+2*cutGrace {
			t.Errorf("left %d after %s (drain timeout %s)", left, took, w.cfg.DrainTimeout)
		}
		w.start()
		time.Sleep(time.Second)
		if q := w.proxy.Status().Queue; q.Recovered != 20 || q.Deferred != 1 { // the one of which nobody knows waits
			t.Errorf("%+v", q)
		}
	})
}

func TestAFixedRateIsKept(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{}, func(c *config.Config) { c.Flow.PerSecond = 5 })
		ledger := w.send(100, 20)
		began := time.Now()
		w.settle(time.Minute)
		w.arrived(ledger)
		if took := time.Since(began); took < 18*time.Second || took > 22*time.Second {
			t.Errorf("100 messages at 5 a second took %s", took)
		}
	})
}

func TestAHostWithoutIPv6IsServed(t *testing.T) {
	cfg := config.Default()
	cfg.SMTPD.Listen, cfg.Journal.Dir = []string{"127.0.0.1:2525", "[::1]:2525"}, t.TempDir()
	cfg.Upstream.URL, cfg.Upstream.Hostname, cfg.SMTPD.Hostname = "smtp://relay.example", "weir.example", "weir.example"
	cfg.Admin.Listen, cfg.Admin.ProbeListen = "off", "off"
	none := func(string) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)}
	}
	if _, err := open(cfg, zap.NewNop(), "test", none); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Fatalf("no address at all: %v", err)
	}
	door := memconn.Listen()
	p, err := open(cfg, zap.NewNop(), "test", func(addr string) (net.Listener, error) {
		if strings.HasPrefix(addr, "[::1]") {
			return none(addr)
		}
		return door, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.Addrs()); n != 1 {
		t.Errorf("%d listeners", n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if left, err := p.Run(ctx); left != 0 || err != nil {
		t.Errorf("%d, %v", left, err)
	}
}

func TestTheLogHidesAddressesInReplies(t *testing.T) {
	text := `550 5.1.1 <bad.user@example.org>: rejected; "x@y.example" for:z@w.example`
	if got := showReply("hash", text).String; strings.Contains(got, "@") || !strings.HasPrefix(got, "550 5.1.1 <") {
		t.Errorf("%q", got)
	}
	if got := showReply("plain", text).String; got != text {
		t.Errorf("%q", got)
	}
}

// The grace period of a pod is shared: what cannot be sent before its end is not waited for.
func TestADrainDoesNotWaitForWhatCannotBeSent(t *testing.T) {
	for name, set := range map[string]struct {
		relay relay.Config
		with  func(*config.Config)
	}{
		"deferred": {relay.Config{Reply: deadAt(relay.StageRcpt, "", "450 4.2.0 later")}, func(*config.Config) {}},
		"held": {relay.Config{Username: "app", Password: "right"}, func(c *config.Config) {
			c.Upstream.Username, c.Upstream.Password, c.Upstream.PlaintextAuth = "app", "wrong", true
		}},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				w := newWorld(t, set.relay, set.with)
				w.send(3, 1)
				time.Sleep(time.Second)
				began := time.Now()
				if left := w.finish(); left != 3 {
					t.Errorf("%d left", left)
				}
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

func refusing(reply string) relay.Config {
	return relay.Config{Reply: deadAt(relay.StageRcpt, "", reply)}
}

// Time in which nothing could be tried proves nothing: neither that of a process that was not there, nor that of a login
// that did not work.
func TestOnlyRefusedProbesWearOutAHold(t *testing.T) {
	t.Run("downtime", func(t *testing.T) {
		in(t, func(t *testing.T) {
			w := newWorld(t, refusing("554 5.7.1 Denied by policy 17"))
			w.send(200, 5)
			time.Sleep(time.Hour)
			w.finish()
			time.Sleep(w.cfg.Queue.ExpireAfter + time.Hour)
			w.start()
			w.send(100, 5, func(c *source.Config) { c.Name = "fresh" })
			time.Sleep(time.Hour)
			if q := w.proxy.Status().Queue; q.DeadRetained >= fuseMessages || q.Held == "" {
				t.Errorf("%+v", q)
			}
		})
	})
	t.Run("login", func(t *testing.T) {
		in(t, func(t *testing.T) {
			var broken atomic.Bool
			w := newWorld(t, relay.Config{Username: "app", Password: "right",
				Reply: login(&broken, deadAt(relay.StageRcpt, "", "554 5.7.1 Denied by policy 17"))}, creds)
			w.send(200, 5)
			time.Sleep(time.Hour)
			broken.Store(true)
			time.Sleep(w.cfg.Queue.ExpireAfter + time.Hour)
			broken.Store(false)
			time.Sleep(time.Hour)
			if q := w.proxy.Status().Queue; q.Dead >= fuseMessages {
				t.Errorf("%+v", q)
			}
		})
	})
}

func TestAMisconfigurationNeverKillsFreshMail(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, refusing("554 5.7.1 Relay access denied"))
		w.send(200, 5)
		time.Sleep(w.cfg.Queue.ExpireAfter - time.Minute)
		w.send(100, 5, func(c *source.Config) { c.Name = "fresh" })
		time.Sleep(12 * time.Hour)
		if q := w.proxy.Status().Queue; q.Dead > 200 {
			t.Errorf("%+v", q)
		}
	})
}

func TestAHoldDoesNotTellTheLogWhoTheRecipientsAre(t *testing.T) {
	in(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		w := newWorld(t, refusing("550 5.1.1 <secret.user@private.example>: user unknown"))
		w.finish()
		w.log = zap.New(core)
		w.start()
		w.send(30, 3)
		time.Sleep(3 * time.Minute)
		w.finish()
		if logs.FilterMessage("upstream held, mail waits until it is cured").Len() == 0 {
			t.Error("the hold is not in the log")
		}
		for _, e := range logs.All() {
			if s := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(s, "secret.user@") {
				t.Errorf("in the log: %s", s)
			}
		}
	})
}

// What the relay takes need not be learnt again.
func TestTheLearntCeilingSurvivesARestart(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxConnections: 3, RTT: 20 * time.Millisecond})
		w.send(200, 50)
		w.settle(time.Minute)
		if c := w.proxy.Status().Upstream.Ceiling; c != 3 {
			t.Fatalf("ceiling %d before the restart", c)
		}
		w.finish()
		w.start()
		if c := w.proxy.Status().Upstream.Ceiling; c != 3 {
			t.Errorf("ceiling %d after the restart", c)
		}
	})
}

// Who waits for days is tried many times. What that leaves must stay short: it is copied with the message.
func TestAMessageThatIsTriedForDaysHasAShortHistory(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: deadAt(relay.StageRcpt, "full", "452 4.2.2 mailbox full")})
		w.send(1, 1, rcpts(func(int) []string { return []string{"full@one.example"} }))
		w.send(1, 1, rcpts(func(int) []string { return []string{"full@two.example", "full@three.example", "other@two.example"} }))
		<-time.After(48 * time.Hour)
		w.finish()
		tries, seen := map[uint64]int{}, map[uint64]int{}
		j, err := journal.Open(w.cfg.Journal, func(r journal.Record) error {
			switch r.Type {
			case journal.Restated:
				tries[r.ID] = 0
			case journal.Attempt, journal.Started, journal.Verdict:
				tries[r.ID]++
				seen[r.ID]++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		short, long := 0, 0
		for id, n := range tries {
			if seen[id] < 20 {
				t.Errorf("%x was tried %d times: nothing is tested", id, seen[id])
			}
			if n <= 2 {
				short++
			} else {
				long++
			}
		}
		if short != 1 || long != 1 { // of the second one recipient has ended
			t.Errorf("%v records count, of %v", tries, seen)
		}
	})
}

// The rate is the relay's when it is refused to one message and then to another.
func TestARateThatOthersMeetTooIsKept(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{RatePerSecond: 14, RateBurst: 14, ServiceTime: 100 * time.Millisecond})
		ledger := w.send(3000, 20)
		time.Sleep(time.Minute)
		before := w.relay.Counters()
		time.Sleep(2 * time.Minute)
		after := w.relay.Counters()
		// What is allowed at a moment goes up and down: a probe adds a little, the relay's full bucket may swallow several in a row, and
		// the refusal that follows takes all of it back. What counts is what comes of it.
		taken, refused := float64(after.Taken-before.Taken)/120, after.Throttled-before.Throttled
		if taken < 9 || refused > 24 {
			t.Errorf("of 14 a second %.1f were taken, and %d in two minutes refused: %+v", taken, refused, w.proxy.Status().Upstream)
		}
		w.settle(time.Hour)
		w.arrived(ledger)
		if n := w.relay.Counters().Throttled; n > 3000/20 {
			t.Errorf("%d of 3000 were refused", n)
		}
	})
}

// What the upstream takes in one transaction bounds what it is given in one, before and after a restart.
func TestATransactionHasAsManyRecipientsAsTheUpstreamTakes(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{}, func(c *config.Config) { c.Queue.GroupMax = 7 })
		many := rcpts(func(n int) []string {
			var to []string
			for i := range 30 {
				to = append(to, fmt.Sprintf("u%d@x.example", i))
			}
			return to
		})
		w.setDown(errors.New("refused"))
		ledger := w.send(2, 1, many)
		w.finish()
		w.start()
		w.setDown(nil)
		later := w.send(2, 1, many, func(c *source.Config) { c.Name = "later" })
		w.settle(time.Hour)
		ledger.Records = append(ledger.Records, later.Records...)
		w.arrived(ledger)
		for _, d := range w.relay.Ledger() {
			if len(d.To) > 7 {
				t.Errorf("%d recipients in one transaction", len(d.To))
			}
		}
	})
}

// perHour is a relay that takes so many messages in an hour of its clock, and answers reply to the others.
func perHour(limit int, reply string) relay.Config {
	var mu sync.Mutex
	taken := map[time.Time]int{}
	return relay.Config{Reply: func(e relay.Event) relay.Action {
		if e.Stage != relay.StageDot {
			return relay.Action{}
		}
		mu.Lock()
		defer mu.Unlock()
		hour := time.Now().Truncate(time.Hour)
		if taken[hour] >= limit {
			return relay.Action{Reply: reply}
		}
		taken[hour]++
		return relay.Action{}
	}}
}

// A quota that is used up every hour refuses the same message again and again, while others get through in between.
func TestAQuotaThatReturnsKillsNoMail(t *testing.T) {
	for name, reply := range map[string]string{
		"5yz": "550 Domain example.com has exceeded the max emails per hour (120/100 (120%)) allowed. Message discarded.",
		"4yz": "451 4.7.1 Hourly sending quota exceeded",
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				w := newWorld(t, perHour(20, reply))
				ledger := w.send(400, 10, rcpts(func(n int) []string { return []string{fmt.Sprintf("u%d@d%d.example", n, n%9)} }))
				w.until(30*24*time.Hour, "nothing is pending", func() bool { return w.proxy.Status().Queue.Pending == 0 })
				if q := w.proxy.Status().Queue; q.Dead > 0 {
					rows, err := w.proxy.deadRows(1)
					if err != nil {
						t.Fatal(err)
					}
					t.Fatalf("%d dead, e.g. %s", q.Dead, rows[0].Reason)
				}
				w.arrived(ledger)
			})
		})
	}
}

// With all mail to one domain nothing shows that it is not the recipients' own quota.
func TestALittleTooMuchForAQuotaKillsNoMail(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, perHour(20, "550 5.4.5 Hourly sending limit exceeded"))
		for hour := range 24 {
			w.send(22, 2, func(c *source.Config) { c.Name = fmt.Sprintf("h%d", hour) },
				rcpts(func(n int) []string { return []string{fmt.Sprintf("u%d@corp.example", n)} }))
			time.Sleep(time.Hour)
		}
		w.settle(48 * time.Hour)
		if q := w.proxy.Status().Queue; q.Dead > 0 || q.RecipientsDelivered != 24*22 {
			t.Errorf("%d dead, %d of %d delivered", q.Dead, q.RecipientsDelivered, 24*22)
		}
	})
}

// A relay that refuses everything at MAIL says something of us. One that refuses one sender says something of that one.
func TestASenderThatIsRefusedIsItsOwnFault(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Reply: deadAt(relay.StageMail, "typo@", "550 5.1.0 <typo@nowhere.example> sender rejected")})
		w.send(5, 1, func(c *source.Config) { c.Name, c.From = "typo", "typo@nowhere.example" },
			rcpts(func(n int) []string { return []string{fmt.Sprintf("u%d@d%d.example", n, n)} }))
		for i := range 60 { // a message every 10 min
			w.send(1, 1, func(c *source.Config) { c.Name = fmt.Sprintf("n%d", i) })
			time.Sleep(10 * time.Minute)
		}
		if q := w.proxy.Status().Queue; q.Dead != 5 || q.Held != "" || q.RecipientsDelivered != 60 {
			t.Errorf("dead %d of 5, held %q, delivered %d of 60", q.Dead, q.Held, q.RecipientsDelivered)
		}
	})
}
