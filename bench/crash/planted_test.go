//go:build crash

package crash

import (
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

const (
	plantedKills = 20
	plantedStorm = 100 * time.Millisecond
)

// TestTheKillsCatchWhatTheyAreFor: the same kills, of programs with a fault that only a kill shows.
func TestTheKillsCatchWhatTheyAreFor(t *testing.T) {
	plants := []struct {
		name   string
		caught func(account) bool
		edits  []edit
	}{
		{"acknowledged before it is written", func(a account) bool { return len(a.Lost) > 0 }, []edit{{"proxy/journal/draft.go",
			"	err := d.j.submit(r)\n", "	go d.j.submit(r)\n	var err error\n"}}},
		{"delivered and not written", func(a account) bool { return a.PerCrash > upstreamMax }, []edit{{"proxy/link.go",
			"		p.recordDelivered(r)\n", ""}}},
		{"written when there is time", func(a account) bool { return a.PerCrash > upstreamMax }, []edit{{"proxy/link.go",
			"func() error { return p.journal.Append(records...) }",
			"func() error { go func() { <-time.After(50 * time.Millisecond); p.journal.Append(records...) }(); return nil }"}}},
	}
	for _, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			planted := variant(t, "planted", p.edits...)
			for n := range plantedKills {
				if a := killOnce(t, planted); p.caught(a) {
					t.Logf("%s: caught by kill %d: %d lost, %d twice", p.name, n+1, len(a.Lost), a.PerCrash)
					return
				}
			}
			t.Errorf("%s: not caught by %d kills", p.name, plantedKills)
		})
	}
}

// killOnce kills a program in a storm, and has the real one deliver what it left.
func killOnce(t *testing.T, binary string) account {
	t.Helper()
	r := newRig(t, relay.Config{RTT: time.Millisecond})
	r.w.binary = binary
	r.w.start(t)
	l := r.beside(t, source.Config{Messages: 1000, Connections: 20, Reuse: true, Size: 2000})
	<-l.first
	<-time.After(plantedStorm + r.moment(plantedStorm))
	r.kill(t, l)
	r.w.binary = mailweirBinary
	r.w.start(t)
	r.awaitEmpty(t)
	r.w.kill(t)
	return r.b.account()
}
