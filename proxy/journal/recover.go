package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// recovery reads what an earlier process left. Until the last replay call has returned nothing is
// written, so that an Open that fails can be tried again, by this version or another.
type recovery struct {
	j      *Journal
	replay func(Record) error
	ends   map[uint64]int64 // where segments end, as later ones say
	newer  bool             // a segment that holds something was measured
	files  []FileInfo
}

func (r *recovery) run() error {
	var err error
	if r.files, err = r.j.fs.List(); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := r.openSegments(); err != nil {
		return err
	}
	for _, s := range slices.Backward(r.j.segments) {
		if err := r.with(s, r.measure); err != nil {
			return err
		}
	}
	for _, s := range r.j.segments {
		if err := r.with(s, r.replaySegment); err != nil {
			return err
		}
	}
	if err := r.j.fitBlobs(); err != nil {
		return err
	}
	r.checkBodies()
	return r.tidy()
}

// with opens the file of a segment for one pass over it: a journal may have more segments than a process has files.
func (r *recovery) with(s *segment, pass func(*segment) error) error {
	if s.broken {
		return nil
	}
	f, err := r.j.fs.Open(s.name, true)
	if err != nil {
		return fault("open", s.name, err)
	}
	s.file = watchedFile{f, &s.unreadable}
	err = pass(s)
	s.file = nil
	return errors.Join(err, f.Close())
}

// watchedFile notes when the disk refuses to read: that is not damage yet.
type watchedFile struct {
	File
	refused *bool
}

func (w watchedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.File.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		*w.refused = true
	}
	return n, err
}

// unreadable says whether the disk refused to read any segment.
func (r *recovery) unreadable() bool {
	return slices.ContainsFunc(r.j.segments, func(s *segment) bool { return s.unreadable })
}

// openSegments reads all headers before anything else is believed: one unknown version refuses the whole.
func (r *recovery) openSegments() error {
	for _, info := range r.files {
		if id, ok := segmentID(info.Name); ok {
			r.j.segments = append(r.j.segments, &segment{id: id, name: info.Name, size: info.Size})
		}
	}
	slices.SortFunc(r.j.segments, func(a, b *segment) int { return cmp.Compare(a.id, b.id) })
	for _, s := range r.j.segments {
		if err := r.with(s, r.readHeader); err != nil {
			return err
		}
		r.j.nextID = max(r.j.nextID, s.id+1)
	}
	return nil
}

// readHeader marks a segment without a usable header as broken. One under another's name is as useless: its place
// in time is not known.
func (r *recovery) readHeader(s *segment) error {
	b := newScanner(s.file, 0, 0, s.size).bytes(0, segmentStart)
	h, err := parseSegmentHeader(b)
	if errors.Is(err, ErrVersion) {
		return fault("open", s.name, err)
	}
	if err != nil || h.id != s.id {
		s.broken = true
		r.j.stats.Damaged++
	}
	s.salt = newSalt(h.salt[:])
	return nil
}

// measure finds the end of a segment. It is called newest first, since a newer segment knows the ends of older ones. Only
// the newest that holds anything can end in a torn batch: the writer waits for a segment's sync before it
// writes to the next.
func (r *recovery) measure(s *segment) error {
	end, known := r.ends[s.id]
	whole, sealed := s.readTrailer(s.file)
	switch {
	case sealed: // all of it had been synced before the footer was written
		s.end, s.footer = whole, true
	case known:
		s.end = end
	case !r.newer:
		var torn bool
		if s.end, torn = lastBatch(s.file, s.salt, s.size); torn {
			r.j.stats.Torn++
		}
	default:
		s.end = max(s.size, segmentStart)
	}
	r.newer = r.newer || s.end > segmentStart
	for _, seal := range openSeals(s.file, s.salt, min(s.end, s.size)) {
		if _, known := r.ends[seal.id]; !known && segmentStart <= seal.end && seal.end <= maxSegmentBytes {
			r.ends[seal.id] = int64(seal.end)
		}
	}
	return nil
}

// replaySegment hands out the records of a segment, from its footer if that is sound.
func (r *recovery) replaySegment(s *segment) error {
	if s.footer && s.soundFooter(s.file) {
		return s.readFooter(s.file, func(n noted) error { return r.record(s, n) })
	}
	s.footer = false // it was being written, or is damaged: of what it repeats nothing is lost
	return r.replayFrames(s)
}

// replayFrames reads all of a segment. What is damaged is counted and stepped over.
func (r *recovery) replayFrames(s *segment) error {
	sc := newScanner(s.file, s.salt, segmentStart, min(s.end, s.size))
	for sc.pos < sc.end {
		f, ok := sc.next()
		if ok {
			n, ok := s.note(f)
			if !ok {
				r.damage(s)
			} else if err := r.record(s, n); err != nil {
				return err
			}
			continue
		}
		if _, known := r.ends[s.id]; !known && (sc.blank() || sc.unused()) && !sc.unreadable {
			s.end = sc.pos // room that was never used
			return nil
		}
		r.damage(s)
		if !sc.resync() {
			return nil
		}
	}
	if s.size < s.end {
		r.damage(s)
	}
	return nil
}

func (r *recovery) damage(s *segment) {
	s.damaged = true
	r.j.stats.Damaged++
}

// record enters one sound record into the index and replays it.
func (r *recovery) record(s *segment, n noted) error {
	j := r.j
	rec := Record{Type: n.typ, ID: n.id, Payload: n.payload}
	switch {
	case n.typ == typeSeal: // all blobs follow
		clear(j.blobs)
		return nil
	case n.typ >= firstControl:
		return nil
	case n.typ == Accepted:
		meta, _, ref, ok := parseAccepted(n.payload)
		if !ok {
			r.damage(s)
			return nil
		}
		var body int64
		if ref != nil {
			body = bodyFileBytes(ref.size)
		}
		j.maxID = max(j.maxID, n.id)
		if !j.begins(n.id, n.at, body) {
			return nil
		}
		rec.Payload = meta
	case n.typ == Blob:
		name, data, ok := parseBlob(n.payload)
		if !ok {
			r.damage(s)
			return nil
		}
		j.setBlob(name, data) // not replayed: Blob returns it
		return nil
	case n.typ.ends():
		j.maxID = max(j.maxID, n.id)
		s.need(spanLink(n.link))
		if e, live := j.ends(n.id); live {
			j.frees([]ended{e})
		}
	default:
		j.maxID = max(j.maxID, n.id)
		if err := r.chain(s, n); err != nil {
			return err
		}
	}
	if err := r.replay(rec); err != nil {
		return fmt.Errorf("replay %s at %d: %w", s.name, n.at.offset(), err)
	}
	return nil
}

// chain makes a state record the newest of its message's history, or the first of a new one.
func (r *recovery) chain(s *segment, n noted) error {
	e, live := r.j.index[n.id]
	if !live {
		return nil
	}
	s.need(span{e.at.segment(), e.at.segment()})
	e.head = newPos(s.id, n.at.offset(), 0)
	r.j.index[n.id] = e
	if !n.restate {
		return nil
	}
	if err := r.replay(Record{Type: Restated, ID: n.id}); err != nil {
		return fmt.Errorf("replay %s at %d: %w", s.name, n.at.offset(), err)
	}
	return nil
}

// checkBodies compares the body files with the messages that want one.
func (r *recovery) checkBodies() {
	sizes := make(map[uint64]int64)
	for _, info := range r.files {
		if id, ok := bodyID(info.Name); ok {
			sizes[id] = info.Size
		}
	}
	for id, bytes := range r.j.bodies {
		if sizes[id] != bytes {
			r.j.stats.Damaged++
			r.j.bodies[id] = sizes[id] // what will be freed with it
		}
	}
}

// tidy is the first thing that writes. It makes the old tail durable and cuts what was torn off it, so that from now
// on everything in these files counts, and removes what nobody refers to.
func (r *recovery) tidy() error {
	for _, s := range r.j.segments {
		if err := r.with(s, cutSegment); err != nil {
			return err
		}
	}
	// Bodies before segments, and for good: a segment that is set aside may have named a body that nobody else names, and the next
	// start would take that for an orphan.
	isBody := func(info FileInfo) bool { _, ok := bodyID(info.Name); return ok }
	for _, bodies := range []bool{true, false} {
		for _, info := range r.files {
			if isBody(info) != bodies {
				continue
			}
			if err := r.tidyFile(info); err != nil {
				return err
			}
		}
		if bodies && r.j.stats.Damaged > 0 {
			if err := r.j.fs.SyncDir(); err != nil {
				return fmt.Errorf("sync directory: %w", err)
			}
		}
	}
	r.j.trash = nil // tidyFile has removed those bodies
	r.j.segments = slices.DeleteFunc(r.j.segments, func(s *segment) bool { return !s.unreadable && (s.broken || s.empty()) })
	if err := r.j.fs.SyncDir(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// cutSegment makes the file of a segment end where its records end, or its footer, for good. A file that is too short stays
// as it is: the opening of the next segment goes on saying so.
func cutSegment(s *segment) error {
	if s.unreadable {
		return nil
	}
	if s.footer {
		s.cut = true
		return nil
	}
	if err := cutFile(s.file, s.name, s.size, s.end); err != nil {
		return err
	}
	s.size = min(s.size, s.end)
	s.cut = s.size == s.end
	return nil
}

func cutFile(f File, name string, size, end int64) error {
	if size > end {
		if err := f.Truncate(end); err != nil {
			return fault("truncate", name, err)
		}
	}
	if err := f.Sync(); err != nil {
		return fault("sync", name, err)
	}
	return nil
}

func (r *recovery) tidyFile(info FileInfo) error {
	j := r.j
	if id, ok := segmentID(info.Name); ok {
		return r.tidySegment(j.segmentAt(id), info)
	}
	id, isBody := bodyID(info.Name)
	_, live := j.index[id]
	switch {
	case isBody && !live && r.unreadable():
		// The record that names it may be where the disk does not read now.
	case isBody && !live && j.stats.Damaged > 0:
		// The record that names this body may be the one that was damaged.
		return r.quarantine(info)
	case isBody && !live, isUnfinished(info.Name), info.Name == spareName:
		return r.remove(info.Name)
	case strings.HasSuffix(info.Name, quarantineSuffix):
		j.stats.Quarantined++
	}
	j.files += info.Size
	return nil
}

// isUnfinished: a segment that a crash interrupted while it was made.
func isUnfinished(name string) bool {
	name, unfinished := strings.CutSuffix(name, unfinishedSuffix)
	_, segment := segmentID(name)
	return unfinished && segment
}

func (r *recovery) tidySegment(s *segment, info FileInfo) error {
	switch {
	case s.unreadable:
	case s.broken:
		return r.quarantine(info)
	case s.empty():
		return r.remove(s.name) // a reserve, or a tail that nothing was written to
	}
	r.j.files += s.size
	return nil
}

func (r *recovery) quarantine(info FileInfo) error {
	if err := r.j.quarantine(info.Name); err != nil {
		return fault("rename", info.Name, err)
	}
	r.j.stats.Quarantined++
	r.j.files += info.Size
	return nil
}

func (r *recovery) remove(name string) error {
	if err := r.j.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault("remove", name, err)
	}
	return nil
}
