package journal

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// This file is memFS and its files as the journal sees them: FS and File.

func (m *memFS) Lock() (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked {
		return nil, ErrLocked
	}
	m.locked = true
	for _, n := range m.nodes {
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
	f := &memFile{m: m, name: name}
	err := m.do(event{op: "create"}, name, func(e *event) error {
		if m.names[name] != nil {
			return fs.ErrExist
		}
		f.number = len(m.nodes)
		e.dir = dirOp{node: f.number, to: name}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
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
	return &memFile{m, n.number, name}, nil
}

func (m *memFS) Rename(from, to string) error { return m.move("rename", from, to) }

func (m *memFS) Remove(name string) error { return m.move("remove", name, "") }

func (m *memFS) move(op, from, to string) error {
	return m.do(event{op: op}, from, func(e *event) error {
		n := m.names[from]
		if n == nil {
			return fs.ErrNotExist
		}
		e.dir = dirOp{n.number, from, to}
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

// SyncDir covers the names that were given before it began.
func (m *memFS) SyncDir() error {
	return m.do(event{op: "syncdir"}, "", func(e *event) error {
		e.upTo = len(m.dirOps)
		return nil
	})
}

func (m *memFS) Space() (free, total int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free, 1 << 41, nil
}

type memFile struct {
	m      *memFS
	number int
	name   string // it was opened under
}

// node wants memFS.mu held.
func (f *memFile) node() *memNode { return f.m.nodes[f.number] }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.m.dead {
		return 0, errPower
	}
	if off >= int64(len(f.node().data)) {
		return 0, io.EOF
	}
	n := copy(p, f.node().data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) change(op string, w memWrite) error {
	e := event{op: op, dir: dirOp{node: f.number}, write: w}
	return f.m.do(e, f.name, func(*event) error { return nil })
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	err := f.change("write", memWrite{off: off, data: append([]byte{}, p...)})
	switch {
	case err == nil:
		return len(p), nil
	case errors.As(err, &short{}):
		return len(p) / 2, err
	}
	return 0, err
}

// Sync covers what was written before it began. If it stalls, or takes its time, others write meanwhile.
func (f *memFile) Sync() error {
	f.m.mu.Lock()
	upTo, stall := f.node().writes, f.m.stall
	f.m.mu.Unlock()
	if stall != nil {
		<-time.After(stall("sync"))
	}
	e := event{op: "sync", dir: dirOp{node: f.number}, upTo: upTo}
	return f.m.do(e, f.name, func(*event) error {
		if f.node().failed {
			f.m.resynced++
		}
		return nil
	})
}

func (f *memFile) Truncate(size int64) error { return f.change("truncate", memWrite{off: size}) }

func (f *memFile) Allocate(size int64) error { return f.change("allocate", memWrite{off: size}) }

func (f *memFile) Close() error { return nil }
