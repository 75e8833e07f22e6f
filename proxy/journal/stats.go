package journal

import "time"

// SyncBounds are the upper bounds, in seconds, of Stats.SyncBuckets; its last bucket has none.
var SyncBounds = [...]float64{0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5, 30}

// Stats is what the journal counted since Open, and its sizes now.
type Stats struct {
	Bytes    int64 // all files, and what drafts under way have reserved
	MaxBytes int64 // no message is begun beyond it
	Segments int
	Live     int // messages accepted and not ended; dead ones included

	Commits int64 // messages made durable
	Appends int64 // groups of state records written
	Writes  int64 // write(2) calls that carried them
	Refused int64 // messages not begun, or not committed, for want of room

	Sealed   int64 // footers written
	Swept    int64 // segments whose last messages were copied, so that they could go
	Moved    int64 // messages, histories and ends copied for that
	Recycled int64 // segments made of a freed one

	Syncs       int64 // of segments
	SyncSeconds float64
	SyncBuckets [len(SyncBounds) + 1]int64 // not cumulative
	LastSync    time.Time                  // when the last one that succeeded ended; zero before the first

	SyncFailures  int64 // each gave up a file for good
	WriteFailures int64
	TidyFailures  int64 // files that could not be cut or removed; tried again

	Damaged     int64 // places found damaged at Open, missing bodies, and messages found damaged by Read
	Torn        int64 // at Open: unfinished batches passed over; nobody had been told they are safe
	Quarantined int64 // files kept for a human, at Open and since
}

// Stats may be called at any time, by anybody.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.stats
	s.Bytes = j.files + j.drafts
	s.MaxBytes = j.cfg.MaxBytes
	s.Segments = len(j.segments)
	s.Live = len(j.index)
	return s
}

// count changes the counters.
func (j *Journal) count(change func(*Stats)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(&j.stats)
}

func (s *Stats) synced(took time.Duration, now time.Time, err error) {
	s.Syncs++
	s.SyncSeconds += took.Seconds()
	i := 0
	for i < len(SyncBounds) && took.Seconds() > SyncBounds[i] {
		i++
	}
	s.SyncBuckets[i]++
	if err != nil {
		s.SyncFailures++
		return
	}
	s.LastSync = now
}
