package proxy

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/proxy/config"
)

// An operator's word acts at once where the cure is at the upstream; without a cure it costs one try, and the wait is as long as before.
func TestResumeHasOneProbeGoOutAtOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		stage relay.Stage
		reply string
		every time.Duration
	}{
		"login":    {relay.StageAuth, "535 5.7.8 Authentication credentials invalid", loginProbe},
		"530":      {relay.StageMail, "530 5.7.0 Authentication required", faultProbe},
		"greeting": {relay.StageConnect, "554 5.7.1 No SMTP service here for you", faultProbe},
		"quota":    {relay.StageMail, "452 4.5.3 daily quota exceeded, try again in 3 hours", 3 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T) {
				var cured atomic.Bool
				var refused atomic.Int32
				w := newWorld(t, relay.Config{Username: "app", Password: "right", Reply: func(e relay.Event) relay.Action {
					if e.Stage == tc.stage && !cured.Load() {
						refused.Add(1)
						return relay.Action{Reply: tc.reply}
					}
					return relay.Action{}
				}}, creds)
				ledger := w.send(30, 5)
				time.Sleep(10*time.Second + tc.every/30)
				before := refused.Load()
				if was := w.proxy.resume(); was == "" || was != w.proxy.Status().Queue.Held {
					t.Errorf("was held: %q", was)
				}
				time.Sleep(tc.every / 3)
				if n := refused.Load() - before; n != 1 || w.proxy.Status().Queue.Held == "" {
					t.Errorf("%d tries without a cure", n)
				}
				cured.Store(true)
				w.proxy.resume()
				w.until(2*time.Second, "resumed", func() bool { return w.proxy.Status().Queue.Held == "" })
				w.settle(tc.every + time.Minute) // what heard the refusal itself waits for its own time
				w.arrived(ledger)
			})
		})
	}
}

func TestResumeEndsAPauseWhereNothingIsHeld(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{})
		w.setDown(errors.New("no route to host"))
		ledger := w.send(30, 5)
		time.Sleep(time.Hour)
		n := w.dialled()
		w.until(2*time.Minute, "a dial", func() bool { return w.dialled() > n })
		time.Sleep(2 * time.Second) // the next one is in half a minute
		w.setDown(nil)
		if was := w.proxy.resume(); was != "" {
			t.Errorf("was held: %q", was)
		}
		w.settle(2 * time.Second)
		w.arrived(ledger)
	})
}

// A file that changes all the time must not make a loop of logins.
func TestAChangedSecretIsTriedTwiceAMinuteAtMost(t *testing.T) {
	in(t, func(t *testing.T) {
		file := tempFile(t, "password", "wrong")
		var logins atomic.Int32
		w := newWorld(t, relay.Config{Username: "app", Password: "right", Reply: func(e relay.Event) relay.Action {
			if e.Stage == relay.StageAuth {
				logins.Add(1)
			}
			return relay.Action{}
		}}, func(c *config.Config) {
			c.Upstream.Username, c.Upstream.PasswordFile, c.Upstream.PlaintextAuth = "app", file, true
		})
		w.send(1, 1)
		time.Sleep(time.Minute)
		for n := range 200 {
			tempFile(t, file, fmt.Sprint("wrong", n))
			time.Sleep(3 * time.Second)
		}
		if n := logins.Load(); n < 5 || n > 22 {
			t.Errorf("%d logins in ten minutes", n)
		}
		tempFile(t, file, "right")
		w.settle(changedPause + 5*time.Second)
	})
}

// A changed secret that lets us in is followed by a message as seldom as before, until one is taken: a relay that answers no content
// must not be given the same mail every two seconds.
func TestALoginThatIsCuredDoesNotHurryWhatFollows(t *testing.T) {
	in(t, func(t *testing.T) {
		file := tempFile(t, "password", "wrong")
		w := newWorld(t, relay.Config{Username: "app", Password: "right", Reply: func(e relay.Event) relay.Action {
			return relay.Action{Reset: e.Stage == relay.StageDot}
		}}, func(c *config.Config) {
			c.Upstream.Username, c.Upstream.PasswordFile, c.Upstream.PlaintextAuth = "app", file, true
		})
		w.send(40, 4)
		time.Sleep(time.Minute)
		tempFile(t, file, "right")
		time.Sleep(10 * time.Minute)
		if n := w.relay.Counters().Transactions; n == 0 || n > 2 {
			t.Errorf("%d messages in ten minutes", n)
		}
	})
}
