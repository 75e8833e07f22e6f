//go:build postfix

package interop

import (
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/bench/source"
)

const (
	storm        = 260 // messages, each over a connection of its own, all at once
	stormLimit   = 5   // connections that Postfix allows
	arrivalLimit = time.Minute

	refusalsAllowed = 15 // connections that Postfix may turn away until its limit is known, and while it is tried again
)

// TestTheStormAloneIsRefused shows what the others are about: without mailweir between them, Postfix refuses the storm.
func TestTheStormAloneIsRefused(t *testing.T) {
	p := newPostfix(t, stormLimit)
	p.Configure(t, slow) // so that the connections overlap, however busy this machine is
	p.Reload(t)
	const crowd = processesEach * 9 / 10 // what does not fit into the queue of its listener would wait for seconds
	sent := source.Run(t.Context(), source.Config{Address: p.Address, Messages: crowd, Connections: crowd})
	refused := sent.Count(source.Record.Refused)
	t.Logf("of %d messages Postfix took %d and refused %d", crowd, sent.Count(source.Record.Acknowledged), refused)
	if refused < crowd/2 || p.refusals(t) < crowd/2 {
		t.Errorf("%d refused, %d in Postfix's log: the limit is not in force", refused, p.refusals(t))
	}
	arrived(t, p, sent, 0)
}

// arrived waits until Postfix has passed on what it took and all that was acknowledged is in the sink, and judges it. What
// mailweir still had to send has to be sent before, or a duplicate could come later.
func arrived(t *testing.T, p *postfix, sent source.Ledger, duplicates int) source.Report {
	t.Helper()
	var rep source.Report
	rig.Await(t, arrivalLimit, "arrival", func() error {
		if err := p.PassedOn(); err != nil {
			return err
		}
		rep = source.Check(sent, p.sink.Ledger())
		if len(rep.Lost) > 0 {
			return rep.Err()
		}
		return nil
	})
	if err := rep.Err(); err != nil {
		t.Error(err)
	}
	if n := len(rep.Duplicated); n > duplicates {
		t.Errorf("%d duplicates, %d allowed: %v", n, duplicates, rep.Duplicated)
	}
	if v := p.sink.Violations(); len(v) > 0 {
		t.Errorf("the sink complains: %+v", v[0])
	}
	if rep.Acknowledged == 0 {
		t.Error("nothing was acknowledged, so nothing is shown")
	}
	return rep
}

func TestAStormOverTheLimitLosesNothing(t *testing.T) {
	p := newPostfix(t, stormLimit)
	m := newMailweir(t, p.Address)
	sent := source.Run(t.Context(), source.Config{Address: m.Address, Messages: storm, Connections: storm, Size: 4000})
	if n := sent.Count(source.Record.Acknowledged); n != storm {
		t.Errorf("%d of %d acknowledged", n, storm)
	}
	s := m.awaitEmpty(t)
	arrived(t, p, sent, 0)

	refused := p.refusals(t)
	t.Logf("acknowledged within %v, half within %v; Postfix refused %d connections; width %.1f, ceiling %d",
		sent.Quantile(1, source.Took), sent.Quantile(0.5, source.Took), refused, s.Upstream.Width, s.Upstream.Ceiling)
	if refused > refusalsAllowed {
		t.Errorf("Postfix refused %d connections; learning its limit may cost %d", refused, refusalsAllowed)
	}
	if s.Queue.DuplicatesPossible != 0 {
		t.Errorf("%d duplicates possible, though nothing failed", s.Queue.DuplicatesPossible)
	}
}
