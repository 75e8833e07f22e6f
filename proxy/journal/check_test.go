package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// This file compares what an Open found with what a ledger was promised.

// found is what replay gave.
type found struct {
	live    map[uint64]string // meta
	records map[uint64][]seen // state records of live messages, in order
	blobs   map[string]string
	types   []Type
	ids     []uint64
}

type seen struct {
	typ Type
	n   int // of the group
}

func reopen(cfg Config) (*Journal, *found, error) {
	f := &found{live: map[uint64]string{}, records: map[uint64][]seen{}, blobs: map[string]string{}}
	j, err := Open(cfg, f.take)
	if err == nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		for name, data := range j.blobs {
			f.blobs[name] = string(data)
		}
	}
	return j, f, err
}

func (f *found) take(r Record) error {
	f.types, f.ids = append(f.types, r.Type), append(f.ids, r.ID)
	switch r.Type {
	case Accepted:
		f.live[r.ID] = string(r.Payload)
	case Settled, Void:
		delete(f.live, r.ID)
		delete(f.records, r.ID)
	case Restated:
		delete(f.records, r.ID)
	case Attempt, later:
		var n int
		if _, err := fmt.Sscan(string(r.Payload), &n); err != nil {
			return err
		}
		if _, live := f.live[r.ID]; live {
			f.records[r.ID] = append(f.records[r.ID], seen{r.Type, n})
		}
	}
	return nil
}

func (f *found) has(g *group) bool {
	return slices.Contains(f.records[g.about], seen{Attempt, g.n})
}

// first is the group that the state records of a message begin with, -1 if there are none.
func (f *found) first(id uint64) int {
	if len(f.records[id]) == 0 {
		return -1
	}
	return f.records[id][0].n
}

// check compares what was found after a crash with what had been promised.
func (l *ledger) check(j *Journal, f *found, c crash) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	promised := synced
	if c == killed {
		promised = written
	}
	faults := slices.Concat(l.checkMessages(j, f, promised), l.checkGroups(f, promised), l.checkBlobs(f, promised))
	s := j.Stats()
	if s.Damaged > 0 || s.Quarantined > 0 {
		faults = append(faults, fmt.Errorf("a crash was taken for damage: %+v", s))
	}
	if s.Live != len(f.live) {
		faults = append(faults, fmt.Errorf("the index has %d messages, replay gave %v", s.Live, slices.Sorted(maps.Keys(f.live))))
	}
	return errors.Join(faults...)
}

func (l *ledger) checkMessages(j *Journal, f *found, promised stage) (faults []error) {
	wrong := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for id := range l.acked {
		_, live := f.live[id]
		if _, ended := l.end(id); l.acked[id] && !l.gone[id] && !live && !ended {
			wrong("message %d was acknowledged and is lost", id)
		}
	}
	for id, meta := range f.live {
		end, ended := l.end(id)
		switch {
		case l.begun[id] == nil:
			wrong("message %d was made up", id)
		case l.gone[id] && l.refused[id]:
			wrong("message %d is there although it was refused", id)
		case l.gone[id]:
			wrong("message %d has come back", id)
		case ended && end >= promised:
			wrong("message %d has risen from the dead", id)
		case meta != testMeta(id):
			wrong("message %d has meta %q", id, meta)
		}
		if err := readBack(j, id, l.begun[id]); err != nil {
			wrong("message %d: %w", id, err)
		}
		if err := l.checkRecords(id, f, promised); err != nil {
			wrong("message %d: %w", id, err)
		}
	}
	return faults
}

// checkRecords wants the state records of a live message whole, in order, none made up, none twice, and none
// missing before one that is there.
func (l *ledger) checkRecords(id uint64, f *found, promised stage) error {
	var whole []int
	for records := f.records[id]; len(records) > 0; records = records[2:] {
		n := records[0].n
		if len(records) < 2 || records[0] != (seen{Attempt, n}) || records[1] != (seen{later, n}) {
			return fmt.Errorf("group %d came back in part: %v", n, records)
		}
		if again := slices.Contains(whole, n); again && !l.deceived {
			return fmt.Errorf("group %d came back twice", n)
		} else if !again {
			whole = append(whole, n)
		}
	}
	next := 0
	for _, g := range l.groups {
		if g.about != id {
			continue
		}
		there := slices.Contains(whole, g.n)
		switch {
		case there && g.stage == never:
			return fmt.Errorf("group %d has come back", g.n)
		case there && g.whole && next > 0:
			return fmt.Errorf("group %d stands for all before it, and they came too: %v", g.n, whole)
		case !there && l.superseded(g, f):
		case there && whole[next] != g.n:
			return fmt.Errorf("out of order: %v", whole)
		case there:
			next++
		case g.stage >= promised:
			return fmt.Errorf("group %d is lost", g.n)
		case next < len(whole) && g.stage >= written:
			return fmt.Errorf("group %d is missing before %v", g.n, whole[next:])
		}
	}
	if next < len(whole) {
		return fmt.Errorf("groups %v were made up", whole[next:])
	}
	return nil
}

// checkGroups looks at those that end one message and tell of another.
func (l *ledger) checkGroups(f *found, promised stage) (faults []error) {
	for _, g := range l.groups {
		_, risen := f.live[g.ends]
		_, live := f.live[g.about]
		ended := !risen && l.acked[g.ends] && !l.gone[g.ends]
		if live && (risen && f.has(g) || ended && !f.has(g) && !l.superseded(g, f)) {
			faults = append(faults, fmt.Errorf("group %d came back in part: end of %d, records of %d", g.n, g.ends, g.about))
		}
	}
	return faults
}

func (l *ledger) checkBlobs(f *found, promised stage) (faults []error) {
	latest := map[string]int{}
	for _, g := range l.groups {
		if g.blob != "" && g.stage >= promised {
			latest[g.blob] = g.n
		}
	}
	for name, n := range latest {
		got := f.blobs[name]
		if l.latest(name, got) < n {
			faults = append(faults, fmt.Errorf("blob %s is %q, promised was %q", name, got, l.groups[n].value))
		}
	}
	return faults
}

// checkSize bounds what the files take: beyond Config.MaxBytes there may be a first segment after a start, two reserves, one that
// is filled with copies, and the state records, which are never refused.
func (l *ledger) checkSize(m *memFS) error {
	const allowance, groupBytes = 4, batchHeader + 3*frameHeader + 24
	c := small(m)
	most := c.MaxBytes + allowance*c.SegmentBytes + int64(len(l.groups))*groupBytes
	if got := m.bytes(); got > most {
		return fmt.Errorf("the files have %d bytes, at most %d are allowed", got, most)
	}
	return nil
}

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
