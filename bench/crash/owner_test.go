//go:build crash

package crash

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

var owners = flag.Int("owners", 100, "tries to run two processes on one directory")

const rivalLimit = 5 * time.Second

// A directory has one owner: a second process says so and exits at once, and two that start together on a directory that nobody
// has are told apart. The owner is not disturbed.
func TestADirectoryHasOneOwner(t *testing.T) {
	r := newRig(t, relay.Config{})
	r.s.is(takes)
	rival := newWeir(t, r.s.address, r.w.journal, append([]string{upstreamMaxSetting}, small...)...)
	slowest, ties := time.Duration(0), 0
	for i := range *owners {
		if i%4 == 0 { // both at once, neither has it yet
			ties++
			if r.w.process != nil {
				r.kill(t, nil)
			}
			r.race(t, rival)
			continue
		}
		if r.w.process == nil {
			r.w.start(t)
		}
		began := time.Now()
		rival.launch(t)
		turnedAway(t, rival)
		slowest = max(slowest, time.Since(began))
		r.sendAll(t, source.Config{Messages: 2, Size: 1000})
	}
	if r.w.process == nil {
		r.w.start(t)
	}
	r.sendAll(t, source.Config{Messages: 10, Size: 1000})
	a := r.close(t)
	t.Logf("two on one directory: %d tries, %d of them at the same moment; never two owners; turned away within %v; %v",
		*owners, ties, slowest.Round(time.Millisecond), r.sum(a))
}

// turnedAway wants a process to end by itself, with the right words and code.
func turnedAway(t *testing.T, w *weir) {
	t.Helper()
	if code := w.wait(t, rivalLimit); code != exitFailure {
		t.Errorf("the second process ended with %d", code)
	}
	said, err := os.ReadFile(w.log)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(said, []byte("start failed")) || !bytes.Contains(said, []byte("journal is in use")) {
		t.Errorf("it does not say why: %s", said)
	}
	if err := os.Truncate(w.log, 0); err != nil { // the next one shall say it too
		t.Fatal(err)
	}
}

// race starts two and wants exactly one of them to serve.
func (r *rig) race(t *testing.T, rival *weir) {
	t.Helper()
	r.w.launch(t)
	rival.launch(t)
	await(t, rivalLimit, "one of two to give way", func() error {
		if !r.w.ended() && !rival.ended() {
			return fmt.Errorf("both run")
		}
		return nil
	})
	winner, loser := r.w, rival
	if r.w.ended() {
		winner, loser = rival, r.w
	}
	turnedAway(t, loser)
	winner.ready(t)
	sent := source.Run(t.Context(), source.Config{Address: winner.address, Name: fmt.Sprintf("tie%d", r.storms), Messages: 2, Size: 1000})
	r.storms++
	r.b.add(sent)
	if sent.Count(source.Record.Acknowledged) != 2 {
		t.Errorf("the owner does not accept: %s", tail(winner.log))
	}
	if winner == rival {
		rival.kill(t)
		r.buried(t, nil)
	}
}
