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
			j.tidy()
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
	fits := a.force || j.files+j.cfg.SegmentBytes <= j.cfg.MaxBytes
	if fits {
		j.files += j.cfg.SegmentBytes
	}
	j.mu.Unlock()
	if !fits {
		return made{err: errOverMax}
	}
	s, err := create(j.fs, a.id, j.cfg.SegmentBytes)
	if err != nil {
		j.mu.Lock()
		j.files -= j.cfg.SegmentBytes
		j.mu.Unlock()
		return made{err: writeFault(err)}
	}
	return made{segment: s}
}

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
	for s := j.freeable(); s != nil; s = j.freeable() {
		if err := j.free(s); err != nil {
			j.count(func(st *Stats) { st.TidyFailures++ })
			return false
		}
		signal(j.freed)
	}
	return done
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

// freeable returns a segment that may go: the oldest when all its messages have ended, or any that holds nothing of
// its own. Oldest first is the law because the records that end a message stand in its own segment or in a later one:
// if the later one went first, a crash would bring the message back. A segment that copies what is live
// out of the oldest will come to free it here.
func (j *Journal) freeable() *segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, s := range j.segments {
		if s.sealed && s.file == nil && s.live == 0 && (i == 0 || !s.records) {
			return s
		}
	}
	return nil
}

// free removes a segment and makes that durable before the next may go. A damaged one is kept under another name:
// what could not be read by recovery may be read by somebody else.
func (j *Journal) free(s *segment) error {
	var err error
	if s.damaged {
		err = j.fs.Rename(s.name, s.name+quarantineSuffix)
	} else {
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
	if s.damaged {
		j.stats.Quarantined++
	} else {
		j.files -= s.size
	}
	return nil
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
