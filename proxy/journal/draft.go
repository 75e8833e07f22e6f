package journal

import (
	"fmt"
	"runtime/debug"
)

const (
	unknownSize  = 64 << 10 // bytes reserved for a message whose size was not declared, and at least at every growth
	firstBuffer  = 4 << 10  // bytes
	memoryBudget = 64 << 20 // bytes of all bodies held in memory; the next one goes to a file, however small
	memoryShare  = 4        // but no more than this part of the process's memory limit, one in so many
)

// bodyBudget is memoryBudget, or less in a small process.
func bodyBudget() int64 {
	return min(memoryBudget, debug.SetMemoryLimit(-1)/memoryShare) // a negative limit changes nothing
}

// Draft is a message being received. It is for one goroutine, and ends with Commit or Abort; deferring Abort is
// the way to be sure of that.
//
// The body is collected in memory until it is longer than Config.InlineBytes or all drafts together pass their
// memory budget; then it moves to a file of its own.
type Draft struct {
	j        *Journal
	id       uint64
	declared int64
	size     int64 // bytes of body so far
	reserved int64 // counted in Journal.drafts
	memory   int64 // counted in Journal.memory: cap(buf)
	buf      []byte
	file     *bodyWriter // nil while the body is in buf
	onDisk   bool        // the body file exists and is ours to remove
	err      error       // ends every later call
}

// Begin starts a message, id being new and not 0. size is how many bytes its sender declared, 0 if it did not: so much
// is reserved, and what comes beyond it is reserved as it comes. ErrFull: there is no room now, on the volume or below
// Config.MaxBytes. ErrUnavailable: the disk refuses. Safe for concurrent use.
func (j *Journal) Begin(id uint64, size int64) (*Draft, error) {
	if err := j.admit(); err != nil {
		return nil, fmt.Errorf("journal: begin %016x: %w", id, err)
	}
	if size <= 0 {
		size = unknownSize
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, taken := j.index[id]
	switch {
	case id == 0:
		return nil, fmt.Errorf("journal: begin: %w: id 0", errRecord)
	case taken:
		return nil, fmt.Errorf("journal: begin %016x: %w", id, ErrExists)
	case !j.reserve(size):
		j.stats.Refused++
		return nil, fmt.Errorf("journal: begin %016x of %d bytes: %w", id, size, ErrFull)
	}
	return &Draft{j: j, id: id, declared: size, reserved: size}, nil
}

// reserve wants Journal.mu held.
func (j *Journal) reserve(n int64) bool {
	if n > j.cfg.MaxBytes-j.files-j.drafts {
		signal(j.short)
		return false
	}
	j.drafts += n
	return true
}

// Write takes more of the body, all or nothing. After an error, ErrFull among them, only Abort is left to do.
func (d *Draft) Write(p []byte) (int, error) {
	if d.err == nil {
		d.err = d.take(p)
	}
	if d.err != nil {
		return 0, fmt.Errorf("journal: write %016x: %w", d.id, d.err)
	}
	return len(p), nil
}

func (d *Draft) take(p []byte) error {
	size := d.size + int64(len(p))
	if err := d.grow(size); err != nil {
		return err
	}
	if d.file == nil && !d.fits(size) {
		if err := d.spill(); err != nil {
			return err
		}
	}
	d.size = size
	if d.file == nil {
		d.buf = append(d.buf, p...)
		return nil
	}
	_, err := d.file.Write(p)
	return writeFault(err)
}

// grow reserves what the declared size did not cover.
func (d *Draft) grow(size int64) error {
	more := size - d.reserved
	if more <= 0 {
		return nil
	}
	more = max(more, unknownSize)
	d.j.mu.Lock()
	defer d.j.mu.Unlock()
	if !d.j.reserve(more) {
		d.j.stats.Refused++
		return ErrFull
	}
	d.reserved += more
	return nil
}

// fits makes room in memory for a body of size bytes, if it may stay there.
func (d *Draft) fits(size int64) bool {
	inline := d.j.cfg.InlineBytes
	if size > inline {
		return false
	}
	if size <= d.memory {
		return true
	}
	// A declared size saves growing; otherwise doubling keeps the copying in bounds.
	room := max(size, 2*d.memory, firstBuffer)
	if d.declared != unknownSize && d.declared <= inline {
		room = max(room, d.declared)
	}
	room = min(room, inline)
	d.j.mu.Lock()
	ok := d.j.memory+room-d.memory <= d.j.budget
	if ok {
		d.j.memory += room - d.memory
	}
	d.j.mu.Unlock()
	if !ok {
		return false
	}
	d.memory = room
	d.buf = append(make([]byte, 0, room), d.buf...)
	return true
}

// spill moves the body to a file.
func (d *Draft) spill() error {
	w, err := newBodyWriter(d.j.fs, d.id)
	if err != nil {
		return writeFault(err)
	}
	d.file, d.onDisk = w, true
	_, err = w.Write(d.buf)
	d.buf = nil
	d.j.mu.Lock()
	d.j.memory -= d.memory
	d.j.mu.Unlock()
	d.memory = 0
	return writeFault(err)
}

// Commit makes the message durable; meta comes back on replay and from Read. It returns nil only when everything is
// synced, and the draft is over either way. After an error the message does not exist, unless the process ends before the
// disk has taken that note: then it may be replayed. ErrFull, ErrUnavailable, ErrClosed; ErrTooLarge for a meta above its bound.
func (d *Draft) Commit(meta []byte) error {
	if d.err == nil {
		if d.err = d.commit(meta); d.err == nil {
			d.err = errDraftEnded
			return nil
		}
	}
	err := d.err
	d.Abort()
	return fmt.Errorf("journal: commit %016x: %w", d.id, err)
}

func (d *Draft) commit(meta []byte) error {
	if int64(len(meta)) > d.j.cfg.maxMeta() {
		return ErrTooLarge
	}
	r := &request{kind: messageKind, id: d.id, result: make(chan error, 1)}
	r.accepted = [][]byte{acceptedHeadFor(len(meta), bodyInline), meta, d.buf}
	if d.file != nil {
		if err := d.file.finish(); err != nil {
			d.j.count(func(s *Stats) { s.SyncFailures++ })
			return writeFault(err)
		}
		r.accepted = [][]byte{acceptedHeadFor(len(meta), bodyInFile), meta, d.file.ref.append(nil)}
		r.body = bodyFileBytes(d.file.ref.size)
	}
	r.measure()
	err := d.j.submit(r)
	if err == nil || r.voided {
		d.handOver(r.body)
	}
	return err
}

// handOver leaves the body file to the journal: it counts as one of its files from now on.
func (d *Draft) handOver(bytes int64) {
	d.onDisk = false
	d.j.mu.Lock()
	d.j.files += bytes
	d.j.mu.Unlock()
	d.release()
}

// Abort forgets the message. It does nothing after Commit or Abort.
func (d *Draft) Abort() {
	if d.err == nil {
		d.err = errDraftEnded
	}
	if d.file != nil && d.onDisk {
		d.onDisk = false
		d.j.discard(d.file)
	}
	d.release()
}

// release gives back what the draft held. It is safe to call twice.
func (d *Draft) release() {
	d.j.mu.Lock()
	defer d.j.mu.Unlock()
	d.j.drafts -= d.reserved
	d.j.memory -= d.memory
	d.reserved, d.memory, d.buf = 0, 0, nil
}
