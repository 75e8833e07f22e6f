package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// writeMarkdown prints a table for each bar.
func writeMarkdown(out io.Writer, o *options, verdicts []verdict) error {
	var b strings.Builder
	for _, v := range verdicts {
		fmt.Fprintf(&b, "**%d. %s**: %v\n\n| | | bar | | %s |\n|---|---|---|---%s|\n", v.Bar.No, v.Bar.Name, v.Grade,
			strings.Join(v.Trials[0].Laws, " | "), strings.Repeat("|---", len(v.Trials[0].Laws)))
		for i := range v.Trials {
			v.Trials[i].markdown(&b, len(v.Trials[0].Laws))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s\n", conclusion(o, verdicts))
	_, err := io.WriteString(out, b.String())
	return err
}

func (t *trialVerdict) markdown(b *strings.Builder, columns int) {
	name := t.Trial.Scenario.Name
	for f := range t.Trial.Figures {
		fig := &t.Trial.Figures[f]
		fmt.Fprintf(b, "| %s | %s | %s | %s |", name, fig.Name, fig.demand(), t.mark(f))
		for law := range t.Laws {
			fmt.Fprintf(b, " %s |", fig.Unit.both(t.Summaries[law][f]))
		}
		b.WriteString(strings.Repeat(" |", columns-len(t.Laws)) + "\n")
		name = ""
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
		Grade    string               `json:"grade"`
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
					Bar: v.Bar.No, Scenario: t.Trial.Scenario.Name, Figure: fig.Name, Grade: t.Grades[f].String(),
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
