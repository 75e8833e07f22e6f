package journal

import (
	"errors"
	"io/fs"
	"slices"
	"time"
)

// ask is the writer's wish for a new segment. force: also beyond Config.MaxBytes.
type ask struct {
	id    uint64
	force bool
}

type made struct {
	segment *segment
	err     error
}

// tidyPause is how long the keeper waits before it tries again what failed.
const tidyPause = time.Second

// keep is the goroutine that makes segments before they are needed and removes what has ended, so that
// no sender waits for either.
func (j *Journal) keep() {
	retry := time.NewTimer(tidyPause)
	defer retry.Stop()
	for {
		done := true
		select {
		case a := <-j.asks:
			j.made <- j.make(a)
			continue
		case <-j.wake:
			done = j.tidy()
		case <-retry.C:
			done = j.tidy()
		case <-j.ended:
			return
		}
		retry.Stop()
		if !done {
			retry.Reset(tidyPause)
		}
	}
}

func (j *Journal) make(a ask) made {
	j.mu.Lock()
	spare := j.spare
	fits := a.force || j.files-spare+j.cfg.SegmentBytes <= j.cfg.MaxBytes
	if fits {
		j.files += j.cfg.SegmentBytes - spare
		j.spare = 0
	}
	j.mu.Unlock()
	if !fits {
		signal(j.short)
		return made{err: errOverMax}
	}
	s, err := create(j.fs, a.id, j.cfg.SegmentBytes, spare > 0)
	if err != nil {
		j.mu.Lock()
		j.files -= j.cfg.SegmentBytes
		j.mu.Unlock()
		return made{err: writeFault(err)}
	}
	if spare > 0 {
		j.count(func(st *Stats) { st.Recycled++ })
	}
	return made{segment: s}
}

// dropSpare removes the spare when no segment has been begun for a while: it is for a journal that is busy. It returns false while
// there is one.
func (j *Journal) dropSpare(now time.Time) bool {
	j.mu.Lock()
	have, due := j.spare > 0, now.Sub(j.rotated) >= spareAge
	j.mu.Unlock()
	if !have || !due {
		return !have
	}
	err := j.fs.Remove(spareName)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.stats.TidyFailures++
		return false
	}
	j.files -= j.spare
	j.spare = 0
	return true
}

// spareAge is how long after a segment was begun the spare is kept for the next one.
const spareAge = 10 * time.Second

// tidy returns false when something failed that is worth another try.
func (j *Journal) tidy() bool {
	j.mu.Lock()
	retired, trash := j.retired, j.trash
	j.retired, j.trash = nil, nil
	j.mu.Unlock()
	for _, s := range retired {
		j.retire(s)
	}
	done := true
	for _, b := range trash {
		done = j.removeBody(b) && done
	}
	var stuck []*segment // one whose file cannot be moved keeps nothing but what depends on it
	for s := j.freeable(stuck); s != nil; s = j.freeable(stuck) {
		if err := j.free(s); err != nil {
			j.count(func(st *Stats) { st.TidyFailures++ })
			stuck, done = append(stuck, s), false
			continue
		}
		signal(j.freed)
	}
	return j.dropSpare(time.Now()) && done
}

// retire closes the file of a former tail, and cuts it to its end unless its sync failed: that file is left alone. A cut
// that fails costs room until the segment is freed; new segments go on saying where it ends.
func (j *Journal) retire(s *segment) {
	var err error
	if !s.abandoned {
		err = cutFile(s.file, s.name, s.size, s.end)
	}
	failed := errors.Join(err, s.file.Close()) != nil
	j.mu.Lock()
	defer j.mu.Unlock()
	s.file = nil
	if failed {
		j.stats.TidyFailures++
		s.unsealable = true // a file is never synced again after a failed sync
	}
	if err == nil && !s.abandoned {
		j.files -= s.size - s.end
		s.size, s.cut = s.end, true
	}
}

func (j *Journal) removeBody(b body) bool {
	err := j.fs.Remove(bodyName(b.id))
	gone := err == nil || errors.Is(err, fs.ErrNotExist)
	j.mu.Lock()
	defer j.mu.Unlock()
	if !gone {
		j.stats.TidyFailures++
		j.trash = append(j.trash, b)
		return false
	}
	j.files -= b.bytes
	return true
}

// freeable returns a segment, none of those, that may go: all its messages have ended or stand elsewhere, and no record in it matters for a
// message of another segment. The law is that what ends a message outlives every copy of it: if it went first, a crash would
// bring the message back.
func (j *Journal) freeable(except []*segment) *segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.segments {
		if slices.Contains(except, s) {
			continue
		}
		if s.sealed && !s.busy && !s.unreadable && s.file == nil && s.live == 0 && !j.needed(s) {
			return s
		}
	}
	return nil
}

// free ends a segment and makes that durable before the next may go. Its file becomes the spare if there is none. A damaged
// one is kept under another name: what could not be read by recovery may be read by somebody else.
func (j *Journal) free(s *segment) error {
	var err error
	recycle := j.recyclable(s)
	switch {
	case s.damaged:
		err = j.quarantine(s.name)
	case recycle:
		err = j.fs.Rename(s.name, spareName)
	default:
		err = j.fs.Remove(s.name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault("free", s.name, err)
	}
	if err := j.fs.SyncDir(); err != nil {
		return fault("sync directory after freeing", s.name, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.segments = slices.DeleteFunc(j.segments, func(o *segment) bool { return o == s })
	switch {
	case s.damaged:
		j.stats.Quarantined++
	case recycle:
		j.spare = s.size
	default:
		j.files -= s.size
	}
	return nil
}

// recyclable says whether the file of s can serve again: it has most of its blocks, and the disk never refused them.
func (j *Journal) recyclable(s *segment) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.spare == 0 && !s.abandoned && !s.unsealable && s.size >= j.cfg.SegmentBytes/2 && s.size <= 2*j.cfg.SegmentBytes
}

// discard ends a body file that no record names.
func (j *Journal) discard(w *bodyWriter) {
	if err := w.close(); err != nil {
		j.count(func(s *Stats) { s.TidyFailures++ })
	}
	if !j.removeBody(body{id: w.id}) {
		j.nudge()
	}
}

// nudge wakes the keeper.
func (j *Journal) nudge() { signal(j.wake) }

// signal never waits: one signal that was not seen yet says as much as two.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
