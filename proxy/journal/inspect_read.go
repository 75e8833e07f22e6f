package journal

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
)

// Found is one sound record.
type Found struct {
	Segment uint64
	Offset  int64
	Record         // the payload of an Accepted is its meta, that of a Blob its bytes. Borrowed, as in replay
	Name    string // of a Blob
	Size    int64  // of an Accepted: bytes of the body
	File    string // of an Accepted: the file of the body; "" if it stands in the record

	inline []byte
	ref    *bodyRef
	j      *Journal
}

// Body opens the body of an Accepted record; the caller closes it. One in the record was verified, and is borrowed like the
// payload. One in a file is verified while it is read: ErrDamaged comes in place of io.EOF.
func (f Found) Body() (io.ReadCloser, error) {
	if f.ref == nil {
		return io.NopCloser(bytes.NewReader(f.inline)), nil
	}
	return f.j.openBody(f.ID, *f.ref)
}

// Clone returns a copy of f that nothing is borrowed from.
func (f Found) Clone() Found {
	f.Payload, f.inline = slices.Clone(f.Payload), slices.Clone(f.inline)
	return f
}

// readSegment reads what was not read of a segment before.
func (i *inspector) readSegment(l *look) error {
	if l.s.footer {
		if err := i.readFooter(l); err != nil || l.gone {
			return err
		}
	}
	sc := l.scanner()
	for sc.pos < sc.end {
		f, ok := sc.next()
		if ok {
			if err := i.frame(l, f); err != nil {
				return err
			}
			i.progress(sc.pos)
			continue
		}
		if !l.known && (sc.blank() || sc.unused()) && !sc.unreadable {
			break // room that was never used
		}
		l.read = sc.pos
		again, err := i.doubt(l)
		switch {
		case l.gone || err != nil:
			i.leave(l)
			return err
		case again:
			sc = l.scanner()
			if _, ok := sc.next(); ok || l.read >= sc.end {
				sc.pos = l.read
				continue
			}
		}
		i.unsound(l, sc)
	}
	return i.segmentEnds(l, sc)
}

// segmentEnds notes how far a segment was read, and whether its file has all of it.
func (i *inspector) segmentEnds(l *look, sc *scanner) error {
	i.report.Read += max(0, sc.pos-l.read)
	l.read = max(l.read, sc.pos)
	l.final = l.known || !l.last
	i.leave(l)
	if l.s.size >= l.s.end {
		return nil
	}
	if gone, err := i.vanished(l); gone || err != nil {
		return err
	}
	i.damaged(l, place{Damage: Damage{Offset: l.s.size, Length: l.s.end - l.s.size, Fault: Short}})
	return nil
}

// leave counts a segment as passed.
func (i *inspector) leave(l *look) {
	i.passed += l.rest
	l.rest = 0
	i.progress(0)
}

// readFooter takes what counts in a segment from its footer, as recovery does.
func (i *inspector) readFooter(l *look) error {
	l.footer = l.s.soundFooter(l.s.file)
	if l.footer && l.read > segmentStart {
		l.footer = false // the records that were read before count
		return nil
	}
	if l.footer {
		err := l.s.readFooter(l.s.file, func(n noted) error {
			i.account(l, n)
			return nil
		})
		if err == nil {
			i.report.Read += l.s.size - l.s.end
			return nil
		}
		l.footer = false // it was freed that moment
	}
	if gone, err := i.vanished(l); gone || err != nil {
		return err
	}
	i.damaged(l, place{Damage: Damage{Offset: l.s.end, Length: l.s.size - trailerBytes - l.s.end, Fault: Footer}})
	return nil
}

// frame takes one sound frame.
func (i *inspector) frame(l *look, f frame) error {
	n, ok := l.s.note(f)
	found := Found{Segment: l.s.id, Offset: f.at, Record: Record{Type: n.typ, ID: n.id, Payload: n.payload, Whole: n.restate}, j: i.j}
	ok = ok && found.parse()
	if !ok {
		i.damaged(l, place{Damage: Damage{Offset: f.at, Length: f.end() - f.at, Fault: Malformed,
			Lost: []Lost{{Type: f.typ, ID: f.id, Certain: true}}}})
		return nil
	}
	i.report.Records[f.typ]++
	switch {
	case f.typ == typeSeal:
		i.newestTop = max(i.newestTop, l.s.id)
		return nil
	case f.typ >= firstControl:
		return nil
	case !l.footer:
		i.account(l, n)
	case n.typ.ends() && spanLink(n.link) == (span{l.s.id, l.s.id}):
		i.account(l, n) // the footer leaves out what began and ended here
	}
	if i.in.Visit == nil {
		return nil
	}
	return i.in.Visit(found)
}

func (f *Found) parse() (ok bool) {
	switch f.Type {
	case Accepted:
		f.Payload, f.inline, f.ref, ok = parseAccepted(f.Payload)
		if f.Size = int64(len(f.inline)); ok && f.ref != nil {
			f.Size, f.File = f.ref.size, bodyName(f.ID)
		}
	case Blob:
		f.Name, f.Payload, ok = parseBlob(f.Payload)
	default:
		ok = true
	}
	return ok
}

// account notes what a record means for its message.
func (i *inspector) account(l *look, n noted) {
	m := i.messages[n.id]
	switch {
	case n.typ == Blob || n.typ >= firstControl:
		return
	case n.typ == Accepted:
		_, _, ref, ok := parseAccepted(n.payload)
		if !ok {
			return // reported where it stands
		}
		m.segment = uint32(l.s.id)
		if m.state != messageDead {
			m.state = messageLive
		}
		if ref != nil {
			i.bodies[n.id] = *ref
		}
	case n.typ.ends():
		m.state = messageOver
		delete(i.bodies, n.id)
	case !m.alive():
		return // it has ended, or a copy comes later with all that was noted
	default:
		if n.restate {
			m.state = messageLive
		}
		if n.typ == Dead {
			m.state = messageDead
		}
	}
	i.messages[n.id] = m
}

// unsound reports the place at which the scanner stands, and steps over it.
func (i *inspector) unsound(l *look, sc *scanner) {
	from := sc.pos
	p := place{Damage: Damage{Offset: from, Fault: Checksum}}
	lost, exact := i.headerOf(sc)
	if !sc.resync() {
		sc.pos = sc.end
	}
	if sc.unreadable {
		p.Fault, sc.unreadable = Unreadable, false
	}
	p.Length = sc.pos - from
	switch {
	case l.footer:
		p.footer = true
		p.Lost, p.More = i.inFooter(l, from, sc.pos)
	case lost.Certain || exact == p.Length:
		p.Lost = []Lost{lost}
		p.rest = exact < p.Length
	}
	i.damaged(l, p)
}

// headerOf returns what the header of an unsound frame says. It is certain if the header has its checksum; else it is
// worth something only if the length it claims turns out to be right.
func (i *inspector) headerOf(sc *scanner) (lost Lost, length int64) {
	h := sc.bytes(sc.pos, frameHeader)
	if h == nil {
		return Lost{}, 0
	}
	f, n, _, ok := sc.header()
	if !ok {
		n = int(min(binary.LittleEndian.Uint32(h[8:]), maxPayloadBytes))
		f = frame{typ: Type(h[12]), id: binary.LittleEndian.Uint64(h[16:])}
	}
	lost = Lost{Type: f.typ, ID: f.id, Certain: ok}
	if b := sc.bytes(sc.pos, frameHeader+int64(n)); b != nil && f.typ == Accepted {
		meta, _, _, _ := parseAccepted(b[frameHeader:])
		lost.Meta = slices.Clone(meta[:min(len(meta), maxMetaKept)])
	}
	return lost, frameSize(n)
}

// inFooter returns the records that stood between two offsets.
func (i *inspector) inFooter(l *look, from, to int64) (lost []Lost, more int) {
	if l.lookups == footerLookups {
		return nil, 0
	}
	l.lookups++
	use := func(n noted) error {
		if at := n.at.offset(); at < from || at >= to || n.typ >= firstControl {
			return nil
		}
		if len(lost) == maxLostNamed {
			more++
			return nil
		}
		one := Lost{Type: n.typ, ID: n.id, Certain: true}
		if n.typ == Accepted {
			meta, _, _, _ := parseAccepted(n.payload)
			one.Meta, one.MetaCertain = slices.Clone(meta[:min(len(meta), maxMetaKept)]), true
		}
		lost = append(lost, one)
		return nil
	}
	if l.s.readFooter(l.s.file, use) != nil {
		return nil, 0 // the place is reported all the same
	}
	return lost, more
}

// BodyFileStart is where the content begins in a body file.
const BodyFileStart = headerBytes
