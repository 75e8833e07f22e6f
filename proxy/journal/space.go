package journal

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// A volume is often shared: a node's disk under an emptyDir, a laptop, a build machine. A share of it would
	// refuse mail on a large disk that is merely well used, so what must stay free is what this journal may take
	// before the next look, and some for the neighbours.
	headroom         = 64 << 20 // bytes, or two segments if that is more,
	headroomSegments = 2
	headroomShare    = 20 // but not more than this part of the volume: small ones are for the journal alone
	volumeInterval   = time.Second
)

// volume remembers the last look at the file system. The zero value is ready.
type volume struct {
	next   atomic.Int64 // when to look again, in Unix nanoseconds
	answer atomic.Pointer[error]
}

// check returns nil while messages may be begun. One caller a second pays for the look.
func (v *volume) check(fs FS, segment int64, now time.Time) error {
	due := v.next.Load()
	stale := now.UnixNano() >= due || now.UnixNano() < due-int64(volumeInterval) // or the clock went back
	if stale && v.next.CompareAndSwap(due, now.Add(volumeInterval).UnixNano()) {
		err := lookAt(fs, segment)
		v.answer.Store(&err)
	}
	if answer := v.answer.Load(); answer != nil {
		return *answer
	}
	return nil // the first look is under way
}

func lookAt(fs FS, segment int64) error {
	free, total, err := fs.Space()
	if err != nil {
		return fmt.Errorf("%w: %v", ErrUnavailable, err)
	}
	want := min(max(headroom, headroomSegments*segment), total/headroomShare)
	if free < want {
		return fmt.Errorf("%w: %d bytes free on the volume, %d wanted", ErrFull, free, want)
	}
	return nil
}

// mayExceed says whether one more segment may be made beyond Config.MaxBytes so that old ones can be emptied: a full journal could
// not help itself otherwise.
func (j *Journal) mayExceed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.files <= j.cfg.MaxBytes+reserves*j.cfg.SegmentBytes
}

// errOverMax refuses a segment for new messages; state records get one all the same, since only they can free space.
var errOverMax = fmt.Errorf("%w: its files have reached their maximum", ErrFull)

// writeFault tells a disk without room from one that fails. nil stays nil.
func writeFault(err error) error {
	switch {
	case err == nil || errors.Is(err, ErrFull) || errors.Is(err, ErrUnavailable):
		return err
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %v", ErrFull, err)
	}
	return fmt.Errorf("%w: %v", ErrUnavailable, err)
}
