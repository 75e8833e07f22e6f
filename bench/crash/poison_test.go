//go:build crash

package crash

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

const (
	poison       = "poison@source.example" // a sender whose mail the variants cannot stand
	poisonPause  = "1s"                    // how long such a message waits when it was on its way at so many crashes:
	crashTries   = 3
	poisonOthers = 60
	poisonLimit  = 10 * time.Second
)

// The variants fail at the moment from which on the content is being sent.
const beforeContent = "	body := j.body\n	j.body, j.begun = nil, true\n"

func poisoned(fault string) edit {
	return edit{"proxy/link.go", beforeContent, "	if j.Env.From == \"" + poison + "\" {\n" + fault + "\n	}\n" + beforeContent}
}

// newPoisoned has one connection, so that a message that kills starves all behind it.
func newPoisoned(t *testing.T, variant string) *rig {
	t.Helper()
	r := newRig(t, relay.Config{}, "MAILWEIR_UPSTREAM_MAX_CONNECTIONS=1",
		"MAILWEIR_RECIPIENT_RETRY_MIN="+poisonPause, "MAILWEIR_RECIPIENT_RETRY_MAX="+poisonPause)
	r.s.is(isBusy)
	r.w.start(t)
	r.sendAll(t, source.Config{Messages: 1, From: poison, Size: 1000})
	r.sendAll(t, source.Config{Messages: poisonOthers, Connections: 1, Reuse: true, Size: 1000})
	r.kill(t, nil)
	r.s.is(takes)
	r.w.binary = variant
	return r
}

// cure makes the real program run again.
func (r *rig) cure(t *testing.T) {
	t.Helper()
	r.w.binary = mailweirBinary
	if err := os.Truncate(r.w.log, 0); err != nil { // its panics were meant to be
		t.Fatal(err)
	}
	r.w.start(t)
}

func (r *rig) othersArrive(t *testing.T) {
	t.Helper()
	await(t, poisonLimit, "the other messages", func() error {
		if n := r.b.account().Arrived; n < poisonOthers {
			return fmt.Errorf("%d have arrived", n)
		}
		return nil
	})
}

// TestAMessageThatPanicsTakesDownItsConnectionOnly: the process lives, the others are delivered, and the message waits.
func TestAMessageThatPanicsTakesDownItsConnectionOnly(t *testing.T) {
	r := newPoisoned(t, variant(t, "panics", poisoned(`panic("poison")`)))
	r.w.start(t)
	r.othersArrive(t)
	if r.w.ended() {
		t.Fatal("the process has ended")
	}
	if q := r.w.status(t).Queue; q.Pending != 1 || q.Dead != 0 {
		t.Errorf("%d pending, %d dead: one waits", q.Pending, q.Dead)
	}
	r.kill(t, nil)
	r.cure(t)
	// It may have been delivered, for all that a recovered panic tells, so it waits for longer than a test can.
	if q := r.w.status(t).Queue; q.Pending != 1 || q.Dead != 0 || q.NextDue.Before(time.Now()) {
		t.Errorf("%d pending, %d dead, next at %v: one waits", q.Pending, q.Dead, q.NextDue)
	}
	a := r.b.account()
	if len(a.Altered)+len(a.Duplicated) > 0 || a.Arrived != poisonOthers {
		t.Errorf("%d altered, %d twice, %d arrived", len(a.Altered), len(a.Duplicated), a.Arrived)
	}
	if code := r.w.terminate(t); code != exitMailLeft {
		t.Errorf("exit code %d with one message left", code)
	}
	t.Logf("a message panics the sender: the process lives, %d others delivered, one waits, %d twice, %.1f s",
		a.Arrived, len(a.Duplicated), time.Since(r.began).Seconds())
}

// TestAMessageThatKillsTheProcessWaits: each try is counted before it is made, so that after so many crashes the others go first.
func TestAMessageThatKillsTheProcessWaits(t *testing.T) {
	r := newPoisoned(t, variant(t, "dies", poisoned(`go func() { panic("poison") }(); select {}`)))
	const panicCode = 2
	before := 0
	for n := range crashTries {
		r.w.launch(t)
		if code := r.w.wait(t, poisonLimit); code != panicCode {
			t.Fatalf("life %d ended with %d", n+1, code)
		}
		r.buried(t, nil)
		before = r.b.account().Arrived
	}
	r.w.start(t)
	r.othersArrive(t)
	lived := !r.w.ended()
	if !lived {
		t.Error("the process died once more before the others had arrived")
	}
	if code := r.w.wait(t, poisonLimit); code != panicCode { // it is tried again after its pause
		t.Errorf("it ended with %d", code)
	}
	r.buried(t, nil)
	r.w.start(t)
	r.sendAll(t, source.Config{Messages: 5, Size: 1000})
	await(t, poisonLimit, "what came later", func() error {
		if n := r.b.account().Arrived; n < poisonOthers+5 {
			return fmt.Errorf("%d have arrived", n)
		}
		return nil
	})
	r.kill(t, nil)
	r.cure(t)
	a := r.close(t)
	t.Logf("a message kills the process: %d crashes with %d of %d others delivered, then all of them first; in the end %v",
		crashTries, before, poisonOthers, r.sum(a))
	if before >= poisonOthers {
		t.Error("the others had arrived before the last crash: nothing was shown")
	}
}
