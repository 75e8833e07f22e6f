package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// writeTable prints a line for each figure.
func writeTable(out io.Writer, o *options, verdicts []verdict) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	missed := 0
	for _, v := range verdicts {
		fmt.Fprintf(w, "%d. %s: %s\n", v.Bar.No, v.Bar.Name, word(v.Reached))
		fmt.Fprintf(w, "\t\t\tbar\t\t%s\n", strings.Join(v.Trials[0].Laws, "\t"))
		if !v.Reached {
			missed++
		}
		for i := range v.Trials {
			writeTrial(w, &v.Trials[i])
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d of %d bars reached, %d seeds%s\n", len(verdicts)-missed, len(verdicts), o.seeds, smallPrint(o))
	return err
}

func smallPrint(o *options) string {
	if o.quick {
		return ", one for the longest runs"
	}
	return ""
}

func word(reached bool) string {
	if reached {
		return "reached"
	}
	return "MISSED"
}

func writeTrial(w io.Writer, t *trialVerdict) {
	name := t.Trial.Scenario.Name
	for f := range t.Trial.Figures {
		fig := &t.Trial.Figures[f]
		mark := "ok"
		switch {
		case fig.Sense == shown:
			mark = ""
		case !t.Reached[f]:
			mark = "MISSED"
		}
		fmt.Fprintf(w, "\t%s\t%s\t%s\t%s", name, fig.Name, fig.demand(), mark)
		for law := range t.Laws {
			s := t.Summaries[law][f]
			fmt.Fprintf(w, "\t%s (%s)", fig.Unit.format(s.Median), fig.Unit.format(s.Worst))
		}
		fmt.Fprintln(w)
		name = ""
	}
}

func (f *figure) demand() string {
	switch f.Sense {
	case atLeast:
		return ">= " + f.Unit.format(f.Bar)
	case atMost:
		return "<= " + f.Unit.format(f.Bar)
	default:
		return ""
	}
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

// writeJSON prints the same as JSON, with every seed.
func writeJSON(out io.Writer, o *options, verdicts []verdict) error {
	type jsonFigure struct {
		Bar      int                  `json:"bar"`
		Scenario string               `json:"scenario"`
		Figure   string               `json:"figure"`
		AtLeast  *float64             `json:"at_least,omitempty"`
		AtMost   *float64             `json:"at_most,omitempty"`
		Worst    *float64             `json:"worst_allowed,omitempty"`
		Reached  bool                 `json:"reached"`
		Seeds    map[string][]float64 `json:"seeds"`
		Median   map[string]float64   `json:"median"`
	}
	figures := []jsonFigure{}
	for _, v := range verdicts {
		for i := range v.Trials {
			t := &v.Trials[i]
			for f := range t.Trial.Figures {
				fig := &t.Trial.Figures[f]
				j := jsonFigure{
					Bar: v.Bar.No, Scenario: t.Trial.Scenario.Name, Figure: fig.Name, Reached: t.Reached[f],
					Seeds: map[string][]float64{}, Median: map[string]float64{},
				}
				switch fig.Sense {
				case atLeast:
					j.AtLeast, j.Worst = &fig.Bar, &fig.Worst
				case atMost:
					j.AtMost, j.Worst = &fig.Bar, &fig.Worst
				}
				for law, l := range t.Laws {
					j.Seeds[l], j.Median[l] = t.Summaries[law][f].Seeds, t.Summaries[law][f].Median
				}
				figures = append(figures, j)
			}
		}
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "\t")
	return e.Encode(struct {
		Quick     bool         `json:"quick"`
		FirstSeed uint64       `json:"first_seed"`
		Figures   []jsonFigure `json:"figures"`
	}{o.quick, o.first, figures})
}
