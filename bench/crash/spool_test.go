//go:build crash

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The textbook way to keep a message: write a file beside its name, sync it, rename it, sync the directory. What each of the two
// syncs is worth on this volume is known, so it shows that the power cut takes away what it should and nothing else.

const (
	syncsVariable = "CRASH_SYNCS" // "file", "directory", both or none
	spoolBytes    = 5000          // of each file: not a multiple of a block
	spoolFiles    = 100_000       // at most
)

func playSpool(dir string, say func(string, ...any)) error {
	syncs := os.Getenv(syncsVariable)
	for n := range spoolFiles {
		name := fmt.Sprintf("%06d", n)
		if err := spool(dir, name, strings.Contains(syncs, "file"), strings.Contains(syncs, "directory")); err != nil {
			return err
		}
		say("250 %s", name)
	}
	return nil
}

func spool(dir, name string, syncFile, syncDir bool) (err error) {
	draft := filepath.Join(dir, name+".tmp")
	f, err := os.Create(draft)
	if err != nil {
		return err
	}
	_, err = f.WriteString(spoolText(name))
	if err == nil && syncFile {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(draft, filepath.Join(dir, name)); err != nil || !syncDir {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func spoolText(name string) string { return strings.Repeat(name+" ", spoolBytes/(len(name)+1)) }

// spoolFates cuts the power of such a spool and returns how many cuts lost something acknowledged, and how much in all.
func spoolFates(t *testing.T, syncs string) (losing, acknowledged, lost int) {
	t.Helper()
	v := newVolume(t, volumeBytes)
	random := newRandom(t)
	a := newActor(t, "spool")
	for i := range calibrationCuts {
		dir := filepath.Join(v.dir, fmt.Sprintf("spool%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		a.play(t, dir, "250", syncsVariable+"="+syncs)
		a.hear(t)
		<-time.After(time.Duration(random.Int64N(int64(latestMoment))))
		a.freeze(t)
		v.powerOff(t)
		a.kill(t)
		v.powerOn(t)
		gone := 0
		for _, line := range a.lines() {
			name := strings.TrimPrefix(line, "250 ")
			text, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			acknowledged++
			if string(text) != spoolText(name) {
				gone++
			}
		}
		lost += gone
		losing += min(gone, 1)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	v.fsck(t)
	t.Logf("syncs %q: %d of %d cuts lost something; %d of %d files lost", syncs, losing, calibrationCuts, lost, acknowledged)
	return losing, acknowledged, lost
}

func TestTheCutTakesWhatASpoolDoesNotSync(t *testing.T) {
	// Without the sync of the directory only the last name can be lost: the sync of the next file takes it along.
	const most, some = calibrationCuts * 9 / 10, calibrationCuts / 10
	for syncs, least := range map[string]int{"": most, "directory": most, "file": some} {
		if losing, _, _ := spoolFates(t, syncs); losing < least {
			t.Errorf("syncs %q: %d of %d cuts lost something, %d should have", syncs, losing, calibrationCuts, least)
		}
	}
}

func TestTheCutLeavesWhatASpoolSyncs(t *testing.T) {
	losing, acknowledged, lost := spoolFates(t, "file and directory")
	if losing > 0 {
		t.Errorf("%d of %d synced files lost in %d cuts", lost, acknowledged, losing)
	}
	if acknowledged < 10*calibrationCuts {
		t.Errorf("only %d files were acknowledged: nothing was tested", acknowledged)
	}
}
