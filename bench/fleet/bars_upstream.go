package main

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
	"github.com/mailweir/mailweir/flowctl"
)

// Bars about other upstreams than one with a plain limit.

func noise() bar {
	b := bar{No: 13, Name: "connects that fail"}
	for _, p := range []float64{.02, .25} {
		b.Trials = append(b.Trials, trial{
			Scenario: model.Scenario{
				Name:   fmt.Sprintf("%.0f %% fail, limit 20", 100*p),
				Config: roomy, Groups: []model.Group{standing(1)}, Server: model.Server{Limit: 20, Fails: p},
				For: warm + 30*time.Minute, Warm: warm,
			},
			Figures: []figure{utilOver(.98, util(20))},
			Rivals:  []string{"aimd", "postfix"},
		})
	}
	return b
}

func throttled(r *model.Result) float64 {
	s := r.Sum(r.Warm, r.For)
	return float64(s.Throttled) / float64(max(1, s.Throttled+s.Sent))
}

// accepted is the messages delivered over those the rate allows, which is mean messages a second.
func accepted(mean float64) func(*model.Result) float64 {
	return func(r *model.Result) float64 {
		return float64(r.Sum(r.Warm, r.For).Sent) / (mean * (r.For - r.Warm).Seconds())
	}
}

func rate() bar {
	const perSecond, settled = 14, 5 * time.Minute
	b := bar{No: 14, Name: "a rate limit of 14 a second"}
	at := func(r float64) model.Server { return model.Server{PerSecond: r} }
	for _, v := range []struct {
		pods int
		max  float64
	}{{1, .005}, {10, .03}, {100, .1}} {
		b.Trials = append(b.Trials, trial{
			Scenario: model.Scenario{
				Name: fmt.Sprintf("%d pods", v.pods), Groups: []model.Group{standing(v.pods)}, Server: at(perSecond),
				For: settled + time.Hour, Warm: settled,
			},
			Figures: []figure{
				shareUnder("throttled", v.max, throttled), utilOver(.98, accepted(perSecond)), show("Jain", jain, func(r *model.Result) float64 { return r.Jain() }),
			},
			Rivals: []string{"aws"},
		})
	}
	// Twenty minutes at the rate, twenty at half of it, twenty at the rate again.
	const fall, rise, end = settled + 20*time.Minute, settled + 40*time.Minute, settled + 60*time.Minute
	b.Trials = append(b.Trials, trial{
		Scenario: model.Scenario{
			Name: "1 pod; 14, 7, 14 a second", Groups: []model.Group{standing(1)}, Server: at(perSecond),
			Changes: []model.Change{{At: fall, To: at(perSecond / 2)}, {At: rise, To: at(perSecond)}}, For: end, Warm: settled,
		},
		Figures: []figure{shareUnder("throttled", .01, throttled), utilOver(.98, accepted(perSecond*5./6))},
		Rivals:  []string{"aws"},
		Sketch: &sketch{File: "rate", Rival: "aws", Panels: []view{
			{Name: "messages a second", Of: []quantity{sent}}, {Name: "messages refused a second", Of: []quantity{throttledNow}},
		}},
	}, trial{
		Scenario: model.Scenario{
			Name: "10 pods, 30 a minute", Groups: []model.Group{standing(10)}, Server: at(.5), For: settled + 2*time.Hour, Warm: settled,
		},
		Figures: []figure{show("throttled", percent, throttled), show("utilisation", percent, accepted(.5))},
		Rivals:  []string{"aws"},
	})
	return b
}

func knee() bar {
	b := bar{No: 15, Name: "an upstream that only gets slower"}
	const learnt = 40 * time.Minute
	for _, n := range []int{3, 10, 40} {
		width := func(r *model.Result) float64 {
			return float64(r.Sum(r.Warm, r.For).Busy) / float64(r.For-r.Warm)
		}
		b.Trials = append(b.Trials, trial{
			Scenario: model.Scenario{
				Name:   fmt.Sprintf("%d at full speed", n),
				Config: flowctl.Config{MaxConns: 200, Gain: true}, Groups: []model.Group{standing(1)}, Server: model.Server{Knee: n},
				For: learnt + 20*time.Minute, Warm: learnt,
			},
			Figures: []figure{
				shareUnder("width off by", .1, func(r *model.Result) float64 { return math.Abs(width(r)/float64(n) - 1) }),
				timesUnder("time of a message / unhurried", 1.1, func(r *model.Result) float64 {
					s := r.Sum(r.Warm, r.For)
					return float64(s.Took) / float64(max(1, s.Work))
				}),
				utilOver(.98, util(n)),
				show("width", plain, width),
			},
			Rivals: []string{"aimd", "gradient2"},
			Long:   true,
		})
	}
	return b
}

func outage() bar {
	const n, k = 1000, 20
	const down, up, end = 10 * time.Minute, 20 * time.Minute, 25 * time.Minute
	const recovery = time.Minute // in which nearly all should have come back
	b := bar{No: 16, Name: "an outage of ten minutes, 1,000 pods"}
	for _, v := range []struct {
		name string
		how  model.Outage
	}{{"dials refused", model.Refuses}, {"dials time out", model.Silent}} {
		t := trial{
			Scenario: model.Scenario{
				Name: v.name, Config: roomy, Groups: []model.Group{standing(n)}, Server: model.Server{Limit: k}, For: end,
				Changes: []model.Change{
					{At: down, To: model.Server{Limit: k, Outage: v.how}},
					{At: up, To: model.Server{Limit: k}},
				},
			},
			Figures: []figure{
				countUnder("dials per pod in it", 25, func(r *model.Result) float64 { return float64(r.Sum(down, up).Dials) / n }).knownAt(28, 29),
				timeUnder("median pod is answered", 30, func(r *model.Result) float64 { return answered(r, end-up).Seconds() }),
				timeUnder("back to 90 %", 30, func(r *model.Result) float64 { return r.Reaches(.9, k, up, end).Seconds() }),
				timesUnder("busiest second of dials / mean", 3, func(r *model.Result) float64 { return burstiness(r, up, up+recovery) }),
			},
			Rivals: []string{"aimd"},
		}
		if v.how == model.Refuses {
			t.Sketch = &sketch{File: "outage", Rival: "aimd", Panels: []view{
				{Name: "connections", Apart: true, Limit: true, Of: []quantity{atWork}}, {Name: "dials a second, all pods", Of: []quantity{dials}},
			}}
		}
		b.Trials = append(b.Trials, t)
	}
	return b
}

// answered is how long after the last change the median pod was answered; who never was counts with most.
func answered(r *model.Result, most time.Duration) time.Duration {
	var all []time.Duration
	for _, p := range r.Pods {
		d := p.Heard
		if d < 0 {
			d = most
		}
		all = append(all, d)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// burstiness is the most dials in a second over their mean.
func burstiness(r *model.Result, from, to time.Duration) float64 {
	var most int32
	for t := from; t < to; t += time.Second {
		most = max(most, r.Sum(t, t+time.Second).Dials)
	}
	mean := float64(r.Sum(from, to).Dials) / (to - from).Seconds()
	return float64(most) / max(mean, 1/(to-from).Seconds())
}

func balancer() bar {
	const backends, each = 4, 5
	return bar{No: 17, Name: "four backends behind one address", Trials: []trial{{
		Scenario: model.Scenario{
			Name: "5 slots each", Config: roomy, Groups: []model.Group{standing(1)},
			Server: model.Server{Limit: each, Backends: backends}, For: warm + 30*time.Minute, Warm: warm,
		},
		Figures: []figure{utilOver(.8, util(backends*each)), countUnder("refused per s", 1, refusedPerSecond)},
		Rivals:  []string{"aimd", "postfix"},
	}}}
}
