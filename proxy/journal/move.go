package journal

import (
	"errors"
	"slices"
)

const (
	moveBatch       = 64      // requests under way
	maxHistory      = 1 << 14 // records of one message that are followed
	maxEndsTogether = 32      // in one group, which must fit the smallest segment
)

// empty copies everything that is still needed of s to the tail. complete: all of that is durable.
func (j *Journal) empty(s *segment, low bool) (complete bool, err error) {
	j.mu.Lock()
	most := j.worthMoving(s, low)
	j.mu.Unlock()
	left, err := j.leftIn(s, most)
	if err == nil {
		err = j.weigh(s, left, most)
	}
	if err != nil {
		return false, err
	}
	j.mu.Lock()
	s.moved = true // from now on what ends one of its messages must outlive it
	j.mu.Unlock()
	complete, err = j.moveMessages(s, left.messages)
	if err != nil {
		return false, err
	}
	for batch := range slices.Chunk(left.ends, moveBatch) {
		if _, err := j.submitAll(batch); err != nil {
			return false, err
		}
	}
	return complete && !left.ending, nil
}

// weigh makes sure, before the first copy, that all can be copied and is worth it: a segment of which copies were made and that then
// stays would keep the end of every message that ends from then on. And what is alive is copied only if much is not, or segments full of
// histories would be copied for ever.
func (j *Journal) weigh(s *segment, left leftover, most int64) error {
	bytes := left.endBytes
	for _, id := range left.messages {
		_, here, err := j.moveOf(id, s)
		if err != nil && !errors.Is(err, errMoved) {
			return err
		}
		if bytes += here; bytes > most {
			return errWorthKeeping
		}
	}
	return nil
}

// moveMessages returns false if one has changed meanwhile and is not over.
func (j *Journal) moveMessages(s *segment, ids []uint64) (complete bool, err error) {
	complete = true
	var batch []*request
	var bytes int64
	flush := func() error {
		all, err := j.submitAll(batch)
		complete, batch, bytes = complete && all, nil, 0
		return err
	}
	for _, id := range ids {
		switch r, here, err := j.moveOf(id, s); {
		case errors.Is(err, errMoved):
			complete = complete && j.over(id)
		case err != nil:
			return false, err
		case here > 0:
			batch = append(batch, r)
			bytes += r.size
		}
		if len(batch) == moveBatch || bytes >= maxBatchBytes {
			if err := flush(); err != nil {
				return false, err
			}
		}
	}
	return complete, flush()
}

// leftover is what is still needed of a segment: messages that stand in it or whose history does, and ends that must outlive
// copies elsewhere.
type leftover struct {
	messages []uint64
	ending   bool // a message that a power cut would bring back has something in it, too
	ends     []*request
	endBytes int64
}

// leftIn gives up when there is more than so many bytes of it.
func (j *Journal) leftIn(s *segment, most int64) (left leftover, err error) {
	f, err := j.fs.Open(s.name, false)
	if err != nil {
		return left, fault("open", s.name, err)
	}
	seen := make(map[uint64]struct{})
	var recs []Record
	var spans []span
	var bytes int64 // at least, of all that is needed
	use := func(n noted) error {
		j.mu.Lock()
		e, live := j.index[n.id]
		_, ending := j.ending[n.id]
		copies := spanLink(n.link)
		kept := n.typ.ends() && j.stands(copies, s)
		j.mu.Unlock()
		left.ending = left.ending || ending && !n.typ.ends()
		_, again := seen[n.id]
		stands := n.typ == Accepted && e.at == n.at
		if live && (stands || e.head.offset() == n.at.offset() && e.head.segment() == s.id) || kept {
			bytes += n.at.weight()
		}
		switch {
		case kept:
			recs = append(recs, Record{Type: n.typ, ID: n.id, Payload: append([]byte(nil), n.payload...)})
			spans = append(spans, copies)
		case live && !again && (stands || n.typ.linked() && e.at.segment() < s.id):
			seen[n.id] = struct{}{}
			left.messages = append(left.messages, n.id)
		}
		if bytes > most {
			return errWorthKeeping
		}
		return nil
	}
	if s.footer && s.soundFooter(f) {
		err = s.readFooter(f, use)
	} else {
		err = s.scan(f, use)
	}
	for len(recs) > 0 {
		n := min(len(recs), maxEndsTogether)
		r := &request{kind: moveKind, recs: recs[:n:n], spans: spans[:n:n], result: make(chan error, 1)}
		r.measure()
		left.ends = append(left.ends, r)
		left.endBytes += r.size
		recs, spans = recs[n:], spans[n:]
	}
	return left, errors.Join(err, f.Close())
}

// moveOf makes the request that writes a message's history again, and the message itself if it stands in s. here is how much of all that
// stands in s: with nothing there is nothing to do. errMoved: the message has changed or ended meanwhile.
func (j *Journal) moveOf(id uint64, s *segment) (r *request, here int64, err error) {
	j.mu.Lock()
	e, live := j.index[id]
	unwritten := e.head >= j.written
	j.mu.Unlock()
	if !live || unwritten {
		return nil, 0, errMoved
	}
	r = &request{kind: moveKind, id: id, expect: e, result: make(chan error, 1)}
	if e.at.segment() == s.id {
		var payload []byte
		payload, err = j.accepted(id)
		r.accepted = [][]byte{payload}
		here = frameSize(len(payload))
	}
	if err == nil {
		var noted int64
		r.recs, noted, err = j.history(id, e.head, s)
		here += noted
	}
	if now, _ := j.find(id); now != e {
		return nil, 0, errMoved // what was read may be the bytes of another life of the file
	}
	r.measure()
	if err == nil && r.size > j.cfg.maxMove() {
		err = ErrTooLarge
	}
	return r, here, err
}

// history returns the state records of a message, oldest first, and how many bytes of them stand in s.
func (j *Journal) history(id uint64, head pos, s *segment) (recs []Record, here int64, err error) {
	for p := head; p != 0; {
		f, err := j.readFrame(p)
		if err != nil {
			return nil, 0, err
		}
		var link [linkBytes]byte
		if f.id != id || !f.typ.linked() || f.typ.ends() || copy(link[:], f.payload) < linkBytes {
			return nil, 0, fault("read", segmentName(p.segment()), ErrDamaged)
		}
		if len(recs) == maxHistory {
			return nil, 0, ErrTooLarge
		}
		if p.segment() == s.id {
			here += frameSize(len(f.payload))
		}
		recs = append(recs, Record{Type: f.typ, ID: id, Payload: slices.Clone(f.payload[linkBytes:])}) // and not all that was read
		p = posLink(link)
	}
	if len(recs) > 0 {
		recs[len(recs)-1].Whole = true
	}
	slices.Reverse(recs)
	return recs, here, nil
}

// submitAll hands requests in and waits for all. all: none of them is about a message that has changed meanwhile and is not over.
func (j *Journal) submitAll(batch []*request) (all bool, err error) {
	results := make([]chan error, len(batch))
	for i, r := range batch {
		results[i] = r.result
		select {
		case j.queue <- r:
		case <-j.ended:
			return false, ErrClosed
		}
	}
	all = true
	for i, result := range results {
		select {
		case failed := <-result:
			switch {
			case failed == nil:
				j.count(func(s *Stats) { s.Moved++ })
			case errors.Is(failed, errMoved):
				all = all && j.over(batch[i].id)
			default:
				err = failed
			}
		case <-j.ended:
			return false, ErrClosed
		}
	}
	return all, err
}
