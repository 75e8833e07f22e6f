//go:build crash

package crash

import (
	"flag"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

var terms = flag.Int("terms", 40, "processes that are stopped by SIGTERM at random moments")

const (
	pauses      = 6
	pauseFor    = 300 * time.Millisecond
	moreTerms   = 5 // signals to a process that drains
	termMoment  = 60 * time.Millisecond
	earlyMoment = 15 * time.Millisecond
)

// TestAProcessThatIsStoppedForAWhileLosesNothing: nobody but its clients can tell that it was not there.
func TestAProcessThatIsStoppedForAWhileLosesNothing(t *testing.T) {
	r := newRig(t, relay.Config{RTT: time.Millisecond})
	r.w.start(t)
	for range pauses {
		l := r.beside(t, source.Config{Messages: 150, Connections: 10, Reuse: true, Size: 3000})
		<-l.first
		<-time.After(r.moment(killMoment))
		r.w.freeze(t)
		<-time.After(pauseFor)
		r.w.signal(t, syscall.SIGCONT)
		sent := <-l.ended
		l.cancel()
		r.b.add(sent)
		if n := sent.Count(source.Record.Acknowledged); n != 150 {
			t.Errorf("%d of 150 acknowledged", n)
		}
	}
	a := r.close(t)
	t.Logf("SIGSTOP and SIGCONT: %d times, %d acknowledged, %d lost, %d twice, %.1f s", pauses, a.Acknowledged, len(a.Lost),
		len(a.Duplicated), time.Since(r.began).Seconds())
	if len(a.Duplicated) > 0 {
		t.Errorf("%d came twice though no process has ended", len(a.Duplicated))
	}
}

// TestSignalsAtAnyMomentLoseNothing: SIGTERM while it starts, in a storm, and several of them while it drains. One
// signal drains: then nothing may come twice either. A second one ends it at once, with what was under way.
func TestSignalsAtAnyMomentLoseNothing(t *testing.T) {
	r := newRig(t, relay.Config{RTT: time.Millisecond})
	codes := map[int]int{}
	var drained, cut, lost, twice, acknowledged int
	for n := range *terms {
		r.s.is([]mood{takes, takes, isBusy, refusesHalf}[r.random.IntN(4)])
		r.w.set("MAILWEIR_DRAIN_TIMEOUT=" + []string{"100ms", "1s"}[r.random.IntN(2)])
		r.w.launch(t)
		var l *load
		if r.random.IntN(4) == 0 {
			<-time.After(r.moment(earlyMoment))
		} else {
			r.w.ready(t)
			l = r.beside(t, r.someLoad())
			<-l.first
			<-time.After(r.moment(termMoment))
		}
		again := r.random.IntN(3) == 0
		code := r.stop(t, again)
		codes[code]++
		switch {
		case again:
			cut++
		case code == -int(syscall.SIGTERM) && l == nil: // before it had got as far as to ask for signals
		case !stoppedByMail(code):
			t.Errorf("exit code %d after one SIGTERM\n%s", code, tail(r.w.log))
		default:
			drained++
		}
		if again || l == nil {
			r.buried(t, l)
		} else {
			r.b.add(<-l.ended)
			l.cancel()
			r.quiet(t)
		}
		if n%10 == 9 || n == *terms-1 {
			a := r.page(t, relay.Config{RTT: time.Millisecond})
			lost, twice, acknowledged = lost+len(a.Lost), twice+len(a.Duplicated), acknowledged+a.Acknowledged
		}
	}
	t.Logf("SIGTERM: %d processes, %d drained, %d got more signals while they did, exit codes %v; %d acknowledged, %d lost, %d twice, %.1f s",
		*terms, drained, cut, codes, acknowledged, lost, twice, time.Since(r.began).Seconds())
}

// stop sends SIGTERM and, if again, more of them while it drains; it returns how the process ended.
func (r *rig) stop(t *testing.T, again bool) int {
	t.Helper()
	r.w.tell(t, syscall.SIGTERM)
	if again {
		for range moreTerms {
			if r.w.endsWithin(r.moment(termMoment)) {
				break
			}
			r.w.tell(t, syscall.SIGTERM)
		}
	}
	code := r.w.wait(t, exitLimit)
	if again && code != exitFailure && code != -int(syscall.SIGTERM) && !stoppedByMail(code) {
		t.Errorf("exit code %d after several SIGTERM\n%s", code, tail(r.w.log))
	}
	return code
}
