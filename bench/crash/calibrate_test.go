//go:build crash

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/source"
)

// A rig that has never caught anything proves nothing. These run the power cut on programs whose fate is known.

const (
	calibrationCuts  = 33
	calibrationStorm = 150 * time.Millisecond // after the first acknowledgement
)

// The system calls that make acknowledged mail durable, taken out. Without the second alone nothing is lost on ext4, whose commit for a
// file takes all names along that were made before, and a new segment is used only when the one after it has been synced too. That the
// rig sees a lost name, the spool shows.
var (
	noFileSync = edit{"proxy/journal/osfs_linux.go",
		"return uninterrupted(func() error { return unix.Fdatasync(int(f.Fd())) })", "return nil"}
	noDirSync = edit{"proxy/journal/osfs.go", "return errors.Join(bare(f.Sync()), f.Close())", "return f.Close()"}
)

// fates cuts the power of a program n times, each time with a journal of its own, and returns how many cuts lost acknowledged mail.
func fates(t *testing.T, binary string, n int) (losing int, f figures) {
	t.Helper()
	o := newOutage(t, small...)
	o.w.binary = binary
	for i := range n {
		o.w.journal = filepath.Join(o.v.dir, fmt.Sprintf("journal%d", i))
		o.w.set("MAILWEIR_JOURNAL_DIR=" + o.w.journal)
		o.page(t)
		o.s.is(isBusy)
		o.w.start(t)
		cfg := source.Config{
			Address: o.w.address, Name: fmt.Sprintf("storm%d", i), Messages: 1000, Connections: 1 + i%20, Size: 500 + 300*i,
		}
		l := sendBeside(t, cfg)
		<-l.first
		<-time.After(o.moment(calibrationStorm))
		o.cut(t, l)
		o.s.is(takes)
		o.w.start(t)
		o.idle(t)
		o.w.kill(t)
		a := o.b.account()
		o.take(a)
		losing += min(len(a.Lost)+len(a.Altered), 1)
		o.s.Close()
		if err := os.RemoveAll(o.w.journal); err != nil {
			t.Fatal(err)
		}
	}
	return losing, o.figures
}

func TestTheRigCatchesAJournalThatDoesNotSync(t *testing.T) {
	losing, f := fates(t, variant(t, "unsynced", noFileSync, noDirSync), calibrationCuts)
	t.Logf("without any sync %d of %d cuts lost mail: %v", losing, f.cuts, f)
	if losing < f.cuts/2 {
		t.Errorf("%d of %d cuts lost mail that was never synced: the rig does not cut the power", losing, f.cuts)
	}
}

// quiet cuts the power when nothing has happened for longer than a verdict may wait for its sync.
func quiet(t *testing.T, binary string, n int) figures {
	t.Helper()
	o := newOutage(t, small...)
	o.w.binary = binary
	for i := range n {
		o.page(t)
		o.w.start(t)
		sent := source.Run(t.Context(), source.Config{Address: o.w.address, Name: fmt.Sprintf("quiet%d", i), Messages: 50, Connections: 5})
		o.b.add(sent)
		o.b.settle(t, settleLimit)
		<-time.After(verdictWindow + quietReply)
		o.cut(t, nil)
		o.w.start(t)
		o.idle(t)
		o.take(o.b.account())
		o.w.kill(t)
		o.s.Close()
	}
	t.Log(o.figures)
	return o.figures
}

const (
	quietCuts  = 10
	quietReply = 50 * time.Millisecond // until the sink's reply has been heard
)

// A message that was taken longer than the window before a power cut does not come again, though nothing was accepted after it
// whose sync would have taken its verdict along.
func TestVerdictsAreSyncedInTime(t *testing.T) {
	if f := quiet(t, mailweirBinary, quietCuts); f.duplicates > 0 {
		t.Errorf("%d messages came again %v after they had been taken", f.duplicates, verdictWindow)
	}
}

func TestTheRigCatchesVerdictsThatAreSyncedLate(t *testing.T) {
	late := variant(t, "late", edit{"proxy/journal/writer.go", "syncDelay  = 50 * time.Millisecond", "syncDelay  = time.Minute"})
	if f := quiet(t, late, quietCuts/2); f.duplicates == 0 {
		t.Error("no message came again, though verdicts were synced after a minute")
	}
}
