package relay

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	senderQueue  = 1024             // batches; a client that reads nothing stops the session there
	writeTimeout = 30 * time.Second // of one batch
)

// sender writes replies at the time they are due, so that the session reads on meanwhile: a delay by the round
// trip must not make pipelined groups wait for one another.
type sender struct {
	conn    net.Conn
	queue   chan batch
	closing <-chan struct{} // the relay's Close
	unsent  atomic.Int32    // batches that the client cannot have seen yet
	joined  sync.WaitGroup
}

type batch struct {
	text   []byte
	due    time.Time
	before func() // called just before the text leaves
}

func newSender(conn net.Conn, closing <-chan struct{}) *sender {
	s := &sender{conn: conn, queue: make(chan batch, senderQueue), closing: closing}
	s.joined.Go(s.run)
	return s
}

// send must not be called after finish.
func (s *sender) send(b batch) {
	s.unsent.Add(1)
	s.queue <- b
}

// finish returns when everything was written, or could not be.
func (s *sender) finish() {
	close(s.queue)
	s.joined.Wait()
}

// run goes on emptying the queue after a failed write. The session hears of that by its reads: the connection is
// closed here.
func (s *sender) run() {
	failed := false
	for b := range s.queue {
		failed = failed || !s.waitFor(b.due)
		if b.before != nil {
			b.before()
		}
		s.unsent.Add(-1)
		if failed {
			continue
		}
		if err := s.write(b.text); err != nil {
			failed = true
			_ = s.conn.Close() // the failed write is the reason; there is nobody left to tell
		}
	}
}

func (s *sender) write(text []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(text)
	return err
}

func (s *sender) waitFor(due time.Time) bool {
	d := time.Until(due)
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.closing:
		return false
	case <-t.C:
		return true
	}
}
