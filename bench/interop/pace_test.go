//go:build postfix

package interop

import (
	"fmt"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/rig"
)

// TestAcceptanceBesidePostfix measures how fast both take mail from Postfix's own load generator, in turns on the same disk: 50
// sessions at once, a connection for each message, 2 KiB. Figures depend on the machine, so only the arrival of everything is
// asserted; the ratio is for reading.
func TestAcceptanceBesidePostfix(t *testing.T) {
	const messages, rounds = 1000, 3
	p := newPostfix(t, 100)
	sink, sinkAddress := newSink(t)
	m := newMailweir(t, sinkAddress)
	pace := func(address string) float64 {
		began := time.Now()
		if _, err := rig.Command(arrivalLimit, "smtp-source", "-s", "50", "-m", fmt.Sprint(messages), "-N", "-l", "2000",
			"-f", sender, "-t", "pace@interop.example", address); err != nil {
			t.Fatal(err)
		}
		return messages / time.Since(began).Seconds()
	}
	for range rounds {
		ours, theirs := pace(m.Address), pace(p.Address)
		t.Logf("accepted a second: mailweir %.0f, Postfix %.0f, ratio %.1f", ours, theirs, ours/theirs)
		m.awaitEmpty(t)
		rig.Await(t, arrivalLimit, "Postfix to pass everything on", p.PassedOn)
	}
	if got, want := len(sink.Ledger()), messages*rounds; got != want {
		t.Errorf("%d arrived through mailweir, want %d", got, want)
	}
	if got, want := len(p.sink.Ledger()), messages*rounds; got != want {
		t.Errorf("%d arrived through Postfix, want %d", got, want)
	}
}
