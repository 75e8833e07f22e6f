package journal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	segmentSuffix    = ".seg"
	bodySuffix       = ".body"
	unfinishedSuffix = ".tmp"        // a segment without its header yet; removed at Open
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
	records bool  // something stands here that a later segment does not repeat
	sealed  bool  // a later segment's first batch is synced, so this one may go when it is its turn
	cut     bool  // the file is known to end at end
	damaged bool  // kept as quarantine instead of being removed
	broken  bool  // found without a usable header

	abandoned bool // a write or sync of it failed: never synced again
}

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
	return id, err == nil && segmentName(id) == name
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
// name last, so that a segment without a header is always damage.
func create(fs FS, id uint64, size int64) (*segment, error) {
	h := header{id: id}
	rand.Read(h.salt[:]) // never fails: the runtime ends the process instead
	s := &segment{id: id, salt: newSalt(h.salt[:]), name: segmentName(id), size: size}
	draft := s.name + unfinishedSuffix
	f, err := fs.Create(draft)
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

func (s *segment) prepare(h header) error {
	if err := s.file.Allocate(s.size); err != nil {
		return err
	}
	if _, err := s.file.WriteAt(appendSegmentHeader(nil, h), 0); err != nil {
		return err
	}
	return s.file.Sync()
}
