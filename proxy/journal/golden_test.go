package journal

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata")

// goldenSegment writes every type of record with a salt that is always the same.
func goldenSegment(t *testing.T, ref bodyRef) []byte {
	t.Helper()
	h := header{id: 2, salt: [saltBytes]byte([]byte("0123456789abcdef"))}
	b := appendSegmentHeader(nil, h)
	j := newJournal(Config{FS: newMemFS(), SegmentBytes: 1 << 20, MaxBytes: 1 << 24}.filled())
	w := &writer{j: j, tail: &segment{id: 2, salt: newSalt(h.salt[:])}, end: segmentStart, synced: segmentStart}
	j.segments = []*segment{{id: 1, moved: true}, w.tail}
	w.opening = []Record{{Type: typeSeal, Payload: appendSeals(nil, []seal{{1, 2048}})}, {Type: Blob, Payload: appendBlob(nil, "learnt", []byte("20"))}}
	for _, rec := range w.opening {
		w.prelude += frameSize(len(rec.Payload))
	}
	put := func(group ...*request) {
		for _, r := range group {
			r.measure()
		}
		group, _ = w.link(group, w.end+batchHeader+w.prelude)
		b = append(b, w.encode(group)...)
		w.applied(group)
		w.durable(generation{commits: slices.DeleteFunc(slices.Clone(group), func(r *request) bool { return r.kind != messageKind })}, false)
		w.synced, w.end = w.end, int64(len(b))
		w.opening, w.prelude = nil, 0
	}
	note := func(t Type, id uint64, payload string) Record {
		return Record{Type: t, ID: id, Payload: []byte(payload)}
	}
	put()
	meta, body := []byte("meta 11"), []byte("Subject: inline\r\n\r\nbody\r\n")
	put(&request{kind: messageKind, id: 11, accepted: [][]byte{acceptedHeadFor(len(meta), bodyInline), meta, body}},
		&request{kind: messageKind, id: 12, body: 1, accepted: [][]byte{acceptedHeadFor(len(meta), bodyInFile), []byte("meta 12"), ref.append(nil)}})
	put(newGroup([]Record{note(Started, 11, ""), note(Verdict, 11, "\x01\x02\x03")}),
		newGroup([]Record{note(Attempt, 12, "1")}), newGroup([]Record{note(Hold, 12, "8 bytes.")}))
	whole := note(Attempt, 12, "2")
	whole.Whole = true
	put(newGroup([]Record{note(Settled, 11, "")}), newGroup([]Record{whole}), newGroup([]Record{note(Dead, 12, "")}),
		newGroup([]Record{note(Void, 13, "")}))
	put()
	s := &segment{id: 2, salt: w.tail.salt, end: w.end, size: w.end}
	var footer bytes.Buffer
	_, err := s.writeFooter(&footer, bytes.NewReader(b))
	must(t, err)
	return slices.Concat(b, footer.Bytes())
}

func goldenBody(t *testing.T) ([]byte, bodyRef) {
	t.Helper()
	m := newMemFS()
	f, err := m.Create(bodyName(12))
	must(t, err)
	w := &bodyWriter{fs: m, id: 12, file: f, buf: make([]byte, 0, 64)}
	copy(w.ref.salt[:], "fedcba9876543210")
	w.salt = newSalt(w.ref.salt[:])
	w.crc = uint32(w.salt)
	w.buf = header{id: 12, salt: w.ref.salt}.append(w.buf, bodyMagic)
	_, err = w.Write([]byte(strings.Repeat("a body in its own file\r\n", 20)))
	must(t, err)
	must(t, w.finish())
	return m.content(t, bodyName(12)), w.ref
}

// What was written once must be readable for ever, and what is written today must be that.
func TestTheFormatStaysWhatItIs(t *testing.T) {
	body, ref := goldenBody(t)
	files := map[string][]byte{segmentName(2): goldenSegment(t, ref), bodyName(12): body}
	m := newMemFS()
	for name, today := range files {
		path := filepath.Join("testdata", name)
		if *update {
			must(t, os.WriteFile(path, today, 0o644))
		}
		kept, err := os.ReadFile(path)
		must(t, err)
		if !bytes.Equal(kept, today) {
			t.Errorf("%s: the format has changed; if it has to, it needs a new version", name)
		}
		m = m.with(name, kept)
	}
	r, err := recoverOnly(m)
	must(t, err)
	var got []string
	for _, rec := range r.recs {
		got = append(got, fmt.Sprintf("%d %d %q", rec.Type, rec.ID, rec.Payload))
	}
	want := `1 11 "meta 11"; 1 12 "meta 12"; 4 11 ""; 2 11 "\x01\x02\x03"; 3 12 "1"; 5 12 "8 bytes."; ` +
		`6 11 ""; 241 12 ""; 3 12 "2"; 7 12 ""; 8 13 ""`
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	if b := r.j.Blob("learnt"); string(b) != "20" {
		t.Errorf("blob %q", b)
	}
	must(t, readBack(r.j, 12, []byte(strings.Repeat("a body in its own file\r\n", 20))))
	if s := r.j.Stats(); s.Damaged+s.Torn != 0 {
		t.Errorf("%+v", s)
	}
}
