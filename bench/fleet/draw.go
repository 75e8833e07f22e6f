package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
)

// drawAll writes a time line of each trial that is worth one, of the bars asked for: the first law, the first seed.
func drawAll(ctx context.Context, o *options) error {
	if err := os.MkdirAll(o.draw, 0o755); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	for _, b := range o.bars {
		for i := range b.Trials {
			t := &b.Trials[i]
			if !t.Draw {
				continue
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
			law := lawsFor(*t, o.laws)[0]
			r, err := model.Run(&t.Scenario, lawMakers[law], o.first, model.Options{Watch: true})
			if err != nil {
				return fmt.Errorf("draw: %w", err)
			}
			title := fmt.Sprintf("%d. %s: %s (%s, seed %d)", b.No, b.Name, t.Scenario.Name, law, o.first)
			name := filepath.Join(o.draw, fmt.Sprintf("bar%02d-%d.svg", b.No, i+1))
			if err := os.WriteFile(name, []byte(picture(title, panels(t, r), r.For)), 0o644); err != nil {
				return fmt.Errorf("draw: %w", err)
			}
		}
	}
	return nil
}

// line is one quantity over time, in equal steps.
type line struct {
	name   string
	colour string
	values []float64
	steps  bool // changes at once and not gradually
	broad  bool // lies behind the others
}

// panel is a diagram; all share the axis of time.
type panel struct {
	name  string
	lines []line
}

// Colours that are told apart by those who see fewer, too (M. Okabe, K. Ito, 2008).
const (
	blue   = "#0072b2"
	orange = "#d55e00"
	green  = "#009e73"
	grey   = "#888888"
)

// panels are what is drawn of a run.
func panels(t *trial, r *model.Result) []panel {
	span := time.Duration(len(r.Bins)) * model.Bin
	mean := func(of func(b *model.Moment) float64) []float64 { return averaged(r.Bins, of) }
	perSecond := float64(time.Second) / float64(model.Bin)
	connections := panel{name: "connections", lines: []line{
		{name: "allowed by the relay", colour: "#cccccc", values: allowed(&t.Scenario, span), steps: true, broad: true},
		{name: "at work, all pods", colour: blue, values: mean(func(b *model.Moment) float64 { return float64(b.Busy) / float64(model.Bin) })},
		{name: "width of the first pod", colour: green, values: mean(func(b *model.Moment) float64 { return float64(b.Width) })},
		{name: "its ceiling", colour: orange, values: mean(func(b *model.Moment) float64 { return float64(b.Ceiling) }), steps: true},
	}}
	refused := panel{name: "refused a second", lines: []line{
		{name: "dials, for their number", colour: orange, values: mean(func(b *model.Moment) float64 { return float64(b.Refused) * perSecond })},
		{name: "dials, unanswered", colour: grey, values: mean(func(b *model.Moment) float64 { return float64(b.Failed) * perSecond })},
		{name: "messages, for the rate", colour: blue, values: mean(func(b *model.Moment) float64 { return float64(b.Throttled) * perSecond })},
	}}
	delivered := panel{name: "delivered a second"}
	for g := range t.Scenario.Groups {
		name := "all pods"
		if len(t.Scenario.Groups) > 1 {
			name = fmt.Sprintf("the %d pods of group %d", t.Scenario.Groups[g].Pods, g+1)
		}
		delivered.lines = append(delivered.lines, line{name: name, colour: [...]string{blue, orange, green}[g],
			values: mean(func(b *model.Moment) float64 { return float64(b.By[g]) * perSecond })})
	}
	return []panel{connections.used(), refused.used(), delivered} // who gets nothing is to be seen
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
func allowed(s *model.Scenario, span time.Duration) []float64 {
	values := make([]float64, points)
	for i := range values {
		at, now := span*time.Duration(i)/points, s.Server
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

// The measures of a picture, in pixels.
const (
	pictureWidth = 860
	left         = 64
	right        = 30
	top          = 40
	panelHeight  = 150
	panelGap     = 46
)

// picture is an SVG document that needs nothing else, on a light ground whatever is around it.
func picture(title string, panels []panel, span time.Duration) string {
	var b strings.Builder
	height := top + len(panels)*(panelHeight+panelGap) + 10
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" fill="#222">`+"\n",
		pictureWidth, height, pictureWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", pictureWidth, height)
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="14" font-weight="bold">%s</text>`+"\n", left, escaped(title))
	for i, p := range panels {
		p.draw(&b, top+i*(panelHeight+panelGap), span)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p panel) draw(b *strings.Builder, y int, span time.Duration) {
	most := 0.0
	for _, l := range p.lines {
		for _, v := range l.values {
			most = max(most, v)
		}
	}
	unit := step(most)
	most = max(unit, float64(int((most+unit*.999)/unit))*unit)
	bottom := y + 20 + panelHeight - 20
	scale := float64(panelHeight-20) / most
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", left, y+12, p.name)
	for v := 0.0; v <= most+unit/2; v += unit {
		at := float64(bottom) - v*scale
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#dddddd"/><text x="%d" y="%.1f" text-anchor="end">%.4g</text>`+"\n",
			left, at, pictureWidth-right, left-6, at+4, v)
	}
	for t, tick := time.Duration(0), tick(span); t <= span; t += tick {
		x := left + int(float64(pictureWidth-left-right)*float64(t)/float64(span))
		fmt.Fprintf(b, `<path d="M%d %dv4" stroke="#888888"/><text x="%d" y="%d" text-anchor="middle">%.0f min</text>`+"\n", x, bottom, x, bottom+17, t.Minutes())
	}
	legend := left + 150
	for _, l := range p.lines {
		fmt.Fprintf(b, `<path d="M%d %dh16" stroke="%s" stroke-width="%g"/><text x="%d" y="%d">%s</text>`+"\n", legend, y+8, l.colour, l.breadth(), legend+20, y+12, l.name)
		legend += 34 + 6*len(l.name)
		l.draw(b, bottom, scale)
	}
}

func (l line) breadth() float64 {
	if l.broad {
		return 6
	}
	return 1.5
}

func (l line) draw(b *strings.Builder, bottom int, scale float64) {
	fmt.Fprintf(b, `<path fill="none" stroke-linejoin="round" stroke="%s" stroke-width="%g" d="`, l.colour, l.breadth())
	for i, v := range l.values {
		x := left + (float64(i)+.5)*float64(pictureWidth-left-right)/float64(len(l.values))
		y := float64(bottom) - v*scale
		switch {
		case i == 0:
			fmt.Fprintf(b, "M%.1f %.1f", x, y)
		case l.steps:
			fmt.Fprintf(b, "H%.1fV%.1f", x, y)
		default:
			fmt.Fprintf(b, "L%.1f %.1f", x, y)
		}
	}
	b.WriteString(`"/>` + "\n")
}

// step is 1, 2 or 5 times a power of ten, so that there are at most five up to most.
func step(most float64) float64 {
	unit := .01
	for i := 0; unit*5 < most; i++ {
		unit *= [...]float64{2, 2.5, 2}[i%3]
	}
	return unit
}

// tick is a whole number of minutes, so that there are at most ten in a span.
func tick(span time.Duration) time.Duration {
	for _, n := range []time.Duration{1, 2, 5, 10, 20} {
		if span <= 10*n*time.Minute {
			return n * time.Minute
		}
	}
	return time.Hour
}

func escaped(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
