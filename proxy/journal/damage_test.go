package journal

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"
)

// recovered is what Open would find, without the goroutines.
type recovered struct {
	j    *Journal
	recs []Record
}

func recoverOnly(m *memFS) (*recovered, error) {
	r := &recovered{j: newJournal(small(m).filled())}
	run := recovery{j: r.j, ends: map[uint64]int64{}, replay: func(rec Record) error {
		rec.Payload = bytes.Clone(rec.Payload)
		r.recs = append(r.recs, rec)
		return nil
	}}
	return r, run.run()
}

// sample writes messages 1 to 5, of which 4 has ended, and closes. The fifth has its body in a file.
func sample(t *testing.T) (*memFS, *ledger) {
	t.Helper()
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, small(m))
	for id, size := range map[uint64]int{1: 60, 2: 70, 3: 80, 4: 50, 5: 900} {
		must(t, l.commit(j, id, size))
	}
	must(t, l.attempt(j, 2))
	must(t, l.settle(j, 4))
	mustClose(t, j)
	return m, l
}

// unsealedSample is a sample whose segments have lost their footers.
func unsealedSample(t *testing.T) (*memFS, *ledger) {
	t.Helper()
	m, l := sample(t)
	for name := range m.names {
		id, isSegment := segmentID(name)
		if !isSegment {
			continue
		}
		b := m.content(t, name)
		h, err := parseSegmentHeader(b)
		must(t, err)
		s := segment{id: id, salt: newSalt(h.salt[:]), size: int64(len(b))}
		end, sealed := s.readTrailer(bytes.NewReader(b))
		if !sealed {
			t.Fatalf("%s has no footer to take away", name)
		}
		m = m.with(name, b[:end])
	}
	return m, l
}

// affected returns the messages that are not as the ledger has them. Wrong bytes are a failure at once.
func (l *ledger) affected(t *testing.T, r *recovered) (ids []uint64) {
	t.Helper()
	for id := range l.begun {
		live := r.j.live(id)
		if _, ended := l.end(id); live == ended {
			ids = append(ids, id)
			continue
		}
		if !live {
			continue
		}
		switch err := readBack(r.j, id, l.begun[id]); {
		case errors.Is(err, ErrDamaged):
			ids = append(ids, id)
		case err != nil:
			t.Fatalf("message %d: %v", id, err)
		}
	}
	return ids
}

var flips = flag.Int("flips", 10_000, "bits to flip of a segment of 64 KiB, which has 524,288")

func TestAFlippedBitHarmsAtMostOneMessageAndIsCounted(t *testing.T) {
	m, l := sample(t)
	for name := range m.names {
		flipBits(t, m, l, name, 0, 1)
	}
}

// Every n-th bit of 64 KiB, or all of them.
func TestAFlippedBitOfALargeSegmentHarmsAtMostOneMessage(t *testing.T) {
	const segment, inline = 64 << 10, 8 << 10
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, Config{FS: m, MaxBytes: 16 * segment, SegmentBytes: segment})
	for id := uint64(1); id <= 8; id++ {
		must(t, l.commit(j, id, inline-50*int(id)))
		must(t, l.attempt(j, id))
	}
	must(t, l.settle(j, 7))
	mustClose(t, j)
	size := len(m.content(t, segmentName(1)))
	if size < segment*4/5 {
		t.Fatalf("only %d bytes to flip", size)
	}
	workers := runtime.GOMAXPROCS(0)
	step := max(1, 8*size / *flips) | 1 // odd: so that each bit of a byte gets its turn
	for w := range workers {
		own := m.with("", nil)
		t.Run(fmt.Sprint("part ", w), func(t *testing.T) {
			t.Parallel()
			flipBits(t, own, l, segmentName(1), w*step, workers*step)
		})
	}
}

// flipBits flips one bit at a time of a file.
func flipBits(t *testing.T, m *memFS, l *ledger, name string, first, step int) {
	t.Helper()
	b := m.content(t, name)
	harmed := 0
	for bit := first; bit < len(b)*8; bit += step {
		b[bit/8] ^= 1 << (bit % 8)
		r, err := recoverOnly(m.with(name, b))
		if err != nil {
			t.Fatalf("%s bit %d of byte %d: %v", name, bit%8, bit/8, err)
		}
		ids := l.affected(t, r)
		if len(ids) > 1 {
			t.Fatalf("%s bit %d of byte %d: messages %v", name, bit%8, bit/8, ids)
		}
		if len(ids) == 1 && r.j.Stats().Damaged == 0 {
			t.Fatalf("%s bit %d of byte %d: message %d harmed and nothing counted", name, bit%8, bit/8, ids[0])
		}
		harmed += len(ids)
		b[bit/8] ^= 1 << (bit % 8)
	}
	if harmed == 0 {
		t.Fatalf("%s: no bit of %d harmed anything", name, len(b)*8)
	}
}

// harm damages a record, and the footer that says the same again.
func harm(segment []byte, record string) []byte {
	segment[bytes.Index(segment, []byte(record))] ^= 1
	segment[len(segment)-1] ^= 1
	return segment
}

// Segments of a process that was killed have no footer: then every record is read where it stands, and those behind a damaged one as
// well.
func TestAFlippedBitOfASegmentWithoutItsFooterHarmsAtMostOneMessage(t *testing.T) {
	m, l := unsealedSample(t)
	for name := range m.names {
		flipBits(t, m, l, name, 0, 1)
	}
}

func TestADamagedSegmentIsKeptWhenItIsFreed(t *testing.T) {
	m, l := sample(t)
	b := m.content(t, segmentName(1))
	b = harm(b, "meta 2")
	m = m.with(segmentName(1), b)
	j, f := mustOpen(t, small(m))
	if _, live := f.live[2]; live || len(f.live) != 3 {
		t.Fatalf("live: %v", f.live)
	}
	for _, id := range []uint64{1, 3, 5} {
		must(t, l.settle(j, id))
	}
	mustClose(t, j)
	if m.has(segmentName(1)) || !m.has(segmentName(1)+quarantineSuffix) {
		t.Fatalf("files: %v", slices.Sorted(maps.Keys(m.names)))
	}
	j, _ = mustOpen(t, small(m))
	defer mustClose(t, j)
	if s := j.Stats(); s.Quarantined != 1 || s.Bytes < int64(len(b)) {
		t.Fatalf("the kept file is not counted: %+v", s)
	}
}

// While anything is damaged, a body that nobody names may belong to what was damaged.
func TestABodyWithoutItsRecordIsRemovedOnlyIfNothingWasDamaged(t *testing.T) {
	for _, damage := range []bool{false, true} {
		m, _ := sample(t)
		if damage {
			b := harm(m.content(t, segmentName(1)), "meta 5")
			m = m.with(segmentName(1), b)
		} else {
			m = m.with(bodyName(77), []byte("orphan"))
		}
		j, _ := mustOpen(t, small(m))
		mustClose(t, j)
		_, kept5 := m.names[bodyName(5)+quarantineSuffix]
		_, kept77 := m.names[bodyName(77)]
		if kept5 != damage || kept77 {
			t.Errorf("damage %v: files %v", damage, slices.Sorted(maps.Keys(m.names)))
		}
	}
}

func TestAMissingBodyIsDamageNotSilence(t *testing.T) {
	m, _ := sample(t)
	delete(m.names, bodyName(5))
	j, f := mustOpen(t, small(m))
	defer mustClose(t, j)
	if f.live[5] == "" || j.Stats().Damaged != 1 {
		t.Fatalf("live %v, %+v", f.live, j.Stats())
	}
	if _, _, err := j.Read(5); !errors.Is(err, ErrDamaged) {
		t.Fatal(err)
	}
}

// The last batch of a dead process, cut off at every byte: all or nothing, and nothing before it suffers.
func TestATornBatchIsDroppedWhole(t *testing.T) {
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, small(m))
	must(t, l.commit(j, 1, 100))
	before := m.content(t, segmentName(1))
	attempt := Record{Type: Attempt, ID: 1, Payload: []byte("one")}
	must(t, j.Append(attempt, attempt, Record{Type: Settled, ID: 1}))
	after := m.content(t, segmentName(1))
	mustClose(t, j)
	last := len(after)
	for after[last-1] == before[last-1] {
		last--
	}
	first := 0
	for after[first] == before[first] {
		first++
	}
	begun := first&^(frameAlign-1) + batchHeader // with less than its first frame nobody can tell that there was a batch
	for cut := first + 1; cut <= last; cut++ {
		b := slices.Concat(after[:cut], before[cut:])
		m := newMemFS().with(segmentName(1), b)
		for round := range 2 {
			r, err := recoverOnly(m)
			if err != nil {
				t.Fatal(err)
			}
			if cut == last {
				if len(r.recs) != 4 {
					t.Fatalf("the whole batch gave %d records", len(r.recs))
				}
				continue
			}
			if s := r.j.stats; len(r.recs) != 1 || s.Damaged != 0 || cut >= begun && s.Torn != int64(1-round) {
				t.Fatalf("cut at %d of %d, round %d: %d records, %+v", cut, last, round, len(r.recs), s)
			}
		}
	}
}

// A segment that has a successor is complete, so a missing piece of it is damage, wherever it was cut.
func TestATruncatedSegmentIsNoticed(t *testing.T) {
	m, l := sample(t)
	j, _ := mustOpen(t, small(m))
	must(t, l.commit(j, 6, 100))
	mustClose(t, j)
	whole := m.content(t, segmentName(1))
	records := recordsEnd(t, whole)
	for cut := range whole {
		r, err := recoverOnly(m.with(segmentName(1), whole[:cut]))
		if err != nil {
			t.Fatal(err)
		}
		switch ids := l.affected(t, r); {
		case cut >= records && len(ids) > 0:
			t.Fatalf("cut at %d of %d, in the footer: messages %v harmed", cut, len(whole), ids)
		case cut < records && r.j.Stats().Damaged == 0:
			t.Fatalf("cut at %d of %d: not noticed", cut, len(whole))
		}
	}
}

// recordsEnd is where the footer of a segment begins. Without it the segment says as much.
func recordsEnd(t *testing.T, segment []byte) int {
	t.Helper()
	h, err := parseSegmentHeader(segment)
	must(t, err)
	sc := newScanner(bytes.NewReader(segment), newSalt(h.salt[:]), segmentStart, int64(len(segment)))
	for {
		switch f, ok := sc.next(); {
		case !ok:
			t.Fatal("no footer")
		case f.typ == typeFooter:
			return int(f.at)
		}
	}
}

func TestASegmentInAnothersPlaceIsNotBelieved(t *testing.T) {
	m, _ := sample(t)
	other := newMemFS()
	j, _ := mustOpen(t, small(other))
	must(t, newLedger().commit(j, 99, 10))
	mustClose(t, j)
	for name, c := range map[string]struct {
		fs   *memFS
		want int
	}{
		"renamed":             {newMemFS().with(segmentName(7), m.content(t, segmentName(1))), 0},
		"frames under a salt": {m.with(segmentName(1), slices.Concat(other.content(t, segmentName(1))[:segmentStart], m.content(t, segmentName(1))[segmentStart:])), 0},
	} {
		r, err := recoverOnly(c.fs)
		if err != nil || len(r.recs) != c.want || r.j.stats.Damaged+r.j.stats.Torn == 0 {
			t.Errorf("%s: %d records, %+v, %v", name, len(r.recs), r.j.stats, err)
		}
	}
}

func TestAnUnknownVersionIsLeftAlone(t *testing.T) {
	m, _ := sample(t)
	b := m.content(t, segmentName(1))
	b[8], b[headerCopyAt+8] = formatVersion+1, formatVersion+1
	m = m.with(segmentName(1), b)
	if _, _, err := reopen(small(m)); !errors.Is(err, ErrVersion) {
		t.Fatal(err)
	}
	if m.ops != 0 || m.locked {
		t.Fatalf("%d operations, locked %v", m.ops, m.locked)
	}
}

func TestADiskThatDoesNotReadIsNotTakenForATornBatch(t *testing.T) {
	m, _ := sample(t)
	b := m.content(t, segmentName(1))
	sc := newScanner(badSector{bytes.NewReader(b), int64(len(b)) - 100}, 0, 0, int64(len(b)))
	sc.bytes(0, sc.end)
	if !sc.unreadable {
		t.Fatal("not noticed")
	}
	var h header
	h, err := parseSegmentHeader(b)
	must(t, err)
	end, torn := lastBatch(badSector{bytes.NewReader(b), int64(len(b)) - 100}, newSalt(h.salt[:]), int64(len(b)))
	if torn || end != int64(len(b)) {
		t.Fatalf("end %d of %d, torn %v", end, len(b), torn)
	}
}

type badSector struct {
	*bytes.Reader
	at int64
}

func (r badSector) ReadAt(p []byte, off int64) (int, error) {
	if off <= r.at && r.at < off+int64(len(p)) {
		return 0, errIO
	}
	return r.Reader.ReadAt(p, off)
}

func FuzzRecovery(f *testing.F) {
	m, l := newMemFS(), newLedger()
	j, _, err := reopen(small(m))
	if err != nil {
		f.Fatal(err)
	}
	for id := uint64(1); id < 4; id++ {
		if err := errors.Join(l.commit(j, id, 90), l.attempt(j, id)); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(l.settle(j, 2), j.Close()); err != nil {
		f.Fatal(err)
	}
	whole := m.names[segmentName(1)].data
	f.Add(uint16(1100), []byte{0xff})
	f.Add(uint16(0), []byte("mwseg"))
	f.Add(uint16(segmentStart), whole[segmentStart:segmentStart+64])
	f.Add(uint16(len(whole)), make([]byte, 300))
	f.Fuzz(func(t *testing.T, at uint16, patch []byte) {
		b := slices.Clone(whole)
		b = memWrite{off: int64(at), data: append([]byte{}, patch...)}.apply(b)
		r, err := recoverOnly(newMemFS().with(segmentName(1), b))
		if errors.Is(err, ErrVersion) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for id := range r.j.index {
			if l.begun[id] == nil {
				t.Fatalf("message %d was made up", id)
			}
		}
		l.affected(t, r)
	})
}

func FuzzAccepted(f *testing.F) {
	f.Add(slices.Concat(acceptedHeadFor(2, bodyInline), []byte("mebody")))
	f.Add(slices.Concat(acceptedHeadFor(0, bodyInFile), bodyRef{size: 3}.append(nil)))
	f.Fuzz(func(t *testing.T, p []byte) {
		meta, body, ref, ok := parseAccepted(p)
		if !ok {
			return
		}
		place, tail := uint32(bodyInline), body
		if ref != nil {
			place, tail = bodyInFile, ref.append(nil)
		}
		again := slices.Concat(acceptedHeadFor(len(meta), place), meta, tail)
		if ref == nil && !bytes.Equal(again, p) || len(again) != len(p) {
			t.Fatalf("%x became %x", p, again)
		}
	})
}

// readless refuses to read from its nth read on, or that one alone.
type readless struct {
	FS
	reads *int
	nth   int
	once  bool
}

type readlessFile struct {
	File
	fs readless
}

func (r readless) Open(name string, write bool) (File, error) {
	f, err := r.FS.Open(name, write)
	return readlessFile{f, r}, err
}

func (f readlessFile) ReadAt(p []byte, off int64) (int, error) {
	*f.fs.reads++
	if n := *f.fs.reads; n == f.fs.nth || n > f.fs.nth && !f.fs.once {
		return 0, errIO
	}
	return f.File.ReadAt(p, off)
}

// A disk that does not read at one start may read at the next. Until then nothing is given up: no file is cut, renamed or removed.
func TestADiskThatDoesNotReadAtAStartLosesNothing(t *testing.T) {
	for _, write := range []func(*testing.T) (*memFS, *ledger){sample, unsealedSample} {
		for _, once := range []bool{false, true} {
			reads, want := 0, 1<<30
			for nth := 1; nth <= want; nth++ {
				m, l := write(t)
				reads = 0
				cfg := small(m)
				cfg.FS = readless{m, &reads, nth, once}
				j, err := Open(cfg, func(Record) error { return nil })
				if err == nil {
					cfg.FS.(readless).heal()
					if l.commit(j, 50, 200) != nil {
						t.Errorf("read %d: nothing is accepted", nth)
					}
					mustClose(t, j)
				}
				if reads < nth {
					want = 0 // Open had read all it wants
				}
				j, f := mustOpen(t, small(m))
				for id := range l.acked {
					if _, ended := l.end(id); ended {
						continue
					}
					if _, live := f.live[id]; !live {
						t.Errorf("read %d (%v alone): message %d is lost", nth, once, id)
						continue
					}
					must(t, readBack(j, id, l.begun[id]))
				}
				mustClose(t, j)
			}
			if reads == 0 {
				t.Fatal("nothing was read")
			}
		}
	}
}

func (r readless) heal() { *r.reads = -1 << 40 }

// Whoever puts a file with the last of all numbers there must not make us give a segment a name that no start would read.
func TestAForeignFileWithTheLastNumberLosesNothing(t *testing.T) {
	m := newMemFS().with(segmentName(maxSegment), []byte("not ours"))
	j, _ := mustOpen(t, small(m))
	l := newLedger()
	if err := l.commit(j, 1, 100); !errors.Is(err, ErrUnavailable) || j.Err() == nil {
		t.Errorf("taken for a segment without a number: %v, %v", err, j.Err())
	}
	mustClose(t, j)
	j, _ = mustOpen(t, small(m)) // the file was set aside
	must(t, l.commit(j, 1, 100))
	must(t, readBack(j, 1, l.begun[1]))
	mustClose(t, j)
}

// A number comes again when the process ended between setting a file aside and making the next segment.
func TestASecondDamagedFileOfANameIsKeptBesideTheFirst(t *testing.T) {
	m := newMemFS().with(segmentName(7), []byte("the first"))
	for _, content := range []string{"the first", "the second", "the third"} {
		m = m.with(segmentName(7), []byte(content))
		j, _ := mustOpen(t, small(m))
		mustClose(t, j)
	}
	for _, name := range []string{".seg.quarantine", ".seg-2.quarantine", ".seg-3.quarantine"} {
		if !m.has("00000007" + name) {
			t.Errorf("%s is gone; there are %v", name, m.names)
		}
	}
}
