package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
)

// sketch says what a picture of a trial shows: of the law, and of another beside it.
type sketch struct {
	File   string
	Rival  string
	Panels []view
}

// view is one diagram of a sketch, or one for each law.
type view struct {
	Name  string
	Apart bool // a diagram for each law; otherwise one, with a line of the one quantity for each law
	Limit bool // with what the relay allows behind
	Of    []quantity
}

// quantity is what changes in time.
type quantity struct {
	name   string
	colour string
	steps  bool // changes at once and not gradually
	of     func(b *model.Moment) float64
}

// perSecond is how many bins a second has.
const perSecond = float64(time.Second) / float64(model.Bin)

// The quantities worth seeing.
var (
	atWork       = quantity{"at work", blue, false, func(b *model.Moment) float64 { return float64(b.Busy) / float64(model.Bin) }}
	ceiling      = quantity{"believed to fit", green, true, func(b *model.Moment) float64 { return float64(b.Ceiling) }}
	refused      = quantity{of: func(b *model.Moment) float64 { return float64(b.Refused) * perSecond }}
	dials        = quantity{of: func(b *model.Moment) float64 { return float64(b.Dials) * perSecond }}
	sent         = quantity{of: func(b *model.Moment) float64 { return float64(b.Sent) * perSecond }}
	throttledNow = quantity{of: func(b *model.Moment) float64 { return float64(b.Throttled) * perSecond }}
	waiting      = quantity{of: func(b *model.Moment) float64 { return float64(b.Waiting) }}
)

// sentBy is what a group delivers.
func sentBy(group int, name string) quantity {
	return quantity{name, [...]string{blue, orange, green}[group], false, func(b *model.Moment) float64 { return float64(b.By[group]) * perSecond }}
}

// lawTitles are the names of laws in pictures.
var lawTitles = map[string]string{"flowctl": "flowctl", "aimd": "plain AIMD", "aws": "AWS adaptive"}

// drawAll writes a picture of each trial that is worth one, of the bars asked for, from the first seed.
func drawAll(ctx context.Context, o *options) error {
	if err := os.MkdirAll(o.draw, 0o755); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	for _, b := range o.bars {
		for i := range b.Trials {
			t := &b.Trials[i]
			if t.Sketch == nil {
				continue
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
			panels, err := t.panels(o.first)
			if err != nil {
				return fmt.Errorf("draw %s: %w", t.Sketch.File, err)
			}
			title := fmt.Sprintf("%s: %s", b.Name, t.Scenario.Name)
			name := filepath.Join(o.draw, t.Sketch.File+".svg")
			if err := os.WriteFile(name, []byte(picture(title, panels, t.Scenario.For)), 0o644); err != nil {
				return fmt.Errorf("draw: %w", err)
			}
		}
	}
	return nil
}

// panels plays the trial with both laws.
func (t *trial) panels(seed uint64) ([]panel, error) {
	laws := []string{"flowctl", t.Sketch.Rival}
	var bins [][]model.Moment
	for _, law := range laws {
		r, err := model.Run(&t.Scenario, lawMakers[law], seed, model.Options{Watch: true})
		if err != nil {
			return nil, err
		}
		bins = append(bins, r.Bins)
	}
	var all []panel
	for _, v := range t.Sketch.Panels {
		if !v.Apart {
			q, p := v.Of[0], panel{name: v.Name}
			for i := len(laws) - 1; i >= 0; i-- { // ours is above the other
				p.lines = append(p.lines, line{name: lawTitles[laws[i]], colour: [...]string{blue, orange}[i], values: averaged(bins[i], q.of)})
			}
			all = append(all, p)
			continue
		}
		ours, others := v.panel(lawTitles[laws[0]], &t.Scenario, bins[0]), v.panel(lawTitles[laws[1]], &t.Scenario, bins[1])
		ours.least, others.least = others.most(), ours.most() // one scale for both
		all = append(all, ours, others)
	}
	return all, nil
}

// panel is the diagram of one law.
func (v *view) panel(law string, s *model.Scenario, bins []model.Moment) panel {
	p := panel{name: v.Name + ", " + law}
	if v.Limit {
		p.lines = append(p.lines, line{name: "allowed by the relay", colour: "#d0d0d0", values: allowed(s), steps: true, broad: true})
	}
	for _, q := range v.Of {
		p.lines = append(p.lines, line{name: q.name, colour: q.colour, values: averaged(bins, q.of), steps: q.steps})
	}
	return p.used()
}

// used leaves out lines that are nothing but zero.
func (p panel) used() panel {
	kept := panel{name: p.name}
	for _, l := range p.lines {
		for _, v := range l.values {
			if v != 0 {
				kept.lines = append(kept.lines, l)
				break
			}
		}
	}
	return kept
}

// points is how many steps of time are drawn.
const points = 360

// averaged shrinks the bins to points.
func averaged(bins []model.Moment, of func(b *model.Moment) float64) []float64 {
	values := make([]float64, min(points, len(bins)))
	for i := range values {
		from, to := i*len(bins)/len(values), (i+1)*len(bins)/len(values)
		for j := from; j < to; j++ {
			values[i] += of(&bins[j]) / float64(to-from)
		}
	}
	return values
}

// allowed is the limit over time; 0 while there is none, or nothing is allowed.
func allowed(s *model.Scenario) []float64 {
	values := make([]float64, points)
	for i := range values {
		at, now := s.For*time.Duration(i)/points, s.Server
		for _, c := range s.Changes {
			if c.At <= at {
				now = c.To
			}
		}
		if now.Outage == model.Up {
			values[i] = float64(now.Limit * max(1, s.Server.Backends))
		}
	}
	return values
}
