package main

import (
	"fmt"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
)

// engineering has what any pool relies on, and what a controller may cost.
func engineering() bar {
	figures := []figure{
		none("plans that a replay changes", func(r *model.Result) int { return r.Replay.Differs }),
		none("plans too wide or too hasty", func(r *model.Result) int { return r.Faults.TooWide + r.Faults.TooHasty }),
		none("transactions without a connection", func(r *model.Result) int { return r.Faults.NoIdle }),
		none("wakes that are not ahead", func(r *model.Result) int { return r.Faults.LateWake }),
		none("widths below what fits", func(r *model.Result) int { return r.Faults.Forgotten }),
		{Name: "allocations per event", Sense: atMost, Bar: .001, Worst: .01, Of: func(r *model.Result) float64 { return r.Replay.Allocs }},
		{Name: "ns per event, on this machine", Machine: true, Of: func(r *model.Result) float64 { return r.Replay.PerStep }},
	}
	b := bar{No: 18, Name: "what a pool relies on"}
	for _, n := range []int{1, 40} {
		b.Trials = append(b.Trials, trial{
			Scenario: model.Scenario{
				Name: fmt.Sprintf("%d pods, limit 20", n), Config: roomy, Groups: []model.Group{standing(n)},
				Server: model.Server{Limit: 20}, For: 10 * time.Minute, Warm: warm,
			},
			Figures: figures,
			Replay:  true,
		})
	}
	return b
}
