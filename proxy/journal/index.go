package journal

import (
	"cmp"
	"maps"
	"slices"
)

// place is where a live message stands. It has no pointers, so that the collector does not walk the index.
type place struct {
	segment uint64
	body    int64  // bytes of its body file, header and trailer included; 0: the body is in the record
	offset  uint32 // of its Accepted record
	size    uint32 // bytes of that frame
}

// ended is a message that has ended, until the record that says so is synced.
type ended struct {
	id uint64
	place
}

// The methods of this file want Journal.mu held.

// segmentAt returns nil for a segment that is gone.
func (j *Journal) segmentAt(id uint64) *segment {
	i, ok := slices.BinarySearchFunc(j.segments, id, func(s *segment, id uint64) int { return cmp.Compare(s.id, id) })
	if !ok {
		return nil
	}
	return j.segments[i]
}

// begins enters a message whose Accepted record is durable. A message has one place: when a later copy is
// found at Open, that one counts.
func (j *Journal) begins(id uint64, p place) (first bool) {
	old, again := j.index[id]
	if again {
		if s := j.segmentAt(old.segment); s != nil {
			s.live--
		}
	}
	j.index[id] = p
	if s := j.segmentAt(p.segment); s != nil {
		s.live++
	}
	return !again
}

// ends takes a message out of the index. Its bytes stay until the record that ended it is synced: see frees.
func (j *Journal) ends(id uint64) (ended, bool) {
	p, ok := j.index[id]
	delete(j.index, id)
	return ended{id, p}, ok
}

// frees lets the bytes of messages go.
func (j *Journal) frees(all []ended) {
	for _, e := range all {
		if s := j.segmentAt(e.segment); s != nil {
			s.live--
		}
		if e.body > 0 {
			j.trash = append(j.trash, body{e.id, e.body})
		}
	}
}

// opening is what a new segment begins with: where earlier ones end, and the blobs, so that no old
// segment is kept for their sake.
func (j *Journal) opening() []Record {
	var seals []seal
	for i, s := range j.segments {
		if s.end > 0 && (!s.cut || i >= len(j.segments)-sealedKept) {
			seals = append(seals, seal{s.id, uint64(s.end)})
		}
	}
	var recs []Record
	if len(seals) > 0 {
		recs = append(recs, Record{Type: typeSeal, Payload: appendSeals(nil, seals)})
	}
	for _, name := range slices.Sorted(maps.Keys(j.blobs)) {
		recs = append(recs, Record{Type: Blob, Payload: appendBlob(nil, name, j.blobs[name])})
	}
	return recs
}

// sealedKept is how many earlier segments a new one vouches for. Those whose file could not be cut to
// their end yet are named beyond it.
const sealedKept = 32
