//go:build crash

package crash

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

var kills = flag.Int("kills", 300, "kill -9 at random moments")

const (
	killsPerPage = 30 // after so many everything must have arrived, and the books begin anew
	killMoment   = 80 * time.Millisecond
	startMoment  = 20 * time.Millisecond // a start takes about as long
	drainMoment  = 60 * time.Millisecond
)

// killTally is what a run of kills amounts to.
type killTally struct {
	kills, starting, draining, perKill int
	acknowledged, lost, twice, unasked int
	began                              time.Time
}

func (k *killTally) take(a account) {
	k.acknowledged += a.Acknowledged
	k.lost += len(a.Lost) + len(a.Altered)
	k.twice += len(a.Duplicated)
	k.unasked += a.Surplus
	k.perKill = max(k.perKill, a.PerCrash)
}

func (k killTally) String() string {
	took := time.Since(k.began)
	return fmt.Sprintf("%d kills, %d acknowledged, %d lost, %d twice (at most %d a kill, %d allowed), %d arrived unacknowledged, "+
		"%.2f s a kill, %.0f s", k.kills, k.acknowledged, k.lost, k.twice, k.perKill, upstreamMax, k.unasked,
		took.Seconds()/float64(max(k.kills, 1)), took.Seconds())
}

// TestAKillLosesNothing: whatever was acknowledged when kill -9 came is delivered by a later process, and what
// arrives twice was under way on a connection.
func TestAKillLosesNothing(t *testing.T) {
	r := newRig(t, relay.Config{})
	tally := killTally{began: time.Now()}
	for tally.kills < *kills && !t.Failed() {
		for page := min(killsPerPage, *kills-tally.kills) + tally.kills; tally.kills < page && !t.Failed(); {
			r.life(t, &tally)
		}
		tally.take(r.page(t, r.someRelay()))
	}
	t.Logf("kill -9 at random: %d while starting, %d while draining, in all %v", tally.starting, tally.draining, tally)
	if tally.acknowledged < 10*tally.kills {
		t.Errorf("only %d messages were acknowledged before %d kills: little was tested", tally.acknowledged, tally.kills)
	}
}

// someRelay is near or far, fast or slow, and may have a limit that mailweir has to find.
func (r *rig) someRelay() relay.Config {
	cfg := relay.Config{RTT: time.Duration(r.random.IntN(5)) * time.Millisecond}
	switch r.random.IntN(4) {
	case 0:
		cfg.ServiceTime = time.Duration(1+r.random.IntN(20)) * time.Millisecond
	case 1:
		cfg.MaxConnections = 1 + r.random.IntN(upstreamMax)
	case 2:
		cfg.MessagesPerConnection = 1 + r.random.IntN(10)
	}
	return cfg
}

// someLoad is what an application may do: few or many connections, each message over a new one or not, small, or large
// enough for a file of its own.
func (r *rig) someLoad() source.Config {
	cfg := source.Config{Messages: 400, Connections: 1 + r.random.IntN(30), Reuse: r.random.IntN(2) == 0, Size: 300 + r.random.IntN(8000)}
	switch r.random.IntN(5) {
	case 0:
		cfg.Messages, cfg.Connections, cfg.Size = 20, 1+r.random.IntN(4), 130<<10+r.random.IntN(500<<10)
	case 1:
		cfg.Size = 20<<10 + r.random.IntN(60<<10)
	}
	return cfg
}

// moment is some time of up to max, often much less.
func (r *rig) moment(max time.Duration) time.Duration {
	d := time.Duration(r.random.Int64N(int64(max)))
	if r.random.IntN(3) == 0 {
		return d >> r.random.IntN(16)
	}
	return d
}

// life is one process, from its start to its kill, unless it has drained before.
func (r *rig) life(t *testing.T, tally *killTally) {
	t.Helper()
	r.s.is([]mood{takes, takes, takes, takes, isBusy, isBusy, refusesHalf, refusesAll, isMute}[r.random.IntN(9)])
	r.w.launch(t)
	if r.random.IntN(6) == 0 {
		<-time.After(r.moment(startMoment))
		r.kill(t, nil)
		tally.starting++
		tally.kills++
		return
	}
	r.w.ready(t)
	l := r.beside(t, r.someLoad())
	<-l.first
	<-time.After(r.moment(killMoment))
	if r.random.IntN(6) == 0 {
		r.w.leave(t)                               // and may be through just before the kill
		if r.w.endsWithin(r.moment(drainMoment)) { // there was little to drain
			if code := r.w.wait(t, exitLimit); !stoppedByMail(code) {
				t.Errorf("exit code %d after SIGTERM\n%s", code, tail(r.w.log))
			}
			r.buried(t, l)
			return
		}
		tally.draining++
	}
	r.kill(t, l)
	tally.kills++
}
