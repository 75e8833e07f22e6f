package queue

import (
	"iter"
	"math/bits"
)

// slab holds many small values without pointers, named by numbers, in chunks that are never copied: a slice that doubled would for a
// moment need three times the memory of a backlog. A chunk goes back when its last value has, but for one in reserve; since the lowest
// free number is given out first, new values fill holes and the chunks behind become empty. Number 0 is never given
// out. The zero slab is empty and ready.
type slab[T any] struct {
	chunks  []chunk[T]
	lowest  int             // no chunk before this one has room
	reserve *[chunkValues]T // all zero; nil: none. So that a value that comes and goes does not cost a chunk each time
}

type chunk[T any] struct {
	values *[chunkValues]T // nil: given back
	used   int
	taken  [chunkValues / 64]uint64 // one bit a value
}

// chunkValues makes the chunks of the two kinds of value 96 KiB, whole pages both.
const chunkValues = 4096

// take returns the number of a zero value.
func (s *slab[T]) take() uint32 {
	for s.lowest < len(s.chunks) && s.chunks[s.lowest].used == chunkValues {
		s.lowest++
	}
	if s.lowest == len(s.chunks) {
		s.chunks = append(s.chunks, chunk[T]{})
	}
	c := &s.chunks[s.lowest]
	if c.values == nil {
		if c.values, s.reserve = s.reserve, nil; c.values == nil {
			c.values = new([chunkValues]T)
		}
	}
	word := 0
	if s.lowest == 0 && c.used == 0 {
		c.take(0, 0) // number 0
	}
	for c.taken[word] == ^uint64(0) {
		word++
	}
	bit := bits.TrailingZeros64(^c.taken[word])
	c.take(word, bit)
	return uint32(s.lowest*chunkValues + word*64 + bit)
}

func (c *chunk[T]) take(word, bit int) {
	c.taken[word] |= 1 << bit
	c.used++
}

// give takes a value back; its number may be given out again.
func (s *slab[T]) give(i uint32) {
	n := int(i / chunkValues)
	c := &s.chunks[n]
	var zero T
	*s.at(i) = zero
	c.taken[i%chunkValues/64] &^= 1 << (i % 64)
	c.used--
	s.lowest = min(s.lowest, n)
	if c.used == 0 {
		c.values, s.reserve = nil, c.values
	}
}

// at returns a value that was taken. It stays where it is until it is given back.
func (s *slab[T]) at(i uint32) *T { return &s.chunks[i/chunkValues].values[i%chunkValues] }

// all goes through what is taken, in the order of the numbers.
func (s *slab[T]) all() iter.Seq2[uint32, *T] {
	return func(yield func(uint32, *T) bool) {
		for n := range s.chunks {
			c := &s.chunks[n]
			for word, taken := range c.taken {
				for ; taken != 0; taken &= taken - 1 {
					i := word*64 + bits.TrailingZeros64(taken)
					if n+i > 0 && !yield(uint32(n*chunkValues+i), &c.values[i]) {
						return
					}
				}
			}
		}
	}
}
