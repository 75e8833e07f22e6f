package journal

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"
)

// pos is where a frame stands: the number of its segment (32 bits), its offset in units of frameAlign (27), and about how
// long it is (5). It has no pointers, so that the collector does not walk the index. The zero pos is nowhere.
type pos uint64

const (
	weightBits = 5
	offsetBits = 27 // maxSegmentBytes / frameAlign
	maxSegment = 1<<32 - 1
)

func newPos(segment uint64, offset, size int64) pos {
	return pos(segment<<(offsetBits+weightBits) | uint64(offset/frameAlign)<<weightBits | weightClass(size))
}

func (p pos) segment() uint64 { return uint64(p >> (offsetBits + weightBits)) }
func (p pos) offset() int64   { return int64(p>>weightBits&(1<<offsetBits-1)) * frameAlign }

// weight is about the length of the frame, in bytes: at most a fifth off, less than that above 1 MiB.
func (p pos) weight() int64 {
	class := int64(p&(1<<weightBits-1)) + lightest
	return (5 + 2*(class&1)) << (class / 2) >> 3
}

// weightClass has two steps for each doubling.
func weightClass(size int64) uint64 {
	length := bits.Len64(uint64(size))
	half := int(size>>max(0, length-2)) & 1
	return uint64(min(max(2*length+half, lightest), lightest+1<<weightBits-1) - lightest)
}

const lightest = 10 // class of the shortest frame

// span is a range of segments, both ends included. The zero span is none.
type span struct{ lo, hi uint64 }

// entry is what is known of a live message: where it stands, and where the newest of its state records does, from which a
// chain leads to the older ones. It is all that a message costs in memory, but for those with a body file.
type entry struct{ at, head pos }

// ended is a message that has ended, until the record that says so is synced.
type ended struct {
	id   uint64
	at   pos
	body int64 // bytes of its body file; 0: it has none
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

// begins enters a message whose Accepted record is durable. When a later copy is found at Open, that one counts.
func (j *Journal) begins(id uint64, at pos, body int64) (first bool) {
	old, again := j.index[id]
	if again {
		j.unload(old.at)
		if s := j.segmentAt(old.at.segment()); s != nil {
			s.moved = true
		}
	}
	j.index[id] = entry{at, old.head}
	j.peak = max(j.peak, len(j.index))
	if body > 0 {
		j.bodies[id] = body
	}
	j.load(at)
	return !again
}

// moves gives a message that has not ended meanwhile its new place.
func (j *Journal) moves(id uint64, at pos) {
	e, live := j.index[id]
	if !live {
		return
	}
	j.unload(e.at)
	e.at = at
	j.index[id] = e
	j.load(at)
}

// ends takes a message out of the index. Its bytes stay until the record that ended it is synced: see frees.
func (j *Journal) ends(id uint64) (ended, bool) {
	e, ok := j.index[id]
	gone := ended{id, e.at, j.bodies[id]}
	delete(j.index, id)
	delete(j.bodies, id)
	if ok {
		j.ending[id] = struct{}{}
	}
	return gone, ok
}

// frees lets the bytes of messages go.
func (j *Journal) frees(all []ended) {
	for _, e := range all {
		delete(j.ending, e.id)
		j.unload(e.at)
		if e.body > 0 {
			j.trash = append(j.trash, body{e.id, e.body})
		}
	}
}

func (j *Journal) load(at pos) {
	if s := j.segmentAt(at.segment()); s != nil {
		s.live++
		s.weight += at.weight()
	}
}

func (j *Journal) unload(at pos) {
	if s := j.segmentAt(at.segment()); s != nil {
		s.live--
		s.weight -= at.weight()
	}
}

// stands says whether a segment of the span, other than s itself, is still there.
func (j *Journal) stands(at span, s *segment) bool {
	i, _ := slices.BinarySearchFunc(j.segments, at.lo, func(s *segment, id uint64) int { return cmp.Compare(s.id, id) })
	for ; i < len(j.segments) && j.segments[i].id <= at.hi; i++ {
		if j.segments[i] != s {
			return true
		}
	}
	return false
}

// needed says whether records in s matter for messages of other segments that are still there.
func (j *Journal) needed(s *segment) bool {
	return slices.ContainsFunc(s.needs, func(at span) bool { return j.stands(at, s) })
}

// shrink gives back the room of an index that was much larger once: a map never does by itself.
func (j *Journal) shrink() {
	if j.peak < shrinkFrom || len(j.index) > j.peak/shrinkShare {
		return
	}
	index := make(map[uint64]entry, len(j.index))
	maps.Copy(index, j.index)
	j.index, j.peak = index, len(index)
}

const (
	shrinkFrom  = 1 << 16 // messages
	shrinkShare = 8
)

// opening is what a new segment begins with: where earlier ones end, and all blobs, so that no old segment is kept
// for their sake.
func (j *Journal) opening() []Record {
	var seals []seal
	for i, s := range j.segments {
		s.named = s.end > 0 && !s.unreadable && (!s.cut || s.busy || i >= len(j.segments)-sealedKept) // busy: a footer may be half written
		if s.named {
			seals = append(seals, seal{s.id, uint64(s.end)})
		}
	}
	recs := []Record{{Type: typeSeal, Payload: appendSeals(nil, seals)}}
	for _, name := range slices.Sorted(maps.Keys(j.blobs)) {
		recs = append(recs, Record{Type: Blob, Payload: appendBlob(nil, name, j.blobs[name])})
	}
	return recs
}

// sealedKept is how many earlier segments a new one vouches for. Those whose file could not be cut to
// their end yet are named beyond it.
const sealedKept = 32
