package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// writeTable prints a line for each figure.
func writeTable(out io.Writer, o *options, verdicts []verdict) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, v := range verdicts {
		fmt.Fprintf(w, "%d. %s: %v\n", v.Bar.No, v.Bar.Name, v.Grade)
		fmt.Fprintf(w, "\t\t\tbar\t\t%s\n", strings.Join(v.Trials[0].Laws, "\t"))
		for i := range v.Trials {
			writeTrial(w, &v.Trials[i])
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, conclusion(o, verdicts))
	return err
}

// conclusion is one sentence about all of it.
func conclusion(o *options, verdicts []verdict) string {
	var n [reached + 1]int
	for _, v := range verdicts {
		n[v.Grade]++
	}
	s := fmt.Sprintf("%d of %d bars reached", n[reached], len(verdicts))
	if n[known] > 0 {
		s += fmt.Sprintf(", %d known not to be", n[known])
	}
	if s += fmt.Sprintf(", %d seeds", o.seeds); o.quick {
		s += ", one for the longest runs"
	}
	return s
}

// mark is what stands beside a figure.
func (t *trialVerdict) mark(f int) string {
	switch fig := &t.Trial.Figures[f]; {
	case fig.Sense == shown:
		return ""
	case t.Grades[f] == known:
		return "known, " + fig.known()
	case t.Grades[f] == missed:
		return "MISSED"
	default:
		return "ok"
	}
}

func writeTrial(w io.Writer, t *trialVerdict) {
	name := t.Trial.Scenario.Name
	for f := range t.Trial.Figures {
		fig := &t.Trial.Figures[f]
		fmt.Fprintf(w, "\t%s\t%s\t%s\t%s", name, fig.Name, fig.demand(), t.mark(f))
		for law := range t.Laws {
			fmt.Fprintf(w, "\t%s", fig.Unit.both(t.Summaries[law][f]))
		}
		fmt.Fprintln(w)
		name = ""
	}
}

// demand is what the median must reach.
func (f *figure) demand() string {
	if f.FewSeeds {
		return f.asked(f.Worst)
	}
	return f.asked(f.Bar)
}

// known is the demand in place of the bar.
func (f *figure) known() string {
	return fmt.Sprintf("%s (%s)", f.asked(f.Known), f.Unit.format(f.KnownWorst))
}

func (f *figure) asked(bar float64) string {
	switch f.Sense {
	case atLeast:
		return ">= " + f.Unit.format(bar)
	case atMost:
		return "<= " + f.Unit.format(bar)
	default:
		return ""
	}
}

// both is the median and the worst seed.
func (u unit) both(s summary) string {
	return fmt.Sprintf("%s (%s)", u.format(s.Median), u.format(s.Worst))
}

func (u unit) format(x float64) string {
	switch u {
	case percent:
		if x < .01 {
			return fmt.Sprintf("%.3f %%", 100*x)
		}
		return fmt.Sprintf("%.1f %%", 100*x)
	case seconds:
		return strings.TrimSuffix(fmt.Sprintf("%.2f", x), ".00") + " s"
	case jain:
		return fmt.Sprintf("%.3f", x)
	default:
		return fmt.Sprintf("%.3g", x)
	}
}
