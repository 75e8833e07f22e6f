package journal

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A sync that fails may have lost the pages, and the next one would succeed without them.
func TestAFailedSyncIsFinalForItsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		must(t, l.commit(j, 1, 100))
		must(t, l.commit(j, 2, 100))
		synctest.Wait()
		must(t, l.settle(j, 2)) // written, and synced together with what fails
		must(t, l.attempt(j, 1))
		m.failNth("sync", 1, false, errIO)
		if err := l.commit(j, 3, 100); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("acknowledged although not synced: %v", err)
		}
		synctest.Wait()
		if err := j.Err(); err != nil {
			t.Fatalf("the reserve was there: %v", err)
		}
		must(t, l.commit(j, 4, 100))
		must(t, readBack(j, 1, l.begun[1]))
		must(t, l.rest(j)) // 2 has ended for good, 3 was refused for good
		for _, c := range []crash{nothing, killed} {
			after, f := mustOpen(t, small(m.after(c, nil)))
			if err := l.check(after, f, c); err != nil {
				t.Errorf("crash %d: %v", c, err)
			}
			if len(f.records[1]) == 0 {
				t.Error("a state record of the failed batch was not written again")
			}
			mustClose(t, after)
		}
		if m.resynced != 0 {
			t.Error("the file was synced again")
		}
		if s := j.Stats(); s.SyncFailures != 1 {
			t.Errorf("%+v", s)
		}
		mustClose(t, j)
	})
}

func TestALargeMessageWhoseSyncFailedLeavesNoFile(t *testing.T) {
	for n := 1; n <= 2; n++ { // the body's own sync, then that of its record
		synctest.Test(t, func(t *testing.T) {
			m, l := newMemFS(), newLedger()
			j, _ := mustOpen(t, small(m))
			must(t, l.commit(j, 1, 100))
			synctest.Wait()
			m.failNth("sync", n, false, errIO)
			if err := l.commit(j, 2, 5000); !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			must(t, l.commit(j, 3, 100))
			synctest.Wait()
			if m.has(bodyName(2)) || j.drafts != 0 {
				t.Fatalf("%d: the body is still there, %d bytes reserved", n, j.drafts)
			}
			mustClose(t, j)
		})
	}
}

func TestADeadDiskIsReportedAndComesBack(t *testing.T) {
	for _, op := range []string{"sync", "write", "create"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, l := newMemFS(), newLedger()
				j, _ := mustOpen(t, small(m))
				must(t, l.commit(j, 1, 100))
				synctest.Wait()
				m.failNth(op, 1, true, errIO)
				for id := uint64(2); id < 40 && l.commit(j, id, 400) == nil; id++ {
				}
				<-time.After(time.Minute)
				if op != "create" && j.Err() == nil {
					t.Fatal("Err says all is well")
				}
				if _, err := j.Begin(50, 0); !errors.Is(err, ErrUnavailable) {
					t.Fatal(err)
				}
				if err := j.Append(Record{Type: Started, ID: 1, Payload: nil}); op != "create" && !errors.Is(err, ErrUnavailable) {
					t.Fatal(err)
				}
				must(t, readBack(j, 1, l.begun[1]))
				if s := j.Stats(); s.Bytes > s.MaxBytes {
					t.Fatalf("every try costs space: %+v", s)
				}
				m.heal()
				<-time.After(2 * maxPause)
				if err := j.Err(); err != nil {
					t.Fatal(err)
				}
				must(t, l.commit(j, 60, 100))
				mustClose(t, j)
				after, f := mustOpen(t, small(m))
				must(t, l.check(after, f, killed))
				mustClose(t, after)
			})
		})
	}
}

func TestAnOpenWithoutRoomStillReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		must(t, l.commit(j, 1, 100))
		mustClose(t, j)
		m.failNth("allocate", 1, true, errRoom)
		j, f := mustOpen(t, small(m))
		must(t, l.check(j, f, killed))
		if j.Err() == nil {
			t.Fatal("Err says all is well")
		}
		m.heal()
		<-time.After(5 * time.Second)
		must(t, j.Err())
		must(t, l.settle(j, 1))
		mustClose(t, j)
	})
}

func TestAFullDiskRefusesOneBatchAndTheTailGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		must(t, l.commit(j, 1, 100))
		synctest.Wait()
		m.failNth("write", 1, false, errRoom)
		if err := l.commit(j, 2, 100); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		m.heal()
		if _, f := mustOpenClose(t, small(m.after(killed, nil))); f.live[2] != "" {
			t.Fatal("what was refused is there after a crash")
		}
		must(t, l.commit(j, 3, 100))
		must(t, l.rest(j)) // 2 was refused for good
		after, f := mustOpen(t, small(m.after(nothing, nil)))
		must(t, l.check(after, f, nothing))
		mustClose(t, after)
		if s := j.Stats(); s.Segments != 1 {
			t.Fatalf("%+v", s)
		}
		mustClose(t, j)
	})
}

// A write that fails while a sync runs must not be mixed up with that sync.
func TestAWriteThatFailsDuringASyncHarmsOnlyItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := &gatedFS{memFS: newMemFS()}
		l := newLedger()
		j, _ := mustOpen(t, small(gate))
		must(t, l.commit(j, 1, 100))
		synctest.Wait()
		gate.shut()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := l.commit(j, 2, 100); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		gate.failNth("write", 1, false, errIO)
		if err := l.attempt(j, 1); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		gate.open()
		wg.Wait()
		must(t, l.commit(j, 3, 100))
		mustClose(t, j)
		after, f := mustOpen(t, small(gate.memFS.after(nothing, nil)))
		must(t, l.check(after, f, nothing))
		mustClose(t, after)
	})
}

// While a sync stalls, messages wait, state records do not until there are too many of them, and messages can be read.
func TestAStalledSyncDelaysAndLosesNothing(t *testing.T) {
	for _, stalled := range []time.Duration{2 * time.Second, 30 * time.Second} {
		t.Run(stalled.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { stalledSync(t, stalled) })
		})
	}
}

func stalledSync(t *testing.T, stalled time.Duration) {
	t.Helper()
	m, l := newMemFS(), newLedger()
	cfg := Config{FS: m, MaxBytes: 16 * 4 * maxUnsyncedBytes}
	j, _ := mustOpen(t, cfg)
	must(t, l.commit(j, 1, 100))
	synctest.Wait()
	m.mu.Lock()
	m.stall = func(string) time.Duration { return stalled }
	m.mu.Unlock()
	before := j.Stats()
	const senders, record = 20, 100 << 10
	var wg sync.WaitGroup
	for id := uint64(2); id < 2+senders; id++ {
		wg.Go(func() {
			if err := l.commit(j, id, 1000); err != nil {
				t.Error(err)
			}
		})
	}
	for range 2 * maxUnsyncedBytes / record {
		wg.Go(func() {
			if err := j.Append(Record{Type: Verdict, ID: 1, Payload: make([]byte, record)}); err != nil {
				t.Error(err)
			}
		})
	}
	<-time.After(stalled / 2)
	s := j.Stats()
	if s.Commits != before.Commits {
		t.Fatalf("%d messages were acknowledged without a sync", s.Commits-before.Commits)
	}
	if kept := (s.Appends - before.Appends) * record; kept < maxUnsyncedBytes/2 || kept > maxUnsyncedBytes+record || j.memory > j.budget {
		t.Fatalf("%d bytes of state records and %d of bodies are kept in memory", kept, j.memory)
	}
	must(t, readBack(j, 1, l.begun[1]))
	begun := time.Now()
	wg.Wait()
	if took := time.Since(begun); took > 4*stalled {
		t.Fatalf("it took %v more after a stall of %v", took, stalled)
	}
	must(t, j.Err())
	mustClose(t, j)
	cfg.FS = m.after(nothing, nil)
	j, f := mustOpen(t, cfg)
	must(t, l.check(j, f, nothing))
	mustClose(t, j)
}
