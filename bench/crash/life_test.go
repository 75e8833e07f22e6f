//go:build crash

package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

const (
	upstreamMax = 8 // connections to the sink; what a kill repeats was under way on one of them
	refillLimit = 5 * time.Second
	quietLimit  = 5 * time.Second
)

// upstreamMaxSetting makes upstreamMax what mailweir keeps to.
var upstreamMaxSetting = fmt.Sprintf("MAILWEIR_UPSTREAM_MAX_CONNECTIONS=%d", upstreamMax)

// rig is a mailweir between its sources and a sink, on a real file system, with the books of it.
type rig struct {
	w      *weir
	s      *sink
	b      *book
	random *rand.Rand
	storms int
	began  time.Time
}

// newRig starts nothing. The journal is small, so that a storm passes several segments.
func newRig(t *testing.T, cfg relay.Config, settings ...string) *rig {
	t.Helper()
	v := newVolume(t, volumeBytes)
	r := &rig{s: newSink(t, cfg), random: newRandom(t), began: time.Now()}
	r.b = &book{sinks: []*sink{r.s}}
	r.w = newWeir(t, r.s.address, filepath.Join(v.dir, "journal"), append(append([]string{upstreamMaxSetting}, small...), settings...)...)
	return r
}

// page has everything delivered by what runs, ends it, closes the books, and begins new ones with a new sink. The journal stays.
func (r *rig) page(t *testing.T, cfg relay.Config) account {
	t.Helper()
	a := r.close(t)
	r.s.Close()
	r.s = newSink(t, cfg)
	r.b = &book{sinks: []*sink{r.s}}
	r.w.set("MAILWEIR_UPSTREAM=smtp://" + r.s.address)
	return a
}

// close has everything delivered, by a process that it starts if none runs, and judges the books.
func (r *rig) close(t *testing.T) account {
	t.Helper()
	r.s.is(takes)
	if r.w.process == nil {
		r.w.start(t)
	}
	a := r.b.settle(t, settleLimit)
	if code := r.w.terminate(t); code != 0 {
		t.Errorf("exit code %d when everything has arrived\n%s", code, tail(r.w.log))
	}
	if again := r.b.account(); again.Arrived != a.Arrived || len(again.Unexplained) > 0 {
		t.Error("something came again while mailweir stopped")
	}
	found, err := filepath.Glob(filepath.Join(r.w.journal, "*.quarantine"))
	if err != nil {
		t.Fatal(err)
	}
	if len(found) > 0 {
		t.Errorf("%v: a crash was taken for damage", found)
	}
	if a.PerCrash > upstreamMax {
		t.Errorf("a crash repeated %d deliveries; %d can have been under way", a.PerCrash, upstreamMax)
	}
	return a
}

// sum is an account in words.
func (r *rig) sum(a account) string {
	return fmt.Sprintf("%d acknowledged, %d lost, %d twice, %d arrived unacknowledged, %.1f s",
		a.Acknowledged, len(a.Lost)+len(a.Altered), len(a.Duplicated), a.Surplus, time.Since(r.began).Seconds())
}

// storm is a load of its own name.
func (r *rig) storm(cfg source.Config) source.Config {
	r.storms++
	cfg.Address, cfg.Name, cfg.Timeout = r.w.address, fmt.Sprintf("storm%d", r.storms), sourceLimit
	return cfg
}

// send sends and enters what the source was told, which it returns too.
func (r *rig) send(t *testing.T, cfg source.Config) source.Ledger {
	t.Helper()
	sent := source.Run(t.Context(), r.storm(cfg))
	r.b.add(sent)
	return sent
}

// sendAll sends and wants everything acknowledged.
func (r *rig) sendAll(t *testing.T, cfg source.Config) {
	t.Helper()
	sent := r.send(t, cfg)
	for _, rec := range sent.Records {
		if !rec.Acknowledged() {
			t.Fatalf("not acknowledged, at %s: %s %v", rec.Stage, rec.Reply, rec.Err)
		}
	}
}

// beside sends in the background. The load ends by itself soon after the process has: nobody listens any more. So every
// acknowledgement that was sent is heard.
func (r *rig) beside(t *testing.T, cfg source.Config) *load { return sendBeside(t, r.storm(cfg)) }

// kill is kill -9 now, and the entry in the books. l, which may be nil, was sending meanwhile.
func (r *rig) kill(t *testing.T, l *load) {
	t.Helper()
	r.w.kill(t)
	r.buried(t, l)
}

// buried enters the end of a process that has been waited for.
func (r *rig) buried(t *testing.T, l *load) {
	t.Helper()
	down := time.Now()
	if l != nil {
		r.b.add(<-l.ended)
		l.cancel()
	}
	r.quiet(t)
	r.b.crashed(down, time.Now())
}

// quiet waits until the sink has read what a dead process had sent: taken later it would count as the next one's.
func (r *rig) quiet(t *testing.T) {
	t.Helper()
	await(t, quietLimit, "the sink to see that its client is gone", func() error {
		if n := r.s.Counters().Current; n > 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
}

// greetsOrEnds waits until the front door greets or the process has ended, and says whether it runs.
func (w *weir) greetsOrEnds(t *testing.T) (runs bool) {
	t.Helper()
	await(t, startLimit, "mailweir's greeting or its end", func() error {
		if w.ended() {
			return nil
		}
		return w.greets()
	})
	return !w.ended()
}

// tell sends a signal to a process that may be over.
func (w *weir) tell(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := w.process.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("%v to mailweir: %v", s, err)
	}
}

// ended says whether the process that was started is over; wait has still to be called.
func (w *weir) ended() bool {
	select {
	case err := <-w.exited:
		w.exited <- err // has room: it is the only one
		return true
	default:
		return false
	}
}

// endsWithin waits for the end of the process, and gives up without complaint.
func (w *weir) endsWithin(limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	select {
	case err := <-w.exited:
		w.exited <- err
		return true
	case <-ctx.Done():
		return false
	}
}

// awaitAccepting sends one message after another until one is acknowledged.
func (r *rig) awaitAccepting(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	await(t, refillLimit, "mail to be accepted again", func() error {
		sent := r.send(t, source.Config{Messages: 1, Size: 1000})
		if rec := sent.Records[0]; !rec.Acknowledged() {
			return errors.Join(fmt.Errorf("at %s: %s", rec.Stage, rec.Reply), rec.Err)
		}
		return nil
	})
	return time.Since(began)
}

// awaitEmpty waits until nothing is pending.
func (r *rig) awaitEmpty(t *testing.T) {
	t.Helper()
	await(t, settleLimit, "an empty queue", func() error {
		if q := r.w.status(t).Queue; q.Pending > 0 {
			return fmt.Errorf("%d messages are pending", q.Pending)
		}
		return nil
	})
}

// stoppedByMail says whether an exit code is one that a drain may end with.
func stoppedByMail(code int) bool { return code == 0 || code == exitMailLeft }

// Exit codes, as documented by mailweir run --help.
const (
	exitFailure  = 1
	exitMailLeft = 75
)

// killed is what weir.wait returns for a process that SIGKILL ended.
const killed = -int(syscall.SIGKILL)

// greetsWithin waits a while for the greeting or the end, gives up without complaint, and says whether the front door greets. A
// process that cannot accept a connection keeps it waiting, for a share of limit.
func (w *weir) greetsWithin(t *testing.T, limit time.Duration) bool {
	t.Helper()
	for deadline := time.Now().Add(limit); !w.ended() && time.Now().Before(deadline); <-time.After(maxPause / 10) {
		conn, err := net.DialTimeout("tcp", w.address, limit)
		if err != nil {
			continue
		}
		line := make([]byte, 4)
		err = conn.SetDeadline(time.Now().Add(limit))
		if err == nil {
			_, err = conn.Read(line)
		}
		if err = errors.Join(err, conn.Close()); err == nil && string(line) == "220 " {
			return true
		}
	}
	return false
}
