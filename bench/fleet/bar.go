package main

import (
	"math"
	"slices"

	"github.com/mailweir/mailweir/bench/fleet/model"
)

// bar is one numbered demand on the controller: scenarios, and what must come of each.
type bar struct {
	No     int
	Name   string
	Trials []trial
}

// trial is one scenario and what is measured in it.
type trial struct {
	Scenario model.Scenario
	Figures  []figure
	Rivals   []string // laws worth comparing here
	Replay   bool     // see model.RunReplay
	Sketch   *sketch  // worth a picture; nil: not
	Long     bool     // one seed is enough for a quick look
}

// figure is one number of a run and the bar for it.
type figure struct {
	Name  string
	Unit  unit
	Of    func(r *model.Result) float64
	Sense sense
	Bar   float64 // of the median over the seeds
	Worst float64 // of the worst seed; from the bar and the tolerance of its kind

	// What the law is known to attain where it does not reach the bar, in the median and with the worst seed. It must not get worse. 0: it
	// must reach the bar.
	Known, KnownWorst float64

	FewSeeds bool // their median is judged no better than the worst
	Machine  bool // says as much about the machine: no two runs have the same
}

// grade is how a figure stands to its bar.
type grade int

const (
	missed  grade = iota
	known         // not reached, and no worse than it is known to be
	reached       // or there is no bar
)

func (g grade) String() string { return [...]string{"MISSED", "not reached (known)", "reached"}[g] }

// sense is which side of a bar is good.
type sense int

const (
	shown sense = iota // no bar
	atLeast
	atMost
)

// unit is how a figure is written.
type unit int

const (
	plain   unit = iota
	percent      // of a share
	seconds
	jain
)

// Tolerances: how far the worst seed may be from the bar, which the median must reach.
const (
	utilSlack  = 0.02
	jainSlack  = 0.05
	countSlack = 1.5
	timeSlack  = 1.5
)

func utilOver(min float64, of func(*model.Result) float64) figure {
	return figure{Name: "utilisation", Unit: percent, Of: of, Sense: atLeast, Bar: min, Worst: min - utilSlack}
}

func jainOver(min float64, groups ...int) figure {
	return figure{Name: "Jain", Unit: jain, Of: func(r *model.Result) float64 { return r.Jain(groups...) },
		Sense: atLeast, Bar: min, Worst: min - jainSlack}
}

func countUnder(name string, max float64, of func(*model.Result) float64) figure {
	return figure{Name: name, Of: of, Sense: atMost, Bar: max, Worst: max * countSlack}
}

func shareUnder(name string, max float64, of func(*model.Result) float64) figure {
	return figure{Name: name, Unit: percent, Of: of, Sense: atMost, Bar: max, Worst: max * countSlack}
}

func timeUnder(name string, max float64, of func(*model.Result) float64) figure {
	return figure{Name: name, Unit: seconds, Of: of, Sense: atMost, Bar: max, Worst: max * timeSlack}
}

// timesUnder is about a ratio, which is as well known as a time.
func timesUnder(name string, max float64, of func(*model.Result) float64) figure {
	return figure{Name: name, Of: of, Sense: atMost, Bar: max, Worst: max * timeSlack}
}

// none is about what must never happen.
func none(name string, of func(*model.Result) int) figure {
	return figure{Name: name, Sense: atMost, Of: func(r *model.Result) float64 { return float64(of(r)) }}
}

// show is a figure without a bar.
func show(name string, u unit, of func(*model.Result) float64) figure {
	return figure{Name: name, Unit: u, Of: of}
}

// summary is a figure over all seeds.
type summary struct {
	Median, Worst float64
	Seeds         []float64
}

func (f *figure) summarise(values []float64) summary {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	n := len(sorted)
	s := summary{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Worst: sorted[n-1], Seeds: values}
	if f.Sense == atLeast {
		s.Worst = sorted[0]
	}
	return s
}

// reached says whether the figure is on the right side of a bar.
func (f *figure) reached(s summary, bar, worst float64) bool {
	if f.FewSeeds {
		bar = worst
	}
	switch f.Sense {
	case atLeast:
		return s.Median >= bar && s.Worst >= worst
	case atMost:
		return s.Median <= bar && s.Worst <= worst
	default:
		return !math.IsNaN(s.Median)
	}
}

func (f *figure) grade(s summary) grade {
	switch {
	case f.reached(s, f.Bar, f.Worst):
		return reached
	case f.Known != 0 && f.reached(s, f.Known, f.KnownWorst):
		return known
	default:
		return missed
	}
}

// knownAt is the figure of a bar that the law is known to miss.
func (f figure) knownAt(median, worst float64) figure {
	f.Known, f.KnownWorst = median, worst
	return f
}
