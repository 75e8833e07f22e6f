package journal

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// memFS is a directory in memory that keeps apart what programs see and what a power cut leaves: content and length
// reach the disk with Sync, names with SyncDir, neither with the other. It can write down everything that is done to it, so
// that each moment of a story can be had again.
type memFS struct {
	mu     sync.Mutex
	nodes  []*memNode          // by number, also those without a name
	names  map[string]*memNode // as programs see them
	disk   map[string]*memNode // as they are on disk
	dirOps []dirOp             // that a power cut may lose
	locked bool

	ops      int                         // operations that change something, so far
	fault    func(op, name string) error // before an operation; nil: none fails
	stall    func(op string) time.Duration
	dead     bool // the power is gone
	resynced int  // syncs of a file whose sync had failed
	free     int64

	recording bool
	log       []event
}

type memNode struct {
	number  int
	data    []byte // as programs see it
	disk    []byte // what a power cut leaves if nothing of pending got there
	shared  bool   // data belongs to another node or to disk as well
	writes  int    // so far
	pending []memWrite
	failed  bool // a sync failed
}

type memWrite struct {
	off    int64
	data   []byte // nil: the length becomes off
	number int    // of the writes to this file
	clean  bool   // a failed sync left the page marked clean: no later sync writes it
}

// dirOp gives a file the name to, and takes the name from away; either may be empty.
type dirOp struct {
	node     int
	from, to string
}

// event is one operation that changed something, or a mark of the ledger between two.
type event struct {
	op    string
	dir   dirOp // its node is that of writes and syncs too
	write memWrite
	upTo  int // of a sync: what was written or named later is not part of it
	mark  *mark
}

var (
	errPower       = errors.New("power is gone")
	errIO    error = syscall.EIO
	errRoom  error = syscall.ENOSPC
)

// short is the fault of a write of which only the first half arrived.
type short struct{ error }

func (s short) Unwrap() error { return s.error }

func newMemFS() *memFS {
	return &memFS{names: map[string]*memNode{}, disk: map[string]*memNode{}, free: 1 << 40}
}

// do carries out e under the lock, unless a fault prevents it.
func (m *memFS) do(e event, name string, allowed func(*event) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errPower
	}
	m.ops++
	var fault error
	if m.fault != nil {
		fault = m.fault(e.op, name)
	}
	if err := allowed(&e); err != nil {
		return err
	}
	switch {
	case errors.Is(fault, errPower):
		m.dead = true // under way when the power went: the disk may have got any of it
		if e.op == "sync" || e.op == "syncdir" {
			return fault
		}
	case fault != nil && e.op == "sync":
		e.op = "sync failed"
	case errors.As(fault, &short{}) && e.op == "write":
		e.write.data = e.write.data[:len(e.write.data)/2]
	case fault != nil && e.op != "write": // a write: the worst case, an error, and yet it is all there
		return fault
	}
	m.perform(e)
	if m.recording {
		m.log = append(m.log, e)
	}
	return fault
}

// perform is what an operation does: the same when it happens and when it is played again.
func (m *memFS) perform(e event) {
	switch e.op {
	case "create":
		m.nodes = append(m.nodes, &memNode{number: e.dir.node})
		m.named(e.dir)
	case "rename", "remove":
		m.named(e.dir)
	case "write", "truncate", "allocate":
		m.nodes[e.dir.node].take(e.write)
	case "sync":
		m.nodes[e.dir.node].flush(e.upTo)
	case "sync failed":
		m.nodes[e.dir.node].giveUp()
	case "syncdir":
		for _, op := range m.dirOps[:e.upTo] {
			op.apply(m.disk, m.nodes[op.node])
		}
		m.dirOps = m.dirOps[e.upTo:]
	default:
		panic("memFS: " + e.op)
	}
}

func (m *memFS) named(op dirOp) {
	op.apply(m.names, m.nodes[op.node])
	m.dirOps = append(m.dirOps, op)
}

func (op dirOp) apply(names map[string]*memNode, n *memNode) {
	delete(names, op.from)
	if op.to != "" {
		names[op.to] = n
	}
}

func (n *memNode) take(w memWrite) {
	if n.shared {
		n.data, n.shared = slices.Clone(n.data), false
	}
	w.number = n.writes
	n.writes++
	n.data = w.apply(n.data)
	n.pending = append(n.pending, w)
}

func (w memWrite) apply(b []byte) []byte {
	end := int(w.off) + len(w.data)
	if w.data == nil {
		b = b[:min(len(b), end)]
	}
	if len(b) < end {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[w.off:], w.data)
	return b
}

// flush makes durable what was written before the sync began.
func (n *memNode) flush(upTo int) {
	later := slices.DeleteFunc(slices.Clone(n.pending), func(w memWrite) bool { return !w.clean && w.number < upTo })
	if len(later) == 0 {
		n.disk, n.pending, n.shared = n.data, nil, true
		return
	}
	b := slices.Clone(n.disk)
	for _, w := range n.pending {
		if !w.clean && w.number < upTo {
			b = w.apply(b)
		}
	}
	n.disk, n.pending = b, later
}

// giveUp is what Linux does when a sync fails: the pages count as clean from now on. Some may have reached the disk.
func (n *memNode) giveUp() {
	n.failed = true
	n.pending = slices.Clone(n.pending)
	for i := range n.pending {
		n.pending[i].clean = true
	}
}

// clone returns the directory as another process sees it after this one was killed: nothing is lost, and nothing
// more is durable.
func (m *memFS) clone() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newMemFS()
	c.nodes = make([]*memNode, len(m.nodes))
	for i, n := range m.nodes {
		n.shared = true
		twin := *n
		twin.pending = slices.Clip(twin.pending)
		c.nodes[i] = &twin
	}
	for name, n := range m.names {
		c.names[name] = c.nodes[n.number]
	}
	for name, n := range m.disk {
		c.disk[name] = c.nodes[n.number]
	}
	c.dirOps = slices.Clip(m.dirOps)
	return c
}

// put makes a durable file, whatever had the name before.
func (m *memFS) put(name string, data []byte) {
	n := &memNode{number: len(m.nodes), data: data, disk: data, shared: true}
	m.nodes = append(m.nodes, n)
	m.names[name], m.disk[name] = n, n
}

// with returns m, all of it durable, with one file replaced.
func (m *memFS) with(name string, data []byte) *memFS {
	c := newMemFS()
	for other, n := range m.names {
		n.shared = true
		c.put(other, n.data)
	}
	if data != nil {
		c.put(name, data)
	}
	return c
}

// revive ends a process that was killed: the next one finds the same page cache, synced or not.
func (m *memFS) revive() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead, m.locked, m.fault = false, false, nil
	return m
}

// kill ends the process of j as kill -9 does.
func (m *memFS) kill(j *Journal) {
	m.mu.Lock()
	m.dead = true
	m.mu.Unlock()
	_ = j.Close() // it has nothing to write to any more
	m.mu.Lock()
	m.dead, m.locked = false, false
	m.mu.Unlock()
}

// failNth makes the n-th operation of a kind fail, counted from now, and those after it too if forever.
func (m *memFS) failNth(op string, n int, forever bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = func(o, _ string) error {
		if o != op {
			return nil
		}
		if n--; n == 0 || forever && n < 0 {
			return err
		}
		return nil
	}
}

func (m *memFS) heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = nil
}

// note puts a mark of the ledger between the operations.
func (m *memFS) note(k mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, event{op: "mark", mark: &k})
}

// deceives says whether a program may read what no disk has and no sync will bring there.
func (m *memFS) deceives() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.names {
		if slices.ContainsFunc(n.pending, func(w memWrite) bool { return w.clean }) {
			return true
		}
	}
	return false
}

// bytes is what the files take that programs see.
func (m *memFS) bytes() (sum int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.names {
		sum += int64(len(n.data))
	}
	return sum
}

func (m *memFS) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names[name] != nil
}

func (m *memFS) content(t *testing.T, name string) []byte {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		t.Fatalf("no %s among %v", name, slices.Sorted(maps.Keys(m.names)))
	}
	return slices.Clone(n.data)
}
