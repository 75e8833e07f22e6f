package relay

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// deliver sends a message of so many recipients on a session that was greeted, and wants this reply to its dot.
func (c *client) deliver(recipients int, reply string) {
	c.t.Helper()
	c.talk("C: MAIL FROM:<a@example.org>\nS: 250")
	for range recipients {
		c.talk("C: RCPT TO:<b@example.net>\nS: 250")
	}
	c.talk("C: DATA\nS: 354\nC: x\nC: .\nS: " + reply)
}

// wantPassed fails unless it took this long since begin, by the clock of the bubble.
func wantPassed(t *testing.T, begin time.Time, want time.Duration) {
	t.Helper()
	if d := time.Since(begin); d != want {
		t.Errorf("after %v; want %v", d, want)
	}
}

func TestARateIsABucketThatRefusalsDoNotEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{RatePerSecond: 2, RateBurst: 3, ServiceTime: 100 * time.Millisecond})
		one, two := dial(t, l), dial(t, l)
		one.talk(greeted)
		two.talk(greeted)
		begin := time.Now()
		one.deliver(1, "250")
		two.deliver(1, "250") // the bucket is the relay's, not a connection's
		one.deliver(1, "250")
		wantPassed(t, begin, 300*time.Millisecond) // 0.4 of a token have come back
		for range 5 {
			one.deliver(1, AmazonThrottle)
		}
		wantPassed(t, begin, 300*time.Millisecond) // what is turned away costs no service
		time.Sleep(400 * time.Millisecond)
		two.deliver(1, "250")
		two.deliver(1, AmazonThrottle)
		time.Sleep(time.Hour)
		for range 3 {
			one.deliver(1, "250")
		}
		one.deliver(1, AmazonThrottle) // it never holds more than its burst
		if n := r.Counters(); n.Throttled != 7 || n.Taken != 7 {
			t.Errorf("%+v", n)
		}
	})
}

func TestTheContentOverTheThreadsIsRefusedAtItsDot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{Threads: 2, ServiceTime: time.Second})
		var c [3]*client
		for i := range c {
			c[i] = dial(t, l)
			c[i].talk(greeted + envelope) // transactions alone do not count
		}
		begin := time.Now()
		c[0].talk("C: x\nC: .")
		c[1].talk("C: x\nC: .")
		synctest.Wait()
		c[2].talk("C: x\nC: .\nS: " + ExchangeOnline)
		wantPassed(t, begin, 0)
		c[0].want("250")
		c[1].want("250")
		wantPassed(t, begin, time.Second)
		c[2].deliver(1, "250")
		if n := r.Counters(); n.Crowded != 1 || n.Taken != 3 || n.Current != 3 {
			t.Errorf("%+v", n)
		}
	})
}

func TestASessionEndsAfterItsMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const reply = "421 Maximum message count per session reached."
		r, l := start(t, Config{MessagesPerConnection: 2, CapReply: reply})
		c := dial(t, l)
		c.talk(greeted)
		c.deliver(1, "250")
		c.deliver(1, "250")
		c.talk("C: MAIL FROM:<a@example.org>\nS: " + reply)
		if _, err := c.in.ReadByte(); err == nil {
			t.Error("the connection goes on")
		}
		dial(t, l).talk(greeted + strings.Replace(oneMessage, "Subject: x", "x: y", 1))
		if n := r.Counters(); n.Capped != 1 || n.Taken != 3 {
			t.Errorf("%+v", n)
		}
	})
}

func TestTheQuotaIsOfRecipientsAndOfADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{DailyRecipients: 5, Day: time.Hour})
		time.Sleep(90 * time.Minute) // a day begins with its first message
		c := dial(t, l)
		c.talk(greeted)
		c.deliver(4, "250")
		c.deliver(2, GoogleQuota)
		c.deliver(1, "250") // what was refused used up nothing
		time.Sleep(59 * time.Minute)
		c.deliver(1, GoogleQuota)
		time.Sleep(time.Minute)
		c.deliver(5, "250")
		c.deliver(1, GoogleQuota)
		r.NewDay()
		c.deliver(5, "250")
		if n := r.Counters(); n.OverQuota != 3 || n.Taken != 4 {
			t.Errorf("%+v", n)
		}
	})
}

func TestTheLedgerCanBeReadOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{})
		c := dial(t, l)
		c.talk(greeted)
		for range 3 {
			c.deliver(1, "250")
		}
		for n, want := range map[int]int{-1: 3, 0: 3, 2: 1, 3: 0, 9: 0} {
			if got := len(r.Since(n)); got != want {
				t.Errorf("%d after the first %d; want %d", got, n, want)
			}
		}
	})
}
