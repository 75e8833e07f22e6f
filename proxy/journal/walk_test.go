package journal

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// walk goes through the tape of a story and tries what a crash can leave at each of its moments. The directory and the ledger
// of a moment are those of the one before and one more event, so that a state costs little more than its recovery.
type walk struct {
	m     *memFS  // what the operations so far have made
	l     *ledger // what was promised so far
	c     crash   // killed unless the power went before: then only what was synced is promised
	rng   *rand.Rand
	seen  map[uint64]bool // states that were tried, as hashes
	count *atomic.Int64   // of all walks
	again int             // one state in so many is crashed again, at moments of its recovery; 0: none

	wrong int   // states that broke a promise
	first error // of them
}

// secondCrashes is about how many are tried in one recovery.
const secondCrashes = 3

// all tries every crash that losses lists, at every moment of the tape.
func (w *walk) all(tape []event) error {
	return w.along(tape, func(next *event) {
		w.try("killed", w.m.clone(), killed)
		if next != nil && next.op == "write" {
			for n := sector / 4; n < len(next.write.data); n += sector / 4 {
				w.try(fmt.Sprintf("killed, %d bytes written", n), w.m.torn(*next, n), killed)
			}
		}
		if w.l.betrayed {
			return
		}
		units := w.m.unsynced()
		for _, l := range losses(units, w.rng.Uint64()) {
			w.try(l.what, w.m.power(units, l), nothing)
		}
	})
}

// some tries about n crashes, at moments of the tape and of kinds that chance chooses.
func (w *walk) some(tape []event, n int) error {
	return w.along(tape, func(next *event) {
		share := w.rng.ExpFloat64() * float64(n) / float64(len(tape))
		for ; share > w.rng.Float64(); share-- {
			w.tryOne(next)
		}
	})
}

func (w *walk) tryOne(next *event) {
	if !w.l.betrayed && w.rng.IntN(4) > 0 {
		units := w.m.unsynced()
		l := chance(units, nothing+crash(w.rng.IntN(3)), w.rng)
		w.try(fmt.Sprint(l), w.m.power(units, l), nothing)
		return
	}
	m := w.m.clone()
	if next != nil && next.op == "write" && len(next.write.data) > 0 {
		m = w.m.torn(*next, w.rng.IntN(len(next.write.data)))
	}
	w.try("killed", m, killed)
}

// along calls at before each operation, with it, and after the last. It is called, too, before something new is asked of the
// journal, as the promises are strictest then.
func (w *walk) along(tape []event, at func(next *event)) error {
	changed := true
	for i := 0; i <= len(tape); i++ {
		var next *event
		if i < len(tape) {
			next = &tape[i]
		}
		promise := next != nil && next.mark != nil && next.mark.what != "asked" && next.mark.what != "begun"
		before := w.wrong
		if changed && !promise {
			at(next)
			changed = false
		}
		if next != nil {
			w.step(*next)
			changed = changed || promise || next.mark == nil
		}
		if before == 0 && w.wrong > 0 {
			w.first = fmt.Errorf("at event %d of %d: %w\n%s", i, len(tape), w.first, recent(tape[:i]))
		}
	}
	if w.wrong > 0 {
		return fmt.Errorf("%d states broke a promise; the first: %w", w.wrong, w.first)
	}
	return nil
}

func (w *walk) step(e event) {
	if e.mark == nil {
		w.m.perform(e)
		w.l.deceived = w.l.deceived || e.op == "sync failed"
		w.broke("no crash", w.l.checkSize(w.m))
		return
	}
	w.l.apply(*e.mark)
	if e.mark.what == "seen" && !w.l.betrayed {
		w.c = killed // what the power took is no promise any more
	}
}

// recent shows the end of a tape.
func recent(tape []event) (s string) {
	const shown = 40
	for _, e := range tape[max(0, len(tape)-shown):] {
		if e.mark != nil {
			s += fmt.Sprintf("\t-- %s: message %d, group %d %+v\n", e.mark.what, e.mark.id, e.mark.n, e.mark.group)
			continue
		}
		s += fmt.Sprintf("\t%s file %d %s %s at %d, %d bytes\n", e.op, e.dir.node, e.dir.from, e.dir.to, e.write.off, len(e.write.data))
	}
	return s
}

// try recovers what a crash left, unless the same was tried with the same promises.
func (w *walk) try(what string, m *memFS, c crash) {
	c = max(c, w.c)
	h := w.hash(m, c)
	if w.seen[h] {
		return
	}
	w.seen[h] = true
	w.count.Add(1)
	if w.again > 0 && len(w.seen)%w.again == 0 {
		w.broke(what, w.twice(m, c))
		return
	}
	w.broke(what, once(m, w.l, c))
}

func (w *walk) broke(what string, err error) {
	if err == nil {
		return
	}
	if w.wrong++; w.wrong == 1 {
		w.first = fmt.Errorf("%s: %w", what, err)
	}
}

var hashSeed = maphash.MakeSeed()

// hash tells states apart: content, names and promises.
func (w *walk) hash(m *memFS, c crash) uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	maphash.WriteComparable(&h, [4]int{int(c), len(w.l.groups), len(w.l.begun), len(w.l.acked)})
	for _, g := range w.l.groups {
		maphash.WriteComparable(&h, g.stage)
	}
	for _, name := range slices.Sorted(maps.Keys(m.names)) {
		maphash.WriteComparable(&h, name)
		_, _ = h.Write(m.names[name].data) // never fails
	}
	return h.Sum64()
}

// once is a start after a crash, and an end.
func once(m *memFS, l *ledger, c crash) error {
	j, f, err := reopen(small(m))
	if err != nil {
		return err
	}
	return errors.Join(l.check(j, f, c), j.Close(), l.checkSize(m))
}

// twice is a start after a crash, some work, and crashes all along.
func (w *walk) twice(m *memFS, c crash) error {
	before, l := m.clone(), w.l.copy()
	m.recording, m.stall, l.tape = true, stall, m
	s := &scene{m: m, l: l, full: true}
	s.start(c)
	s.commit(again, 300)
	s.attempt(again)
	for n, id := range slices.Sorted(maps.Keys(w.l.acked)) {
		if n < secondCrashes {
			s.attempt(id)
		}
	}
	s.rest()
	s.close()
	if err := s.unexcused(); err != nil {
		return err
	}
	second := &walk{m: before, l: w.l.copy(), c: c, rng: w.rng, seen: w.seen, count: w.count}
	if err := second.some(m.log, secondCrashes); err != nil {
		return fmt.Errorf("a second crash: %w", err)
	}
	return nil
}

// again is the number of a message that is accepted after a crash.
const again = 1 << 20
