package main

import (
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
)

// Bars about many more pods than slots.

const crowdPods, crowdSlots = 1000, 20

// fairTurn is how long all pods take to have had a slot once.
func fairTurn(lease time.Duration) float64 { return float64(crowdPods) / crowdSlots * lease.Seconds() }

// turns is the worst wait in fair turns.
func turns(most float64, lease time.Duration) figure {
	return timesUnder("worst wait, fair turns", most, func(r *model.Result) float64 { return worstWait(r) / fairTurn(lease) })
}

func crowd() bar {
	const lease = 10 * time.Second // in the bars' terms, whatever the law's is
	patient := roomy
	patient.Patience = 1.5
	alone := crowdOf("alone", 3*time.Hour, model.Scenario{Config: roomy},
		jainOver(.965), utilOver(.98, util(crowdSlots)), countUnder("refused per s", 40, refusedPerSecond), turns(7, lease))
	alone.Rivals = []string{"aimd", "postfix", "budget"}
	return bar{No: 6, Name: "1,000 pods share 20 slots", Trials: []trial{
		alone,
		crowdOf("alone, patience 1.5", 3*time.Hour, model.Scenario{Config: patient},
			jainOver(.96), utilOver(.98, util(crowdSlots)), countUnder("refused per s", 23, refusedPerSecond), turns(7, lease)),
		budgeted(), bereft(),
	}}
}

// crowdOf completes a scenario of a thousand pods.
func crowdOf(name string, d time.Duration, s model.Scenario, figures ...figure) trial {
	t := share(crowdPods, crowdSlots, d, figures...)
	s.Name, s.Groups, s.Server, s.For, s.Warm = name, t.Scenario.Groups, t.Scenario.Server, t.Scenario.For, t.Scenario.Warm
	t.Scenario, t.Rivals, t.Long = s, nil, true
	return t
}

// budget is what a service such as a small database can do: some dozens of requests a second.
var budget = model.Budget{Lease: 30 * time.Second, TTL: time.Minute, Renew: 15 * time.Second, Probe: 10 * time.Minute}

// budgeted is the fleet with a budget that learns the limit itself.
func budgeted() trial {
	return crowdOf("with a budget", 3*time.Hour, model.Scenario{Config: roomy, Budget: &budget},
		jainOver(.99), utilOver(.98, util(crowdSlots)), none("refused but for one a probe", func(r *model.Result) int {
			return int(r.Sum(warm, r.For).Refused) - int((r.For-warm)/budget.Probe)
		}), turns(1.1, budget.Lease))
}

// bereft is the fleet whose budget is gone half-way: what was granted lapses, and each pod is on its own.
func bereft() trial {
	const gone = 40 * time.Minute
	dying := budget
	dying.Dies = gone
	after := func(r *model.Result) float64 {
		return float64(r.Sum(gone, r.For).Refused) / (r.For - gone).Seconds()
	}
	return crowdOf("the budget dies", 80*time.Minute, model.Scenario{Config: roomy, Budget: &dying},
		utilOver(.9, worstMinute(gone, crowdSlots)), show("refused per s, afterwards", plain, after))
}

// worstMinute is the utilisation of the worst minute of any from there to the end, in steps of ten seconds.
func worstMinute(from time.Duration, slots int) func(*model.Result) float64 {
	return func(r *model.Result) float64 {
		worst := 1.0
		for t := from; t+time.Minute <= r.For; t += 10 * time.Second {
			worst = min(worst, r.Util(t, t+time.Minute, slots))
		}
		return worst
	}
}
