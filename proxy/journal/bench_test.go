package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkCommit has 1, 10 and 100 senders commit messages of 4 KiB and settle them, on the disk under TMPDIR. Beside
// it stands what that disk does by itself, and what the journal would do if syncing cost nothing.
func BenchmarkCommit(b *testing.B) {
	for _, senders := range []int{1, 10, 100} {
		for _, unsynced := range []bool{false, true} {
			name := fmt.Sprintf("senders=%d", senders)
			if unsynced {
				name += "/unsynced"
			}
			b.Run(name, func(b *testing.B) { benchmarkCommit(b, senders, unsynced) })
		}
	}
}

func benchmarkCommit(b *testing.B, senders int, unsynced bool) {
	dir := b.TempDir()
	perSecond := diskSyncs(b, dir)
	cfg := Config{FS: osFS{dir}}
	if unsynced {
		cfg.FS = unsyncedFS{osFS{dir}}
	}
	j, err := Open(cfg, func(Record) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	body, meta := make([]byte, 4096), make([]byte, 200)
	var last atomic.Uint64
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for id := last.Add(1); id <= uint64(b.N); id = last.Add(1) {
				if err := benchmarkMessage(j, id, body, meta); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	s := j.Stats()
	b.ReportMetric(float64(s.Commits)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(s.Syncs)/float64(s.Commits), "syncs/msg")
	b.ReportMetric(perSecond, "disk-syncs/s")
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}

func benchmarkMessage(j *Journal, id uint64, body, meta []byte) error {
	d, err := j.Begin(id, int64(len(body)))
	if err != nil {
		return err
	}
	if _, err := d.Write(body); err != nil {
		return err
	}
	if err := d.Commit(meta); err != nil {
		return err
	}
	return j.Append(Record{Type: Settled, ID: id})
}

// diskSyncs measures how often a second the disk makes 4 KiB durable.
func diskSyncs(b *testing.B, dir string) float64 {
	b.Helper()
	f, err := os.Create(filepath.Join(dir, "probe"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	const syncs = 200
	begun := time.Now()
	for i := range int64(syncs) {
		if _, err := f.WriteAt(page, i*4096); err != nil {
			b.Fatal(err)
		}
		if err := (osFile{f}).Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return syncs / time.Since(begun).Seconds()
}

// unsyncedFS claims success without syncing files.
type unsyncedFS struct{ osFS }

func (u unsyncedFS) Create(name string) (File, error) {
	f, err := u.osFS.Create(name)
	return unsyncedFile{f}, err
}

func (u unsyncedFS) Open(name string, write bool) (File, error) {
	f, err := u.osFS.Open(name, write)
	return unsyncedFile{f}, err
}

type unsyncedFile struct{ File }

func (unsyncedFile) Sync() error { return nil }
