package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func disk(t *testing.T) Config {
	return Config{Dir: filepath.Join(t.TempDir(), "journal"), MaxBytes: 4 << 20}
}

func TestAMessageComesBackAsItWasAccepted(t *testing.T) {
	cfg := disk(t)
	j, f := mustOpen(t, cfg)
	if len(f.types) != 0 || j.MaxID() != 0 {
		t.Fatalf("a new journal replays %v, MaxID %d", f.types, j.MaxID())
	}
	l := newLedger()
	inline := int(j.cfg.InlineBytes)
	sizes := []int{0, 1, 7, 8, 4096, inline - 1, inline, inline + 1, 1 << 20}
	for i, size := range sizes {
		must(t, l.commit(j, uint64(i+1), size))
	}
	for range 2 {
		for id, body := range l.begun {
			must(t, readBack(j, id, body))
		}
		mustClose(t, j)
		if j, f = mustOpen(t, cfg); len(f.live) != len(sizes) || j.MaxID() != uint64(len(sizes)) {
			t.Fatalf("%d live, MaxID %d", len(f.live), j.MaxID())
		}
	}
	mustClose(t, j)
}

func TestRecordsAreReplayedInOrderAndUnknownTypesToo(t *testing.T) {
	m := newMemFS()
	j, _ := mustOpen(t, small(m))
	l := newLedger()
	must(t, l.commit(j, 7, 10))
	const later Type = 42
	must(t, j.Append(Record{Type: Started, ID: 7, Payload: []byte("a")}, Record{Type: later, ID: 7, Payload: []byte("b")}))
	must(t, j.Append(Record{Type: Dead, ID: 7, Payload: nil}))
	must(t, readBack(j, 7, l.begun[7]))
	mustClose(t, j)
	r, err := recoverOnly(m)
	must(t, err)
	want := []Record{{Type: Accepted, ID: 7, Payload: []byte("meta 7")}, {Type: Started, ID: 7, Payload: []byte("a")}, {Type: later, ID: 7, Payload: []byte("b")}, {Type: Dead, ID: 7, Payload: []byte{}}}
	if got := fmt.Sprint(r.recs); got != fmt.Sprint(want) {
		t.Fatalf("got %s\nwant %v", got, want)
	}
	if r.j.Stats().Live != 1 {
		t.Fatal("a dead message is kept until it is settled")
	}
}

func TestASettledMessageIsGone(t *testing.T) {
	j, _ := mustOpen(t, disk(t))
	defer mustClose(t, j)
	l := newLedger()
	must(t, l.commit(j, 1, 10))
	must(t, l.commit(j, 2, 1<<20))
	_, open, err := j.Read(2)
	must(t, err)
	for _, typ := range []Type{Settled, Void} {
		id := uint64(typ) - uint64(Settled)
		id = min(id, 1) + 1
		must(t, j.Append(Record{Type: typ, ID: id}))
		if _, _, err := j.Read(id); !errors.Is(err, ErrNotFound) {
			t.Fatalf("%d: %v", id, err)
		}
	}
	got, err := io.ReadAll(open)
	if err := errors.Join(err, open.Close()); err != nil || !bytes.Equal(got, l.begun[2]) {
		t.Fatalf("a reader lost its message when it ended: %d bytes, %v", len(got), err)
	}
}

func TestAnAbortedDraftLeavesNothing(t *testing.T) {
	cfg := disk(t)
	j, _ := mustOpen(t, cfg)
	before := j.Stats().Bytes
	for _, size := range []int{10, 1 << 20} {
		d, err := j.Begin(5, 0)
		must(t, err)
		_, err = d.Write(make([]byte, size))
		must(t, err)
		d.Abort()
		d.Abort()
		if _, err := d.Write([]byte("x")); err == nil {
			t.Fatal("an aborted draft took bytes")
		}
		if err := d.Commit(nil); err == nil {
			t.Fatal("an aborted draft was committed")
		}
	}
	if s := j.Stats(); s.Live != 0 || s.Bytes > before+reserves*j.cfg.SegmentBytes || j.memory != 0 {
		t.Fatalf("%+v, before %d, memory %d", s, before, j.memory)
	}
	if files, err := filepath.Glob(filepath.Join(cfg.Dir, "*"+bodySuffix)); err != nil || len(files) > 0 {
		t.Fatal(files, err)
	}
	mustClose(t, j)
	if _, f := mustOpenClose(t, cfg); len(f.live) != 0 {
		t.Fatal(f.live)
	}
}

func mustOpenClose(t *testing.T, cfg Config) (*Journal, *found) {
	t.Helper()
	j, f := mustOpen(t, cfg)
	mustClose(t, j)
	return j, f
}

func TestOneProcessOwnsTheDirectory(t *testing.T) {
	cfg := disk(t)
	j, _ := mustOpen(t, cfg)
	for range 100 {
		if _, _, err := reopen(cfg); !errors.Is(err, ErrLocked) {
			t.Fatal(err)
		}
	}
	mustClose(t, j)
	mustOpenClose(t, cfg)
}

func TestFilesAreOursAlone(t *testing.T) {
	cfg := disk(t)
	j, _ := mustOpen(t, cfg)
	must(t, newLedger().commit(j, 1, 1<<20))
	err := filepath.Walk(cfg.Dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			err = fmt.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	must(t, err)
	mustClose(t, j)
	if err := os.Symlink("/dev/null", filepath.Join(cfg.Dir, bodyName(2))); err != nil {
		t.Fatal(err)
	}
	if _, err := (osFS{cfg.Dir}).Open(bodyName(2), false); err == nil {
		t.Fatal("a symbolic link was followed")
	}
}

func TestAClosedJournalRefuses(t *testing.T) {
	cfg := disk(t)
	j, _ := mustOpen(t, cfg)
	d, err := j.Begin(1, 10)
	must(t, err)
	mustClose(t, j)
	mustClose(t, j)
	_, begin := j.Begin(2, 0)
	for _, err := range []error{begin, d.Commit(nil), j.Append(Record{Type: Settled, ID: 1}), j.PutBlob("a", nil)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%v", err)
		}
	}
	if files, err := os.ReadDir(cfg.Dir); err != nil || len(files) != 2 {
		t.Fatalf("lock and tail expected: %v, %v", files, err)
	}
}

func TestProgrammersErrorsAreRefused(t *testing.T) {
	j, _ := mustOpen(t, disk(t))
	defer mustClose(t, j)
	must(t, newLedger().commit(j, 1, 1))
	for _, r := range []Record{{Type: Accepted, ID: 1}, {Type: Blob, ID: 1}, {Type: typeBatch, ID: 1}, {ID: 1}, {Type: Settled}} {
		if err := j.Append(r); !errors.Is(err, errRecord) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if err := j.Append(Record{Type: Verdict, ID: 1, Payload: make([]byte, j.cfg.maxGroup())}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, err := j.Begin(1, 0); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	d, err := j.Begin(2, 0)
	must(t, err)
	if err := d.Commit(make([]byte, j.cfg.maxMeta()+1)); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

func TestBlobsKeepTheirLatestValueWithinTheirBounds(t *testing.T) {
	cfg := disk(t)
	cfg.MaxBytes = 64 << 20
	j, _ := mustOpen(t, cfg)
	if j.Blob("none") != nil {
		t.Fatal("made up")
	}
	for i := range 2 * maxBlobs {
		err := j.PutBlob(fmt.Sprint(i%maxBlobs), []byte(fmt.Sprint("value ", i)))
		must(t, err)
	}
	big := make([]byte, maxBlobBytes)
	for name, err := range map[string]error{
		"one too many":  j.PutBlob("another", []byte{1}),
		"one too large": j.PutBlob("1", append(big, 1)),
		"no name":       j.PutBlob("", []byte{1}),
		"a long name":   j.PutBlob(strings.Repeat("n", 256), []byte{1}),
	} {
		if !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var full error
	for i := 0; full == nil && i < maxBlobs; i++ {
		full = j.PutBlob(fmt.Sprint(i), big)
	}
	if !errors.Is(full, ErrTooLarge) {
		t.Fatalf("all blobs together: %v", full)
	}
	must(t, j.PutBlob("0", nil))
	for range 2 {
		if got := string(j.Blob(fmt.Sprint(maxBlobs - 1))); got != fmt.Sprint("value ", 2*maxBlobs-1) || j.Blob("0") != nil || len(j.Blob("1")) != len(big) {
			t.Fatalf("%q %q %d", got, j.Blob("0"), len(j.Blob("1")))
		}
		mustClose(t, j)
		j, _ = mustOpen(t, cfg)
	}
	mustClose(t, j)
}

// Senders that come while a sync runs share the next one, and state records do not wait for either.
func TestOneSyncServesAllWhoCameMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := &gatedFS{memFS: newMemFS()}
		j, _ := mustOpen(t, Config{FS: gate, MaxBytes: 16 << 20})
		defer mustClose(t, j)
		l := newLedger()
		must(t, l.commit(j, 1, 10))
		before := j.Stats()
		gate.shut()
		var wg sync.WaitGroup
		commit := func(id uint64) {
			wg.Go(func() {
				if err := newLedger().commit(j, id, 1000); err != nil {
					t.Error(err)
				}
			})
		}
		commit(2)
		synctest.Wait()
		for id := uint64(3); id <= 102; id++ {
			commit(id)
		}
		synctest.Wait()
		for range 10 {
			wg.Go(func() {
				if err := j.Append(Record{Type: Attempt, ID: 1, Payload: nil}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if s := j.Stats(); s.Appends-before.Appends != 10 || s.Commits != before.Commits {
			t.Fatalf("while the sync runs: %+v", s)
		}
		gate.open()
		wg.Wait()
		s := j.Stats()
		if syncs := s.Syncs - before.Syncs; syncs != 2 || s.Commits-before.Commits != 101 {
			t.Fatalf("%d syncs for %d messages", syncs, s.Commits-before.Commits)
		}
		if writes := s.Writes - before.Writes; writes > 12 {
			t.Fatalf("%d writes", writes)
		}
	})
}

func TestAStateRecordIsSyncedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		j, _ := mustOpen(t, small(m))
		l := newLedger()
		must(t, l.commit(j, 1, 10))
		synctest.Wait()
		before := j.Stats().Syncs
		must(t, l.settle(j, 1))
		synctest.Wait()
		if n := j.Stats().Syncs; n != before {
			t.Fatal("a state record was synced at once")
		}
		<-time.After(4 * syncDelay)
		if r, err := recoverOnly(m.after(nothing, nil)); err != nil || r.j.Stats().Live != 0 {
			t.Fatalf("%+v %v", r.j.Stats(), err)
		}
		mustClose(t, j)
	})
}

// gatedFS holds syncs of files back.
type gatedFS struct {
	*memFS
	mu   sync.Mutex
	gate chan struct{}
}

func (g *gatedFS) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gate = make(chan struct{})
}

func (g *gatedFS) open() { close(g.gate) }

func (g *gatedFS) Create(name string) (File, error) {
	f, err := g.memFS.Create(name)
	return gatedFile{f, g}, err
}

type gatedFile struct {
	File
	g *gatedFS
}

func (f gatedFile) Sync() error {
	f.g.mu.Lock()
	gate := f.g.gate
	f.g.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return f.File.Sync()
}

func TestABodyInItsFileIsVerifiedWhileItIsRead(t *testing.T) {
	m := newMemFS()
	j, _ := mustOpen(t, Config{FS: m, MaxBytes: 1 << 20})
	defer mustClose(t, j)
	must(t, newLedger().commit(j, 1, 100_000))
	node := m.names[bodyName(1)]
	whole := slices.Clone(node.data)
	for _, at := range []int{0, 9, 20, 30, headerBytes, headerBytes + 50_000, headerBytes + 99_999, headerBytes + 100_001, headerBytes + 100_009} {
		node.data = slices.Clone(whole)
		node.data[at] ^= 4
		_, body, err := j.Read(1)
		if err == nil {
			var got []byte
			got, err = io.ReadAll(body)
			if len(got) == 100_000 {
				t.Errorf("byte %d: the last bytes were handed out before the checksum was compared", at)
			}
			must(t, body.Close())
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	node.data = whole[:len(whole)-1]
	if err := readBack(j, 1, testBody(1, 100_000)); !errors.Is(err, ErrDamaged) {
		t.Errorf("cut: %v", err)
	}
}

func TestABodyInItsRecordIsVerifiedBeforeReadReturns(t *testing.T) {
	m := newMemFS()
	j, _ := mustOpen(t, small(m))
	defer mustClose(t, j)
	must(t, newLedger().commit(j, 1, 300))
	e, _ := j.find(1)
	from := e.at.offset()
	data := m.names[segmentName(1)].data
	for at := from; at < from+frameHeader+acceptedHead+300; at++ {
		data[at] ^= 2
		if _, _, err := j.Read(1); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d: %v", at-from, err)
		}
		data[at] ^= 2
	}
	must(t, readBack(j, 1, testBody(1, 300)))
}

func TestManySendersAndReadersAtOnce(t *testing.T) {
	cfg := disk(t)
	cfg.MaxBytes = 16 << 20
	j, _ := mustOpen(t, cfg)
	const senders, each = 8, 40
	l := newLedger()
	var wg sync.WaitGroup
	for n := range senders {
		wg.Go(func() {
			for i := range each {
				id := uint64(n*each + i + 1)
				err := l.commit(j, id, 500+i*1000)
				err = errors.Join(err, l.attempt(j, id), readBack(j, id, testBody(id, 500+i*1000)), l.put(j, fmt.Sprint(n), fmt.Sprint(i)))
				if i%4 != 0 {
					err = errors.Join(err, l.settle(j, id))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	mustClose(t, j)
	j, f := mustOpen(t, cfg)
	defer mustClose(t, j)
	must(t, l.check(j, f, killed))
	if len(f.live) != senders*each/4 {
		t.Fatalf("%d live", len(f.live))
	}
}

func TestConfigurationsThatCannotWorkAreRefused(t *testing.T) {
	for want, c := range map[string]Config{
		"":                   {Dir: "x"},
		"dir: must not":      {},
		"segment bytes: 8 ":  {Dir: "x", SegmentBytes: 8},
		"max bytes: 1000 ":   {Dir: "x", MaxBytes: 1000},
		"6 segments of 4096": {Dir: "x", MaxBytes: 3 * 4096, SegmentBytes: 4096},
		"inline bytes: -1":   {Dir: "x", InlineBytes: -1},
	} {
		err := c.Validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}
