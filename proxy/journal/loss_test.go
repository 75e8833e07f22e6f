package journal

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// This file is what a crash leaves of a memFS.

// crash says what ended the process, and so what may be lost.
type crash int

const (
	killed   crash = iota // the process alone: nothing is lost
	nothing               // the power: nothing is left of what was not synced
	anything              // each name and each sector by chance; what is lost is old content or zeros
	garbled               // as anything, and what is lost may be noise
)

const sector = 512 // bytes; what a disk writes whole or not at all

// unit is the least that a power cut keeps or loses by itself: a name, a length, or one sector of a write.
type unit struct {
	dir  *dirOp
	node int
	w    memWrite // the piece in this sector
	of   int      // counts the operations; the sectors of one write have the same
}

// fate is what becomes of a unit.
type fate int

const (
	kept fate = iota
	lost
	zeroed // the length is there, the content is not
	noise
)

// unsynced lists what a power cut may lose now: names first, then content in the order of writing.
func (m *memFS) unsynced() (units []unit) {
	of := 0
	for i := range m.dirOps {
		units = append(units, unit{dir: &m.dirOps[i], of: of})
		of++
	}
	for _, n := range m.nodes {
		for _, w := range n.pending {
			units = append(units, sectors(n.number, w, of)...)
			of++
		}
	}
	return units
}

func sectors(node int, w memWrite, of int) (units []unit) {
	if w.data == nil {
		return []unit{{node: node, w: w, of: of}}
	}
	for at := int64(0); at < int64(len(w.data)); {
		end := min(int64(len(w.data)), (w.off+at+sector)/sector*sector-w.off)
		units = append(units, unit{node: node, w: memWrite{off: w.off + at, data: w.data[at:end]}, of: of})
		at = end
	}
	return units
}

// loss is one way in which a crash can go.
type loss struct {
	what   string // for whom it went wrong
	fates  []fate // of the units; nil: the process was killed
	turned bool   // names reached the disk in the opposite order
	seed   uint64 // of the noise
}

// power returns the directory after a power cut.
func (m *memFS) power(units []unit, l loss) *memFS {
	rng := rand.New(rand.NewPCG(l.seed, 0))
	names := maps.Clone(m.disk)
	var dirs []int
	content := map[int][]byte{}
	for i, u := range units {
		switch {
		case u.dir != nil && l.fates[i] == kept:
			dirs = append(dirs, i)
		case u.dir == nil && l.fates[i] != lost:
			b, begun := content[u.node]
			if !begun {
				b = slices.Clone(m.nodes[u.node].disk)
			}
			content[u.node] = u.leave(b, l.fates[i], rng)
		}
	}
	if l.turned {
		slices.Reverse(dirs)
	}
	for _, i := range dirs {
		units[i].dir.apply(names, m.nodes[units[i].dir.node])
	}
	next := newMemFS()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		b, torn := content[names[name].number]
		if !torn {
			b = names[name].disk
		}
		next.put(name, b)
	}
	return next
}

func (u unit) leave(b []byte, f fate, rng *rand.Rand) []byte {
	w := u.w
	if w.data != nil && f != kept {
		w.data = make([]byte, len(w.data))
		for i := range w.data {
			if f == noise {
				w.data[i] = byte(rng.Uint32())
			}
		}
	}
	return w.apply(b)
}

// maxUnits is up to how many unsynced units every subset of them is tried.
const maxUnits = 5

// losses lists what a power cut can do to units. Up to maxUnits it is every subset, beyond each one lost alone and
// each one kept alone; and one whole write omitted, zeroed, garbled, and names in another order.
func losses(units []unit, seed uint64) (all []loss) {
	n := len(units)
	subset := func(what string, seed uint64, of func(i int) fate) {
		l := loss{what: what, fates: make([]fate, n), seed: seed}
		for i := range l.fates {
			l.fates[i] = of(i)
		}
		all = append(all, l)
	}
	choose := func(kept bool) fate {
		if kept {
			return 0
		}
		return lost
	}
	subset("nothing kept", 0, func(int) fate { return lost })
	subset("all kept", 0, func(int) fate { return kept })
	for mask := uint64(1); n <= maxUnits && mask < 1<<n-1; mask++ {
		subset(fmt.Sprintf("kept %b", mask), 0, func(i int) fate { return choose(mask>>i&1 == 1) })
	}
	for one := 0; n > maxUnits && one < n; one++ {
		subset(fmt.Sprintf("unit %d lost", one), 0, func(i int) fate { return choose(i != one) })
		subset(fmt.Sprintf("unit %d kept", one), 0, func(i int) fate { return choose(i == one) })
	}
	for i, u := range units {
		if u.dir != nil || i > 0 && units[i-1].of == u.of {
			continue
		}
		for _, f := range []fate{lost, zeroed, noise} {
			subset(fmt.Sprintf("write %d fate %d", u.of, f), seed, func(k int) fate {
				if units[k].of == u.of {
					return f
				}
				return kept
			})
		}
	}
	if n > 1 && units[1].dir != nil {
		subset("names turned", 0, func(int) fate { return kept })
		all[len(all)-1].turned = true
	}
	return all
}

// chance draws a power cut.
func chance(units []unit, c crash, rng *rand.Rand) loss {
	l := loss{what: "by chance", fates: make([]fate, len(units)), seed: rng.Uint64(), turned: rng.IntN(4) == 0}
	for i := range l.fates {
		l.fates[i] = []fate{kept, kept, kept, lost, lost, zeroed, noise}[rng.IntN(7)]
		switch {
		case c == nothing, units[i].dir != nil && l.fates[i] != kept:
			l.fates[i] = lost
		case c == anything && l.fates[i] > lost:
			l.fates[i] = lost
		}
	}
	return l
}

// after returns the directory as the next process finds it. rng may be nil where nothing is left to chance.
func (m *memFS) after(c crash, rng *rand.Rand) *memFS {
	if c == killed {
		return m.clone()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if rng == nil {
		rng = rand.New(rand.NewPCG(0, 0))
	}
	units := m.unsynced()
	return m.power(units, chance(units, c, rng))
}

// torn returns the directory as a kill in the middle of the write e leaves it: n bytes have arrived.
func (m *memFS) torn(e event, n int) *memFS {
	c := m.clone()
	e.write.data = e.write.data[:n]
	c.perform(e)
	return c
}
