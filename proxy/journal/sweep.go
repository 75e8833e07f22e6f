package journal

import (
	"errors"
	"time"
)

const (
	sweepInterval = time.Second
	maxSweeps     = 64               // segments in one interval, if each is done with
	sweepAge      = 10 * time.Second // what has not ended by then waits for something
	sweepPause    = time.Minute      // before a segment that could not be emptied, or was not worth it, is looked at again
	sweepShare    = 4                // a segment with less than one in so many bytes alive is swept
	lowWaterShare = 8                // with less than one in so many bytes of Config.MaxBytes left, the emptiest is
)

// sweep is the goroutine that seals old segments with a footer, and copies what is left in the emptiest to the tail, so that one
// message that waits for days does not keep a segment.
func (j *Journal) sweep() {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-j.short:
		case <-j.ended:
			return
		}
		j.seal(time.Now().Add(-sealAge), j.isClosing)
		for n := 0; n < maxSweeps && j.sweepOne(time.Now()); n++ {
		}
		j.mu.Lock()
		j.shrink()
		j.mu.Unlock()
	}
}

// sweepOne empties one segment if that is worth it. It returns false when there is none, or it could not be emptied.
func (j *Journal) sweepOne(now time.Time) bool {
	if j.isClosing() || j.failed.Load() != nil {
		return false
	}
	s, low := j.worthSweeping(now)
	if s == nil {
		return false
	}
	complete, err := j.empty(s, low)
	j.mu.Lock()
	s.busy = false
	s.again = now.Add(sweepInterval)
	if complete {
		s.needs = nil // all that mattered in it stands in later segments too
	}
	done := complete && s.live == 0
	if done {
		j.stats.Swept++
	}
	j.mu.Unlock()
	switch {
	case err == nil || errors.Is(err, ErrFull) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrClosed):
	case errors.Is(err, errWorthKeeping) || errors.Is(err, ErrTooLarge):
		j.putOff(s, now)
	default:
		j.putOff(s, now)
		j.noteDamage(s, err)
	}
	j.nudge()
	return done
}

// isClosing: Close waits for what is under way, not for more.
func (j *Journal) isClosing() bool {
	select {
	case <-j.closing:
		return true
	default:
		return false
	}
}

// errWorthKeeping: too much would have to be copied for what would be freed.
var errWorthKeeping = errors.New("segment is worth keeping")

func (j *Journal) putOff(s *segment, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s.again = now.Add(sweepPause)
}

// worthSweeping claims the emptiest segment of those that should go. low: because there is little room.
func (j *Journal) worthSweeping(now time.Time) (best *segment, low bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	low = j.low()
	for _, s := range j.segments {
		due := !now.Before(s.again) && (low || now.Sub(s.retired) >= sweepAge)
		if due && s.idle() && (best == nil || s.weight < best.weight) && s.weight < j.worthMoving(s, low) && (s.live > 0 || j.needed(s)) {
			best = s
		}
	}
	if best != nil {
		best.busy = true
	}
	return best, low
}

// low says whether there is little room. It wants Journal.mu held.
func (j *Journal) low() bool {
	return j.cfg.MaxBytes-j.files-j.drafts < max(j.cfg.MaxBytes/lowWaterShare, 2*j.cfg.SegmentBytes)
}

// worthMoving is how many bytes may be copied to free s. With little room a quarter must be won of what a new segment has room for: one
// that is full of life but for its own beginning would be copied for ever.
func (j *Journal) worthMoving(s *segment, low bool) int64 {
	most := j.cfg.SegmentBytes / sweepShare
	if low {
		room := s.end - j.overhead()
		most = max(most, room-room/sweepShare)
	}
	return most
}

// overhead is about what a new segment begins and ends with.
func (j *Journal) overhead() int64 {
	n := segmentStart + 2*batchHeader + frameSize(sealedKept*sealBytes)
	for name, data := range j.blobs {
		n += blobSize(name, data)
	}
	return n
}

// claim takes a segment that nobody is going to write to or remove meanwhile; nil if there is none.
func (j *Journal) claim(which func(*segment) bool) *segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.segments {
		if s.idle() && which(s) {
			s.busy = true
			return s
		}
	}
	return nil
}

// idle says that nobody writes to s, sweeps or seals it, or keeps it for a human.
func (s *segment) idle() bool {
	return s.sealed && s.file == nil && !s.busy && !s.damaged && !s.broken && !s.unreadable
}

// noteDamage marks a segment in which something was found that recovery did not see, or that has happened since: it is kept
// for a human when its turn to go comes.
func (j *Journal) noteDamage(s *segment, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case errors.Is(err, ErrDamaged):
		j.stats.Damaged++
		s.damaged = true
	case err != nil:
		j.stats.TidyFailures++
	}
}
