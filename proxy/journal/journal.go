// Package journal keeps messages on disk from the moment they are acknowledged until they have ended.
//
// When Draft.Commit has returned nil, no crash, kill or power cut loses the message: its bytes, and the directory entry
// that leads to them, are synced. When Append has returned nil, no crash of the process loses the records, and
// after 50 ms no power cut does. What cannot be read back as it was written is reported as damaged, never handed
// out. The journal knows bytes and numbers, not mail.
//
// One goroutine writes, another syncs, so that one sync serves everybody who came while the last one ran; a third makes
// segments and removes them; a fourth copies what is left in old ones, so that they may go. FORMAT.md draws the files.
package journal

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Journal is an open journal. Its methods are safe for concurrent use.
type Journal struct {
	cfg  Config // filled
	fs   FS
	lock io.Closer

	queue   chan *request
	asks    chan ask      // writer to keeper: make a segment
	made    chan made     // and back; room for the one asked for
	unsaved chan syncJob  // writer to syncer, one at a time
	synced  chan syncDone // and back
	wake    chan struct{} // to the keeper: something may be freed
	freed   chan struct{} // to the writer: something was
	short   chan struct{} // to the sweeper: there is no room

	closing chan struct{} // closed by Close
	ended   chan struct{} // closed when the writer has ended
	close   sync.Once
	closed  error
	writer  sync.WaitGroup // the writer, which ends by closing
	helpers sync.WaitGroup // syncer and keeper, which end when the writer has

	failed  atomic.Pointer[error] // why nothing can be written
	refusal atomic.Pointer[error] // why no message can be begun
	volume  volume

	nextID    uint64 // of the next segment; the writer's alone once Open has returned
	lastError error  // what the writer could not save; set before it ends

	mu       sync.Mutex // guards what follows; never held over I/O
	index    map[uint64]entry
	bodies   map[uint64]int64    // bytes of the body files of live messages, headers and trailers included
	ending   map[uint64]struct{} // messages that have left index, by a record that is not synced yet
	peak     int                 // the most entries index had
	segments []*segment          // oldest first; the last is the tail
	blobs    map[string][]byte
	retired  []*segment // to be closed by the keeper
	trash    []body     // to be removed by the keeper
	written  pos        // the end of what write(2) took of the tail: a chain may begin behind it already
	files    int64      // bytes of all files
	spare    int64      // bytes of the spare, which are among them; 0: there is none
	rotated  time.Time  // when the tail was begun
	drafts   int64      // bytes reserved for messages under way
	budget   int64      // of memory, in bytes
	memory   int64      // bytes of bodies in memory
	maxID    uint64
	stats    Stats
}

// body is a body file that nobody needs any more.
type body struct {
	id    uint64
	bytes int64 // counted in Journal.files
}

// Open takes cfg.Dir for this process, ErrLocked if another has it, and calls replay once for each record that
// survived, oldest first: a message's Accepted before its state records, also for messages that a later record
// ends, unless nothing of either is left. Blobs are not replayed: see Blob. An error of replay ends Open. Types this version does not
// know are replayed like others. Nothing is written
// before the last replay call; ErrVersion, when a later version wrote the directory, leaves it as it is.
//
// When the records can be read but no new segment can be made, Open succeeds and Err says why nothing can be written.
func Open(cfg Config, replay func(Record) error) (*Journal, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	j := newJournal(cfg.filled())
	var err error
	if j.lock, err = j.fs.Lock(); err != nil {
		return nil, fmt.Errorf("journal: open %s: %w", cfg.Dir, err)
	}
	r := recovery{j: j, replay: replay, ends: make(map[uint64]int64)}
	if err := r.run(); err != nil {
		return nil, fmt.Errorf("journal: open %s: %w", cfg.Dir, errors.Join(err, j.lock.Close()))
	}
	j.start()
	return j, nil
}

func newJournal(cfg Config) *Journal {
	j := &Journal{
		cfg: cfg, fs: cfg.FS, budget: bodyBudget(),
		queue: make(chan *request, maxQueued),
		asks:  make(chan ask, 1), made: make(chan made, 1),
		unsaved: make(chan syncJob, 1), synced: make(chan syncDone, 1),
		wake: make(chan struct{}, 1), freed: make(chan struct{}, 1), short: make(chan struct{}, 1),
		closing: make(chan struct{}), ended: make(chan struct{}),
		index: make(map[uint64]entry), bodies: make(map[uint64]int64), ending: make(map[uint64]struct{}), blobs: make(map[string][]byte),
		nextID: firstSegment,
	}
	if j.fs == nil {
		j.fs = osFS{cfg.Dir}
	}
	return j
}

// start begins a new tail, since an old one is never written to again, and the goroutines that end with Close.
func (j *Journal) start() {
	w := newWriter(j)
	w.firstTail()
	j.helpers.Go(j.syncFiles)
	j.helpers.Go(j.keep)
	j.helpers.Go(j.sweep)
	j.writer.Go(w.run)
}

// submit hands a request to the writer and waits for its answer.
func (j *Journal) submit(r *request) error {
	result := r.result // the request itself is the writer's from here on
	select {
	case <-j.closing:
		return ErrClosed
	default:
	}
	select {
	case j.queue <- r:
	case <-j.closing:
		return ErrClosed
	}
	select {
	case err := <-result:
		return err
	case <-j.ended:
	}
	select {
	case err := <-result:
		return err
	default:
		return ErrClosed // it came too late for the writer
	}
}

// admit says whether a message may be begun.
func (j *Journal) admit() error {
	select {
	case <-j.closing:
		return ErrClosed
	default:
	}
	for _, why := range []*error{j.failed.Load(), j.refusal.Load()} {
		if why != nil {
			j.count(func(s *Stats) { s.Refused++ })
			return *why
		}
	}
	if err := j.volume.check(j.fs, j.cfg.SegmentBytes, time.Now()); err != nil {
		j.count(func(s *Stats) { s.Refused++ })
		return err
	}
	return nil
}

// Err returns nil while the journal can write, else why not. It recovers by itself.
func (j *Journal) Err() error {
	if why := j.failed.Load(); why != nil {
		return fmt.Errorf("journal: %w", *why)
	}
	return nil
}

// MaxID returns the highest ID of any record, replayed or committed, 0 for none.
func (j *Journal) MaxID() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.maxID
}

// Close syncs everything, stops and gives the directory free. Drafts must have ended before: what is handed in from now on
// gets ErrClosed. Messages opened by Read stay readable. The error says that state records may be lost to a power cut, or
// that the directory could not be tidied. A second call does nothing and returns the same.
func (j *Journal) Close() error {
	j.close.Do(func() {
		close(j.closing)
		j.writer.Wait()
		j.helpers.Wait()
		j.tidy()
		j.sealAll()
		err := j.lastError
		err = errors.Join(err, j.lock.Close())
		if err != nil {
			j.closed = fmt.Errorf("journal: close: %w", err)
		}
	})
	return j.closed
}
