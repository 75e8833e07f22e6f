//go:build backlog

package backlog

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/mailweir/mailweir/proxy/journal"
)

const (
	drainBacklog = 1 << 30   // bytes of messages
	drainMessage = 64 << 10  // bytes of one
	drainLeft    = 256 << 20 // bytes of files that may be left
	drainWait    = time.Minute
)

// A backlog of 1 GiB that has gone out leaves its disk to others within a minute, and one message that goes on waiting keeps
// one segment at most: it is copied.
func TestADrainedBacklogGivesTheDiskBack(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 3 << 30}, func(journal.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}()
	body := make([]byte, drainMessage)
	const messages = drainBacklog / drainMessage
	for id := uint64(1); id <= messages; id++ {
		if err := commitOne(j, id, body); err != nil {
			t.Fatal(err)
		}
	}
	full := directoryBytes(t, dir)
	if full < drainBacklog {
		t.Fatalf("%d bytes of files for %d of messages: nothing is tested", full, drainBacklog)
	}
	for id := uint64(2); id <= messages; id++ {
		if err := j.Append(journal.Record{Type: journal.Settled, ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for directoryBytes(t, dir) >= drainLeft {
		if time.Since(began) > drainWait {
			t.Fatalf("%d bytes of files are left after %s: %+v", directoryBytes(t, dir), drainWait, j.Stats())
		}
		<-time.After(100 * time.Millisecond)
	}
	s := j.Stats()
	t.Logf("from %d MiB to %d MiB in %s; %d segments, %d of them emptied by copying", full>>20, directoryBytes(t, dir)>>20,
		time.Since(began).Round(100*time.Millisecond), s.Segments, s.Swept)
	_, rest, err := j.Read(1)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, rest); n != drainMessage || err != nil {
		t.Errorf("the message that waits has %d bytes, %v", n, err)
	}
	if err := rest.Close(); err != nil {
		t.Error(err)
	}
}

func commitOne(j *journal.Journal, id uint64, body []byte) error {
	d, err := j.Begin(id, int64(len(body)))
	if err != nil {
		return err
	}
	defer d.Abort()
	if _, err := d.Write(body); err != nil {
		return err
	}
	return d.Commit([]byte("one that waits"))
}

// directoryBytes is what the files of a directory take, by their lengths.
func directoryBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // it is gone
		}
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}
