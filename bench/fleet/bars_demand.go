package main

import (
	"fmt"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
)

// Bars about other demand than a standing backlog.

// capacity is how many messages a second 20 slots take when each message has a connection of its own.
const capacity = 20 / (float64(model.Setup+model.Service) / float64(time.Second))

func latency(q float64) func(*model.Result) float64 {
	return func(r *model.Result) float64 { return r.Latency.Quantile(q).Seconds() }
}

// backlog is the mean of what waits in the last quarter of the run, in seconds of arrivals. A backlog that grows is far beyond any latency.
func backlog(perSecond float64) func(*model.Result) float64 {
	return func(r *model.Result) float64 {
		last := r.Bins[len(r.Bins)*3/4:]
		sum := 0.0
		for i := range last {
			sum += float64(last[i].Waiting)
		}
		return sum / float64(len(last)) / perSecond
	}
}

func trickle() bar {
	b := bar{No: 9, Name: "1,000 pods mail now and then"}
	for _, v := range []struct{ load, p99 float64 }{{.3, .5}, {.6, 5}, {.9, 5}} {
		perSecond := v.load * capacity
		b.Trials = append(b.Trials, trial{
			Scenario: model.Scenario{
				Name:   fmt.Sprintf("load %.0f %%, limit 20", 100*v.load),
				Config: roomy, Groups: []model.Group{{Pods: 1000, Spread: time.Second, PerSecond: perSecond}},
				Server: model.Server{Limit: 20}, For: warm + 30*time.Minute, Warm: warm,
			},
			Figures: []figure{
				timeUnder("p50", .25, latency(.5)), timeUnder("p99", v.p99, latency(.99)),
				timeUnder("backlog", 5, backlog(perSecond)),
				show("refused per s", plain, refusedPerSecond),
			},
			Rivals: []string{"aimd", "aimd-no-linger", "postfix", "budget"},
		})
	}
	return b
}

// mixedLoad is the share of the capacity beside bulk: 20 pods mail every 4 s each, 200 every 40 s.
const mixedLoad = .05

func mixed() bar {
	b := bar{No: 10, Name: "5 pods with bulk beside others that mail now and then"}
	for _, n := range []int{20, 200} {
		t := trial{
			Scenario: model.Scenario{
				Name:   fmt.Sprintf("5 + %d pods, limit 20", n),
				Config: roomy, Groups: []model.Group{standing(5), {Pods: n, Spread: time.Second, PerSecond: mixedLoad * capacity}},
				Server: model.Server{Limit: 20}, For: warm + time.Hour, Warm: warm,
			},
			Figures: []figure{
				timeUnder("p50", .3, latency(.5)), timeUnder("p99", 10, latency(.99)), utilOver(.9, util(20)),
				show("refused per s", plain, refusedPerSecond),
			},
			Rivals: []string{"aimd", "postfix", "budget"},
		}
		if n == 20 {
			t.Sketch = &sketch{File: "bulk-and-trickle", Rival: "aimd", Panels: []view{
				{Name: "messages of the 20 pods that wait", Of: []quantity{waiting}},
				{Name: "messages a second of the 5 pods with bulk", Of: []quantity{sentBy(0, "")}},
				{Name: "dials refused a second", Of: []quantity{refused}},
			}}
		}
		b.Trials = append(b.Trials, t)
	}
	return b
}

func burst() bar {
	return bar{No: 11, Name: "a burst at each of several pods", Trials: []trial{
		burstAt(1000, 50, 20, 1.2, 15), burstAt(5, 60, 3, 1.5, 15), burstAt(5, 400, 20, 1.5, 15),
	}}
}

// burstAt has n pods begin with so many messages each at k slots.
func burstAt(n, each, k int, longest, refusals float64) trial {
	// Each pod must connect at least once.
	ideal := float64(n) * (float64(each)*float64(model.Service) + float64(model.Setup)) / float64(k)
	return trial{
		Scenario: model.Scenario{
			Name:   fmt.Sprintf("%d pods with %d, limit %d", n, each, k),
			Config: roomy, Groups: []model.Group{{Pods: n, Backlog: each, Spread: time.Second}},
			Server: model.Server{Limit: k}, For: time.Hour, Quiet: true,
		},
		Figures: []figure{
			timesUnder("makespan / ideal", longest, func(r *model.Result) float64 { return float64(r.Took) / ideal }),
			countUnder("refused per pod", refusals, func(r *model.Result) float64 { return float64(r.Totals.Refused) / float64(n) }),
		},
		Rivals: []string{"aimd", "postfix", "budget"},
	}
}

func exodus() bar {
	const left, k = 10 * time.Minute, 20
	const closing = time.Second // while those that go end what they have begun
	leavers := standing(980)
	leavers.Leave = left
	stayers := standing(20)
	return bar{No: 12, Name: "of 1,000 pods 20 remain", Trials: []trial{{
		Scenario: model.Scenario{
			Name: "limit 20", Config: roomy, Groups: []model.Group{stayers, leavers},
			Server: model.Server{Limit: k}, For: left + 5*time.Minute,
		},
		Figures: []figure{timeUnder("back to 90 %", 20, func(r *model.Result) float64 {
			return (closing + r.Reaches(.9, k, left+closing, r.For)).Seconds()
		})},
		Rivals: []string{"aimd", "budget"},
	}}}
}
