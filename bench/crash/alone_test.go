//go:build crash

package crash

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mailweir/mailweir/proxy/journal"
)

// The journal without the proxy around it: more cuts a second, and a stricter book, since what the journal was asked is known
// call by call.

const (
	aloneWorkers = 6
	aloneLive    = 24       // messages that each worker leaves unended
	aloneBytes   = 16 << 20 // of the journal; segments of 1 MiB
	aloneLarge   = 300 << 10
	aloneSmall   = 20 << 10

	// settleWindow is how long a settled message may rise again: 50 ms, and a machine with more to do.
	settleWindow = verdictWindow
)

// playJournal first says what is there: "live ID sound" or "live ID damaged" for each message, then "open", then what it does:
// "250 ID" after a commit returned, "ending ID time" before Append of its end is called, and "ended ID time" when it has returned.
func playJournal(dir string, say func(string, ...any)) error {
	live := map[uint64]struct{}{}
	j, err := journal.Open(journal.Config{Dir: dir, MaxBytes: aloneBytes}, func(r journal.Record) error {
		switch r.Type {
		case journal.Accepted:
			live[r.ID] = struct{}{}
		case journal.Settled, journal.Void:
			delete(live, r.ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var ids []uint64
	for id := range live {
		state := "sound"
		if err := readBack(j, id); err != nil {
			state = "damaged: " + err.Error()
		}
		say("live %d %s", id, state)
		ids = append(ids, id)
	}
	s := j.Stats()
	say("open %d damaged %d quarantined, %d segments", s.Damaged, s.Quarantined, s.Segments)
	next := j.MaxID()
	failed := make(chan error, aloneWorkers)
	var workers sync.WaitGroup
	for n := range aloneWorkers {
		var mine []uint64
		for i, id := range ids {
			if i%aloneWorkers == n {
				mine = append(mine, id)
			}
		}
		workers.Go(func() { failed <- workAlone(j, next+1+uint64(n), mine, say) })
	}
	workers.Wait() // they go on until something fails, or we are killed
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	return errors.Join(err, j.Close())
}

// workAlone accepts messages and ends older ones, whose number stays bounded.
func workAlone(j *journal.Journal, id uint64, mine []uint64, say func(string, ...any)) error {
	random := rand.New(rand.NewPCG(id, 1))
	for ; ; id += aloneWorkers {
		if len(mine) >= aloneLive || len(mine) > 0 && random.IntN(3) == 0 {
			i := random.IntN(len(mine))
			old := mine[i]
			mine[i] = mine[len(mine)-1]
			mine = mine[:len(mine)-1]
			say("ending %d %d", old, time.Now().UnixNano())
			if err := j.Append(journal.Record{Type: journal.Settled, ID: old}); err != nil {
				return fmt.Errorf("end %d: %w", old, err)
			}
			say("ended %d %d", old, time.Now().UnixNano())
		}
		switch err := accept(j, id); {
		case errors.Is(err, journal.ErrFull): // room comes back when the segments of what has ended are gone
		case err != nil:
			return fmt.Errorf("accept %d: %w", id, err)
		default:
			say("250 %d", id)
			mine = append(mine, id)
		}
	}
}

func accept(j *journal.Journal, id uint64) error {
	content := aloneContent(id)
	d, err := j.Begin(id, int64(len(content)))
	if err != nil {
		return err
	}
	defer d.Abort()
	if _, err := d.Write(content); err != nil {
		return err
	}
	return d.Commit(strconv.AppendUint(nil, id, 10))
}

// aloneContent is the same for the same message; one in fifty is too long for a record.
func aloneContent(id uint64) []byte {
	random := rand.New(rand.NewPCG(id, 2))
	size := random.IntN(aloneSmall)
	if random.IntN(50) == 0 {
		size += aloneLarge
	}
	content := make([]byte, size+8)
	random2 := rand.NewChaCha8([32]byte{byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)})
	random2.Read(content)
	return content
}

func readBack(j *journal.Journal, id uint64) error {
	meta, body, err := j.Read(id)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil {
		return err
	}
	if want := aloneContent(id); string(meta) != strconv.FormatUint(id, 10) || !bytes.Equal(content, want) {
		return fmt.Errorf("%d octets beginning %s, accepted were %d", len(content), hex.EncodeToString(content[:min(8, len(content))]), len(want))
	}
	return nil
}

// ledger is what is known of the journal's messages after what it said in all its lives.
type ledger struct {
	accepted map[uint64]bool
	ending   map[uint64]time.Time // ends that were begun in the life that is over
	ended    map[uint64]time.Time // ends that were written then

	acknowledged, lost, risen, damaged, unheard int
}

// lived takes in what was said between two cuts.
func (l *ledger) lived(t *testing.T, lines []string, down time.Time) {
	t.Helper()
	l.opened(t, lines)
	for _, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		fields := strings.Fields(rest)
		if word != "250" && word != "ending" && word != "ended" {
			continue
		}
		id, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		switch word {
		case "250":
			l.accepted[id] = true
			l.acknowledged++
		case "ending":
			l.ending[id] = down
		case "ended":
			nano, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			l.ended[id] = time.Unix(0, nano)
			if down.Sub(l.ended[id]) > settleWindow {
				delete(l.accepted, id) // for good
			}
		}
	}
}

// opened judges what was found after a cut, if the process came so far.
func (l *ledger) opened(t *testing.T, lines []string) {
	t.Helper()
	found := map[uint64]bool{}
	open := false
	for _, line := range lines {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "open":
			open = true
			if !strings.HasPrefix(rest, "0 damaged 0 quarantined") {
				t.Errorf("a power cut is no damage: %s", line)
			}
		case "live":
			id, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			found[id] = true
			if !strings.HasSuffix(rest, " sound") {
				l.damaged++
				t.Errorf("a message came back otherwise than it was accepted: %s", line)
			}
		}
	}
	if !open {
		return
	}
	for id := range l.accepted {
		_, ending := l.ending[id]
		if !found[id] && !ending {
			l.lost++
			t.Errorf("%d was acknowledged and is lost", id)
		}
	}
	for id := range found {
		if _, ended := l.ended[id]; ended && !l.accepted[id] {
			l.risen++
			t.Errorf("%d rose again, though it had ended %v before its life ended", id, settleWindow)
		} else if !l.accepted[id] {
			l.unheard++ // the reply was under way
		}
	}
	// From here on what was found is what is known: an end that was lost did not happen.
	for id := range l.ending {
		if !found[id] {
			delete(l.accepted, id)
		}
		delete(l.ending, id)
	}
	for id := range found {
		l.accepted[id] = true
		delete(l.ended, id)
	}
}

// TestAPowerCutLosesNothingOfTheJournal is the same for the journal alone.
func TestAPowerCutLosesNothingOfTheJournal(t *testing.T) {
	v := newVolume(t, volumeBytes)
	random := newRandom(t)
	dir := filepath.Join(v.dir, "journal")
	l := &ledger{accepted: map[uint64]bool{}, ending: map[uint64]time.Time{}, ended: map[uint64]time.Time{}}
	began := time.Now()
	n := 0
	a := newActor(t, "journal")
	for ; n < *cuts-*cuts/2 && !t.Failed(); n++ {
		a.play(t, dir, []string{"250", "250", "250", "open", ""}[random.IntN(5)]) // the last: while it reads what is there
		a.hear(t)
		<-time.After(time.Duration(random.Int64N(int64(latestMoment))) >> random.IntN(8))
		down := time.Now()
		a.freeze(t)
		v.powerOff(t)
		a.kill(t)
		v.powerOn(t)
		l.lived(t, a.lines(), down)
	}
	a.play(t, dir, "open")
	a.hear(t)
	a.kill(t)
	l.opened(t, a.lines())
	v.fsck(t)
	t.Logf("%d cuts, %d acknowledged, %d lost, %d risen, %d damaged, %d survived unacknowledged, %.1f s",
		n, l.acknowledged, l.lost, l.risen, l.damaged, l.unheard, time.Since(began).Seconds())
	if l.acknowledged < 10*n {
		t.Errorf("only %d messages were acknowledged before %d cuts: little was tested", l.acknowledged, n)
	}
}
