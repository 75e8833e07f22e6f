package journal

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

// ledger is what a source of mail knows: it is the oracle of every test with a crash. It is safe for concurrent use.
//
// What happens to it comes as marks. With a tape they are written between the operations of a memFS, so that the ledger
// of each moment can be had again.
type ledger struct {
	mu   sync.Mutex
	tape *memFS // nil: none

	begun    map[uint64][]byte // body of each message handed in
	before   map[uint64]int    // groups that had been handed in then
	acked    map[uint64]bool   // Commit returned nil
	refused  map[uint64]bool   // Commit returned an error
	gone     map[uint64]bool   // nobody may ever see it again
	groups   []*group          // in the order in which they were handed in
	deceived bool              // a sync failed: records may come twice
	betrayed bool              // the next process takes for synced what no disk has: a power cut is more than it can survive
}

// group is what was handed in together, to survive together.
type group struct {
	n     int    // its place in ledger.groups
	ends  uint64 // message that it settles; 0: none
	about uint64 // message that has two records of it, an Attempt and one of a type nobody knows; 0: none
	whole bool   // they supersede all earlier ones of the message
	blob  string // name of a blob; empty: none
	value string
	stage stage
}

const later Type = 42

type stage int

const (
	never   stage = iota - 1 // was not there when somebody looked, and so must stay away
	asked                    // may be there or not
	written                  // no kill loses it
	synced                   // no power cut does
)

// mark is one thing that happened to a ledger.
type mark struct {
	what  string
	id    uint64
	size  int
	n     int // of a group
	group group
	found *found
}

func newLedger() *ledger {
	return &ledger{begun: map[uint64][]byte{}, before: map[uint64]int{}, acked: map[uint64]bool{},
		refused: map[uint64]bool{}, gone: map[uint64]bool{}}
}

// copy returns the ledger as it is, without the tape.
func (l *ledger) copy() *ledger {
	c := &ledger{begun: maps.Clone(l.begun), before: maps.Clone(l.before), acked: maps.Clone(l.acked),
		refused: maps.Clone(l.refused), gone: maps.Clone(l.gone), deceived: l.deceived, betrayed: l.betrayed}
	for _, g := range l.groups {
		twin := *g
		c.groups = append(c.groups, &twin)
	}
	return c
}

// note applies a mark and writes it down.
func (l *ledger) note(k mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enter(k)
}

// enter wants ledger.mu held.
func (l *ledger) enter(k mark) {
	l.apply(k)
	if l.tape != nil {
		l.tape.note(k)
	}
}

// apply wants ledger.mu held when others use it.
func (l *ledger) apply(k mark) {
	switch k.what {
	case "begun":
		l.begun[k.id], l.before[k.id] = testBody(k.id, k.size), len(l.groups)
	case "acked": // and with it is synced what was written before
		l.acked[k.id] = true
		l.secure(l.before[k.id])
	case "refused":
		l.refused[k.id] = true
	case "asked":
		g := k.group
		g.n = len(l.groups)
		l.groups = append(l.groups, &g)
	case "written":
		l.groups[k.n].stage = max(l.groups[k.n].stage, written)
	case "rested":
		l.secure(k.n)
		for id := range l.refused {
			l.gone[id] = true
		}
	case "betrayed":
		l.deceived, l.betrayed = true, true
	case "seen":
		l.see(k.found)
	default:
		panic("ledger: " + k.what)
	}
}

// secure: the first n groups are synced, as far as they were written.
func (l *ledger) secure(n int) {
	for _, g := range l.groups[:n] {
		if g.stage == written {
			g.stage = synced
		}
	}
}

// see makes a promise of what a process found: its users have acted on that.
func (l *ledger) see(f *found) {
	for id := range f.live {
		delete(l.refused, id) // the process ended before the note that it was
	}
	if l.betrayed {
		return
	}
	for id := range l.begun {
		_, live := f.live[id]
		l.acked[id] = l.acked[id] || live
		l.gone[id] = l.gone[id] || !live
	}
	for _, g := range l.groups {
		_, risen := f.live[g.ends]
		_, live := f.live[g.about]
		switch {
		case live && !f.has(g) && l.superseded(g, f):
		case risen, live && !f.has(g), g.blob != "" && g.n > l.latest(g.blob, f.blobs[g.blob]):
			g.stage = never
		case live, g.blob != "" && g.n == l.latest(g.blob, f.blobs[g.blob]):
			g.stage = synced
		}
	}
}

// superseded says whether a later group stands for g.
func (l *ledger) superseded(g *group, f *found) bool {
	first := f.first(g.about)
	return first > g.n && first < len(l.groups) && l.groups[first].whole
}

// latest returns the last group that gave a blob its value, -1 if none did.
func (l *ledger) latest(name, value string) int {
	for _, g := range slices.Backward(l.groups) {
		if g.blob == name && g.value == value && g.stage != never {
			return g.n
		}
	}
	return -1
}

// end is how far the end of a message has come.
func (l *ledger) end(id uint64) (s stage, wanted bool) {
	for _, g := range l.groups {
		if g.ends == id && g.stage != never {
			s, wanted = max(s, g.stage), true
		}
	}
	return s, wanted
}

func testBody(id uint64, size int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%016x\r\n", id), size/18+1)[:size]
}

func testMeta(id uint64) string { return fmt.Sprintf("meta %d", id) }

func (l *ledger) commit(j *Journal, id uint64, size int) error {
	l.note(mark{what: "begun", id: id, size: size})
	err := send(j, id, size)
	if err != nil {
		l.note(mark{what: "refused", id: id})
		return err
	}
	l.note(mark{what: "acked", id: id})
	return nil
}

func send(j *Journal, id uint64, size int) error {
	d, err := j.Begin(id, int64(size))
	if err != nil {
		return err
	}
	defer d.Abort()
	if _, err := d.Write(testBody(id, size)); err != nil {
		return err
	}
	return d.Commit([]byte(testMeta(id)))
}

// attempt appends two records that must survive together.
func (l *ledger) attempt(j *Journal, id uint64) error { return l.append(j, group{about: id}) }

// restate appends two records that stand for all before them.
func (l *ledger) restate(j *Journal, id uint64) error {
	return l.append(j, group{about: id, whole: true})
}

func (l *ledger) settle(j *Journal, id uint64) error { return l.append(j, group{ends: id}) }

func (l *ledger) put(j *Journal, name, value string) error {
	return l.append(j, group{blob: name, value: value})
}

func (l *ledger) append(j *Journal, g group) error {
	l.mu.Lock()
	g.n = len(l.groups)
	l.enter(mark{what: "asked", group: g})
	l.mu.Unlock()
	var recs []Record
	if g.ends != 0 {
		recs = append(recs, Record{Type: Settled, ID: g.ends})
	}
	if g.about != 0 {
		p := fmt.Appendf(nil, "%d", g.n)
		recs = append(recs, Record{Type: Attempt, ID: g.about, Payload: p, Whole: g.whole}, Record{Type: later, ID: g.about, Payload: p})
	}
	var err error
	if g.blob != "" {
		err = j.PutBlob(g.blob, []byte(g.value))
	} else {
		err = j.Append(recs...)
	}
	if err != nil {
		return err
	}
	l.note(mark{what: "written", n: g.n})
	return nil
}

// rest waits, in the bubble's time, for longer than a sync may be put off, also after a fault.
func (l *ledger) rest(j *Journal) error {
	l.mu.Lock()
	n := len(l.groups)
	l.mu.Unlock()
	<-time.After(4 * maxPause)
	if err := j.Err(); err != nil {
		return err
	}
	l.note(mark{what: "rested", n: n})
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
