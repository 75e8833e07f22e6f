package memconn

import (
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// bufferBytes is how much one direction holds, bytes under way included, before its writer waits.
const bufferBytes = 256 << 10

// stream is one direction. Nobody waits while holding its mutex.
type stream struct {
	oneWay time.Duration

	mu    sync.Mutex
	wake  chan struct{} // closed at the next change; nil: nobody waits
	queue []segment     // ascending in due
	size  int           // octets in queue, at most bufferBytes

	end     error // what the reader finds after the queue: nil (open), io.EOF, ECONNRESET
	endDue  time.Time
	gone    bool // the reading end is closed
	goneDue time.Time

	readDeadline, writeDeadline time.Time
}

type segment struct {
	due  time.Time // readable from here on; zero without latency
	data []byte
}

func (s *stream) read(p []byte) (int, error) {
	for {
		s.mu.Lock()
		n, until, err := s.take(p, time.Now())
		if n > 0 {
			s.changed()
		}
		if n > 0 || err != nil || len(p) == 0 {
			s.mu.Unlock()
			return n, err
		}
		wake := s.waiting()
		s.mu.Unlock()
		wait(wake, until)
	}
}

// take copies what is readable. With nothing done and no error, until is when time alone may change that;
// zero: never.
func (s *stream) take(p []byte, now time.Time) (n int, until time.Time, err error) {
	switch {
	case s.gone:
		return 0, until, net.ErrClosed
	case expired(s.readDeadline, now):
		return 0, until, os.ErrDeadlineExceeded
	case s.end == syscall.ECONNRESET && !now.Before(s.endDue):
		return 0, until, s.end
	}
	for len(s.queue) > 0 && n < len(p) && !now.Before(s.queue[0].due) {
		m := copy(p[n:], s.queue[0].data)
		n += m
		s.size -= m
		if s.queue[0].data = s.queue[0].data[m:]; len(s.queue[0].data) == 0 {
			s.queue = s.queue[1:]
		}
	}
	until = s.readDeadline
	switch {
	case n > 0:
	case len(s.queue) > 0:
		until = sooner(until, s.queue[0].due)
	case s.end != nil && !now.Before(s.endDue):
		err = s.end
	case s.end != nil:
		until = sooner(until, s.endDue)
	}
	return n, until, err
}

func (s *stream) write(p []byte) (written int, err error) {
	for {
		s.mu.Lock()
		n, until, err := s.put(p, time.Now())
		if n > 0 {
			s.changed()
		}
		written, p = written+n, p[n:]
		if err != nil || len(p) == 0 {
			s.mu.Unlock()
			return written, err
		}
		wake := s.waiting()
		s.mu.Unlock()
		wait(wake, until)
	}
}

// put queues as much of p as there is room for; until is as in take.
func (s *stream) put(p []byte, now time.Time) (n int, until time.Time, err error) {
	switch {
	case s.end != nil:
		return 0, until, net.ErrClosed
	case expired(s.writeDeadline, now):
		return 0, until, os.ErrDeadlineExceeded
	case s.gone && !now.Before(s.goneDue):
		return 0, until, syscall.EPIPE
	case s.gone:
		return len(p), until, nil // lost under way
	}
	n = min(len(p), bufferBytes-s.size)
	if n > 0 {
		s.push(p[:n], s.arrival(now))
	}
	return n, s.writeDeadline, nil
}

func (s *stream) push(p []byte, due time.Time) {
	s.size += len(p)
	if last := len(s.queue) - 1; last >= 0 && s.queue[last].due.Equal(due) {
		s.queue[last].data = append(s.queue[last].data, p...)
		return
	}
	s.queue = append(s.queue, segment{due, append([]byte(nil), p...)})
}

// arrival is when something done now is seen at the other end; zero, without latency, is always past.
func (s *stream) arrival(now time.Time) time.Time {
	if s.oneWay <= 0 {
		return time.Time{}
	}
	return now.Add(s.oneWay)
}

// finish is the writer's close. A reset after an orderly end still counts.
func (s *stream) finish(end error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end == nil || end == syscall.ECONNRESET {
		s.end, s.endDue = end, s.arrival(time.Now())
	}
	s.changed()
}

// abandon is the reader's close.
func (s *stream) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone, s.goneDue = true, s.arrival(time.Now())
	s.queue, s.size = nil, 0
	s.changed()
}

func (s *stream) setDeadline(which *time.Time, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*which = t
	s.changed()
}

func (s *stream) changed() {
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
}

func (s *stream) waiting() <-chan struct{} {
	if s.wake == nil {
		s.wake = make(chan struct{})
	}
	return s.wake
}

// wait returns at a change, or at until unless that is zero.
func wait(wake <-chan struct{}, until time.Time) {
	if until.IsZero() {
		<-wake
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	}
}

func expired(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }

// sooner takes a zero time for never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
