package proxy

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/proxy/journal"
)

// recorder writes what the dispatcher decides, in order, so that the dispatcher never waits for a disk.
type recorder struct {
	journal *journal.Journal
	log     *zap.Logger
	entries chan entry
	ctx     context.Context // done: stop trying what cannot be written
	done    sync.WaitGroup
}

// entry is one atomic group of records, or a blob.
type entry struct {
	records []journal.Record
	blob    string
	data    []byte
}

const (
	// maxUnwritten bounds the decisions that wait to be written. At half of it the dispatcher starts nothing
	// new; what is in flight by then fits in the other half.
	maxUnwritten = 8192
	// maxGroup is how many records are written as one group at most, and maxGroupBytes how many octets of payload: less than the
	// smallest journal takes as one group.
	maxGroup      = 256
	maxGroupBytes = 64 << 10
	// A write that failed is tried again after writeRetryMin, doubling to writeRetryMax.
	writeRetryMin = 10 * time.Millisecond
	writeRetryMax = time.Second
)

// newRecorder starts the goroutine; close joins it.
func newRecorder(ctx context.Context, j *journal.Journal, log *zap.Logger) *recorder {
	r := &recorder{journal: j, log: log, ctx: ctx, entries: make(chan entry, maxUnwritten)}
	r.done.Go(r.run)
	return r
}

// write hands records over. They survive a crash together or not at all.
func (r *recorder) write(records ...journal.Record) { r.entries <- entry{records: records} }

// put hands a blob over.
func (r *recorder) put(name string, data []byte) { r.entries <- entry{blob: name, data: data} }

// behind reports whether nothing new should be started until the disk has caught up.
func (r *recorder) behind() bool { return len(r.entries) > maxUnwritten/2 }

// close waits until everything is written, or ctx is done.
func (r *recorder) close() {
	close(r.entries)
	r.done.Wait()
}

func (r *recorder) run() {
	var group []journal.Record
	for e := range r.entries {
		if e.blob != "" {
			r.persist(1, func() error { return r.journal.PutBlob(e.blob, e.data) })
			continue
		}
		group = append(group[:0], e.records...)
		blobs := r.collect(&group)
		if err := r.persist(len(group), func() error { return r.journal.Append(group...) }); errors.Is(err, journal.ErrTooLarge) {
			for _, rec := range group {
				r.persist(1, func() error { return r.journal.Append(rec) })
			}
		}
		for _, b := range blobs {
			r.persist(1, func() error { return r.journal.PutBlob(b.blob, b.data) })
		}
	}
}

// collect takes what else is waiting into the same group, without waiting for more.
func (r *recorder) collect(group *[]journal.Record) (blobs []entry) {
	bytes := 0
	for _, r := range *group {
		bytes += len(r.Payload)
	}
	for len(*group) < maxGroup && bytes < maxGroupBytes {
		select {
		case e, ok := <-r.entries:
			if !ok {
				return blobs
			}
			if e.blob != "" {
				blobs = append(blobs, e)
			}
			*group = append(*group, e.records...)
			for _, r := range e.records {
				bytes += len(r.Payload)
			}
		default:
			return blobs
		}
	}
	return blobs
}

// persist tries until the journal has taken it: what was decided must not be forgotten because a disk is full.
func (r *recorder) persist(records int, write func() error) error {
	err := keepTrying(r.ctx, r.log, write)
	if err != nil {
		r.log.Error("decisions not written", zap.Int("records", records), zap.Error(err))
	}
	return err
}

// keepTrying calls write until it succeeds or ctx is done, with growing pauses, and warns once.
func keepTrying(ctx context.Context, log *zap.Logger, write func() error) error {
	for pause := writeRetryMin; ; pause = min(2*pause, writeRetryMax) {
		err := write()
		if err == nil || errors.Is(err, journal.ErrTooLarge) { // no time will make it fit
			return err
		}
		if pause == writeRetryMin {
			log.Warn("journal write failed, trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}
