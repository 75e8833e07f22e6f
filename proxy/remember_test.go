package proxy

import (
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/config"
)

// A process that is killed writes nothing at its end.
func TestAKillCostsFiveMinutesOfAQuotaAtMost(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{}, func(c *config.Config) { c.Flow.RecipientsPerDay = 100 })
		w.send(40, 5)
		w.settle(time.Minute)
		time.Sleep(rememberEvery + tick)
		next, err := flowctl.New(w.cfg.Flow, 1, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := next.Restore(time.Now(), w.proxy.journal.Blob(blobFlow)); err != nil {
			t.Fatal(err)
		}
		if n := next.Snapshot(time.Now()).QuotaUsed; n != 40 {
			t.Errorf("%d of 40 recipients are in the journal", n)
		}
	})
}

func TestWhatIsLearntIsWrittenWhenItChangedAndNotOften(t *testing.T) {
	d := newCarrier(t, 1)
	d.log = zap.NewNop()
	d.recorder = &recorder{entries: make(chan entry, 1000)}
	now := noon.Add(2 * time.Second)
	pass := func(t0 time.Duration) int {
		before := len(d.recorder.entries)
		for end := now.Add(t0); now.Before(end); now = now.Add(time.Second) {
			d.rememberSometimes(now)
		}
		return len(d.recorder.entries) - before
	}
	use := func() {
		d.flow.SendStart(now, 1, 1, 1)
		d.flow.SendDone(now, 1, flowctl.Outcome{})
	}
	use()
	if n := pass(rememberEvery - time.Second); n != 0 {
		t.Errorf("written %d times before it was due", n)
	}
	if n := pass(3 * time.Second); n != 1 {
		t.Errorf("written %d times when it was due", n)
	}
	if n := pass(24 * time.Hour); n != 0 {
		t.Errorf("written %d times though nothing had changed", n)
	}
	use()
	if n := pass(time.Second); n != 1 {
		t.Errorf("written %d times after a day without change", n)
	}
	d.learnt.limits = true
	if n := pass(rememberSoon - 2*time.Second); n != 0 {
		t.Errorf("a new limit: written %d times at once", n)
	}
	most := 0
	for range 600 { // limits move every second
		d.learnt.limits = true
		most += pass(time.Second)
	}
	if most > int(600*time.Second/rememberSoon)+1 || most < 2 {
		t.Errorf("written %d times in 10 minutes of ever new limits", most)
	}
}
