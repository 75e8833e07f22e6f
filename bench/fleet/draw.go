package main

import (
	"fmt"
	"strings"
	"time"
)

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
	least float64 // the scale reaches at least so far
}

// Colours that are told apart by those who see fewer, too (M. Okabe, K. Ito, 2008).
const (
	blue   = "#0072b2"
	orange = "#d55e00"
	green  = "#009e73"
	grey   = "#888888"
)

// The measures of a picture, in pixels.
const (
	pictureWidth = 860
	left         = 64
	right        = 30
	top          = 40
	panelHeight  = 150
	panelGap     = 46
	letter       = 7 // about
)

// picture is an SVG document that needs nothing else, on a light ground whatever is around it.
func picture(title string, panels []panel, span time.Duration) string {
	var b strings.Builder
	height := top + len(panels)*(panelHeight+panelGap) + 10
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12" fill="#222">`+"\n",
		pictureWidth, height, pictureWidth, height)
	fmt.Fprintf(&b, `<rect x=".5" y=".5" width="%d" height="%d" rx="8" fill="#ffffff" stroke="#d0d0d0"/>`+"\n", pictureWidth-1, height-1)
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="14" font-weight="bold">%s</text>`+"\n", left, escaped(title))
	for i, p := range panels {
		p.draw(&b, top+i*(panelHeight+panelGap), span)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// most is the greatest value.
func (p panel) most() float64 {
	most := p.least
	for _, l := range p.lines {
		for _, v := range l.values {
			most = max(most, v)
		}
	}
	return most
}

func (p panel) draw(b *strings.Builder, y int, span time.Duration) {
	most := p.most()
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
	legend := left + 40 + letter*len(p.name)
	for _, l := range p.lines {
		fmt.Fprintf(b, `<path d="M%d %dh16" stroke="%s" stroke-width="%g"/><text x="%d" y="%d">%s</text>`+"\n", legend, y+8, l.colour, l.breadth(), legend+20, y+12, l.name)
		legend += 40 + letter*len(l.name)
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
