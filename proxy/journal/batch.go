package journal

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// This file is the writer's way of a request: into a batch, onto the disk, and what happens when the
// disk refuses.

// write writes all that may be written now. State records are always; messages wait while a sync runs, since
// the next one will serve them all, and a little longer for those that the last one answered: see gathering.
func (w *writer) write() {
	for w.tail != nil && w.lost == nil {
		batch, full := w.take()
		switch {
		case len(batch) > 0 || w.fresh: // a fresh tail proves itself, and lets older ones go
			w.writeBatch(batch)
		case !full || !w.rotate():
			return
		}
	}
}

// take picks the requests of the next batch. full: the first does not fit the tail any more.
func (w *writer) take() (batch []*request, full bool) {
	room := w.tail.size - w.end - w.prelude - 2*batchHeader // this batch, and the one that Close writes
	var bytes int64
	pick := func(list *[]*request, limit, most int64, admitted func(*request) bool) bool {
		for len(*list) > 0 && limit > 0 {
			r := (*list)[0]
			if r.size > room || len(batch) > 0 && bytes+r.size > most {
				full = full || len(batch) == 0
				return false
			}
			*list = (*list)[1:]
			if !admitted(r) {
				continue
			}
			batch = append(batch, r)
			bytes += r.size
			room -= r.size
			limit -= r.size
		}
		return len(*list) == 0
	}
	always := func(*request) bool { return true }
	// All that is written again goes into one batch: the first one already says that the old copies do not count. It begins with all
	// blobs, and what was new among them would want room twice.
	noBlob := func(r *request) bool { return r.recs[0].Type != Blob }
	if !pick(&w.redo, maxSegmentBytes, maxSegmentBytes, noBlob) {
		return batch, full
	}
	if !pick(&w.appends, maxUnsyncedBytes-w.written.bytes-w.syncing.bytes, maxBatchBytes, w.admitGroup) {
		return batch, full
	}
	if w.mayAccept() && !pick(&w.commits, maxSegmentBytes, maxBatchBytes, always) {
		return batch, full
	}
	if w.mayMove(room) {
		pick(&w.moves, maxSegmentBytes, maxBatchBytes, always)
	}
	return batch, full
}

// mayAccept says whether messages may be written now: only with all reserves behind the tail. Otherwise they wait while one is
// being made, and are refused when none can be had.
func (w *writer) mayAccept() bool {
	if len(w.reserve) < reserves && !w.asked && w.refused != nil {
		w.j.count(func(s *Stats) { s.Refused += int64(len(w.commits)) })
		refuse(&w.commits, w.refused)
	}
	if len(w.reserve) < reserves || w.running {
		return false
	}
	w.held = !w.closing && w.company.waits(time.Now(), len(w.commits))
	return !w.held
}

// mayMove says whether old segments may be copied: not at the price of the last reserve, which is for state records.
func (w *writer) mayMove(room int64) bool {
	if len(w.moves) > 0 && w.moves[0].size > room && len(w.reserve) < reserves && !w.asked {
		if w.refused == errOverMax && w.j.mayExceed() {
			w.force = true // what is copied frees more than it takes
		} else if w.refused != nil {
			refuse(&w.moves, ErrFull)
		}
	}
	fits := len(w.moves) > 0 && (w.moves[0].size <= room || len(w.reserve) == reserves)
	if !fits || w.running {
		return false
	}
	if w.company.want > 0 && time.Now().Before(w.company.until) {
		w.held = true
	}
	return !w.held
}

func (w *writer) admitGroup(r *request) bool {
	if r.recs[0].Type != Blob {
		return true
	}
	err := w.j.admitBlob(r.recs[0].Payload)
	if err != nil {
		r.answer(err)
	}
	return err == nil
}

// writeBatch writes a batch with one write(2) and answers its state records.
func (w *writer) writeBatch(batch []*request) {
	batch, heads := w.link(batch, w.end+batchHeader+w.prelude)
	b := w.encode(batch)
	_, err := w.tail.file.WriteAt(b, w.end)
	if cap(b) > 2*maxBatchBytes {
		w.buf = nil // one long record is no reason to keep so much
	}
	if err != nil {
		w.unlink(heads)
		w.writeFailed(batch, fault("write", w.tail.name, err))
		return
	}
	w.end += int64(len(b))
	w.fresh, w.opening, w.prelude = false, nil, 0
	w.applied(batch)
	w.written.heads = append(w.written.heads, heads...)
	for _, r := range batch {
		w.written.add(r)
		if r.kind == stateKind {
			r.answer(nil)
		}
	}
	if len(w.written.groups) > 0 && w.since.IsZero() {
		w.since = time.Now()
	}
}

func (w *writer) encode(requests []*request) []byte {
	s, at := w.tail.salt, w.end+batchHeader
	length := batchHeader + w.prelude
	for _, r := range requests {
		length += r.size
	}
	b := appendFrame(w.buf[:0], s, w.end, typeBatch, 0, 0, batch{length, w.synced}.append(nil))
	for _, rec := range w.opening {
		b = appendFrame(b, s, at, rec.Type, 0, 0, rec.Payload)
		at += frameSize(len(rec.Payload))
	}
	for _, r := range requests {
		b = r.append(b, s, at)
		at += r.size
	}
	w.buf = b
	return b
}

// applied enters what was written into the index. Messages come there when they are synced.
func (w *writer) applied(batch []*request) {
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	w.j.stats.Writes++
	w.j.written = newPos(w.tail.id, w.end, 0)
	for _, r := range batch {
		if r.kind != stateKind {
			continue
		}
		if r.result != nil {
			w.j.stats.Appends++
		}
		for _, rec := range r.recs {
			w.j.maxID = max(w.j.maxID, rec.ID)
			if !rec.Type.ends() {
				continue
			}
			if e, live := w.j.ends(rec.ID); live {
				r.ended = append(r.ended, e)
			}
		}
	}
}

// sync starts one if it is due and none is running.
func (w *writer) sync() {
	if w.tail == nil || w.lost != nil || w.running || w.synced == w.end {
		return
	}
	due := len(w.written.commits) > 0 || w.sealing || w.closing ||
		w.synced == segmentStart || // older segments may go once this one has begun
		w.written.bytes >= maxUnsyncedBytes || len(w.appends) > 0 ||
		time.Since(w.since) >= syncDelay
	if !due {
		return
	}
	w.syncing, w.written = w.written, generation{}
	w.running, w.since = true, time.Time{}
	w.company.syncBegins(time.Now())
	w.j.unsaved <- syncJob{w.tail.file, w.end} // has room: one sync at a time
}

// syncEnded answers the messages that the sync was for.
func (w *writer) syncEnded(res syncDone) {
	w.running = false
	if res.err != nil {
		w.abandon(fault("sync", w.tail.name, res.err))
		return
	}
	first := w.synced == segmentStart
	w.synced = res.upTo
	w.failures, w.pause = 0, 0
	w.j.failed.Store(nil)
	done := w.syncing
	w.syncing = generation{}
	w.durable(done, first)
	messages := 0 // copies have nobody behind them who comes back at once
	for _, c := range done.commits {
		c.answer(nil)
		if c.kind == messageKind {
			messages++
		}
	}
	w.company.syncEnded(time.Now(), messages, len(w.commits)+len(w.j.queue))
	w.j.nudge()
	if w.lost != nil {
		w.abandon(w.lost)
	}
}

// durable enters what is synced now into the index. first: it is the tail's first batch, which repeats what
// older segments were needed for.
func (w *writer) durable(g generation, first bool) {
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	for _, c := range g.commits {
		switch {
		case c.kind == messageKind:
			w.j.stats.Commits++
			w.j.begins(c.id, c.at, c.body)
			w.j.maxID = max(w.j.maxID, c.id)
		case c.accepted != nil:
			w.j.moves(c.id, c.at)
		}
	}
	for _, r := range g.groups {
		w.j.frees(r.ended)
	}
	for _, s := range w.j.segments {
		s.sealed = s.sealed || first && s != w.tail
	}
}

// writeFailed answers a batch that is not on disk. For want of room the tail goes on from where it was: what may
// stand behind is cut off. Any other error ends the tail.
func (w *writer) writeFailed(batch []*request, err error) {
	w.j.count(func(s *Stats) { s.WriteFailures++ })
	refusal := writeFault(err)
	again := slices.ContainsFunc(batch, func(r *request) bool { return r.result == nil })
	if errors.Is(refusal, ErrFull) && len(batch) > 0 && !again && w.cutBack() == nil {
		refuse(&batch, refusal)
		return
	}
	var redo []*request
	for _, r := range batch {
		switch {
		case r.kind != stateKind: // some of it may be on disk: refused and noted as such with those written before
			w.written.add(r)
		case r.result == nil:
			redo = append(redo, r)
		default:
			r.answer(refusal)
		}
	}
	w.redo = append(redo, w.redo...)
	if w.running {
		w.lost = err
		return
	}
	w.abandon(err)
}

// cutBack takes a failed batch off the tail. Without its blocks back the tail counts as full.
func (w *writer) cutBack() error {
	if err := w.tail.file.Truncate(w.end); err != nil {
		return err
	}
	if err := w.tail.file.Allocate(w.tail.size); err != nil {
		w.j.mu.Lock()
		w.j.files -= w.tail.size - w.end
		w.tail.size = w.end
		w.j.mu.Unlock()
	}
	return nil
}

// abandon gives up the tail. After a failed sync the kernel may have dropped the pages, and another sync that
// succeeds proves nothing (Rebello et al., Can Applications Recover from fsync Failures?, 2020): whoever was not synced
// before is refused, and noted as refused in the next segment, where the state records are written again too.
func (w *writer) abandon(err error) {
	refusal := fmt.Errorf("%w: %v", ErrUnavailable, err)
	redo := append(w.syncing.redo(w.tail.id), w.written.redo(w.tail.id)...)
	w.redo = append(redo, w.redo...)
	w.unlink(w.written.heads)
	w.unlink(w.syncing.heads)
	for _, c := range append(w.syncing.commits, w.written.commits...) {
		c.voided = c.kind == messageKind
		c.answer(refusal)
	}
	w.syncing, w.written, w.since = generation{}, generation{}, time.Time{}
	w.tail.abandoned = true
	w.lost = nil
	w.superseded()
	w.retire(w.synced)
	w.failures++
	if w.failures > 1 || len(w.reserve) == 0 {
		w.fail(refusal)
	}
}

// superseded lets go of given-up segments of which nothing counts: what they held is written again with each try, and keeping
// them would cost a segment a try for as long as the disk refuses. The last one that took its batch stays, for the case of a kill.
func (w *writer) superseded() {
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	if w.end == segmentStart {
		w.tail.sealed, w.tail.needs = true, nil
		return
	}
	for _, s := range w.j.segments {
		if s.abandoned && s.end == segmentStart && s != w.tail {
			s.sealed, s.needs = true, nil
		}
	}
}

// fail stops everything but reading until a sync succeeds.
func (w *writer) fail(err error) {
	err = writeFault(err)
	if !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err) // still to be told from a disk that fails: it may be full
	}
	w.j.failed.Store(&err)
	w.backOff()
}
