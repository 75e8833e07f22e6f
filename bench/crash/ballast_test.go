//go:build crash

package crash

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ballast takes all room of a volume that is left, again and again.
type ballast struct {
	dir   string
	inode bool // empty files, not bytes
	n     int
}

const (
	ballastBlock = 4 << 10
	ballastFiles = 10_000
)

func (b *ballast) add(t *testing.T) {
	t.Helper()
	block := make([]byte, ballastBlock)
	if b.inode {
		block = nil
	}
	var err error
	for range ballastFiles {
		if err = b.more(block); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("the volume does not get full: %v", err)
	}
}

// more makes files of a block each, or as many blocks as a file may have.
func (b *ballast) more(block []byte) (err error) {
	f, err := os.OpenFile(filepath.Join(b.dir, "ballast"+strconv.Itoa(b.n)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if b.inode {
		b.n++
		return f.Close()
	}
	_, err = f.Write(block)
	return errors.Join(err, f.Close())
}

func (b *ballast) remove(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(b.dir, "ballast*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	b.n = 0
}

// keep adds to the ballast all the time, until the function that it returns is called, or the test is over.
func (b *ballast) keep(t *testing.T) (end func()) {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { // joined by end, which is called in any case
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			b.add(t)
		}
	}()
	end = sync.OnceFunc(func() {
		close(stop)
		<-ended
	})
	t.Cleanup(end)
	return end
}
