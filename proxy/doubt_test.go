package proxy

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

// A relay that refuses everybody, and recipients of whom it only looks so.

// sulking is a relay that refuses every message while sulks is set, at one stage and with one reply.
type sulking struct {
	sulks   atomic.Bool
	refused atomic.Int64 // messages, tries of one counted each
}

func (s *sulking) config(stage relay.Stage, reply string) relay.Config {
	return relay.Config{RTT: 20 * time.Millisecond, Reply: func(e relay.Event) relay.Action {
		if e.Stage != stage || !s.sulks.Load() {
			return relay.Action{}
		}
		s.refused.Add(1)
		return relay.Action{Reply: reply}
	}}
}

var sulks = map[string]struct {
	stage relay.Stage
	reply string
}{
	"relay denied":        {relay.StageRcpt, "554 5.7.1 <x>: Relay access denied"},
	"unable to relay":     {relay.StageRcpt, "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain"},
	"sender not allowed":  {relay.StageDot, "550 5.7.60 SMTP; Client does not have permissions to send as this sender"},
	"sender not accepted": {relay.StageMail, "550 5.1.0 sender rejected"},
	"not verified":        {relay.StageDot, "554 Message rejected: Email address is not verified."},
	"unknown words":       {relay.StageRcpt, "550 no"},
	"unknown words later": {relay.StageDot, "554 transaction failed"},
}

// The fuse stops after ten refusals. What was on its way to the relay by then is refused too, two messages a connection; nobody is
// bounced, not even the ten, and everything arrives after the cure.
func TestAThousandMessagesSurviveAMisconfiguredRelay(t *testing.T) {
	for name, sulk := range sulks {
		for warm, domains := range map[bool]int{false: 1, true: 40} {
			t.Run(fmt.Sprintf("%s, %d domains, warm %v", name, domains, warm), func(t *testing.T) {
				t.Parallel()
				in(t, func(t *testing.T) {
					s := new(sulking)
					w := newWorld(t, s.config(sulk.stage, sulk.reply))
					to := rcpts(func(n int) []string { return []string{fmt.Sprintf("u%d@d%d.example", n, n%domains)} })
					var before source.Ledger
					if warm {
						before = w.send(3000, 100, to, func(c *source.Config) { c.Name = "before" })
						w.settle(time.Minute)
						if n := w.proxy.Status().Upstream.Connections; n < 15 {
							t.Fatalf("%d connections, so not many are refused at once", n)
						}
					} else {
						w.setDown(errors.New("no route to host"))
					}
					s.sulks.Store(true)
					ledger := w.send(1000, 50, to)
					w.setDown(nil)
					w.until(2*time.Minute, "held", func() bool { return w.proxy.Status().Queue.Held != "" })
					time.Sleep(time.Second)
					width := w.relay.Counters().Peak
					if n := s.refused.Load(); n > int64(fuseMessages+maxFed*width) {
						t.Errorf("%d messages were refused over %d connections", n, width)
					}
					time.Sleep(6 * time.Hour)
					if q := w.proxy.Status().Queue; q.Dead+q.RecipientsFailed > 0 || q.Pending != 1000 || q.Held == "" {
						t.Errorf("after six hours: %+v", q)
					}
					s.sulks.Store(false)
					w.until(90*time.Second, "resumed", func() bool { return w.proxy.Status().Queue.Held == "" })
					w.settle(2 * time.Hour)
					ledger.Records = append(ledger.Records, before.Records...)
					w.arrived(ledger)
					w.balanced()
					if q := w.proxy.Status().Queue; q.Dead > 0 {
						t.Errorf("%+v", q)
					}
				})
			})
		}
	}
}

// With fewer than ten messages the fuse does not trip, and yet nobody is bounced by the first refusals of a relay that is put right soon.
func TestAFewMessagesSurviveAMisconfiguredRelay(t *testing.T) {
	for _, restart := range []bool{false, true} {
		in(t, func(t *testing.T) {
			s := new(sulking)
			w := newWorld(t, s.config(relay.StageRcpt, "550 no"))
			s.sulks.Store(true)
			ledger := w.send(fuseMessages-1, 3)
			time.Sleep(doubtFor / 2)
			if q := w.proxy.Status().Queue; s.refused.Load() != fuseMessages-1 || q.Held != "" || q.Dead > 0 {
				t.Fatalf("%d refused, %+v", s.refused.Load(), q)
			}
			if restart {
				if left := w.finish(); left != fuseMessages-1 {
					t.Fatalf("%d left", left)
				}
			}
			s.sulks.Store(false)
			if restart {
				w.start()
				if q := w.proxy.Status().Queue; q.DuplicatesPossible > 0 {
					t.Errorf("a refused message is taken for one that was on its way: %+v", q)
				}
			}
			w.settle(time.Hour)
			w.arrived(ledger)
			w.balanced()
		})
	}
}

func deadAddress(c *source.Config) {
	c.Name, c.Recipients = "dead", func(n int) []string { return []string{"dead@x.example"} }
}

// A dead address is known as such with the next message that gets through, and where there is none at the second try.
func TestADeadAddressIsBelievedWhenOthersGetThrough(t *testing.T) {
	for _, others := range []bool{true, false} {
		in(t, func(t *testing.T) {
			var asked atomic.Int64
			w := newWorld(t, relay.Config{RTT: 20 * time.Millisecond, Reply: func(e relay.Event) relay.Action {
				if e.Stage == relay.StageRcpt && strings.Contains(e.Line, "dead@") {
					asked.Add(1)
					return relay.Action{Reply: "550 5.1.1 user unknown"}
				}
				return relay.Action{}
			}})
			w.send(1, 1, deadAddress)
			time.Sleep(time.Second)
			if q := w.proxy.Status().Queue; q.Dead != 0 || asked.Load() != 1 {
				t.Fatalf("nothing shows that the relay is sane: %+v", q)
			}
			within, times := time.Second, int64(1)
			if others {
				w.send(1, 1)
			} else {
				within, times = doubtFor+w.cfg.Queue.RecipientRetryMin+tick, 2
			}
			w.until(within, "it is dead", func() bool { return w.proxy.Status().Queue.Dead == 1 })
			if n := asked.Load(); n != times {
				t.Errorf("asked for %d times, want %d", n, times)
			}
			w.balanced()
		})
	}
}

// What was under way before the refusal shows nothing of the relay as it is now.
func TestASuccessThatBeganEarlierConfirmsNothing(t *testing.T) {
	in(t, func(t *testing.T) {
		var slow atomic.Bool
		w := newWorld(t, relay.Config{RTT: 20 * time.Millisecond, Reply: func(e relay.Event) relay.Action {
			switch {
			case e.Stage == relay.StageRcpt && strings.Contains(e.Line, "dead@"):
				return relay.Action{Reply: "550 5.1.1 user unknown"}
			case e.Stage == relay.StageDot && slow.Load():
				return relay.Action{Delay: 10 * time.Second}
			}
			return relay.Action{}
		}})
		w.send(300, 30)
		w.settle(time.Minute)
		slow.Store(true)
		w.send(1, 1, func(c *source.Config) { c.Name = "slow" })
		time.Sleep(time.Second)
		w.send(1, 1, deadAddress)
		w.until(time.Minute, "the slow one is delivered", func() bool { return w.proxy.Status().Queue.RecipientsDelivered == 301 })
		time.Sleep(time.Second)
		if q := w.proxy.Status().Queue; q.Dead != 0 {
			t.Errorf("%+v", q)
		}
	})
}

// What sounds like a quota, or quotes somebody else's, and comes for one recipient: it waits alone, however many messages it gets in a row.
func TestOneRecipientsQuotaStopsNobody(t *testing.T) {
	for name, c := range map[string]struct {
		stage relay.Stage
		row   int // messages for that one alone; ten plain 5yz in a row are the fuse's
		reply string
	}{
		"quota exceeded":        {relay.StageRcpt, 30, "550 5.7.1 Sending quota exceeded"},
		"quota exceeded, later": {relay.StageDot, 30, "552 5.2.0 You have exceeded your quota"},
		"mailbox":               {relay.StageRcpt, 30, "452 4.2.2 The mailbox is over quota"},
		"daily":                 {relay.StageRcpt, 30, "450 4.2.1 Daily message limit reached"},
		"quoted daily limit":    {relay.StageDot, fuseMessages - 1, "550 5.4.5 host mx.far.example said: 550 5.4.5 Daily user sending limit exceeded"},
		"quoted connections":    {relay.StageRcpt, 30, "451 4.4.0 host mx.far.example[192.0.2.1] said: 421 4.7.0 Too many connections from your host"},
		"quoted rate":           {relay.StageDot, 30, "451 4.4.0 Remote server returned 454 4.7.1 rate limit exceeded, try again in 2 hours"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				full := func(e relay.Event) bool {
					return strings.Contains(e.Line, "full@") || len(e.To) > 0 && strings.Contains(e.To[0], "full@")
				}
				w := newWorld(t, relay.Config{RTT: 20 * time.Millisecond, Reply: func(e relay.Event) relay.Action {
					if e.Stage == c.stage && full(e) {
						return relay.Action{Reply: c.reply}
					}
					return relay.Action{}
				}})
				w.send(c.row, 3, func(c *source.Config) { c.Name = "full" }, rcpts(func(int) []string { return []string{"full@far.example"} }))
				time.Sleep(time.Second)
				mixed := w.send(1000, 50, rcpts(func(n int) []string {
					if n%20 == 0 {
						return []string{fmt.Sprintf("u%d@d%d.example", n, n%9), "full@far.example"}
					}
					return []string{fmt.Sprintf("u%d@d%d.example", n, n%9)}
				}))
				w.until(10*time.Second, "the others have theirs", func() bool {
					got := 0
					for _, m := range w.relay.Ledger() {
						for _, to := range m.To {
							if strings.HasPrefix(to, "u") {
								got++
							}
						}
					}
					return got == len(mixed.Records)
				})
				if q := w.proxy.Status(); q.Queue.Held != "" || q.Upstream.Ceiling != 0 {
					t.Errorf("%+v", q)
				}
			})
		})
	}
}
