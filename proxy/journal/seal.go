package journal

import (
	"errors"
	"io"
	"time"
)

// sealAge: most segments that are going to be freed soon are gone by then, and need no footer.
const sealAge = 2 * time.Second

// closeSealTime bounds how long Close goes on with it: a slow disk must not use up the time in which a process may end.
const closeSealTime = 2 * time.Second

// sealAll gives every segment its footer of which is known where it ends, for a quick start. It is for Close, after everybody else
// has ended: the last tail is among them, since its last batch says that all before it is synced.
func (j *Journal) sealAll() {
	j.mu.Lock()
	for _, s := range j.segments {
		s.named = s.named || !s.sealed
		s.sealed = true
	}
	j.mu.Unlock()
	begun := time.Now()
	j.seal(begun.Add(time.Second), func() bool { return time.Since(begun) >= closeSealTime })
}

// seal writes the footers of segments that ceased to be the tail before that time. Should the power go meanwhile, half a footer
// does not count because the tail says where the segment ends.
func (j *Journal) seal(before time.Time, enough func() bool) {
	for !enough() {
		s := j.claim(func(s *segment) bool {
			return !j.low() && !s.footer && !s.unsealable && !s.abandoned && s.named && s.cut && s.end > segmentStart && s.retired.Before(before)
		})
		if s == nil {
			return
		}
		size, err := j.sealOne(s)
		j.mu.Lock()
		s.busy = false
		s.footer, s.unsealable = err == nil, err != nil // it is a convenience: one try is enough
		j.files += size - s.size
		s.size, s.cut = size, err == nil || size == s.end
		if err == nil {
			j.stats.Sealed++
		}
		j.mu.Unlock()
		if !errors.Is(err, errNoUse) {
			j.noteDamage(s, err)
		}
		j.nudge()
	}
}

// sealOne returns the size of the file as it is now.
func (j *Journal) sealOne(s *segment) (size int64, err error) {
	size = s.size
	f, err := j.fs.Open(s.name, true)
	if err != nil {
		return size, fault("open", s.name, err)
	}
	defer func() {
		if err != nil && size != s.end { // half a footer is none
			if cut := f.Truncate(s.end); cut == nil {
				size = s.end
			}
		}
		err = errors.Join(err, f.Close())
	}()
	length, err := s.writeFooter(io.NewOffsetWriter(f, s.end), f)
	size = s.end + length
	if err != nil {
		return size, fault("seal", s.name, err)
	}
	if err := f.Sync(); err != nil {
		return size, fault("seal", s.name, err)
	}
	return size, nil
}
