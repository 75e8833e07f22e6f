package journal

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

var (
	states = flag.Int64("states", 15_000, "crash states to try; below 100,000 some stories and faults are left out")
	seed   = flag.Uint64("seed", 0, "of the random ones; 0: another one each time")
)

// thorough says that time is no object.
func thorough() bool { return *states >= 100_000 }

// smallStories lists the stories of up to three messages.
func smallStories() map[string]story {
	if thorough() {
		return exhaustive(1, 3)
	}
	return exhaustive(2, 2)
}

// perTape is how many crashes are tried at random of one random story.
const perTape = 120

// A crash can come at every moment, and the disk can have kept anything of what was not synced: nothing acknowledged is lost,
// nothing that ended comes back. First every crash of small stories, then as many of long ones as are asked for.
func TestCrashStates(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // each state is new garbage
	first := *seed
	if first == 0 {
		first = rand.Uint64()>>1 | 1
	}
	var tried, moved, recycled atomic.Int64
	t.Run("all", func(t *testing.T) {
		for name, tale := range smallStories() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				crashes(t, tale, first, &tried, &moved, &recycled, func(w *walk, tape []event) error { return w.all(tape) })
			})
		}
	})
	t.Logf("%d states of small stories", tried.Load())
	t.Run("some", func(t *testing.T) {
		for name, tale := range long {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				crashes(t, tale, first, &tried, &moved, &recycled, func(w *walk, tape []event) error {
					return w.some(tape, int(*states)/len(long)/5)
				})
			})
		}
		var next atomic.Uint64
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("random ", worker), func(t *testing.T) {
				t.Parallel()
				for tried.Load() < *states && !t.Failed() {
					one := first + next.Add(1)
					crashes(t, random(one), one, &tried, &moved, &recycled, func(w *walk, tape []event) error { return w.some(tape, perTape) })
				}
			})
		}
	})
	t.Logf("%d states, -seed %d; in the stories %d messages were moved and %d segments recycled",
		tried.Load(), first, moved.Load(), recycled.Load())
	part := strings.Contains(flag.Lookup("test.run").Value.String(), "/") // some stories alone go somewhere else
	if !part && !t.Failed() && (tried.Load() < *states || moved.Load() < 20 || recycled.Load() < 20) {
		t.Fatal("the stories do not go where a journal goes")
	}
}

// crashes lets a story happen and has the walk go through its tape, which begins in an empty directory.
func crashes(t *testing.T, tale story, one uint64, tried, moved, recycled *atomic.Int64, tryAt func(*walk, []event) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		m.recording, m.stall, l.tape = true, stall, m
		s := tell(m, l, tale)
		if err := s.unexcused(); err != nil {
			t.Fatalf("the story failed by itself: %v", err)
		}
		moved.Add(s.did.Moved)
		recycled.Add(s.did.Recycled)
		w := &walk{m: newMemFS(), l: newLedger(), rng: rand.New(rand.NewPCG(one, 2)), seen: map[uint64]bool{},
			count: tried, again: 4}
		if err := tryAt(w, m.log); err != nil {
			t.Fatalf("-seed %d: %v", one, err)
		}
		if m.resynced > 0 {
			t.Fatalf("%d syncs of a file after one had failed", m.resynced)
		}
	})
}

// A fault of the disk, anywhere: nobody is told a lie, nothing acknowledged is lost, no file whose sync failed is
// synced again, and when the disk works again so does the journal.
func TestAFaultAtAnyOperationIsSurvived(t *testing.T) {
	kinds, stories := []error{errIO, short{errRoom}}, exhaustive(1, 1)
	if thorough() {
		kinds, stories = append(kinds, errRoom, short{errIO}), exhaustive(3, 3)
	}
	for _, forever := range []bool{false, true} {
		for _, kind := range kinds {
			for name, tale := range stories {
				t.Run(fmt.Sprintf("%v %v %T/%s", forever, kind, kind, name), func(t *testing.T) {
					t.Parallel()
					for at := 1; faultRun(t, tale, at, kind, forever); at++ {
					}
				})
			}
		}
	}
}

func faultRun(t *testing.T, tale story, at int, kind error, forever bool) (failed bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		m.recording, m.stall, l.tape = true, stall, m
		m.fault = func(op, _ string) error {
			if m.ops == at || forever && m.ops > at {
				failed = true
				return kind
			}
			return nil
		}
		s := &scene{m: m, l: l, ill: true}
		s.start(killed)
		tale(s)
		m.heal()
		s.rest()
		s.restart()
		s.commit(again, 300)
		s.close()
		if err := s.unexcused(); err != nil || !l.acked[again] {
			t.Fatalf("fault at operation %d: accepts again: %v, %v\n%s", at, l.acked[again], errors.Join(append(s.errs, err)...), recent(m.log))
		}
		var tried atomic.Int64
		w := &walk{m: newMemFS(), l: newLedger(), rng: rand.New(rand.NewPCG(uint64(at), 2)), seen: map[uint64]bool{}, count: &tried}
		if err := w.some(m.log, 4); err != nil {
			t.Fatalf("fault at operation %d: %v", at, err)
		}
		if m.resynced > 0 {
			t.Fatalf("fault at operation %d: %d syncs of a file after one had failed", at, m.resynced)
		}
	})
	return failed
}
