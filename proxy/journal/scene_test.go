package journal

import (
	"errors"
	"sync"
	"time"
)

// scene is where a story takes place: a directory, the journal in it, and the ledger of its users. A story goes on
// after an error; whether there may be one is for the test to say.
type scene struct {
	m    *memFS
	l    *ledger
	j    *Journal // nil: it could not be opened
	mu   sync.Mutex
	errs []error
	ill  bool  // a fault was asked for
	did  Stats // of all its journals: some of it
	full bool  // more is sent than there may be room for
}

// story is a small life of a journal.
type story func(s *scene)

// syncTakes is how long a sync of a scene lasts, so that others write meanwhile.
const syncTakes = time.Millisecond

func stall(string) time.Duration { return syncTakes }

// tell lets a story happen on m, from opening the journal to closing it.
func tell(m *memFS, l *ledger, tale story) *scene {
	s := &scene{m: m, l: l}
	s.start(killed)
	tale(s)
	s.close()
	return s
}

func (s *scene) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.errs = append(s.errs, err)
	}
}

// start opens the journal as a new process does, after a crash c.
func (s *scene) start(c crash) {
	if s.m.deceives() {
		s.l.note(mark{what: "betrayed"})
	}
	j, f, err := reopen(small(s.m))
	if err != nil {
		s.note(err)
		return
	}
	s.j = j
	if err := s.l.check(j, f, c); err != nil {
		s.note(violation{err})
	}
	s.l.note(mark{what: "seen", found: f})
}

// violation is an error that no fault of the disk excuses.
type violation struct{ error }

func (s *scene) with(f func(j *Journal) error) {
	if s.j != nil {
		s.note(f(s.j))
	}
}

func (s *scene) commit(id uint64, size int) {
	s.with(func(j *Journal) error { return s.l.commit(j, id, size) })
}

func (s *scene) attempt(id uint64) { s.with(func(j *Journal) error { return s.l.attempt(j, id) }) }

func (s *scene) restate(id uint64) { s.with(func(j *Journal) error { return s.l.restate(j, id) }) }

func (s *scene) settle(id uint64) { s.with(func(j *Journal) error { return s.l.settle(j, id) }) }

// bounce ends one message and tells of it in another, atomically.
func (s *scene) bounce(ends, about uint64) {
	s.with(func(j *Journal) error { return s.l.append(j, group{ends: ends, about: about}) })
}

func (s *scene) put(name, value string) {
	s.with(func(j *Journal) error { return s.l.put(j, name, value) })
}

// abort begins a message and thinks better of it.
func (s *scene) abort(id uint64, size int) {
	s.with(func(j *Journal) error {
		d, err := j.Begin(id, int64(size))
		if err != nil {
			return err
		}
		defer d.Abort()
		_, err = d.Write(testBody(id, size))
		return err
	})
}

func (s *scene) rest() { s.with(s.l.rest) }

// age lets so much time pass that old segments are sealed and swept.
func (s *scene) age() {
	<-time.After(max(sweepAge, sealAge) + 2*sweepInterval)
	s.rest()
}

// restart ends the process as it should end.
func (s *scene) restart() {
	s.close()
	s.start(killed)
}

func (s *scene) close() {
	n := len(s.l.groups)
	s.with(func(j *Journal) error {
		err := j.Close()
		s.did.Moved += j.Stats().Moved
		s.did.Recycled += j.Stats().Recycled
		if err == nil {
			s.l.note(mark{what: "rested", n: n})
		}
		return err
	})
	s.j = nil
}

// die ends the process as kill -9 does, and begins the next.
func (s *scene) die() {
	s.with(func(j *Journal) error {
		s.m.kill(j)
		return nil
	})
	s.j = nil
	s.start(killed)
}

// failSync makes the next sync of a file fail.
func (s *scene) failSync() {
	s.ill = true
	s.m.failNth("sync", 1, false, errIO)
}

// together runs f for several at once.
func (s *scene) together(n uint64, f func(k uint64)) {
	var wg sync.WaitGroup
	for k := uint64(1); k <= n; k++ {
		wg.Go(func() { f(k) })
	}
	wg.Wait()
}

// unexcused returns the errors that may not be.
func (s *scene) unexcused() error {
	var faults []error
	for _, err := range s.errs {
		switch {
		case errors.As(err, &violation{}):
		case s.ill, s.full && errors.Is(err, ErrFull):
			continue
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
