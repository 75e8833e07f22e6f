package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A footer says once more what stands in a segment, but for the bodies and for messages that began and ended in it. Recovery
// and the sweeper read that instead of the whole. It never counts for more than what it repeats.

// noted is one record, as a frame or an entry of a footer tells of it.
type noted struct {
	typ     Type
	restate bool
	id      uint64
	at      pos
	link    [linkBytes]byte // of a linked type
	payload []byte          // without the link; from a footer, that of an Accepted record has no inline body. Borrowed.
}

// note reads a frame of a segment. It returns false where the payload is not what its type wants.
func (s *segment) note(f frame) (noted, bool) {
	n := noted{typ: f.typ, restate: f.flags&flagRestate != 0, id: f.id, payload: f.payload,
		at: newPos(s.id, f.at, f.end()-f.at)}
	if f.typ.linked() {
		if len(f.payload) < linkBytes {
			return noted{}, false
		}
		n.payload = f.payload[copy(n.link[:], f.payload):]
	}
	return n, true
}

const (
	footerEntry    = 32       // bytes of an entry before its payload
	maxFooterFrame = 64 << 10 // bytes of entries in one frame; a longer entry has one for itself
	trailerPayload = 16
	trailerBytes   = frameHeader + trailerPayload
)

func (n noted) append(b []byte) []byte {
	var flags byte
	if n.restate {
		flags = flagRestate
	}
	b = append(b, byte(n.typ), flags, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(n.payload)))
	b = binary.LittleEndian.AppendUint64(b, n.id)
	b = binary.LittleEndian.AppendUint64(b, uint64(n.at))
	b = append(b, n.link[:]...)
	return append(b, n.payload...)
}

func nextNoted(b []byte) (n noted, rest []byte, ok bool) {
	if len(b) < footerEntry {
		return noted{}, nil, false
	}
	length := binary.LittleEndian.Uint32(b[4:])
	n = noted{typ: Type(b[0]), restate: b[1] == flagRestate, id: binary.LittleEndian.Uint64(b[8:]), at: pos(binary.LittleEndian.Uint64(b[16:]))}
	rest = b[footerEntry+copy(n.link[:], b[24:footerEntry])-linkBytes:]
	if uint64(length) > uint64(len(rest)) {
		return noted{}, nil, false
	}
	n.payload = rest[:length:length]
	return n, rest[length:], true
}

// errNoUse: a footer would hardly be shorter than what it spares the reader.
var errNoUse = errors.New("footer is of no use")

// footerShare: it may take one in so many bytes of what it repeats. Bodies are left out, so that it mostly takes far less.
const footerShare = 2

// writeFooter writes the footer of a segment whose frames src holds, a piece at a time, and returns its length. A segment with anything
// unsound in it gets none: every recovery shall see that.
func (s *segment) writeFooter(dst io.Writer, src io.ReaderAt) (int64, error) {
	passing := make(map[uint64]struct{}) // messages that began and ended here
	latest := make(map[string]pos)       // of each blob
	err := s.scan(src, func(n noted) error {
		if n.typ.ends() && spanLink(n.link) == (span{s.id, s.id}) {
			passing[n.id] = struct{}{}
		}
		if n.typ == Blob {
			name, _, _ := parseBlob(n.payload)
			latest[name] = n.at
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	f := footerWriter{dst: dst, salt: s.salt, at: s.end, most: s.end + s.end/footerShare}
	err = s.scan(src, func(n noted) error {
		if _, gone := passing[n.id]; gone {
			return nil
		}
		ok := true
		switch n.typ {
		case Blob:
			if name, _, _ := parseBlob(n.payload); latest[name] != n.at {
				return nil
			}
		case Accepted:
			n.payload, ok = withoutBody(n.payload)
		}
		if !ok {
			return ErrDamaged
		}
		return f.add(n)
	})
	if err == nil {
		err = f.finish(s.end)
	}
	return f.at - s.end, err
}

// scan calls use for each record of a segment that has no damage.
func (s *segment) scan(src io.ReaderAt, use func(noted) error) error {
	sc := newScanner(src, s.salt, segmentStart, min(s.end, s.size))
	for sc.pos < sc.end {
		f, ok := sc.next()
		if !ok {
			return ErrDamaged
		}
		if f.typ == typeBatch {
			continue
		}
		n, ok := s.note(f)
		if !ok {
			return ErrDamaged
		}
		if err := use(n); err != nil {
			return err
		}
	}
	return nil
}

type footerWriter struct {
	dst  io.Writer
	salt salt
	at   int64  // offset of the next frame
	most int64  // it must end before
	buf  []byte // entries of the next frame
	out  []byte
}

func (f *footerWriter) add(n noted) error {
	if len(f.buf) > 0 && len(f.buf)+footerEntry+len(n.payload) > maxFooterFrame {
		if err := f.flush(); err != nil {
			return err
		}
	}
	f.buf = n.append(f.buf)
	return nil
}

func (f *footerWriter) flush() error {
	err := f.frame(typeFooter, f.buf)
	f.buf = f.buf[:0]
	return err
}

func (f *footerWriter) frame(t Type, payload []byte) error {
	f.out = appendFrame(f.out[:0], f.salt, f.at, t, 0, 0, payload)
	if f.at+int64(len(f.out)) > f.most {
		return errNoUse
	}
	f.at += int64(len(f.out)) // also when it fails: some of it may be there
	_, err := f.dst.Write(f.out)
	return err
}

// finish ends a footer of records that end at end.
func (f *footerWriter) finish(end int64) error {
	if len(f.buf) > 0 {
		if err := f.flush(); err != nil {
			return err
		}
	}
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(end))
	trailer = binary.LittleEndian.AppendUint64(trailer, uint64(f.at-end))
	return f.frame(typeTrailer, trailer)
}

// readTrailer returns where the records of a segment end and its footer begins, if it has one.
func (s *segment) readTrailer(src io.ReaderAt) (end int64, ok bool) {
	at := s.size - trailerBytes
	if at < segmentStart || at%frameAlign != 0 {
		return 0, false
	}
	f, err := frameAt(src, s.salt, at, trailerBytes)
	if err != nil || f.typ != typeTrailer || len(f.payload) != trailerPayload {
		return 0, false
	}
	end = int64(binary.LittleEndian.Uint64(f.payload))
	length := int64(binary.LittleEndian.Uint64(f.payload[8:]))
	return end, segmentStart <= end && end%frameAlign == 0 && length >= 0 && end+length == at
}

// soundFooter says whether the footer is whole. Nothing of it may be used before.
func (s *segment) soundFooter(src io.ReaderAt) bool {
	return s.readFooter(src, func(noted) error { return nil }) == nil
}

// readFooter calls use for each entry.
func (s *segment) readFooter(src io.ReaderAt, use func(noted) error) error {
	sc := newScanner(src, s.salt, s.end, s.size-trailerBytes)
	for sc.pos < sc.end {
		f, ok := sc.next()
		if !ok || f.typ != typeFooter {
			return fault("read the footer of", s.name, ErrDamaged)
		}
		if err := entries(f.payload, use); err != nil {
			return err
		}
	}
	return nil
}

func entries(b []byte, use func(noted) error) error {
	for len(b) > 0 {
		n, rest, ok := nextNoted(b)
		if !ok {
			return fmt.Errorf("footer: %w", ErrDamaged)
		}
		if err := use(n); err != nil {
			return err
		}
		b = rest
	}
	return nil
}
