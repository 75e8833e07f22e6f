package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// traffic sends messages through j from several senders until stop is closed: some end at once, some wait, some have a file of
// their own, one in a hundred is dead for a while. It returns what is left, and how many there were.
func traffic(t *testing.T, j *Journal, senders, large int, stop chan struct{}) (live map[uint64]bool, sent int64) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var ids atomic.Uint64
	live = make(map[uint64]bool)
	for n := range senders {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(n)))
			var waiting []uint64
			end := func(at int) {
				if err := j.Append(Record{Type: Settled, ID: waiting[at]}); err != nil {
					t.Error(err)
				}
				waiting = append(waiting[:at], waiting[at+1:]...)
			}
			for {
				select {
				case <-stop:
					mu.Lock()
					defer mu.Unlock()
					for _, id := range waiting {
						live[id] = true
					}
					return
				default:
				}
				id := ids.Add(1)
				size := rng.IntN(600)
				if rng.IntN(20) == 0 {
					size += int(j.cfg.InlineBytes)
				} else if rng.IntN(10) == 0 {
					size += large
				}
				if err := newLedger().commit(j, id, size); err != nil {
					if !errors.Is(err, ErrFull) {
						t.Error(err)
						return
					}
					if len(waiting) > 2 {
						end(len(waiting) - 1)
					}
					<-time.After(time.Millisecond) // room comes when the sweeper has made it
					continue
				}
				atomic.AddInt64(&sent, 1)
				waiting = append(waiting, id)
				note := Record{Type: Attempt, ID: waiting[rng.IntN(len(waiting))], Payload: fmt.Append(nil, id), Whole: rng.IntN(3) == 0}
				if rng.IntN(100) == 0 {
					note.Type = Dead
				}
				if err := j.Append(note); err != nil {
					t.Error(err)
				}
				for len(waiting) > 3+rng.IntN(12) {
					end(2 + rng.IntN(len(waiting)-2)) // the first two stay to the end
				}
			}
		})
	}
	wg.Wait()
	return live, sent
}

// Whatever a running journal writes, settles, rotates, copies, frees and makes anew: none of it is damage.
func TestInspectBesideARunningJournalFindsNoDamage(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   Config
		large int   // bytes of one message in ten, beside others of up to 600
		runs  int64 // inspections, at least
	}{
		"memory": {Config{FS: newMemFS(), MaxBytes: 128 << 10, SegmentBytes: 8 << 10}, 0, 200},
		"disk":   {Config{Dir: filepath.Join(t.TempDir(), "journal"), MaxBytes: 256 << 10, SegmentBytes: 16 << 10}, 0, 100},
		"large":  {Config{Dir: filepath.Join(t.TempDir(), "journal"), MaxBytes: 24 << 20, SegmentBytes: 2 << 20}, 100 << 10, 15},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := c.cfg
			j, _ := mustOpen(t, cfg)
			stop := make(chan struct{})
			var runs atomic.Int64
			freed := 0
			var inspecting sync.WaitGroup
			inspecting.Go(func() {
				defer close(stop)
				begun := time.Now()
				for runs.Load() < c.runs || !enough(j.Stats()) {
					r, err := Inspect(Inspection{Dir: cfg.Dir, FS: cfg.FS})
					if err != nil || r.Damaged > 0 {
						t.Errorf("run %d: %v: %+v", runs.Load(), err, r)
						return
					}
					runs.Add(1)
					freed += r.Freed
					if s := j.Stats(); runs.Load() > c.runs && s.Commits > besideWork && time.Since(begun) > besideTime {
						t.Errorf("that is no test: %d inspections, %+v", runs.Load(), s)
						return
					}
				}
			})
			inspecting.Go(func() { // the sweeper does this when a segment is two seconds old
				for {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
						j.seal(time.Now(), func() bool { return false })
					}
				}
			})
			var live map[uint64]bool
			var sent int64
			written := func() int64 { s := j.Stats(); return s.Commits + s.Appends }
			goesOn(t, func() {
				live, sent = traffic(t, j, 6, c.large, stop)
				inspecting.Wait()
			}, written, runs.Load)
			s := j.Stats()
			t.Logf("%d inspections beside %d messages; %d segments went while they were read; %d copies, %d recycled, %d sealed",
				runs.Load(), sent, freed, s.Moved, s.Recycled, s.Sealed)
			if s.Damaged > 0 {
				t.Errorf("the journal itself took something for damage: %+v", s)
			}
			compare := func(when string) {
				r := mustInspect(t, Inspection{Dir: cfg.Dir, FS: cfg.FS})
				if r.Live+r.Dead != len(live) || r.Damaged > 0 {
					t.Errorf("%s: %d live and %d dead of %d: %+v", when, r.Live, r.Dead, len(live), r)
				}
			}
			compare("open")
			goesOn(t, func() {
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			})
			compare("closed")
		})
	}
}

// By then a journal has done all of it many times over: the sweeper goes by the clock, the rest by what there is to do, so that
// neither a slow machine nor a fast one is a failure.
const (
	besideWork = 5000 // messages
	besideTime = time.Minute
)

// standstill is longer than the slowest machine takes for one step of anything here.
const standstill = 2 * time.Minute

// goesOn runs f and waits for it, as long as each of the counters moves. Else it ends the test, and shows who waits for what.
func goesOn(t *testing.T, f func(), counters ...func() int64) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for last := make([]int64, len(counters)); ; {
		select {
		case <-done:
			return
		case <-time.After(standstill):
		}
		moves := len(counters) > 0
		for n, counter := range counters {
			now := counter()
			moves = moves && now != last[n]
			last[n] = now
		}
		if !moves {
			stacks := make([]byte, 1<<20)
			t.Fatalf("nothing has moved for %v: %d\n%s", standstill, last, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// enough says that a journal has done everything that an inspection could stumble over.
func enough(s Stats) bool {
	return s.Moved >= 10 && s.Recycled >= 2 && s.Sealed >= 5
}

// hookFS tells a test which file is about to be opened.
type hookFS struct {
	FS
	open func(name string)
}

func (h hookFS) Open(name string, write bool) (File, error) {
	h.open(name)
	return h.FS.Open(name, write)
}

// The message ends, and its body goes, between the moment it was found alive and the moment its body is opened.
func TestABodyThatGoesWithItsMessageIsNoDamage(t *testing.T) {
	for _, ends := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			m, l := newMemFS(), newLedger()
			j, _ := mustOpen(t, small(m))
			defer mustClose(t, j)
			must(t, l.commit(j, 1, 900))
			h := hookFS{m, func(name string) {
				if name != bodyName(1) || !m.has(name) {
					return
				}
				if ends {
					must(t, l.settle(j, 1))
				} else {
					must(t, m.Remove(name))
				}
				<-time.After(time.Second)
				if m.has(name) {
					t.Error("it is still there")
				}
			}}
			r := mustInspect(t, Inspection{FS: h})
			if ends == (r.Damaged > 0) || ends == (r.Live > 0) {
				t.Errorf("ends %v: %+v", ends, r)
			}
		})
	}
}

// A segment is freed while it is read, and its file becomes another segment, under the reader's hands.
func TestASegmentThatIsMadeAnewWhileItIsReadIsNoDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, Config{FS: m, MaxBytes: 64 << 20, SegmentBytes: 4 << 20})
		defer mustClose(t, j)
		for id := uint64(1); id <= 80; id++ {
			must(t, l.commit(j, id, 120<<10))
		}
		begun := false
		r := mustInspect(t, Inspection{FS: m, Visit: func(f Found) error {
			if begun {
				return nil
			}
			begun = true
			for id := uint64(1); id <= 80; id++ {
				must(t, l.settle(j, id))
			}
			<-time.After(time.Second)
			for id := uint64(1000); j.Stats().Recycled < 2; id++ {
				must(t, l.commit(j, id, 120<<10))
				must(t, l.settle(j, id))
				<-time.After(100 * time.Millisecond)
			}
			return nil
		}})
		if r.Damaged > 0 || r.Freed == 0 || r.Live > 0 {
			t.Errorf("%+v", r)
		}
	})
}

// turningFS gives, from the third time on that a file is opened, another content. The first two times an inspection looks for the
// header and for the end.
type turningFS struct {
	FS
	name, first, then string
	opened            *int
}

func (r turningFS) Open(name string, write bool) (File, error) {
	if name == r.name {
		*r.opened++
		if name = r.first; *r.opened > 2 {
			name = r.then
		}
	}
	return r.FS.Open(name, write)
}

// The moment between opening a file and reading it is long enough for it to be made into another segment.
func TestAFileThatIsAnotherSegmentByNowIsNoDamage(t *testing.T) {
	m, _ := harbour(t)
	r := mustInspect(t, Inspection{FS: turningFS{m, segmentName(1), segmentName(1), segmentName(3), new(int)}})
	if r.Damaged > 0 || r.Freed != 1 {
		t.Errorf("%+v", r)
	}
}

// A write that fails for want of room is cut off again, and others come in its place: where the tail ended a moment ago now stands
// the middle of a record.
func TestATailThatWasCutAndWrittenAnewIsNoDamage(t *testing.T) {
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, Config{FS: m, MaxBytes: 1 << 20, SegmentBytes: 64 << 10})
	must(t, l.commit(j, 1, 100))
	var failed []byte
	wrote := false
	m.fault = func(op, _ string) error {
		switch {
		case op == "write" && !wrote:
			wrote = true
			return errRoom
		case op == "truncate" && failed == nil:
			failed = slices.Clone(m.names[segmentName(1)].data)
		}
		return nil
	}
	if err := l.commit(j, 2, 300); !errors.Is(err, ErrFull) || failed == nil {
		t.Fatal(err)
	}
	m.heal()
	must(t, l.commit(j, 3, 50))
	must(t, l.commit(j, 4, 500))
	now := m.after(killed, nil).with("failed", failed)
	mustClose(t, j)
	r := mustInspect(t, Inspection{FS: turningFS{now, segmentName(1), "failed", segmentName(1), new(int)}})
	if r.Damaged > 0 || r.Live != 3 {
		t.Errorf("%+v", r)
	}
}
