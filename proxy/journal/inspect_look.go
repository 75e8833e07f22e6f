package journal

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
)

// look is one segment as an inspection finds it.
type look struct {
	s     *segment
	read  int64 // what stands before was read
	known bool  // its own footer or a newer segment says where it ends
	last  bool  // none behind it holds anything: more may be written to it
	final bool  // read to an end that will stay
	gone  bool  // freed since
	rest  int64 // bytes that have not been counted as passed

	footer  bool // what counts was taken from its footer, as recovery will
	lookups int  // in its footer
}

// openSegments reads the headers of the segments that are new, and takes the present sizes of the others.
func (i *inspector) openSegments() error {
	sizes := make(map[uint64]int64)
	for _, info := range i.latest {
		if id, ok := segmentID(info.Name); ok {
			sizes[id] = info.Size
		}
	}
	for _, l := range i.looks {
		size, there := sizes[l.s.id]
		if !there {
			l.gone = true
		} else if !l.final {
			l.s.size = size
		}
		delete(sizes, l.s.id)
	}
	for id, size := range sizes {
		l := &look{s: &segment{id: id, name: segmentName(id), size: size}, read: segmentStart, rest: size}
		if err := i.readHeader(l); err != nil {
			return err
		}
		i.looks = append(i.looks, l)
	}
	slices.SortFunc(i.looks, func(a, b *look) int { return cmp.Compare(a.s.id, b.s.id) })
	return nil
}

// readHeader marks a segment without a usable header as broken, as recovery does. Its name may have led to a file that was made
// into another segment at that moment: then it does so no more.
func (i *inspector) readHeader(l *look) error {
	for range 2 {
		b, err := i.header(l)
		if l.gone || err != nil {
			return err
		}
		h, err := parseSegmentHeader(b)
		if errors.Is(err, ErrVersion) {
			return fault("open", l.s.name, err)
		}
		if l.s.broken = err != nil || h.id != l.s.id; !l.s.broken {
			l.s.salt = newSalt(h.salt[:])
			i.compareCopies(l, b)
			return nil
		}
	}
	i.report.Broken++
	i.damaged(l, place{Damage: Damage{Offset: 0, Length: l.s.size, Fault: NoHeader}})
	return nil
}

// header returns the first bytes of a segment, fewer if there are fewer.
func (i *inspector) header(l *look) (b []byte, err error) {
	f, err := i.j.fs.Open(l.s.name, false)
	if errors.Is(err, fs.ErrNotExist) {
		l.gone = true
		return nil, nil
	}
	if err != nil {
		return nil, fault("open", l.s.name, err)
	}
	sc := newScanner(f, 0, 0, min(l.s.size, segmentStart))
	b = sc.bytes(0, sc.end)
	return b, f.Close()
}

// compareCopies reports a damaged copy of a header whose other copy is sound.
func (i *inspector) compareCopies(l *look, b []byte) {
	for _, at := range []int64{0, headerCopyAt} {
		h, ok, _ := parseHeader(b[at:], segmentMagic)
		if !ok || h.id != l.s.id {
			i.damaged(l, place{Damage: Damage{Offset: at, Length: headerBytes, Fault: HeaderCopy}})
		}
	}
}

// vanished says whether the name of a segment leads elsewhere by now: then it was freed, and what was read of its file
// is perhaps the next segment's.
func (i *inspector) vanished(l *look) (bool, error) {
	for try := 0; try < 2 && !l.gone; try++ {
		b, err := i.header(l)
		if l.gone || err != nil {
			return l.gone, err
		}
		h, err := parseSegmentHeader(b)
		if err == nil {
			l.gone = h.id != l.s.id || newSalt(h.salt[:]) != l.s.salt
			return l.gone, nil
		}
	}
	return l.gone, nil
}

// with opens the file of a segment for one pass over it. A segment that is not there any more was freed.
func (i *inspector) with(l *look, pass func(*look) error) error {
	if l.gone || l.s.broken || l.final {
		return nil
	}
	f, err := i.j.fs.Open(l.s.name, false)
	if errors.Is(err, fs.ErrNotExist) {
		l.gone = true
		return nil
	}
	if err != nil {
		return fault("open", l.s.name, err)
	}
	before := l.s.file
	l.s.file = f
	err = pass(l)
	l.s.file = before
	return errors.Join(err, f.Close())
}

// measure finds the end of a segment, as recovery does.
func (i *inspector) measure(l *look) error {
	newest := !i.ends.newer
	l.s.footer = false
	if err := i.ends.measure(l.s); err != nil {
		return err
	}
	_, sealed := i.ends.ends[l.s.id]
	l.known, l.last = l.s.footer || sealed, newest
	return nil
}

// doubt is asked before what cannot be read counts as damage. again: the end of the segment was a guess, and is another one now.
func (i *inspector) doubt(l *look) (again bool, err error) {
	gone, err := i.vanished(l)
	if gone || err != nil || l.known || i.surveys == maxSurveys {
		return false, err
	}
	// What was being written may have been cut off meanwhile, for want of room, and something else be there.
	i.surveys++
	return true, i.survey()
}

// scanner goes on where reading ended.
func (l *look) scanner() *scanner {
	return newScanner(l.s.file, l.s.salt, l.read, min(l.s.end, l.s.size))
}
