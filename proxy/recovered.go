package proxy

import (
	"bytes"
	"cmp"
	"math/bits"
	"slices"
	"strings"

	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
)

// recovered is what has to be known of a message that had not ended: 48 bytes without pointers, since there may be a
// million. What differs between its recipients is in recovery.parts.
type recovered struct {
	id         message.ID // 0: the place is free
	received   int64      // Unix microseconds
	size       int64
	domain     uint32 // of all recipients, with their lane: index into recovery.names; 0: parts has one for each
	recipients uint32
	fate       // of all recipients, unless parts has one for each
}

// fate is what is known of one recipient.
type fate struct {
	due     int64 // Unix microseconds; 0: at once
	tries   queue.Tries
	started uint8 // tries that began and of which nothing was heard
	ended   bool
}

// parts is what the recipients of one message do not have in common, and what failed.
type parts struct {
	domains   []uint32 // one a recipient; nil: all have the message's
	fates     []fate   // one a recipient; nil: all have the message's
	failed    []int
	failReply string
}

// backlog holds recovered messages, in pieces that are let go one by one. The zero value is empty and ready.
//
// Messages are found by a table of their numbers, open and probed in a line: a map would cost as much again as the messages.
type backlog struct {
	pieces []*[piece]recovered
	free   []uint32
	table  []uint32 // number of a message plus 1; 0: empty. Its length is a power of two
	n      int      // messages
}

const (
	piece      = 4096 // messages
	firstTable = 1024
)

// cell returns where in the table a message is, or would be.
func (b *backlog) cell(id message.ID) int {
	i := b.home(id)
	for b.table[i] != 0 && b.at(b.table[i]-1).id != id {
		i = (i + 1) % len(b.table)
	}
	return i
}

// home is where a message is looked for first. IDs are times, whose low bits are mostly zero: the multiplication (Knuth, The Art of
// Computer Programming 6.4) brings all of them to the top.
func (b *backlog) home(id message.ID) int {
	return int(uint64(id) * 0x9E3779B97F4A7C15 >> (64 - bits.TrailingZeros(uint(len(b.table)))))
}

// add makes room for a message that is not there.
func (b *backlog) add(id message.ID) *recovered {
	if 4*(b.n+1) > 3*len(b.table) {
		b.grow()
	}
	if len(b.free) == 0 {
		first := uint32(len(b.pieces) * piece)
		b.pieces = append(b.pieces, new([piece]recovered))
		for i := first + piece; i > first; i-- {
			b.free = append(b.free, i-1)
		}
	}
	i := b.free[len(b.free)-1]
	b.free = b.free[:len(b.free)-1]
	b.table[b.cell(id)] = i + 1
	b.n++
	m := b.at(i)
	m.id = id
	return m
}

func (b *backlog) grow() {
	old := b.table
	b.table = make([]uint32, max(firstTable, 2*len(old)))
	for _, i := range old {
		if i != 0 {
			b.table[b.cell(b.at(i-1).id)] = i
		}
	}
}

func (b *backlog) at(i uint32) *recovered { return &b.pieces[i/piece][i%piece] }

// get returns nil for a message that is not there.
func (b *backlog) get(id message.ID) *recovered {
	if b.n == 0 {
		return nil
	}
	i := b.table[b.cell(id)]
	if i == 0 {
		return nil
	}
	return b.at(i - 1)
}

func (b *backlog) remove(id message.ID) {
	if b.get(id) == nil {
		return
	}
	hole := b.cell(id)
	i := b.table[hole] - 1
	b.table[hole] = 0
	b.close(hole)
	*b.at(i) = recovered{}
	b.free = append(b.free, i)
	b.n--
}

// close moves into a hole what would not be found beyond it.
func (b *backlog) close(hole int) {
	mask := len(b.table) - 1
	for i := (hole + 1) & mask; b.table[i] != 0; i = (i + 1) & mask {
		home := b.home(b.at(b.table[i] - 1).id)
		if (i-home)&mask >= (i-hole)&mask {
			b.table[hole], b.table[i] = b.table[i], 0
			hole = i
		}
	}
}

// empty hands out every message in the order of acceptance, and lets go of each piece with its last message: the queue fills as the
// backlog empties.
func (b *backlog) empty(take func(*recovered)) {
	order := make([]uint32, 0, b.n)
	left := make([]int, len(b.pieces))
	for i := range uint32(len(b.pieces) * piece) {
		if b.at(i).id != 0 {
			order = append(order, i)
			left[i/piece]++
		}
	}
	b.table, b.free, b.n = nil, nil, 0
	slices.SortFunc(order, func(x, y uint32) int { return cmp.Compare(b.at(x).id, b.at(y).id) })
	for _, i := range order {
		take(b.at(i))
		if left[i/piece]--; left[i/piece] == 0 {
			b.pieces[i/piece] = nil
		}
	}
	b.pieces = nil
}

// names gives each place a number, however many messages name it. Number 0 stands for several domains.
type names struct {
	all    []place
	number map[place]uint32
}

// place is where deliveries queue up: a turn of a lane.
type place struct {
	lane   int
	domain string
}

func newNames() names { return names{all: []place{{domain: mixedKey}}, number: map[place]uint32{}} }

// domain returns the number of the domain of an address, in a lane.
func (n *names) domain(lane int, addr []byte) uint32 {
	if at := bytes.LastIndexByte(addr, '@'); at >= 0 {
		if i, ok := n.number[place{lane, string(addr[at+1:])}]; ok { // no copy: most are written in lower case, and known
			return i
		}
	}
	p := place{lane, strings.Clone(message.Domain(string(addr)))} // and not the address around it
	i, ok := n.number[p]
	if !ok {
		i = uint32(len(n.all))
		n.all = append(n.all, p)
		n.number[p] = i
	}
	return i
}
