package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"
)

// ledger is what a source of mail knows: it is the oracle of every test with a crash.
type ledger struct {
	begun   map[uint64][]byte // body of each message handed in
	acked   map[uint64]bool   // Commit returned nil
	ended   map[uint64]bool   // a Settled was handed in
	written map[uint64]bool   // and Append returned nil
	synced  map[uint64]bool   // and the sync that covers it is over
	groups  int               // of two Attempt records each, numbered
	noted   map[int]bool      // groups whose Append returned nil
	blob    string            // last one whose PutBlob returned nil
}

func newLedger() *ledger {
	return &ledger{begun: map[uint64][]byte{}, acked: map[uint64]bool{}, ended: map[uint64]bool{},
		written: map[uint64]bool{}, synced: map[uint64]bool{}, noted: map[int]bool{}}
}

func testBody(id uint64, size int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%016x\r\n", id), size/18+1)[:size]
}

func (l *ledger) commit(j *Journal, id uint64, size int) error {
	l.begun[id] = testBody(id, size)
	d, err := j.Begin(id, int64(size))
	if err != nil {
		return err
	}
	defer d.Abort()
	if _, err := d.Write(l.begun[id]); err != nil {
		return err
	}
	if err := d.Commit(fmt.Appendf(nil, "meta %d", id)); err != nil {
		return err
	}
	l.acked[id] = true
	return nil
}

// attempt appends a group of two records that must survive together.
func (l *ledger) attempt(j *Journal, id uint64) error {
	l.groups++
	n := l.groups
	p := fmt.Appendf(nil, "%d", n)
	if err := j.Append(Record{Attempt, id, p}, Record{Attempt, id, p}); err != nil {
		return err
	}
	l.noted[n] = true
	return nil
}

func (l *ledger) settle(j *Journal, id uint64) error {
	l.ended[id] = true
	if err := j.Append(Record{Type: Settled, ID: id}); err != nil {
		return err
	}
	l.written[id] = true
	return nil
}

// settleSynced waits, in the bubble's time, for longer than a sync may be put off. It is not known to have
// happened when the power went meanwhile.
func (l *ledger) settleSynced(j *Journal, id uint64) error {
	if err := l.settle(j, id); err != nil {
		return err
	}
	before := j.Stats()
	<-time.After(4 * syncDelay)
	after := j.Stats()
	if j.Err() == nil && after.Syncs > before.Syncs && after.SyncFailures == 0 && after.WriteFailures == 0 {
		l.synced[id] = true
	}
	return nil
}

// found is what replay gave.
type found struct {
	live   map[uint64]string // meta
	groups map[int]int       // records of each group
	types  []Type
	ids    []uint64
}

func reopen(cfg Config) (*Journal, *found, error) {
	f := &found{live: map[uint64]string{}, groups: map[int]int{}}
	j, err := Open(cfg, func(r Record) error {
		f.types, f.ids = append(f.types, r.Type), append(f.ids, r.ID)
		switch r.Type {
		case Accepted:
			f.live[r.ID] = string(r.Payload)
		case Settled, Void:
			delete(f.live, r.ID)
		case Attempt:
			var n int
			if _, err := fmt.Sscan(string(r.Payload), &n); err != nil {
				return err
			}
			f.groups[n]++
		}
		return nil
	})
	return j, f, err
}

// check compares what was found after a crash with what had been promised.
func (l *ledger) check(j *Journal, f *found, c crash) error {
	var faults []error
	wrong := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for id := range l.acked {
		if _, live := f.live[id]; !live && !l.ended[id] {
			wrong("message %d was acknowledged and is lost", id)
		}
	}
	for id, meta := range f.live {
		switch {
		case l.synced[id]:
			wrong("message %d has risen from the dead", id)
		case l.written[id] && c == killed:
			wrong("message %d is back although its end was written", id)
		case meta != fmt.Sprintf("meta %d", id):
			wrong("message %d has meta %q", id, meta)
		}
		if err := readBack(j, id, l.begun[id]); err != nil {
			wrong("message %d: %w", id, err)
		}
	}
	for n, records := range f.groups {
		if records%2 != 0 {
			wrong("group %d came back in part: %d records", n, records)
		}
	}
	for n := range l.noted {
		if c == killed && f.groups[n] == 0 && j.Stats().Live > 0 && l.unfreed(f) {
			wrong("group %d was written and is lost", n)
		}
	}
	if s := j.Stats(); s.Damaged > 0 || s.Quarantined > 0 {
		wrong("a crash was taken for damage: %+v", s)
	}
	if s := j.Stats(); s.Live != len(f.live) {
		wrong("the index has %d messages, replay gave %v", s.Live, slices.Sorted(maps.Keys(f.live)))
	}
	return errors.Join(faults...)
}

// unfreed: with a message of the first segment alive, nothing can have been freed.
func (l *ledger) unfreed(f *found) bool { _, ok := f.live[1]; return ok }

func readBack(j *Journal, id uint64, want []byte) error {
	_, body, err := j.Read(id)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes differ from the %d accepted", len(got), len(want))
	}
	return nil
}

// small is a journal whose segments are full after a few records.
func small(m FS) Config {
	return Config{FS: m, MaxBytes: 64 << 10, SegmentBytes: minSegmentBytes}
}

func mustOpen(t *testing.T, cfg Config) (*Journal, *found) {
	t.Helper()
	j, f, err := reopen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return j, f
}

func mustClose(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
