package journal

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What may not go wrong where a journal is at its limits.

// The short segment of a process that soon ended, all of it alive, must not stand before longer ones of which more can be won.
func TestASmallSegmentFullOfLifeHidesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		cfg := Config{FS: m, MaxBytes: 1 << 20, SegmentBytes: 64 << 10}
		j, _ := mustOpen(t, cfg)
		for id := uint64(9000); id < 9003; id++ {
			must(t, l.commit(j, id, 8000))
		}
		mustClose(t, j)
		j, _ = mustOpen(t, cfg)
		last := fill(t, j, l, 7000)
		for id := uint64(1); id <= last; id += 2 {
			must(t, l.settle(j, id))
		}
		<-time.After(10 * sweepInterval)
		for id := uint64(9100); id < 9110; id++ {
			must(t, l.commit(j, id, 7000))
		}
		mustClose(t, j)
		j, f := mustOpen(t, cfg)
		defer mustClose(t, j)
		must(t, l.check(j, f, nothing))
	})
}

// Nothing is written while nothing happens, whatever the segments hold.
func TestAJournalAtRestRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		for id := uint64(1); id <= 6; id++ {
			must(t, l.commit(j, id, 100))
		}
		for range 12 {
			for id := uint64(1); id <= 6; id++ {
				must(t, j.Append(Record{Type: Attempt, ID: id, Payload: fmt.Append(nil, "0123456789012345678901234567890123456789")}))
			}
		}
		<-time.After(5 * time.Minute)
		before := j.Stats()
		<-time.After(10 * time.Minute)
		after := j.Stats()
		if after.Writes != before.Writes || after.Moved != before.Moved {
			t.Errorf("before %+v\nafter %+v", before, after)
		}
		mustClose(t, j)
	})
}

// A message whose history cannot be copied keeps its own segment, and nothing else.
func TestAHistoryTooLongToCopyPinsNoEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		must(t, l.commit(j, 1, 100))
		must(t, l.commit(j, 2, 100))
		for range 30 {
			must(t, j.Append(Record{Type: Attempt, ID: 2, Payload: make([]byte, 100)}))
		}
		next := uint64(100)
		for round := range 40 {
			next = pass(t, j, l, next, 2)
			<-time.After(2 * sweepAge)
			if s := j.Stats(); s.Segments > 6 || s.Damaged > 0 {
				t.Fatalf("round %d: %+v", round, s)
			}
		}
		mustClose(t, j)
	})
}

// The same in a journal that is full of life: with little room too there must be something to be won.
func TestAFullJournalAtRestRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		fill(t, j, l, 400)
		<-time.After(time.Minute)
		before := j.Stats()
		<-time.After(10 * time.Minute)
		if after := j.Stats(); after.Moved != before.Moved {
			t.Errorf("before %+v\nafter %+v", before, after)
		}
		mustClose(t, j)
	})
}

// Half a footer is no damage, also in a segment that no other has named for long.
func TestAFooterThatClosingLeftUnfinishedIsNoDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		cfg := Config{FS: m, MaxBytes: 1 << 20, SegmentBytes: minSegmentBytes}
		next := uint64(1)
		for n := range 2 * sealedKept { // a process that dies at once, again and again
			j, _ := mustOpen(t, cfg)
			for range max(1, 5-n) { // the first leaves a segment full of life
				must(t, l.commit(j, next, 450))
				next++
			}
			m.kill(j)
		}
		j, _ := mustOpen(t, cfg)
		for id := uint64(6); id < next; id++ {
			must(t, l.settle(j, id))
		}
		must(t, l.rest(j))
		if !m.has(segmentName(1)) || m.has(segmentName(sealedKept)) {
			t.Fatalf("nothing is tested: %+v", j.Stats())
		}
		sealing := false
		m.mu.Lock()
		m.fault = func(op, name string) error {
			switch {
			case sealing:
				return errIO
			case op == "write" && name == segmentName(1):
				sealing = true
				return short{errIO}
			}
			return nil
		}
		m.mu.Unlock()
		_ = j.Close() // killed meanwhile
		cfg.FS = m.revive()
		j, f := mustOpen(t, cfg)
		defer mustClose(t, j)
		must(t, l.check(j, f, killed))
		if s := j.Stats(); s.Damaged > 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Each segment begins with all blobs: under a smaller maximum they must leave room for something else.
func TestBlobsOfALargerJournalLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, Config{FS: m, MaxBytes: 1 << 20, SegmentBytes: 64 << 10})
		must(t, l.commit(j, 1, 100))
		must(t, l.put(j, "learnt", strings.Repeat("x", 8000)))
		must(t, l.rest(j))
		mustClose(t, j)
		if j, _, err := reopen(Config{FS: m, MaxBytes: 64 << 10, SegmentBytes: minSegmentBytes}); err == nil {
			mustClose(t, j)
			t.Fatal("opened without room for anything but blobs")
		}
		cfg := Config{FS: m, MaxBytes: 512 << 10, SegmentBytes: minSegmentBytes}
		j, f := mustOpen(t, cfg)
		must(t, l.check(j, f, nothing))
		for id := uint64(2); id < 100; id++ {
			must(t, l.commit(j, id, 400))
			must(t, l.settle(j, id))
		}
		mustClose(t, j)
		j, f = mustOpen(t, cfg)
		defer mustClose(t, j)
		must(t, l.check(j, f, nothing))
	})
}

// A segment of records without bodies would be said twice: such a footer spares no reader anything, and takes room beyond the maximum.
func TestAFooterThatSparesNothingIsNotWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		for id := uint64(1); id <= 5; id++ {
			must(t, l.commit(j, id, 450))
		}
		for n := range 60 {
			must(t, j.Append(Record{Type: Attempt, ID: 1 + uint64(n)%5, Payload: fmt.Appendf(nil, "%070d", n)}))
		}
		<-time.After(2 * sealAge)
		j.mu.Lock()
		for _, s := range j.segments {
			if s.size > s.end+s.end/footerShare && s.file == nil {
				t.Errorf("%d bytes for %d of records", s.size, s.end)
			}
		}
		j.mu.Unlock()
		if s := j.Stats(); s.Sealed != 1 || s.TidyFailures+s.Damaged > 0 || s.Bytes != m.bytes() {
			t.Errorf("%d bytes of files: %+v", m.bytes(), s)
		}
		mustClose(t, j)
		j, f := mustOpen(t, small(m))
		defer mustClose(t, j)
		if n := len(f.records[1]); n != 12 {
			t.Errorf("%d records of message 1, want 12", n)
		}
		must(t, readBack(j, 1, testBody(1, 450)))
	})
}
