package queue

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/mailweir/mailweir/proxy/message"
)

// Through several chunks, filled and emptied: a number stands for the value that it was given out for, no other, and never for none.
func TestASlabKeepsWhatItWasGiven(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var s slab[uint64]
	want := map[uint32]uint64{}
	var numbers []uint32
	for step := range 60_000 {
		growing := step/15_000%2 == 0
		if len(numbers) == 0 || random.IntN(4) > 0 == growing {
			i := s.take()
			if _, taken := want[i]; taken || i == none || *s.at(i) != 0 {
				t.Fatalf("step %d: number %d was taken: %v; it holds %d", step, i, taken, *s.at(i))
			}
			*s.at(i), want[i] = uint64(step)+1, uint64(step)+1
			numbers = append(numbers, i)
			continue
		}
		n := random.IntN(len(numbers))
		i := numbers[n]
		if *s.at(i) != want[i] {
			t.Fatalf("step %d: number %d holds %d, want %d", step, i, *s.at(i), want[i])
		}
		s.give(i)
		delete(want, i)
		numbers = slices.Delete(numbers, n, n+1)
	}
	found := 0
	for i, v := range s.all() {
		if found++; *v != want[i] {
			t.Fatalf("number %d holds %d, want %d", i, *v, want[i])
		}
	}
	if found != len(want) {
		t.Fatalf("%d values of %d are shown", found, len(want))
	}
}

func TestASlabFillsItsHolesFirst(t *testing.T) {
	var s slab[uint64]
	for range 3 * chunkValues {
		s.take()
	}
	for _, i := range []uint32{9000, 70, 5000} {
		s.give(i)
	}
	for _, want := range []uint32{70, 5000, 9000, 3*chunkValues + 1} {
		if got := s.take(); got != want {
			t.Fatalf("number %d, want %d", got, want)
		}
	}
}

// heapBytes returns the bytes in use.
func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

const pile = 100_000 // messages

// The bound is what the whole program's rests on: see the benchmark of a backlog.
func TestAPendingMessageTakesLittle(t *testing.T) {
	for _, c := range []struct {
		name    string
		domains int
		due     time.Duration
		most    int64 // bytes each
	}{
		{"ready, one domain", 1, 0, 50},
		{"ready, a thousand domains", 1000, 0, 51},
		{"deferred", 1000, time.Hour, 57}, // and a place in the heap
	} {
		before := heapBytes()
		q := New(cfg, 1, start).Lane(0)
		for i := range pile {
			q.Add(start, message.ID(i+1), start, 1, []Group{{Key: fmt.Sprint(i % c.domains), Due: start.Add(c.due)}})
		}
		each := (heapBytes() - before) / pile
		runtime.KeepAlive(q)
		t.Logf("%s: %d bytes each", c.name, each)
		if each > c.most {
			t.Errorf("%s: a pending message takes %d bytes, want %d at most", c.name, each, c.most)
		}
	}
}

func TestMemoryGoesBackAsABacklogDrains(t *testing.T) {
	before := heapBytes()
	q := New(cfg, 1, start).Lane(0)
	for i := range pile {
		add(q, message.ID(i+1), fmt.Sprint(i))
	}
	full := heapBytes() - before
	for id := message.ID(pile + 1); q.Stats().Messages > pile/10; { // others come all the while
		for range 3 {
			d := next(t, q, start)
			q.Narrow(d.Ref, []int{0})
			q.End(d.Ref)
		}
		add(q, id, "latecomers")
		id++
	}
	// Names stay until the queue is empty; of what each message had, nine parts in ten are gone.
	if chunks := inUse(&q.slots) + inUse(&q.entries); chunks > 2*(pile/10/chunkValues+3) {
		t.Errorf("%d chunks for a tenth of the backlog", chunks)
	}
	for q.Stats().Messages > 0 {
		q.End(next(t, q, start).Ref)
	}
	left := heapBytes() - before
	runtime.KeepAlive(q)
	t.Logf("%d bytes of %d", left, full)
	if left > full/20 {
		t.Errorf("%d bytes of %d are kept by an empty queue", left, full)
	}
	add(q, 1, "a") // it works on
	if d := next(t, q, start); d.ID != 1 || !q.End(d.Ref) {
		t.Error("the emptied queue does not give back what it was given")
	}
}

func TestTheHeapOfWhatWaitsShrinks(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	for i := range pile {
		q.Add(start, message.ID(i+1), start, 1, []Group{{Key: "a", Due: start.Add(time.Duration(i) * time.Millisecond)}})
	}
	q.Ready(start.Add(pile * time.Millisecond * 99 / 100))
	if n := q.Stats().Deferred; n == 0 || cap(q.waiting) > 8*max(n, keptDeliveries) {
		t.Errorf("room for %d, and %d wait", cap(q.waiting), n)
	}
	for range pile {
		next(t, q, start.Add(time.Hour))
	}
}

func inUse[T any](s *slab[T]) (n int) {
	for _, c := range s.chunks {
		if c.values != nil {
			n++
		}
	}
	return n
}
