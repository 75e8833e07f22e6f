package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// window is how much of a segment recovery reads at once, in bytes.
const window = 1 << 20

// unreadablePage is what a read error costs: only this much around it counts as damaged, in bytes.
const unreadablePage = 4 << 10

// scanner walks the frames of one segment. What it returns is borrowed until its next call.
type scanner struct {
	src  io.ReaderAt
	salt salt
	pos  int64 // of the next frame
	end  int64 // no frame reaches beyond

	buf        []byte
	at         int64 // offset of buf in the segment
	unreadable bool  // the disk refused to read some of it; zeros stand there
}

func newScanner(src io.ReaderAt, s salt, from, end int64) *scanner {
	return &scanner{src: src, salt: s, pos: from, end: end}
}

// next returns the frame at pos and steps over it. It returns false, and stays, where none is.
func (s *scanner) next() (frame, bool) {
	f, length, sum, ok := s.header()
	if !ok {
		return frame{}, false
	}
	b := s.bytes(s.pos, frameHeader+int64(length))
	if b == nil || s.salt.sum(b[frameHeader:]) != sum {
		return frame{}, false
	}
	f.payload = b[frameHeader:]
	s.pos = f.end()
	return f, true
}

func (s *scanner) header() (f frame, length int, sum uint32, ok bool) {
	h := s.bytes(s.pos, frameHeader)
	if h == nil {
		return frame{}, 0, 0, false
	}
	return s.salt.parseFrameHeader(h, s.pos)
}

// resync moves pos forward to the next sound frame. It returns false when there is none.
func (s *scanner) resync() bool {
	for s.pos += frameAlign; s.pos+frameHeader <= s.end; s.pos += frameAlign {
		s.skipZeros()
		if _, _, _, ok := s.header(); !ok {
			continue
		}
		at := s.pos
		_, ok := s.next()
		s.pos = at
		if ok {
			return true
		}
	}
	return false
}

// skipZeros moves pos over places where no frame can begin, which is most of a segment that was given its room in advance:
// the second word of a frame holds its type, and that is never zero.
func (s *scanner) skipZeros() {
	for s.pos+frameHeader <= s.end {
		s.bytes(s.pos, frameHeader)
		b := s.buf[s.pos-s.at:][frameAlign:] // what of the window is left, so that it is read once
		n := leadingZeros(b)
		s.pos += int64(n) &^ (frameAlign - 1)
		if n < len(b) {
			return
		}
	}
}

// leadingZeros counts the zero bytes that b begins with.
func leadingZeros(b []byte) int {
	n := 0
	for len(b)-n >= 8 && binary.LittleEndian.Uint64(b[n:]) == 0 {
		n += 8
	}
	for n < len(b) && b[n] == 0 {
		n++
	}
	return n
}

// bytes returns n bytes at pos, nil where the segment ends before.
func (s *scanner) bytes(pos, n int64) []byte {
	if pos+n > s.end {
		return nil
	}
	if pos < s.at || pos+n > s.at+int64(len(s.buf)) {
		s.fill(pos, n)
	}
	return s.buf[pos-s.at:][:n]
}

func (s *scanner) fill(pos, n int64) {
	n = min(max(n, window), s.end-pos)
	if int64(cap(s.buf)) < n {
		s.buf = make([]byte, n)
	}
	s.buf, s.at = s.buf[:n], pos
	clear(s.buf)
	if _, err := s.src.ReadAt(s.buf, pos); err == nil || errors.Is(err, io.EOF) {
		return
	}
	for off := int64(0); off < n; off += unreadablePage {
		page := s.buf[off:min(off+unreadablePage, n)]
		if _, err := s.src.ReadAt(page, pos+off); err != nil && !errors.Is(err, io.EOF) {
			clear(page)
			s.unreadable = true
		}
	}
}

// blank reports whether only zeros stand from pos to the end.
func (s *scanner) blank() bool {
	for pos := s.pos; pos < s.end; {
		b := s.bytes(pos, min(window, s.end-pos))
		if leadingZeros(b) < len(b) {
			return false
		}
		pos += int64(len(b))
	}
	return true
}

// unused reports whether pos is where the first batch would begin and nothing was ever written there. Behind it may stand what the
// file held in an earlier life.
func (s *scanner) unused() bool {
	b := s.bytes(s.pos, min(segmentBlank, s.end-s.pos))
	return s.pos == segmentStart && leadingZeros(b) == len(b)
}

// lastBatch finds where the last segment of a journal ends. Each batch says up to where everything before it
// was synced. Below the highest such mark damage is damage, and recovery goes on behind it. From there on, batches
// count as long as they are whole: the first that is not was being written when the power went,
// nobody was told that it is safe, and so nothing after it can have been either.
func lastBatch(src io.ReaderAt, s salt, size int64) (end int64, torn bool) {
	sc := newScanner(src, s, segmentStart, size)
	end = segmentStart
	var last int64 // the end of the last sound frame
	for {
		f, ok := sc.next()
		if ok {
			last = sc.pos
		}
		if !ok && !sc.resync() {
			break
		}
		if b, isBatch := parseBatch(f.payload); ok && f.typ == typeBatch && isBatch && b.synced <= f.at {
			end = max(end, b.synced)
		}
	}
	sc.pos = end
	for sc.wholeBatch() {
		end = sc.pos
	}
	if sc.unreadable {
		// What the disk does not give now it may give tomorrow: nothing here is known to be torn.
		return size, false
	}
	// What is no frame of this segment is room that was never used, but for its first bytes, which were blank.
	sc.pos = segmentStart
	return end, last > end || end == segmentStart && !sc.unused()
}

// wholeBatch steps over a batch whose every frame is sound.
func (s *scanner) wholeBatch() bool {
	f, ok := s.next()
	b, isBatch := parseBatch(f.payload)
	if !ok || f.typ != typeBatch || !isBatch || f.at+b.length > s.end {
		return false
	}
	for until := f.at + b.length; s.pos != until; {
		if f, ok = s.next(); !ok || f.typ == typeBatch || s.pos > until {
			return false
		}
	}
	return true
}

// openSeals collects what a segment's first frames say about where earlier ones end.
func openSeals(src io.ReaderAt, s salt, end int64) []seal {
	sc := newScanner(src, s, segmentStart, end)
	for {
		switch f, ok := sc.next(); {
		case !ok && !sc.resync():
			return nil
		case !ok || f.typ == typeBatch:
		case f.typ == typeSeal:
			return parseSeals(f.payload)
		default:
			return nil
		}
	}
}

// segmentFault puts the name of a segment before an error.
func fault(verb, name string, err error) error {
	return fmt.Errorf("journal: %s %s: %w", verb, name, err)
}
