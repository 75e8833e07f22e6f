package journal

import (
	"errors"
	"testing"
	"testing/synctest"
)

// beforeWrite tells a test that a batch is about to be written.
type beforeWrite struct {
	FS
	tell func()
}

func (b beforeWrite) Create(name string) (File, error) {
	f, err := b.FS.Create(name)
	return toldFile{f, b.tell}, err
}

type toldFile struct {
	File
	tell func()
}

func (f toldFile) WriteAt(p []byte, off int64) (int, error) {
	if off > 0 {
		f.tell()
	}
	return f.File.WriteAt(p, off)
}

// While a state record is on its way to the disk, its message's history is not damaged: it is only not readable yet.
func TestASweepWhileAStateRecordIsBeingWrittenFindsNoDamage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		var j *Journal
		asked := false
		armed := false
		j, _ = mustOpen(t, small(beforeWrite{m, func() {
			if !armed {
				return
			}
			armed, asked = false, true
			if _, _, err := j.moveOf(1, j.segments[0]); err != nil && !errors.Is(err, errMoved) {
				t.Errorf("the sweeper will say: %v", err)
			}
		}}))
		must(t, l.commit(j, 1, 450))
		must(t, l.attempt(j, 1))
		pass(t, j, l, 100, 1)
		armed = true
		must(t, l.attempt(j, 1))
		mustClose(t, j)
		if !asked {
			t.Error("nothing was written")
		}
	})
}
