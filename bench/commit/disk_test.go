//go:build commit && linux

package commit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mailweir/mailweir/proxy/journal"
)

// disk is what the volume does by itself, for one thread that writes 8 KiB and waits until they are durable: to blocks
// that were only allocated before, and to blocks that were written before, which is cheaper.
type disk struct{ fresh, again syncing }

type syncing struct {
	median time.Duration
	rate   float64 // a second
}

const (
	probeBytes = 8 << 10
	probeSyncs = 200
)

func measureDisk(t *testing.T) disk {
	t.Helper()
	dir, remove := scratch(t)
	defer remove()
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := allocate(f, probeBytes*probeSyncs); err != nil {
		t.Fatalf("allocate: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return disk{fresh: pass(t, f), again: pass(t, f)}
}

func pass(t *testing.T, f *os.File) syncing {
	t.Helper()
	block := make([]byte, probeBytes)
	var took []time.Duration
	begun := time.Now()
	for i := range int64(probeSyncs) {
		start := time.Now()
		if _, err := f.WriteAt(block, i*probeBytes); err != nil {
			t.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			t.Fatalf("fdatasync: %v", err)
		}
		took = append(took, time.Since(start))
	}
	s := syncing{rate: probeSyncs / time.Since(begun).Seconds()}
	slices.Sort(took)
	s.median = took[len(took)/2]
	return s
}

// unsynced is a directory in which nothing is ever synced, nor locked.
type unsynced struct{ dir string }

type unsyncedFile struct{ *os.File }

func (d unsynced) path(name string) string { return filepath.Join(d.dir, name) }

func (d unsynced) Lock() (io.Closer, error) { return io.NopCloser(nil), nil }

func (d unsynced) open(name string, flag int) (journal.File, error) {
	f, err := os.OpenFile(d.path(name), flag, 0o600)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

func (d unsynced) Create(name string) (journal.File, error) {
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (d unsynced) Open(name string, write bool) (journal.File, error) {
	if write {
		return d.open(name, os.O_RDWR)
	}
	return d.open(name, os.O_RDONLY)
}

func (d unsynced) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }
func (d unsynced) Remove(name string) error     { return os.Remove(d.path(name)) }
func (d unsynced) SyncDir() error               { return nil }

func (d unsynced) List() ([]journal.FileInfo, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var files []journal.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		files = append(files, journal.FileInfo{Name: e.Name(), Size: info.Size()})
	}
	return files, nil
}

func (d unsynced) Space() (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return 0, 0, fmt.Errorf("statfs: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

func (unsyncedFile) Sync() error { return nil }

func (f unsyncedFile) Allocate(size int64) error { return allocate(f.File, size) }

// allocate falls back to a sparse file, as the journal does.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}
