//go:build crash

package crash

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

var (
	cuts = flag.Int("cuts", 500, "power cuts in all: those of the whole program, and of the journal alone")
	seed = flag.Uint64("seed", 0, "of everything that chance decides; 0: a new one")
)

const (
	volumeBytes  = 256 << 20
	cutsPerPage  = 25 // after so many everything must have arrived, and the books begin anew
	settleLimit  = 30 * time.Second
	latestMoment = 100 * time.Millisecond

	// A verdict is synced after 50 ms at the latest. What arrived longer ago than that must not come again; the rest is for
	// machines with more to do than this.
	verdictWindow = 50*time.Millisecond + 450*time.Millisecond
)

// newRandom returns a source of chance whose seed is in the log.
func newRandom(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("-seed=%d", s)
	return rand.New(rand.NewPCG(s, 0))
}

// outage cuts the power of one mailweir again and again.
type outage struct {
	v      *volume
	w      *weir
	random *rand.Rand

	s     *sink // of this page
	b     *book
	storm int
	fresh bool // the journal does not exist yet

	figures
}

// figures add up over all pages.
type figures struct {
	cuts         int
	acknowledged int
	lost         int
	duplicates   int
	surplus      int
	perCut       int           // duplicates, the most
	oldest       time.Duration // duplicate before its crash
	dark         time.Duration // from the stop of the process to the mounted file system
	segments     int           // in the journal after a cut, the most
	unfinished   int           // cuts that left a segment which was being made
	bodies       int           // cuts that left bodies in files of their own
	began        time.Time
}

func (f figures) String() string {
	return fmt.Sprintf("%d cuts, %d acknowledged, %d lost, %d twice (%d at most by one cut, the oldest %v before it), "+
		"%d arrived unacknowledged; up to %d segments, an unfinished one %d times, body files %d times; %v a cut, %.1f s",
		f.cuts, f.acknowledged, f.lost, f.duplicates, f.perCut, f.oldest.Round(time.Millisecond), f.surplus, f.segments, f.unfinished, f.bodies,
		(f.dark / time.Duration(max(f.cuts, 1))).Round(100*time.Microsecond), time.Since(f.began).Seconds())
}

// take adds what the book of a page says.
func (f *figures) take(a account) {
	f.acknowledged += a.Acknowledged
	f.lost += len(a.Lost) + len(a.Altered)
	f.duplicates += len(a.Duplicated)
	f.surplus += a.Surplus
	f.perCut = max(f.perCut, a.PerCrash)
	f.oldest = max(f.oldest, a.Oldest)
}

func newOutage(t *testing.T, settings ...string) *outage {
	t.Helper()
	o := &outage{v: newVolume(t, volumeBytes), random: newRandom(t), figures: figures{began: time.Now()}}
	o.w = newWeir(t, "127.0.0.1:9", filepath.Join(o.v.dir, "journal"), settings...)
	return o
}

// small makes segments of 1 MiB, so that a storm passes several of them.
var small = []string{"MAILWEIR_JOURNAL_MAX_BYTES=16MiB", "MAILWEIR_MAX_MESSAGE_BYTES=1MiB"}

// page begins with new books, a new sink and, one time in two, a new journal.
func (o *outage) page(t *testing.T) {
	t.Helper()
	if o.fresh = o.random.IntN(2) == 0; o.fresh {
		if err := os.RemoveAll(o.w.journal); err != nil {
			t.Fatal(err)
		}
		o.v.sync(t)
	}
	o.s = newSink(t, relay.Config{
		RTT: time.Duration(o.random.IntN(5)) * time.Millisecond, ServiceTime: time.Duration(o.random.IntN(3)) * time.Millisecond,
	})
	o.b = &book{sinks: []*sink{o.s}}
	o.w.set("MAILWEIR_UPSTREAM=smtp://" + o.s.address)
}

// someLoad is what an application may do: few or many connections, each message over a new one or not, small, or large
// enough for a file of its own.
func (o *outage) someLoad() source.Config {
	o.storm++
	cfg := source.Config{
		Address: o.w.address, Name: fmt.Sprintf("storm%d", o.storm), Messages: 400,
		Connections: 1 + o.random.IntN(30), Reuse: o.random.IntN(2) == 0, Size: 300 + o.random.IntN(8000),
	}
	switch o.random.IntN(6) {
	case 0:
		cfg.Messages, cfg.Connections, cfg.Size = 20, 1+o.random.IntN(4), 260<<10+o.random.IntN(500<<10)
	case 1:
		cfg.Size = 30<<10 + o.random.IntN(60<<10)
	}
	return cfg
}

// moment is some time of up to max, often much less, now and then more.
func (o *outage) moment(max time.Duration) time.Duration {
	d := time.Duration(o.random.Int64N(int64(max)))
	switch o.random.IntN(5) {
	case 0, 1:
		return d >> o.random.IntN(16)
	case 2:
		return 3 * d
	}
	return d
}

// cycle is one life of the process, and its end.
func (o *outage) cycle(t *testing.T) {
	t.Helper()
	o.s.is([]mood{isBusy, isBusy, isBusy, takes, takes, takes, refusesAll, refusesHalf}[o.random.IntN(8)])
	o.w.launch(t)
	if o.fresh || o.random.IntN(6) == 0 { // in the middle of the first start, of recovery, or of the first deliveries
		o.fresh = false
		<-time.After(o.moment(latestMoment))
		o.cut(t, nil)
		return
	}
	o.w.ready(t)
	l := sendBeside(t, o.someLoad())
	<-l.first
	<-time.After(o.moment(latestMoment))
	if o.random.IntN(8) == 0 { // in the middle of stopping, or just after
		o.w.leave(t)
		<-time.After(o.moment(latestMoment))
	}
	o.cut(t, l)
}

// cut has the power go and come back. l may be nil.
func (o *outage) cut(t *testing.T, l *load) {
	t.Helper()
	down := time.Now() // what was going on from here on until it stands still need not have got to the disk
	o.w.freeze(t)
	o.v.powerOff(t)
	o.w.kill(t)
	if l != nil {
		o.b.add(l.stop()) // whatever it hears now was sent before the process stopped
	}
	o.v.powerOn(t)
	up := time.Now()
	o.b.crashed(down, up)
	o.cuts++
	o.dark += up.Sub(down)
	o.look(t)
}

// look counts what the cut left, to show what was tested.
func (o *outage) look(t *testing.T) {
	t.Helper()
	files := func(pattern string) int {
		found, err := filepath.Glob(filepath.Join(o.w.journal, pattern))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	o.segments = max(o.segments, files("*.seg"))
	o.unfinished += min(files("*.tmp"), 1)
	o.bodies += min(files("*.body"), 1)
	if n := files("*.quarantine"); n > 0 {
		t.Errorf("%d files were quarantined: a power cut was taken for damage", n)
	}
}

// close has everything delivered and closes the page.
func (o *outage) close(t *testing.T) {
	t.Helper()
	o.s.is(takes)
	o.w.start(t)
	a := o.b.settle(t, settleLimit)
	o.take(a)
	if code := o.w.terminate(t); code != 0 {
		t.Errorf("exit code %d when everything has arrived", code)
	}
	if o.b.account().Arrived != a.Arrived || len(o.b.account().Unexplained) > 0 {
		t.Error("something came again while mailweir stopped")
	}
	if a.Oldest > verdictWindow {
		t.Errorf("a message came again %v after it had been taken: its verdict was not synced", a.Oldest)
	}
	o.s.Close()
}

// TestAPowerCutLosesNothing: whatever was acknowledged when the process was stopped is delivered by one that
// finds what was synced, and nothing else.
func TestAPowerCutLosesNothing(t *testing.T) {
	o := newOutage(t, small...)
	for o.cuts < *cuts/2 {
		o.page(t)
		for range min(cutsPerPage, *cuts/2-o.cuts) {
			o.cycle(t)
		}
		o.close(t)
		if t.Failed() {
			break
		}
	}
	o.v.fsck(t)
	t.Log(o.figures)
	if o.acknowledged < 10*o.cuts {
		t.Errorf("only %d messages were acknowledged before %d cuts: little was tested", o.acknowledged, o.cuts)
	}
}

// idle waits until nothing is left to deliver.
func (o *outage) idle(t *testing.T) {
	t.Helper()
	await(t, settleLimit, "what is left in the journal to be delivered", func() error {
		if q := o.w.status(t).Queue; q.Pending > 0 {
			return fmt.Errorf("%d messages are pending", q.Pending)
		}
		return nil
	})
}
