package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// countingReader counts what is read, so that a search that reads the same again and again shows.
type countingReader struct {
	io.ReaderAt
	bytes int
}

func (r *countingReader) ReadAt(p []byte, at int64) (int, error) {
	r.bytes += len(p)
	return r.ReaderAt.ReadAt(p, at)
}

func TestTheSearchBehindDamageReadsEverythingOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	garbage := make([]byte, 4*window)
	for i := range garbage {
		garbage[i] = byte(random.Uint32())
	}
	for name, b := range map[string][]byte{"garbage": garbage, "zeros": make([]byte, len(garbage))} {
		r := &countingReader{ReaderAt: bytes.NewReader(b)}
		if newScanner(r, salt(7), 0, int64(len(b))).resync() {
			t.Fatalf("%s: a frame was found", name)
		}
		if r.bytes > 2*len(b) {
			t.Errorf("%s: read %d bytes of %d", name, r.bytes, len(b))
		}
	}
}

// A crash between setting a broken segment aside and setting aside its bodies must not make orphans of them.
func TestACrashWhileQuarantiningKeepsBodies(t *testing.T) {
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, small(m))
	const big = 0x00065f2a3c4d1801
	must(t, l.commit(j, big, 5000)) // body file, accepted record in segment 1
	mustClose(t, j)
	b := m.content(t, segmentName(1))
	b[20] ^= 1
	b[headerCopyAt+20] ^= 1 // header gone: everything else in the segment is whole
	base := m.with(segmentName(1), b)
	for at := 1; at < 12; at++ {
		n := base.with("", nil)
		n.fault = func(op, name string) error {
			if n.ops == at {
				return errPower
			}
			return nil
		}
		_, _, err := reopen(small(n))
		n = n.revive()
		j2, _, err2 := reopen(small(n))
		must(t, err2)
		if !n.has(bodyName(big)) && !n.has(bodyName(big)+quarantineSuffix) {
			t.Errorf("kill at operation %d (%v): the body of an acknowledged message was deleted; Damaged=%d", at, err, j2.Stats().Damaged)
		}
		mustClose(t, j2)
	}
}

func TestAMissingBodyIsNotCountedAsFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		for id := uint64(1); id < 5; id++ {
			must(t, l.commit(j, id, 10_000))
		}
		mustClose(t, j)
		for id := uint64(1); id < 5; id++ {
			delete(m.names, bodyName(id))
		}
		m = m.with("", nil)
		j, _ = mustOpen(t, small(m))
		for id := uint64(1); id < 5; id++ {
			must(t, l.settle(j, id))
		}
		<-time.After(5 * time.Second)
		var real int64
		fs, err := m.List()
		must(t, err)
		for _, f := range fs {
			real += f.Size
		}
		if s := j.Stats(); s.Bytes < real {
			t.Errorf("Stats.Bytes %d, files really hold %d", s.Bytes, real)
		}
		mustClose(t, j)
	})
}

func TestAClockThatGoesBackDoesNotStopTheLookForRoom(t *testing.T) {
	m := newMemFS()
	var v volume
	now := time.Now()
	m.free = 0
	if err := v.check(m, 1<<20, now); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	m.free = 1 << 40
	back := now.Add(-time.Hour).Round(0) // NTP step
	for s := range 10 {
		if err := v.check(m, 1<<20, back.Add(time.Duration(s)*time.Second)); err != nil && s > 5 {
			t.Fatalf("%d s after the clock went back there is room, and: %v", s, err)
		}
	}
}

// Segments can be made, but what is written to them cannot be synced.
func TestADiskThatTakesNoDataCostsNoSegmentATry(t *testing.T) {
	for _, op := range []string{"sync", "write"} {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, l := newMemFS(), newLedger()
				j, _ := mustOpen(t, small(m))
				must(t, l.commit(j, 1, 100))
				synctest.Wait()
				seen := map[string]int{segmentName(1) + ".tmp": 1, segmentName(2) + ".tmp": 1}
				m.mu.Lock()
				m.fault = func(o, name string) error {
					if o != op {
						return nil
					}
					if !strings.HasSuffix(name, ".tmp") { // the name a file was created with
						return nil
					}
					if seen[name]++; seen[name] > 1 { // the header goes through
						return errIO
					}
					return nil
				}
				m.mu.Unlock()
				l.commit(j, 2, 100)
				for n := range 4 {
					<-time.After(time.Minute)
					s := j.Stats()
					if s.Bytes > 4*s.MaxBytes {
						t.Fatalf("after %d min: %d segments, %d bytes of %d", n+1, s.Segments, s.Bytes, s.MaxBytes)
					}
				}
				m.heal()
				<-time.After(10 * time.Second)
				if s := j.Stats(); j.Err() != nil || s.Segments > 4 {
					t.Errorf("healed: %v, %d segments", j.Err(), s.Segments)
				}
				mustClose(t, j)
			})
		})
	}
}

func TestWhatIsWrittenAgainIsWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := &gatedFS{memFS: newMemFS()}
		m, l := gate.memFS, newLedger()
		j, _ := mustOpen(t, Config{FS: gate, MaxBytes: 256 << 20})
		must(t, l.commit(j, 1, 100))
		synctest.Wait()
		gate.shut()
		var wg sync.WaitGroup
		wg.Go(func() { newLedger().commit(j, 2, 100) })
		synctest.Wait()
		pad := make([]byte, 100<<10)
		for n := range 40 { // 4 MiB while the sync runs
			must(t, j.Append(Record{Type: Attempt, ID: 1, Payload: append(fmt.Appendf(nil, "%d ", n), pad...)}))
		}
		writes := 0
		m.mu.Lock()
		m.fault = func(op, name string) error {
			if op == "sync" {
				return errIO
			}
			if op == "write" {
				if writes++; writes == 2 {
					return errPower
				}
			}
			return nil
		}
		m.mu.Unlock()
		gate.open()
		wg.Wait()
		j.Close()
		m.revive()
		got := 0
		k, err := Open(Config{FS: m, MaxBytes: 256 << 20}, func(r Record) error {
			if r.Type == Attempt {
				got++
			}
			return nil
		})
		must(t, err)
		k.Close()
		if got < 40 {
			t.Errorf("40 Appends returned nil, the process was killed, %d records are there", got)
		}
	})
}

// A file that cannot be renamed or removed, whatever its reason, costs its own room and not that of all others.
func TestASegmentThatCannotBeFreedKeepsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		j, _ := mustOpen(t, small(m))
		m.mu.Lock()
		m.fault = func(op, name string) error {
			if (op == "rename" || op == "remove") && name == segmentName(1) {
				return errIO
			}
			return nil
		}
		m.mu.Unlock()
		for next := uint64(1); next < 500; next++ { // a hundred segments, in a journal that has room for sixteen
			if err := l.commit(j, next, 500); err != nil {
				t.Fatalf("message %d, with nothing to keep but one file: %v, %+v", next, err, j.Stats())
			}
			must(t, l.settle(j, next))
			<-time.After(2 * syncDelay)
		}
		if s := j.Stats(); s.Segments > 3 || s.TidyFailures == 0 {
			t.Errorf("%+v", s)
		}
		m.heal()
		<-time.After(2 * tidyPause)
		if m.has(segmentName(1)) {
			t.Error("it was not tried again")
		}
		mustClose(t, j)
	})
}

// A new tail begins with all blobs. If they were written again besides, the last of the other records would have to wait for one more
// segment, and a kill before that would lose them.
func TestWhatIsWrittenAgainFitsBesideTheBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := &gatedFS{memFS: newMemFS()}
		m, cfg := gate.memFS, Config{FS: gate, MaxBytes: 256 << 10, SegmentBytes: 16 << 10}
		j, _ := mustOpen(t, cfg)
		must(t, newLedger().commit(j, 1, 100))
		synctest.Wait()
		gate.shut()
		var wg sync.WaitGroup
		wg.Go(func() { newLedger().commit(j, 2, 100) })
		synctest.Wait()
		must(t, j.PutBlob("learnt", make([]byte, 1900)))
		appended := 0
		for j.written.offset() < 14<<10 { // until no other fits
			must(t, j.Append(Record{Type: Attempt, ID: 1, Payload: make([]byte, 1900)}))
			appended++
			synctest.Wait()
		}
		m.mu.Lock()
		m.fault = func(op, name string) error {
			switch {
			case op == "sync" && name == segmentName(1)+unfinishedSuffix:
				return errIO
			case op == "sync" && name == segmentName(2)+unfinishedSuffix:
				return errPower // killed while the first batch is synced
			}
			return nil
		}
		m.mu.Unlock()
		gate.open()
		wg.Wait()
		j.Close()
		m.revive()
		got := 0
		cfg.FS = m
		k, err := Open(cfg, func(r Record) error {
			if r.Type == Attempt {
				got++
			}
			return nil
		})
		must(t, err)
		if got < appended || len(k.Blob("learnt")) != 1900 {
			t.Errorf("%d Appends returned nil, the process was killed, %d records are there, and %d bytes of the blob", appended, got, len(k.Blob("learnt")))
		}
		mustClose(t, k)
	})
}
