package model

import (
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// budgeted returns 40 pods with standing demand at four slots, with a budget.
func budgeted(dies time.Duration) Scenario {
	return Scenario{
		Name: "budget", Config: flowctl.Config{MaxConns: 12}, Server: Server{Limit: 4}, For: 20 * time.Minute, Warm: time.Minute,
		Groups: []Group{{Pods: 40, Backlog: Endless, Spread: time.Second}},
		Budget: &Budget{Lease: 10 * time.Second, TTL: 30 * time.Second, Renew: 5 * time.Second, Probe: 5 * time.Minute, Dies: dies},
	}
}

func TestABudgetLearnsTheLimitAndServesInTurn(t *testing.T) {
	r := play(t, budgeted(0), 1)
	// One refusal ends the learning, and one comes of each probe.
	if refused, most := r.Totals.Refused, 1+int(r.For/(5*time.Minute)); refused == 0 || refused > most {
		t.Errorf("%d refused, want 1 to %d", refused, most)
	}
	if j := r.Jain(); j < .99 {
		t.Errorf("Jain %.3f, want .99", j)
	}
	if turn := 40 / 4 * 10 * time.Second; r.WorstWait() > turn*11/10 {
		t.Errorf("somebody waited %v, a turn is %v", r.WorstWait(), turn)
	}
	if u := r.Util(time.Minute, r.For, 4); u < .95 {
		t.Errorf("%.3f used, want .95", u)
	}
}

// The limit falls and nobody tells the budget; it rises, and one probe sees it.
func TestABudgetFollowsTheLimit(t *testing.T) {
	s := budgeted(0)
	s.Changes = []Change{{4 * time.Minute, Server{Limit: 2}}, {8 * time.Minute, Server{Limit: 4}}}
	r := play(t, s, 1)
	for _, v := range []struct {
		from, to time.Duration
		slots    int
	}{{time.Minute, 4 * time.Minute, 4}, {5 * time.Minute, 8 * time.Minute, 2}, {14 * time.Minute, 20 * time.Minute, 4}} {
		if u := r.Util(v.from, v.to, v.slots); u < .9 {
			t.Errorf("%.3f of %d slots used between %v and %v, want .9", u, v.slots, v.from, v.to)
		}
	}
	if r.Totals.Refused > 20 {
		t.Errorf("%d refused", r.Totals.Refused)
	}
}

func TestWhenTheBudgetDiesEachPodIsOnItsOwn(t *testing.T) {
	const gone = 10 * time.Minute
	r := play(t, budgeted(gone), 1)
	for from := gone; from < r.For; from += time.Minute {
		if u := r.Util(from, from+time.Minute, 4); u < .85 {
			t.Errorf("%.3f used in the minute from %v, want .85", u, from)
		}
	}
	// Nobody refuses those who have a grant: refusals begin when the local law does.
	if before, after := r.Sum(gone, gone+20*time.Second).Refused, r.Sum(gone+30*time.Second, r.For).Refused; before > 1 || after < 40 {
		t.Errorf("%d refused while the grants held, %d afterwards", before, after)
	}
}
