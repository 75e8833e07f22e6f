package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"runtime"
	"slices"
	"testing"
)

func mustInspect(t *testing.T, in Inspection) Report {
	t.Helper()
	r, err := Inspect(in)
	must(t, err)
	return r
}

// harbour writes messages that live, that are dead, that have ended, inline and in files, over several segments, sealed and not.
func harbour(t *testing.T) (*memFS, *ledger) {
	t.Helper()
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, small(m))
	for id := uint64(1); id <= 30; id++ {
		must(t, l.commit(j, id, 200))
		must(t, l.attempt(j, id))
		if id%3 == 0 {
			must(t, l.settle(j, id))
		}
	}
	must(t, l.commit(j, 40, 900))
	must(t, l.commit(j, 41, 900))
	must(t, j.Append(Record{Type: Dead, ID: 41, Payload: nil}, Record{Type: Dead, ID: 1, Payload: nil}))
	must(t, j.PutBlob("learnt", []byte("20")))
	mustClose(t, j)
	return m, l
}

func TestASoundJournalIsDescribed(t *testing.T) {
	m, _ := harbour(t)
	m = m.with(spareName, make([]byte, 10)).with("00000099.seg.tmp", nil).with("note.txt", []byte("x")).with(bodyName(77), make([]byte, 100)).
		with("00000001.seg"+quarantineSuffix, []byte("old"))
	var found []Found
	r := mustInspect(t, Inspection{FS: m, Visit: func(f Found) error { found = append(found, f.Clone()); return nil }})
	if r.Damaged != 0 || r.Torn || r.Broken+r.Freed+r.Unsealed+r.Reserves != 0 || r.Sealed < 3 {
		t.Errorf("segments: %+v", r)
	}
	if r.Live != 20+2-2 || r.Dead != 2 || r.Ended != 10 || r.Bodies != 2 || r.BodyBytes != 1800 {
		t.Errorf("messages: %+v", r)
	}
	seen := make(map[Type]int64)
	for _, f := range found {
		seen[f.Type]++
	}
	for typ, n := range map[Type]int64{Accepted: 32, Attempt: 30, Settled: 10, Dead: 2, Blob: 1} {
		if r.Records[typ] != n || seen[typ] != n {
			t.Errorf("type %d: %d counted, %d seen, want %d", typ, r.Records[typ], seen[typ], n)
		}
	}
	for what, files := range map[string]Files{"note.txt": r.Foreign, spareName: r.Spare, "00000001.seg.quarantine": r.Quarantined,
		bodyName(77): r.Orphans} {
		if files.Count != 1 || !slices.Equal(files.Names, []string{what}) {
			t.Errorf("%s: %+v", what, files)
		}
	}
}

func TestWhatIsNoJournalIsSaid(t *testing.T) {
	if _, err := Inspect(Inspection{FS: newMemFS().with("README", []byte("x"))}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Inspect(Inspection{Dir: t.TempDir() + "/nowhere"}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	m, _ := harbour(t)
	b := m.content(t, segmentName(2))
	b[8], b[headerCopyAt+8] = formatVersion+1, formatVersion+1
	seen := 0
	_, err := Inspect(Inspection{FS: m.with(segmentName(2), b), Visit: func(Found) error { seen++; return nil }})
	if !errors.Is(err, ErrVersion) || seen > 0 {
		t.Error(err, seen)
	}
}

// A bit of every byte of every file: what is harmed is reported in that file at that place, what is not harmed is not; never more than
// one message; and what the report says of a message is what recovery makes of it.
func TestAFlippedBitIsReportedWhereItIs(t *testing.T) {
	for what, made := range map[string]func(*testing.T) (*memFS, *ledger){"closed": sample, "killed": unclosed} {
		m, l := made(t)
		for name := range m.names {
			whole := m.content(t, name)
			covered := coveredBytes(t, name, whole)
			for at := range whole {
				bit := at*8 + at%8 // one of each byte; which one is not all the same
				b := slices.Clone(whole)
				b[bit/8] ^= 1 << (bit % 8)
				damaged := m.with(name, b)
				r, err := Inspect(Inspection{FS: damaged})
				must(t, err)
				if covered[bit/8] == (r.Damaged == 0) {
					t.Errorf("%d places: %+v", r.Damaged, r.Damage)
				}
				if covered[bit/8] {
					rec, err := recoverOnly(damaged)
					must(t, err)
					agree(t, r, rec.j.Stats())
					checkFlip(t, name, int64(bit/8), r, l.affected(t, rec))
				}
				if t.Failed() {
					t.Fatalf("%s: %s, bit %d of byte %d of %d", what, name, bit%8, bit/8, len(whole))
				}
			}
		}
	}
}

// agree: what an inspection counts is what recovery finds, and what recovery calls damage an inspection has seen.
func agree(t *testing.T, r Report, s Stats) {
	t.Helper()
	if r.Live+r.Dead != s.Live || s.Damaged > 0 && r.Damaged == 0 {
		t.Errorf("recovery finds %d live and %d damaged, the report says %+v", s.Live, s.Damaged, r)
	}
}

// unclosed is sample as a kill leaves it, with one batch more, so that all of sample is known to have been synced.
func unclosed(t *testing.T) (*memFS, *ledger) {
	t.Helper()
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, small(m))
	for id, size := range map[uint64]int{1: 60, 2: 70, 3: 80, 4: 50, 5: 900} {
		must(t, l.commit(j, id, size))
	}
	must(t, l.attempt(j, 2))
	must(t, l.settle(j, 4))
	must(t, l.commit(j, 6, 30))
	must(t, j.Append(Record{Type: Started, ID: 6, Payload: nil}))
	m = m.after(killed, nil)
	mustClose(t, j)
	return m, l
}

// coveredBytes says which bytes a checksum covers, of those that are known to have been synced.
func coveredBytes(t *testing.T, name string, b []byte) []bool {
	t.Helper()
	covered := make([]bool, len(b))
	cover := func(from, to int64) {
		for i := from; i < to; i++ {
			covered[i] = true
		}
	}
	const summed = headerBytes - 4
	cover(0, summed)
	if _, body := bodyID(name); body {
		cover(headerBytes, int64(len(b)))
		return covered
	}
	cover(headerCopyAt, headerCopyAt+summed)
	h, err := parseSegmentHeader(b)
	must(t, err)
	s := &segment{salt: newSalt(h.salt[:]), size: int64(len(b))}
	src := bytes.NewReader(b)
	end := s.size - trailerBytes // a damaged trailer looks like a footer that was never finished
	if _, sealed := s.readTrailer(src); !sealed {
		end = segmentStart
		for sc := newScanner(src, s.salt, segmentStart, s.size); ; {
			f, ok := sc.next()
			if !ok {
				break
			}
			if p, ok := parseBatch(f.payload); ok && f.typ == typeBatch {
				end = p.synced
			}
		}
	}
	for sc := newScanner(src, s.salt, segmentStart, end); sc.pos < end; {
		f, ok := sc.next()
		if !ok {
			t.Fatal("not sound")
		}
		cover(f.at, f.at+frameHeader+int64(len(f.payload)))
	}
	return covered
}

func checkFlip(t *testing.T, name string, at int64, r Report, harmed []uint64) {
	t.Helper()
	var said []uint64
	for _, d := range r.Damage {
		if d.File != name || at < d.Offset || at >= d.Offset+d.Length {
			t.Errorf("reported in another place: %+v", d)
		}
		for _, x := range d.Lost {
			if x.Harm == ContentLost || x.Harm == MessageLost || x.Harm == EndLost {
				said = append(said, x.ID)
			}
		}
	}
	guessed := len(harmed) == 1 && len(said) == 0 && r.Damage[0].Harm == Unknown
	if !slices.Equal(said, harmed) && !guessed {
		t.Errorf("said to be harmed: %v, harmed: %v: %+v", said, harmed, r.Damage)
	}
	if r.Damaged != 1 {
		t.Errorf("%d places", r.Damaged)
	}
}

// snapshot is everything in the directory, names and bytes.
func (m *memFS) snapshot() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]string)
	for name, n := range m.names {
		all[name] = string(n.data)
	}
	return all
}

func TestInspectChangesNothing(t *testing.T) {
	m, _ := harbour(t)
	b := m.content(t, segmentName(1))
	b[bytes.Index(b, []byte("meta 2"))] ^= 1
	m = m.with(segmentName(1), b)
	before := m.snapshot()
	if r := mustInspect(t, Inspection{FS: m}); r.Damaged != 1 {
		t.Fatalf("%+v", r)
	}
	if m.ops != 0 || m.locked || !maps.Equal(before, m.snapshot()) {
		t.Errorf("%d operations, locked %v", m.ops, m.locked)
	}
}

// Each kind of damage, where it is and what it means.
func TestEachKindOfDamageIsNamed(t *testing.T) {
	closed, _ := harbour(t)
	killed, _ := unclosed(t)
	flip := func(m *memFS, name, text string) *memFS {
		b := m.content(t, name)
		at := bytes.Index(b, []byte(text))
		if at < 0 {
			t.Fatalf("no %q in %s", text, name)
		}
		b[at] ^= 4
		return m.with(name, b)
	}
	whole := closed.content(t, segmentName(2))
	headerless := slices.Concat(make([]byte, segmentStart), whole[segmentStart:])
	missing := closed.with("", nil)
	delete(missing.names, bodyName(40))
	longer := closed.with(bodyName(40), append(closed.content(t, bodyName(40)), 0))
	blanked := killedWithSegments(t)
	var last int64 // batch of segment 1
	mustInspect(t, Inspection{FS: blanked, Visit: func(f Found) error {
		if f.Segment == 1 {
			last = f.Offset - batchHeader
		}
		return nil
	}})
	blank := blanked.content(t, segmentName(1))
	clear(blank[last:])
	blanked = blanked.with(segmentName(1), blank)
	foreign := closed.with(segmentName(2), closed.content(t, segmentName(3)))
	for name, c := range map[string]struct {
		m    *memFS
		file string
		want Fault
		harm Harm
		id   uint64
	}{
		"content of a live message":     {flip(closed, segmentName(1), "meta 2"), segmentName(1), Checksum, ContentLost, 2},
		"content of an ended message":   {flip(closed, segmentName(1), "meta 3"), segmentName(1), Checksum, NoHarm, 0},
		"a message without a footer":    {flip(killed, segmentName(1), "meta 2"), segmentName(1), Checksum, MessageLost, 2},
		"an ended one without a footer": {flip(killed, segmentName(1), "meta 4"), segmentName(1), Checksum, NoHarm, 4},
		"a body":                        {flip(closed, bodyName(40), "0028"), bodyName(40), Checksum, ContentLost, 40},
		"a body of a dead message":      {flip(closed, bodyName(41), "0029"), bodyName(41), Checksum, ContentLost, 41},
		"a body that is missing":        {missing, bodyName(40), BodyGone, ContentLost, 40},
		"a body that is too long":       {longer, bodyName(40), BodyLength, ContentLost, 40},
		"no header":                     {closed.with(segmentName(2), headerless), segmentName(2), NoHeader, Unknown, 0},
		"another segment in its place":  {foreign, segmentName(2), NoHeader, Unknown, 0},
		"an empty file":                 {closed.with(segmentName(2), []byte{}), segmentName(2), NoHeader, Unknown, 0},
		"the end is missing":            {closed.with(segmentName(2), whole[:len(whole)/2]), segmentName(2), "", Unknown, 0},
		"zeros where records stood":     {blanked, segmentName(1), Checksum, Unknown, 0},
		"one header of two":             {flip(closed, segmentName(2), "mwseg"), segmentName(2), HeaderCopy, NoHarm, 0},
	} {
		r := mustInspect(t, Inspection{FS: c.m})
		rec, err := recoverOnly(c.m)
		must(t, err)
		agree(t, r, rec.j.Stats())
		if r.Damaged == 0 {
			t.Errorf("%s: not noticed", name)
			continue
		}
		d := r.Damage[0]
		if c.want != "" && (r.Damaged != 1 || d.Fault != c.want) || d.File != c.file {
			t.Errorf("%s: %+v", name, r.Damage)
		}
		if worst := slices.MaxFunc(r.Damage, func(a, b Damage) int { return int(a.Harm) - int(b.Harm) }); worst.Harm != c.harm {
			t.Errorf("%s: %+v", name, r.Damage)
		}
		if c.id != 0 && (len(d.Lost) != 1 || d.Lost[0].ID != c.id || !d.Lost[0].Certain) {
			t.Errorf("%s: %+v", name, d.Lost)
		}
	}
}

// killedWithSegments has full segments without footers.
func killedWithSegments(t *testing.T) *memFS {
	t.Helper()
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, small(m))
	for id := uint64(1); id <= 30; id++ {
		must(t, l.commit(j, id, 200))
	}
	defer mustClose(t, j)
	return m.after(killed, nil)
}

func TestAFooterThatIsDamagedIsNamedAndDoesNoHarm(t *testing.T) {
	m, _ := harbour(t)
	b := m.content(t, segmentName(1))
	b[len(b)-trailerBytes-9] ^= 1
	r := mustInspect(t, Inspection{FS: m.with(segmentName(1), b)})
	if r.Damaged != 1 || r.Damage[0].Fault != Footer || r.Damage[0].Harm != NoHarm || r.Live != 20 || r.Dead != 2 {
		t.Errorf("%+v", r)
	}
}

// badDisk refuses to read one page of one file.
type badDisk struct {
	FS
	name string
	at   int64
}

func (d badDisk) Open(name string, write bool) (File, error) {
	f, err := d.FS.Open(name, write)
	if err == nil && name == d.name {
		return badFile{f, d.at}, nil
	}
	return f, err
}

type badFile struct {
	File
	at int64
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if off < f.at+unreadablePage && f.at < off+int64(len(p)) {
		return 0, errIO
	}
	return f.File.ReadAt(p, off)
}

func TestWhatTheDiskRefusesToReadIsDamage(t *testing.T) {
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, Config{FS: m, MaxBytes: 4 << 20, SegmentBytes: 256 << 10})
	for id := uint64(1); id <= 4; id++ {
		must(t, l.commit(j, id, 20<<10))
	}
	must(t, l.commit(j, 5, 100<<10))
	mustClose(t, j)
	for name, c := range map[string]struct {
		at int64
		id uint64
	}{segmentName(1): {28 << 10, 2}, bodyName(5): {40 << 10, 5}} {
		r := mustInspect(t, Inspection{FS: badDisk{m, name, c.at}})
		if r.Damaged != 1 || r.Damage[0].File != name || r.Damage[0].Fault != Unreadable ||
			r.Damage[0].Harm != ContentLost || r.Damage[0].Lost[0].ID != c.id {
			t.Errorf("%s: %+v", name, r.Damage)
		}
	}
}

// Two thousand damaged places are counted; the first of them are described.
func TestTheReportIsBoundedHoweverMuchIsDamaged(t *testing.T) {
	m, l := newMemFS(), newLedger()
	j, _ := mustOpen(t, Config{FS: m, MaxBytes: 32 << 20, SegmentBytes: 2 << 20})
	must(t, l.commit(j, 1, 10))
	recs := make([]Record, 4000)
	for i := range recs {
		recs[i] = Record{Type: Attempt, ID: 1, Payload: []byte("0")}
	}
	must(t, j.Append(recs...))
	mustClose(t, j)
	b := m.content(t, segmentName(1))
	spoilt := 0
	mustInspect(t, Inspection{FS: m, Visit: func(f Found) error {
		if f.Type == Attempt {
			spoilt++
			b[f.Offset+8] ^= byte(spoilt % 2) // the length of every second one
		}
		return nil
	}})
	r := mustInspect(t, Inspection{FS: m.with(segmentName(1), b)})
	if r.Damaged < maxPlaces+100 || len(r.Damage) != maxPlaces || r.Live != 1 {
		t.Errorf("%d damaged places, %d described, %d live", r.Damaged, len(r.Damage), r.Live)
	}
}

// allocated is how many bytes an inspection takes altogether.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzInspect(f *testing.F) {
	closed, _ := sampleFor(f)
	whole := closed.names[segmentName(1)].data
	f.Add(uint16(1100), []byte{0xff}, false)
	f.Add(uint16(0), []byte("mwseg"), false)
	f.Add(uint16(segmentStart), whole[segmentStart:segmentStart+64], true)
	f.Add(uint16(len(whole)-trailerBytes), make([]byte, trailerBytes), false)
	f.Add(uint16(4), []byte("body"), true)
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, body bool) {
		name := segmentName(1)
		if body {
			name = bodyName(5)
		}
		m := closed.with(name, memWrite{off: int64(at), data: append([]byte{}, patch...)}.apply(slices.Clone(closed.names[name].data)))
		var r Report
		var err error
		bytes := allocated(func() { r, err = Inspect(Inspection{FS: m, Visit: func(Found) error { return nil }}) })
		if bytes > 16<<20 {
			t.Errorf("%d bytes allocated", bytes)
		}
		if errors.Is(err, ErrVersion) {
			return
		}
		must(t, err)
		rec, err := recoverOnly(m)
		must(t, err)
		agree(t, r, rec.j.Stats())
	})
}

func sampleFor(f *testing.F) (*memFS, *ledger) {
	f.Helper()
	m, l := newMemFS(), newLedger()
	j, _, err := reopen(small(m))
	if err != nil {
		f.Fatal(err)
	}
	for id, size := range map[uint64]int{1: 60, 2: 70, 3: 80, 4: 50, 5: 900} {
		if err := l.commit(j, id, size); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(l.attempt(j, 2), l.settle(j, 4), j.Close()); err != nil {
		f.Fatal(err)
	}
	return m, l
}
