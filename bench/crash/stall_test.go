//go:build crash

package crash

import (
	"flag"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

var stall = flag.Duration("stall", 2*time.Second, "how long a sync takes when the disk stalls")

const (
	stallCrowd   = 200 // connections that wait for one sync
	stallBytes   = 100 << 10
	stallMemory  = 128 << 20 // bytes: the budget for bodies, twice
	stallKills   = 8
	stallBacklog = 300 // messages; the kill comes while they are delivered
	stallNever   = time.Minute
)

func delayOf(d time.Duration) string {
	return fmt.Sprintf("inject=fdatasync:delay_enter=%d", d.Microseconds())
}

// TestAStalledDiskMakesTheApplicationWait: nothing is acknowledged that is not synced, memory stays bounded, deliveries go on,
// and everything is acknowledged when the disk answers.
func TestAStalledDiskMakesTheApplicationWait(t *testing.T) {
	r := newRig(t, relay.Config{}, "MAILWEIR_JOURNAL_MAX_BYTES=128MiB") // room for all that waits
	r.w.start(t)
	r.s.is(isBusy)
	r.sendAll(t, source.Config{Messages: 100, Connections: 10, Reuse: true, Size: 2000})
	before := residentAnon(t, r.w.pid())
	tr := trace(t, r.w.pid(), nil, "trace=fdatasync", delayOf(*stall))

	var acknowledged atomic.Int64
	cfg := r.storm(source.Config{Messages: stallCrowd, Connections: stallCrowd, Size: stallBytes})
	cfg.Timeout = *stall + sourceLimit
	cfg.Progress = func(p source.Progress) { acknowledged.Store(int64(p.Acknowledged)) }
	ended := make(chan source.Ledger, 1)
	go func() { ended <- source.Run(t.Context(), cfg) }() // received below
	r.s.is(takes)
	most := int64(0)
	for deadline := time.Now().Add(*stall * 3 / 4); time.Now().Before(deadline); <-time.After(maxPause) {
		most = max(most, residentAnon(t, r.w.pid()))
	}
	if n := acknowledged.Load(); n > 0 {
		t.Errorf("%d messages acknowledged within %v, though each sync takes %v", n, *stall*3/4, *stall)
	}
	delivered := r.s.Counters().Taken
	if delivered == 0 {
		t.Error("nothing was delivered while the disk stalled")
	}
	tr.detach(t)
	healed := time.Now()
	sent := <-ended
	r.b.add(sent)
	if n := sent.Count(source.Record.Acknowledged); n != stallCrowd {
		t.Errorf("%d of %d acknowledged", n, stallCrowd)
	}
	if most > stallMemory {
		t.Errorf("%d MiB of memory", most>>20)
	}
	took := time.Since(healed)
	a := r.close(t)
	t.Logf("a sync takes %v: %d messages waited, RssAnon %d MiB before and %d MiB at most, %d delivered meanwhile, "+
		"all acknowledged %v after; %v",
		*stall, stallCrowd, before>>20, most>>20, delivered, took.Round(time.Millisecond), r.sum(a))
}

// TestAKillWhileTheDiskStallsRepeatsLittle: verdicts are written while a sync hangs, so a kill finds them.
func TestAKillWhileTheDiskStallsRepeatsLittle(t *testing.T) {
	r := newRig(t, relay.Config{RTT: time.Millisecond})
	delivered, twice, most := 0, 0, 0
	for range stallKills {
		r.s.is(isBusy)
		r.w.start(t)
		r.sendAll(t, source.Config{Messages: stallBacklog, Connections: 10, Reuse: true, Size: 1000})
		tr := trace(t, r.w.pid(), nil, "trace=fdatasync", delayOf(stallNever))
		before := r.s.Counters().Taken
		r.s.is(takes)
		await(t, settleLimit, "deliveries beside the stall", func() error {
			if n := r.s.Counters().Taken - before; n < stallBacklog/3 {
				return fmt.Errorf("%d delivered", n)
			}
			return nil
		})
		<-time.After(r.moment(killMoment))
		delivered += r.s.Counters().Taken - before
		r.w.signal(t, syscall.SIGKILL)
		tr.detach(t) // or the process is not buried before the stall is over
		if code := r.w.wait(t, exitLimit); code != killed {
			t.Errorf("it ended with %d", code)
		}
		r.buried(t, nil)
		a := r.page(t, relay.Config{RTT: time.Millisecond})
		twice += len(a.Duplicated)
		most = max(most, a.PerCrash)
	}
	t.Logf("killed while a sync hangs: %d kills, %d delivered before them, %d twice, at most %d a kill, %d allowed, %.1f s",
		stallKills, delivered, twice, most, upstreamMax, time.Since(r.began).Seconds())
}
