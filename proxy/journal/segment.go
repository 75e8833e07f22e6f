package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	segmentSuffix    = ".seg"
	bodySuffix       = ".body"
	unfinishedSuffix = ".tmp"        // a segment without its header yet; removed at Open
	spareName        = "spare"       // a freed segment whose blocks the next one takes; removed at Open
	quarantineSuffix = ".quarantine" // kept for a human, never read again
)

// firstSegment is the lowest segment ID: a place in segment 0 is in none.
const firstSegment = 1

// segment is one file of records. The fields above the line never change; the others are guarded by Journal.mu,
// file excepted: it belongs to the writer while this is its tail, then to the keeper.
type segment struct {
	id   uint64
	salt salt
	name string
	file File

	size    int64 // bytes of the file
	end     int64 // bytes that count; 0 while it is the tail or the reserve
	live    int   // messages whose Accepted record stands here
	weight  int64 // bytes of those records, about
	needs   []span
	sealed  bool // a later segment's first batch is synced, so this one may go
	cut     bool // the file is known to end at end, or behind that in a footer
	footer  bool // the file ends in a footer
	moved   bool // messages were copied to a later segment, or are about to be
	named   bool // the tail, or what was the tail when that was begun, says where it ends
	busy    bool // the sweeper reads or seals it: it must stay
	damaged bool // kept as quarantine instead of being removed
	broken  bool // found without a usable header

	// The disk refused to read some of it at Open. It stays as and where it is until another Open can.
	unreadable bool

	abandoned  bool      // a write or sync of it failed: never synced again
	unsealable bool      // its footer could not be written
	retired    time.Time // when it ceased to be the tail; zero: before Open
	again      time.Time // not to be swept before
}

// need notes that a record in s matters as long as any segment of the span is there: what ends a message must outlive
// each copy of it, and what was noted about a message is of use as long as the message stands where it stood. Where
// a record and its message share a segment they go together.
func (s *segment) need(at span) {
	at.hi = min(at.hi, s.id-1)
	if at.lo == 0 || at.lo > at.hi || slices.Contains(s.needs, at) {
		return
	}
	if len(s.needs) < maxNeeds {
		s.needs = append(s.needs, at)
		return
	}
	all := &s.needs[0] // too many to tell apart: one that covers all errs to the safe side
	for _, other := range append(s.needs, at) {
		all.lo, all.hi = min(all.lo, other.lo), max(all.hi, other.hi)
	}
	s.needs = s.needs[:1]
}

const maxNeeds = 64

// empty says that nothing at all was written behind the header.
func (s *segment) empty() bool { return s.end == segmentStart && !s.damaged }

func segmentName(id uint64) string { return fmt.Sprintf("%08d%s", id, segmentSuffix) }

func bodyName(id uint64) string { return fmt.Sprintf("%016x%s", id, bodySuffix) }

// segmentID is the inverse of segmentName, and false for any other name.
func segmentID(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 10, 64)
	return id, err == nil && id <= maxSegment && segmentName(id) == name
}

func bodyID(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, bodySuffix)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(digits, 16, 64)
	return id, err == nil && bodyName(id) == name
}

// create makes an empty segment: blocks taken, header written and durable, name durable. It gets its
// name last, so that a segment without a header is always damage. With recycle it takes the file of the spare, whose
// blocks need not be allocated, and whose bytes the new salt makes void.
func create(fs FS, id uint64, size int64, recycle bool) (*segment, error) {
	if id > maxSegment {
		return nil, fault("create", segmentName(id), errNumber)
	}
	h := header{id: id}
	rand.Read(h.salt[:]) // never fails: the runtime ends the process instead
	s := &segment{id: id, salt: newSalt(h.salt[:]), name: segmentName(id), size: size}
	draft := s.name + unfinishedSuffix
	f, err := draftFile(fs, draft, size, recycle)
	if err != nil {
		return nil, fault("create", draft, err)
	}
	s.file = f
	err = s.prepare(h)
	if err == nil {
		err = fs.Rename(draft, s.name)
	}
	if err == nil {
		if err = fs.SyncDir(); err != nil {
			draft = s.name
		}
	}
	if err != nil {
		return nil, fault("create", s.name, errors.Join(err, f.Close(), fs.Remove(draft)))
	}
	return s, nil
}

func draftFile(fs FS, draft string, size int64, recycle bool) (File, error) {
	if !recycle {
		return fs.Create(draft)
	}
	if err := fs.Rename(spareName, draft); err != nil {
		return nil, err
	}
	f, err := fs.Open(draft, true)
	if err != nil {
		return nil, errors.Join(err, fs.Remove(draft))
	}
	if err := f.Truncate(size); err != nil { // a footer may have made it longer
		return nil, errors.Join(err, f.Close(), fs.Remove(draft))
	}
	return f, nil
}

func (s *segment) prepare(h header) error {
	if err := s.file.Allocate(s.size); err != nil {
		return err
	}
	if _, err := s.file.WriteAt(append(appendSegmentHeader(nil, h), make([]byte, segmentBlank)...), 0); err != nil {
		return err
	}
	return s.file.Sync()
}

// segmentBlank is how many zeros follow the header of a new segment: they tell one that was never used, whatever its file
// held before, from one whose first batch is gone.
const segmentBlank = 512
