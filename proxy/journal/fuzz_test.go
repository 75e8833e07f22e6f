package journal

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// What an attacker, or a disk, may put where our files are: no panic, and nothing but what was written comes back.

// fuzzSegment makes a segment whose header and frames are sound, whatever they say.
func fuzzSegment(h header, frames []byte) ([]byte, int64) {
	b := appendSegmentHeader(nil, h)
	s := newSalt(h.salt[:])
	for len(frames) >= 4 && len(b) < 1<<20 { // type, flags, message, length of the payload
		typ, flags, id := Type(frames[0]), frames[1]&(flagMore|flagRestate), uint64(frames[2])
		n := min(int(frames[3]), len(frames)-4)
		b = appendFrame(b, s, int64(len(b)), max(typ, 1), flags, id, frames[4:4+n])
		frames = frames[4+n:]
	}
	return b, int64(len(b))
}

// fuzzFrames is a record of each kind, for a seed.
func fuzzFrames() []byte {
	var b []byte
	add := func(t Type, id byte, payload []byte) {
		b = append(append(b, byte(t), 0, id, byte(len(payload))), payload...)
	}
	add(typeBatch, 0, batch{batchHeader, segmentStart}.append(nil))
	add(typeSeal, 0, appendSeals(nil, []seal{{1, segmentStart}, {7, 1 << 40}}))
	add(Blob, 0, appendBlob(nil, "name", []byte("value")))
	add(Accepted, 1, slices.Concat(acceptedHeadFor(2, bodyInline), []byte("mebody")))
	add(Accepted, 2, slices.Concat(acceptedHeadFor(0, bodyInFile), bodyRef{size: 3}.append(nil)))
	add(Attempt, 1, append(make([]byte, linkBytes), "1"...))
	add(Settled, 2, appendSpanLink(nil, span{1, 1}))
	return b
}

// Sound frames that say anything at all.
func FuzzFrames(f *testing.F) {
	f.Add(fuzzFrames(), false)
	f.Add(fuzzFrames(), true)
	f.Add(append(fuzzFrames()[:24], fuzzFrames()...), false)
	f.Fuzz(func(t *testing.T, frames []byte, footer bool) {
		h := header{id: 3, salt: [saltBytes]byte{1}}
		b, end := fuzzSegment(h, frames)
		s := segment{id: 3, salt: newSalt(h.salt[:]), name: segmentName(3), size: end, end: end}
		var whole bytes.Buffer
		if _, err := s.writeFooter(&whole, bytes.NewReader(b)); footer && err == nil {
			b = append(b, whole.Bytes()...)
		}
		mustRecover(t, newMemFS().with(s.name, b))
	})
}

// A footer whose frames are sound and whose entries are anything.
func FuzzFooter(f *testing.F) {
	at := newPos(3, segmentStart, 100)
	seed := noted{typ: Accepted, id: 1, at: at, payload: acceptedHeadFor(0, bodyInline)}.append(nil)
	seed = noted{typ: Attempt, restate: true, id: 1, at: at + 64, payload: []byte("1")}.append(seed)
	f.Add(seed, uint16(0))
	f.Add(noted{typ: Settled, id: 1, at: at}.append(seed), uint16(0))
	f.Add(seed[:len(seed)-3], uint16(8))
	f.Add([]byte{}, uint16(0xffff))
	f.Fuzz(func(t *testing.T, list []byte, off uint16) {
		h := header{id: 3, salt: [saltBytes]byte{1}}
		b, end := fuzzSegment(h, fuzzFrames())
		var footer bytes.Buffer
		w := footerWriter{dst: &footer, salt: newSalt(h.salt[:]), at: end, most: maxSegmentBytes, buf: slices.Clone(list)}
		must(t, w.finish(end+int64(off&^7)))
		b = append(b, footer.Bytes()...)
		n, size := 0, 0
		err := entries(list, func(e noted) error {
			n, size = n+1, size+footerEntry+len(e.payload)
			return nil
		})
		if size > len(list) || err == nil && size != len(list) {
			t.Fatalf("%d entries of %d bytes out of %d: %v", n, size, len(list), err)
		}
		mustRecover(t, newMemFS().with(segmentName(3), b))
	})
}

// A body file with anything in it.
func FuzzBody(f *testing.F) {
	h := header{id: 5, salt: [saltBytes]byte{2}}
	whole := append(h.append(nil, bodyMagic), "content"...)
	f.Add(whole, int64(7))
	f.Add(whole[:20], int64(0))
	f.Add([]byte{}, int64(1<<62))
	f.Fuzz(func(t *testing.T, file []byte, size int64) {
		j := newJournal(small(newMemFS().with(bodyName(5), file)).filled())
		r, err := j.openBody(5, bodyRef{size: max(size, 0), salt: h.salt})
		if err != nil {
			return
		}
		defer r.Close()
		got := make([]byte, len(file)+1)
		n := 0
		for err == nil && n < len(got) {
			var more int
			more, err = r.Read(got[n:])
			n += more
		}
		if n > len(file) || !errors.Is(err, ErrDamaged) { // the checksum is never that of ref: 0
			t.Fatalf("%d bytes of %d: %v", n, len(file), err)
		}
	})
}

// mustRecover recovers twice, since the first start changes what it finds, and reads what there is.
func mustRecover(t *testing.T, m *memFS) {
	t.Helper()
	for range 2 {
		r, err := recoverOnly(m)
		if err != nil {
			t.Fatal(err)
		}
		for id := range r.j.index {
			if _, body, err := r.j.Read(id); err == nil {
				must(t, body.Close())
			}
		}
		for _, s := range r.j.segments {
			if s.end < segmentStart || s.live < 0 {
				t.Fatalf("%+v", s)
			}
		}
	}
}
