package journal

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite testdata")

// goldenSegment writes every type of record with a salt that is always the same.
func goldenSegment(t *testing.T, ref bodyRef) []byte {
	t.Helper()
	h := header{id: 2, salt: [saltBytes]byte([]byte("0123456789abcdef"))}
	b := appendSegmentHeader(nil, h)
	w := &writer{tail: &segment{id: 2, salt: newSalt(h.salt[:])}, end: segmentStart, synced: segmentStart}
	w.opening = []Record{{typeSeal, 0, appendSeals(nil, []seal{{1, 2048}})}, {Blob, 0, appendBlob(nil, "learnt", []byte("20"))}}
	for _, rec := range w.opening {
		w.prelude += frameSize(len(rec.Payload))
	}
	put := func(group ...*request) {
		for _, r := range group {
			r.measure()
		}
		b = append(b, w.encode(group)...)
		w.synced, w.end = w.end, int64(len(b))
		w.opening, w.prelude = nil, 0
	}
	put()
	put(&request{commit: true, id: 11, meta: []byte("meta 11"), body: []byte("Subject: inline\r\n\r\nbody\r\n")},
		&request{commit: true, id: 12, meta: []byte("meta 12"), ref: &ref})
	put(newRequest([]Record{{Started, 11, nil}, {Verdict, 11, []byte{1, 2, 3}}}),
		newRequest([]Record{{Attempt, 12, []byte("1")}}), newRequest([]Record{{Hold, 12, []byte("8 bytes.")}}))
	put(newRequest([]Record{{Settled, 11, nil}}), newRequest([]Record{{Dead, 12, nil}}), newRequest([]Record{{Void, 13, nil}}))
	put()
	return b
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
	want := `9 0 "\x06learnt20"; 1 11 "meta 11"; 1 12 "meta 12"; 4 11 ""; 2 11 "\x01\x02\x03"; 3 12 "1"; 5 12 "8 bytes."; 6 11 ""; 7 12 ""; 8 13 ""`
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
	must(t, readBack(r.j, 12, []byte(strings.Repeat("a body in its own file\r\n", 20))))
	if s := r.j.Stats(); s.Damaged+s.Torn != 0 {
		t.Errorf("%+v", s)
	}
}
