package journal

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// fill commits messages until there is no room, and returns the number of the last one accepted.
func fill(t *testing.T, j *Journal, l *ledger, size int) uint64 {
	t.Helper()
	for id := uint64(1); id < 10_000; id++ {
		err := l.commit(j, id, size)
		if errors.Is(err, ErrFull) {
			return id - 1
		}
		must(t, err)
	}
	t.Fatal("never full")
	return 0
}

func TestAFullJournalRefusesMessagesButTakesStateRecords(t *testing.T) {
	for name, size := range map[string]int{"inline": 400, "files": 4000} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, l := newMemFS(), newLedger()
				j, _ := mustOpen(t, small(m))
				last := fill(t, j, l, size)
				if s := j.Stats(); s.Bytes > s.MaxBytes || last < 8 {
					t.Fatalf("%d messages, %+v", last, s)
				}
				for range 100 {
					must(t, l.attempt(j, 1))
				}
				if _, err := j.Begin(9999, 10_000); !errors.Is(err, ErrFull) {
					t.Fatal(err)
				}
				for id := uint64(1); id <= last; id++ {
					must(t, l.settle(j, id))
				}
				<-time.After(5 * time.Second)
				must(t, l.commit(j, 5000, size))
				if s := j.Stats(); s.Live != 1 || s.Segments > 2 || s.TidyFailures > 0 {
					t.Fatalf("nothing was freed: %+v", s)
				}
				mustClose(t, j)
			})
		})
	}
}

// Also when the process ends in between: what cannot begin must not keep what has ended from being freed.
func TestAFullJournalEmptiesAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		last := fill(t, j, l, 400)
		m.failNth("remove", 1, true, errIO)
		for id := uint64(1); id <= last; id++ {
			must(t, l.settle(j, id))
		}
		mustClose(t, j)
		m.heal()
		j, f := mustOpen(t, small(m))
		must(t, l.check(j, f, killed))
		<-time.After(5 * time.Second)
		must(t, l.commit(j, 5000, 400))
		if s := j.Stats(); s.Segments > 3 {
			t.Fatalf("%+v", s)
		}
		mustClose(t, j)
	})
}

// Messages that were begun while there was room may find none when they are complete. They must leave some
// for the records that make room again.
func TestTheReserveIsNotForMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		must(t, l.commit(j, 1, 10))
		var drafts []*Draft
		for id := uint64(2); id < 32; id++ {
			d, err := j.Begin(id, 400)
			must(t, err)
			_, err = d.Write(make([]byte, 400))
			must(t, err)
			drafts = append(drafts, d)
		}
		m.failNth("allocate", 1, true, errRoom)
		refused := 0
		for _, d := range drafts {
			if err := d.Commit(nil); errors.Is(err, ErrFull) {
				refused++
			} else {
				must(t, err)
			}
		}
		if refused == 0 || refused == len(drafts) {
			t.Fatalf("%d of %d refused", refused, len(drafts))
		}
		for range 10 {
			must(t, j.Append(Record{Type: Verdict, ID: 1, Payload: make([]byte, 200)}))
		}
		mustClose(t, j)
	})
}

func TestABodyStaysUntilTheEndOfItsMessageIsSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		must(t, l.commit(j, 1, 5000))
		synctest.Wait()
		must(t, l.settle(j, 1))
		j.nudge()
		synctest.Wait()
		if !m.has(bodyName(1)) {
			t.Fatal("removed before the record was synced")
		}
		<-time.After(4 * syncDelay)
		if m.has(bodyName(1)) {
			t.Fatal("not removed")
		}
		mustClose(t, j)
	})
}

func TestAMessageIsCountedWhileItIsReceived(t *testing.T) {
	j, _ := mustOpen(t, Config{FS: newMemFS(), MaxBytes: 1 << 20})
	defer mustClose(t, j)
	used := j.Stats().Bytes
	declared, err := j.Begin(1, 300_000)
	must(t, err)
	unknown, err := j.Begin(2, 0)
	must(t, err)
	if got := j.Stats().Bytes - used; got < 300_000+unknownSize {
		t.Fatalf("%d bytes reserved", got)
	}
	if _, err := j.Begin(3, 700_000); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	_, err = unknown.Write(make([]byte, unknownSize))
	must(t, err)
	if _, err := unknown.Write(make([]byte, 700_000)); !errors.Is(err, ErrFull) {
		t.Fatal("grew beyond the maximum: ", err)
	}
	if err := unknown.Commit(nil); !errors.Is(err, ErrFull) {
		t.Fatal("an incomplete message was committed: ", err)
	}
	declared.Abort()
	if j.drafts != 0 {
		t.Fatalf("%d bytes are still reserved", j.drafts)
	}
}

func TestBodiesPastTheMemoryBudgetGoToFiles(t *testing.T) {
	m := newMemFS()
	j, _ := mustOpen(t, Config{FS: m, MaxBytes: 64 << 20})
	defer mustClose(t, j)
	j.mu.Lock()
	j.memory = j.budget - firstBuffer
	j.mu.Unlock()
	l := newLedger()
	must(t, l.commit(j, 1, 1000)) // fits what is left
	must(t, l.commit(j, 2, 10_000))
	if m.has(bodyName(1)) || !m.has(bodyName(2)) {
		t.Fatal("the budget was not kept")
	}
	must(t, readBack(j, 2, l.begun[2]))
	if j.memory != j.budget-firstBuffer {
		t.Fatalf("the budget leaks: %d", j.memory-j.budget+firstBuffer)
	}
	j.memory = 0
}

func TestAVolumeThatRunsFullRefusesBeforeItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		j, _ := mustOpen(t, small(m))
		defer mustClose(t, j)
		d, err := j.Begin(1, 100)
		must(t, err)
		d.Abort()
		for free, ok := range map[int64]bool{headroom - 1: false, headroom: true} {
			m.mu.Lock()
			m.free = free
			m.mu.Unlock()
			<-time.After(volumeInterval)
			d, err := j.Begin(1, 100)
			if ok != (err == nil) || !ok && !errors.Is(err, ErrFull) {
				t.Errorf("%d bytes free: %v", free, err)
			}
			if err == nil {
				d.Abort()
			}
		}
	})
}

// A restart must not cost space: a process that crashes in a loop would fill the disk.
func TestRestartsDoNotAddUp(t *testing.T) {
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, small(m))
	must(t, l.commit(j, 1, 100))
	mustClose(t, j)
	for range 50 {
		j, _ = mustOpen(t, small(m))
		mustClose(t, j)
	}
	j, f := mustOpen(t, small(m))
	defer mustClose(t, j)
	must(t, l.check(j, f, killed))
	if s := j.Stats(); s.Segments > 3 {
		t.Fatalf("%+v", s)
	}
}
