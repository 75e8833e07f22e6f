package journal

import (
	"fmt"
	"time"
)

const (
	syncDelay  = 50 * time.Millisecond // the longest that a state record waits for its sync to begin
	firstPause = 50 * time.Millisecond // after a failure; doubled with each further one
	maxPause   = time.Second
)

// writer owns the tail. Everything is decided in its one goroutine: step does what can be done now, and run waits
// for what changes that.
//
// Invariant: segmentStart <= synced <= end <= tail.size - batchHeader.
type writer struct {
	j *Journal

	redo    []*request // lost to a failed sync: first in the next tail, whatever else is refused
	appends []*request
	commits []*request
	moves   []*request // what frees room, when there is time

	tail    *segment // nil: none can be had
	end     int64    // where the next batch goes
	synced  int64    // everything before it is on disk
	fresh   bool     // nothing is written to it yet
	opening []Record // what its first batch begins with
	prelude int64    // bytes of opening
	lost    error    // it failed while a sync is running, and is given up when that has ended

	written generation // since the running sync began
	syncing generation // what the running sync is for
	running bool       // a sync is under way
	since   time.Time  // when the first of written.groups was written
	company gathering  // whether messages wait for others
	held    bool       // they did in this step: the end of the pause must be a step of its own
	sealing bool       // the tail must be synced so that the next can begin
	buf     []byte

	reserve  []*segment // the segments after the tail
	asked    bool       // the keeper makes one
	force    bool       // state records need it, whatever Config.MaxBytes says
	refused  error      // why it could not
	failures int        // of the tail, since a sync succeeded
	pause    time.Duration
	retryAt  time.Time

	closing bool
	marked  bool // the last batch of all is written
	timer   *time.Timer
}

func newWriter(j *Journal) *writer {
	return &writer{j: j, timer: time.NewTimer(maxPause)}
}

// reserves is how many empty segments stand behind the tail while messages are taken: one for state records, since they alone
// can free space and so must never want for it, and one for what is copied out of old segments.
const reserves = 2

// firstTail is called by Open before run.
func (w *writer) firstTail() {
	m := w.j.make(ask{id: w.newID(), force: true})
	if m.err != nil {
		w.fail(m.err)
		return
	}
	w.begin(m.segment)
}

func (w *writer) newID() uint64 {
	id := w.j.nextID
	w.j.nextID++
	return id
}

func (w *writer) run() {
	defer close(w.j.ended)
	defer w.timer.Stop()
	closing := w.j.closing
	for {
		w.step()
		if w.finished() {
			w.leave()
			return
		}
		w.setTimer()
		select {
		case r := <-w.intake():
			w.accept(r)
		case res := <-w.j.synced:
			w.syncEnded(res)
		case m := <-w.j.made:
			w.segmentMade(m)
		case <-w.j.freed:
			if w.tail != nil { // else the pause is for a disk that fails, and not for want of room
				w.retryAt = time.Time{}
			}
		case <-w.timer.C:
		case <-closing:
			w.closing, closing = true, nil
		}
	}
}

// intake is nil while enough is waiting here: then the queue fills, and then senders wait.
func (w *writer) intake() <-chan *request {
	if len(w.appends)+len(w.commits)+len(w.moves) >= maxQueued {
		return nil
	}
	return w.j.queue
}

// accept takes r and what else is queued, so that it is written together.
func (w *writer) accept(r *request) {
	for n := 0; n < maxQueued; n++ {
		switch r.kind {
		case messageKind:
			w.commits = append(w.commits, r)
		case moveKind:
			w.moves = append(w.moves, r)
		default:
			w.appends = append(w.appends, r)
		}
		select {
		case r = <-w.intake():
		default:
			return
		}
	}
}

func (w *writer) step() {
	w.held = false
	if w.tail == nil && len(w.reserve) > 0 && !time.Now().Before(w.retryAt) {
		w.beginReserve()
	}
	if why := w.j.failed.Load(); why != nil {
		refuse(&w.appends, *why)
		refuse(&w.commits, *why)
		refuse(&w.moves, *why)
	}
	w.write()
	w.sync()
	w.askForReserve()
}

func (w *writer) beginReserve() {
	s := w.reserve[0]
	w.reserve = w.reserve[1:]
	w.begin(s)
}

func refuse(list *[]*request, why error) {
	for _, r := range *list {
		r.answer(why)
	}
	*list = nil
}

// begin makes s the tail.
func (w *writer) begin(s *segment) {
	w.j.mu.Lock()
	w.opening = w.j.opening()
	w.j.segments = append(w.j.segments, s)
	w.j.rotated = time.Now()
	w.j.written = newPos(s.id, segmentStart, 0)
	w.j.mu.Unlock()
	w.tail, w.end, w.synced, w.fresh = s, segmentStart, segmentStart, true
	w.sealing, w.since, w.prelude = false, time.Time{}, 0
	for _, rec := range w.opening {
		w.prelude += frameSize(len(rec.Payload))
	}
}

// rotate makes the reserve the tail, once everything in the old one is synced: recovery relies on it. It returns
// false when that has to wait.
func (w *writer) rotate() bool {
	if w.running || w.synced < w.end {
		w.sealing = true
		return false
	}
	if len(w.reserve) == 0 {
		switch {
		case w.asked || w.refused == nil:
		case w.refused == errOverMax:
			w.force = true
		default:
			refuse(&w.appends, w.refused)
		}
		return false
	}
	w.retire(w.end)
	w.beginReserve()
	return true
}

// retire gives the tail to the keeper. Only what stands before end counts.
func (w *writer) retire(end int64) {
	w.j.mu.Lock()
	w.tail.end = end
	w.tail.retired = time.Now()
	w.j.retired = append(w.j.retired, w.tail)
	w.j.mu.Unlock()
	w.tail = nil
	w.j.nudge()
}

func (w *writer) askForReserve() {
	if len(w.reserve) >= reserves || w.asked || (!w.force && time.Now().Before(w.retryAt)) {
		return
	}
	// Without a tail nothing can end, and so nothing be freed: then the maximum must not stand in the way.
	force := w.force || w.tail == nil && len(w.reserve) == 0
	w.j.asks <- ask{id: w.newID(), force: force} // has room: one is asked for at a time
	w.asked, w.force = true, false
}

func (w *writer) segmentMade(m made) {
	w.asked = false
	w.refused = m.err
	if m.err == nil {
		w.reserve = append(w.reserve, m.segment)
		if len(w.reserve) == reserves {
			w.j.refusal.Store(nil)
		}
		return
	}
	w.j.refusal.Store(&m.err)
	w.backOff()
}

func (w *writer) backOff() {
	w.pause = min(max(2*w.pause, firstPause), maxPause)
	w.retryAt = time.Now().Add(w.pause)
}

// setTimer wakes run when a delay is over; everything else has its own signal.
func (w *writer) setTimer() {
	w.timer.Stop()
	wait := time.Duration(-1)
	if !w.running && !w.since.IsZero() {
		wait = max(0, time.Until(w.since.Add(syncDelay)))
	}
	if w.held { // the pause may be over by now, and nothing else would end the wait
		pause := max(0, time.Until(w.company.until))
		if wait < 0 || pause < wait {
			wait = pause
		}
	}
	if len(w.reserve) < reserves && !w.asked || w.tail == nil && len(w.reserve) > 0 {
		retry := max(0, time.Until(w.retryAt))
		if wait < 0 || retry < wait {
			wait = retry
		}
	}
	if wait >= 0 {
		w.timer.Reset(wait)
	}
}

// finished leads the writer to its end once Close was called: nothing waits, everything is synced, and the last
// batch says so.
func (w *writer) finished() bool {
	if !w.closing || w.running || w.asked || len(w.appends)+len(w.commits)+len(w.moves)+len(w.j.queue) > 0 {
		return false
	}
	if w.tail == nil {
		return true
	}
	if len(w.redo) > 0 && len(w.reserve) > 0 {
		return false
	}
	if !w.marked {
		w.marked = true
		w.writeBatch(nil)
		w.sync()
		return w.tail == nil
	}
	return w.synced == w.end
}

// leave hands the open files to the keeper, which ends after the writer.
func (w *writer) leave() {
	if len(w.redo) > 0 {
		w.j.lastError = fmt.Errorf("%d groups of records not synced: %w", len(w.redo), ErrUnavailable)
		if why := w.j.failed.Load(); why != nil {
			w.j.lastError = fmt.Errorf("%d groups of records not synced: %w", len(w.redo), *why)
		}
	}
	if w.tail != nil {
		w.retire(w.end)
	}
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	for _, s := range w.reserve {
		s.end = segmentStart
		s.sealed = true
		w.j.segments = append(w.j.segments, s)
		w.j.retired = append(w.j.retired, s)
	}
}
