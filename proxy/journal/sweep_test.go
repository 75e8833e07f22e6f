package journal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// pass sends messages through that end at once, until that many segments have been begun.
func pass(t *testing.T, j *Journal, l *ledger, from uint64, segments int) (next uint64) {
	t.Helper()
	begun := func() int {
		j.mu.Lock()
		defer j.mu.Unlock()
		return int(j.segments[len(j.segments)-1].id)
	}
	for first := begun(); begun() < first+segments; from++ {
		must(t, l.commit(j, from, 500))
		must(t, l.settle(j, from))
	}
	return from
}

// A message that waits for days, with attempts now and then, keeps no segment but the one it stands in, and stays whole.
func TestOneMessageThatWaitsPinsOneSegmentAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		must(t, l.commit(j, 1, 450))
		next := uint64(100)
		for day := range 20 {
			must(t, j.Append(Record{Type: Attempt, ID: 1, Payload: fmt.Append(nil, day), Whole: day%3 == 0}))
			next = pass(t, j, l, next, 3)
			<-time.After(2 * sweepAge)
			if s := j.Stats(); s.Segments > 2 {
				t.Fatalf("day %d: %d segments for one message: %+v", day, s.Segments, s)
			}
		}
		if s := j.Stats(); s.Swept < 15 || s.Moved < 15 || s.TidyFailures > 0 {
			t.Errorf("%+v", s)
		}
		must(t, readBack(j, 1, testBody(1, 450)))
		mustClose(t, j)
		var history []string
		j, err := Open(small(m), func(r Record) error {
			switch {
			case r.ID == 1 && r.Type == Restated:
				history = nil
			case r.ID == 1 && r.Type == Attempt:
				history = append(history, string(r.Payload))
			}
			return nil
		})
		must(t, err)
		defer mustClose(t, j)
		if want := []string{"18", "19"}; !slices.Equal(history, want) {
			t.Errorf("history %v, want %v: the last whole record and what came after", history, want)
		}
	})
}

// A copy that is written after the record that ends its message would bring it back.
func TestAMessageThatEndsWhileItIsCopiedStaysEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		must(t, l.commit(j, 1, 450))
		must(t, l.commit(j, 2, 450))
		pass(t, j, l, 100, 1)
		s := j.segments[0]
		r, _, err := j.moveOf(1, s)
		must(t, err)
		// Both are in the writer's hands before it writes: the end goes first, as state records do.
		end := newGroup([]Record{{Type: Settled, ID: 1}})
		other, _, err := j.moveOf(2, s)
		must(t, err)
		results := []chan error{r.result, end.result, other.result}
		j.queue <- r
		j.queue <- end
		j.queue <- other
		if err := <-results[0]; !errors.Is(err, errMoved) {
			t.Errorf("the copy: %v", err)
		}
		must(t, <-results[1])
		must(t, <-results[2])
		mustClose(t, j)
		j, f := mustOpen(t, small(m))
		defer mustClose(t, j)
		if _, live := f.live[1]; live || len(f.live) != 1 {
			t.Errorf("live: %v", f.live)
		}
		must(t, readBack(j, 2, testBody(2, 450)))
	})
}

// The end of a message outlives every copy of it, also when the segment it was written to goes before the message's own.
func TestAnEndIsCopiedAsLongAsItsMessageStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		var next uint64
		for next = 1; j.Stats().Segments < 2; next++ { // a segment of which most lives on
			must(t, l.commit(j, next, 300))
		}
		must(t, l.settle(j, 2)) // it ends in a later one
		pass(t, j, l, 100, 6)
		<-time.After(3 * sweepAge)
		stats := j.Stats()
		if stats.Segments > 4 || stats.Swept == 0 {
			t.Fatalf("%+v", stats)
		}
		if _, e := j.find(1); !e || j.segments[0].id != 1 {
			t.Fatal("the first segment is gone: nothing is tested")
		}
		next2 := m.after(nothing, nil)
		j.Close()
		j, f := mustOpen(t, small(next2))
		defer mustClose(t, j)
		if _, back := f.live[2]; back {
			t.Error("message 2 has risen from the dead")
		}
		for id := uint64(1); id < next-1; id++ {
			if _, live := f.live[id]; !live && id != 2 {
				t.Errorf("message %d is lost", id)
			}
		}
	})
}

// A full journal whose segments are each half alive makes room by itself.
func TestLittleRoomIsMadeByCopying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		last := fill(t, j, l, 400)
		for id := uint64(1); id <= last; id += 2 {
			must(t, l.settle(j, id))
		}
		for id := last + 100; id < last+100+last/8; id++ {
			err := l.commit(j, id, 400)
			for tries := 0; errors.Is(err, ErrFull) && tries < 30; tries++ { // as an application does; how much a sweep frees is chance
				<-time.After(sweepInterval)
				err = l.commit(j, id, 400)
			}
			if err != nil {
				t.Errorf("message %d of %d: %v, %+v", id-last-100, last/8, err, j.Stats())
				break
			}
		}
		mustClose(t, j)
		j, f := mustOpen(t, small(m))
		defer mustClose(t, j)
		must(t, l.check(j, f, nothing))
	})
}

// Segments that freed ones were made of hold nothing of their earlier life, and a journal at rest gives the spare back.
func TestFreedSegmentsServeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		salts, next := map[salt]bool{}, uint64(1)
		for range 30 {
			next = pass(t, j, l, next, 1)
			j.mu.Lock()
			salts[j.segments[len(j.segments)-1].salt] = true
			j.mu.Unlock()
		}
		if s := j.Stats(); s.Recycled < 10 || len(salts) < 30 {
			t.Errorf("%d salts, %+v", len(salts), s)
		}
		<-time.After(2 * spareAge)
		s := j.Stats()
		if most := int64(1+reserves) * j.cfg.SegmentBytes; s.Bytes > most {
			t.Errorf("%d bytes for nothing, want %d at most: %+v", s.Bytes, most, s)
		}
		if m.has(spareName) {
			t.Error("the spare is still there")
		}
		m.mu.Lock()
		m.dead = true
		m.mu.Unlock()
		j.Close()
		k, f := mustOpen(t, small(m.after(killed, nil)))
		defer mustClose(t, k)
		if s := k.Stats(); len(f.live) != 0 || s.Damaged+s.Torn != 0 {
			t.Errorf("%v %+v", f.live, s)
		}
	})
}

// What recovery reads in a footer is what it would have found in the whole segment.
func TestAFooterSaysWhatItsSegmentHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		for id := uint64(1); id < 40; id++ {
			must(t, l.commit(j, id, 300))
			must(t, l.attempt(j, id))
			must(t, j.PutBlob("learnt", fmt.Append(nil, id)))
			if id%3 == 0 {
				must(t, l.settle(j, id-2))
			}
		}
		<-time.After(2 * sealAge)
		mustClose(t, j)
		if s := j.Stats(); s.Sealed < 3 {
			t.Fatalf("%+v", s)
		}
		bare := newMemFS()
		for name := range m.names {
			b := m.content(t, name)
			s := segment{id: 0, size: int64(len(b))}
			id, _ := segmentID(name)
			h, err := parseSegmentHeader(b)
			must(t, err)
			s.id, s.salt = id, newSalt(h.salt[:])
			end, sealed := s.readTrailer(bytes.NewReader(b))
			if !sealed {
				t.Fatalf("%s has no footer", name)
			}
			bare = bare.with(name, b[:end])
		}
		with, err := recoverOnly(m)
		must(t, err)
		without, err := recoverOnly(bare)
		must(t, err)
		if len(with.recs) >= len(without.recs) {
			t.Errorf("%d records from footers, %d from all", len(with.recs), len(without.recs))
		}
		for id := range l.begun {
			a, liveA := with.j.find(id)
			b, liveB := without.j.find(id)
			if a != b || liveA != liveB {
				t.Errorf("message %d: %v %v with footers, %v %v without", id, a, liveA, b, liveB)
			}
		}
		for i, s := range with.j.segments {
			o := without.j.segments[i]
			if s.live != o.live || s.weight != o.weight || !slices.Equal(s.needs, o.needs) || s.end != o.end {
				t.Errorf("segment %d: %+v with its footer, %+v without", s.id, s, o)
			}
		}
		if a, b := string(with.j.Blob("learnt")), string(without.j.Blob("learnt")); a != b || a != "39" {
			t.Errorf("blob %q with footers, %q without", a, b)
		}
	})
}
