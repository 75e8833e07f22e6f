package journal

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
)

// memFS is a directory in memory that keeps apart what programs see and what a power cut leaves: content reaches
// the disk with Sync, names with SyncDir.
type memFS struct {
	mu     sync.Mutex
	names  map[string]*memNode // as programs see them
	disk   map[string]*memNode // as they are on disk
	dirOps []func(map[string]*memNode)
	locked bool

	ops      int                         // operations that change something, so far
	fault    func(op, name string) error // before an operation; nil: none fails
	dead     bool                        // the power is gone
	resynced int                         // syncs of a file whose sync had failed
	free     int64
}

type memNode struct {
	data    []byte
	disk    []byte
	pending []memWrite
	failed  bool // a sync failed
}

type memWrite struct {
	off  int64
	data []byte // nil: the length becomes off
}

var errPower = errors.New("power is gone")

func newMemFS() *memFS {
	return &memFS{names: map[string]*memNode{}, disk: map[string]*memNode{}, free: 1 << 40}
}

// do runs one operation under the lock, unless a fault prevents it.
func (m *memFS) do(op, name string, change func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errPower
	}
	m.ops++
	if m.fault != nil {
		if err := m.fault(op, name); err != nil {
			if errors.Is(err, errPower) {
				m.dead = true
				change() // under way when the power went: the disk may have got any of it
			}
			if op == "write" && !m.dead {
				change() // the worst case: an error, and yet it is all there
			}
			return err
		}
	}
	return change()
}

// revive is what after(killed) cannot be: the next process finds the same page cache, synced or not.
func (m *memFS) revive() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead, m.locked, m.fault = false, false, nil
	return m
}

func (m *memFS) dirOp(f func(map[string]*memNode)) {
	f(m.names)
	m.dirOps = append(m.dirOps, f)
}

func (m *memFS) Lock() (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return nil, ErrLocked
	}
	m.locked = true
	for _, n := range m.names {
		n.failed = false // a new process may sync what it has read
	}
	return memLock{m}, nil
}

type memLock struct{ m *memFS }

func (l memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.locked = false
	return nil
}

func (m *memFS) Create(name string) (File, error) {
	n := &memNode{}
	err := m.do("create", name, func() error {
		if m.names[name] != nil {
			return fs.ErrExist
		}
		m.dirOp(func(names map[string]*memNode) { names[name] = n })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &memFile{m, n, name}, nil
}

func (m *memFS) Open(name string, _ bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	switch {
	case m.dead:
		return nil, errPower
	case n == nil:
		return nil, fs.ErrNotExist
	}
	return &memFile{m, n, name}, nil
}

func (m *memFS) Rename(from, to string) error {
	return m.do("rename", from, func() error {
		n := m.names[from]
		if n == nil {
			return fs.ErrNotExist
		}
		m.dirOp(func(names map[string]*memNode) { delete(names, from); names[to] = n })
		return nil
	})
}

func (m *memFS) Remove(name string) error {
	return m.do("remove", name, func() error {
		if m.names[name] == nil {
			return fs.ErrNotExist
		}
		m.dirOp(func(names map[string]*memNode) { delete(names, name) })
		return nil
	})
}

func (m *memFS) List() (files []FileInfo, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.names)) {
		files = append(files, FileInfo{name, int64(len(m.names[name].data))})
	}
	return files, nil
}

func (m *memFS) SyncDir() error {
	return m.do("syncdir", "", func() error {
		if m.dead {
			return nil
		}
		m.disk, m.dirOps = maps.Clone(m.names), nil
		return nil
	})
}

func (m *memFS) Space() (free, total int64, err error) { return m.free, 1 << 41, nil }

type memFile struct {
	m    *memFS
	n    *memNode
	name string
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.dead {
		return 0, errPower
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) apply(w memWrite) error {
	f.n.data = w.apply(f.n.data)
	f.n.pending = append(f.n.pending, w)
	return nil
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

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.m.do("write", f.name, func() error { return f.apply(memWrite{off, append([]byte{}, p...)}) })
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memFile) Sync() error {
	err := f.m.do("sync", f.name, func() error {
		if f.n.failed {
			f.m.resynced++
		}
		if !f.m.dead {
			f.n.disk, f.n.pending = f.flushed(), nil
		}
		return nil
	})
	if err != nil && !errors.Is(err, errPower) {
		// As Linux does: the pages count as clean from now on and never reach the disk.
		f.m.mu.Lock()
		defer f.m.mu.Unlock()
		f.n.failed, f.n.pending = true, nil
	}
	return err
}

func (f *memFile) flushed() []byte {
	b := slices.Clone(f.n.disk)
	for _, w := range f.n.pending {
		b = w.apply(b)
	}
	return b
}

func (f *memFile) Truncate(size int64) error {
	return f.m.do("truncate", f.name, func() error { return f.apply(memWrite{off: size}) })
}

func (f *memFile) Allocate(size int64) error {
	return f.m.do("allocate", f.name, func() error { return f.apply(memWrite{off: size}) })
}

func (f *memFile) Close() error { return nil }

func (m *memFS) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.names[name] != nil
}

// What a crash leaves of whatever was not synced.
type crash int

const (
	killed crash = iota // everything: only the process is gone
	nothing
	anything // each name and each 512 bytes by chance; what is lost is old content or zeros
	garbled  // as anything, and what is lost may be noise
)

// after returns the directory as the next process finds it.
func (m *memFS) after(c crash, rng *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := newMemFS()
	names := maps.Clone(m.disk)
	for _, op := range m.dirOps {
		if c == killed || c >= anything && rng.IntN(2) == 0 {
			op(names)
		}
	}
	for name, n := range names {
		b := slices.Clone(n.disk)
		if c == killed {
			b = slices.Clone(n.data)
		}
		for _, w := range n.pending {
			if c >= anything {
				b = w.tear(b, c, rng)
			}
		}
		node := &memNode{data: b, disk: slices.Clone(b)}
		next.names[name], next.disk[name] = node, node
	}
	return next
}

const sector = 512

func (w memWrite) tear(b []byte, c crash, rng *rand.Rand) []byte {
	if w.data == nil {
		if rng.IntN(2) == 0 {
			b = w.apply(b)
		}
		return b
	}
	for at := int64(0); at < int64(len(w.data)); {
		end := min(int64(len(w.data)), (w.off+at+sector)/sector*sector-w.off)
		piece := slices.Clone(w.data[at:end])
		switch fate := rng.IntN(4); {
		case fate == 0 && c == garbled:
			for i := range piece {
				piece[i] = byte(rng.Uint32())
			}
			fallthrough
		case fate >= 2:
			b = memWrite{w.off + at, piece}.apply(b)
		}
		at = end
	}
	return b
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

var (
	errIO   error = syscall.EIO
	errRoom error = syscall.ENOSPC
)
