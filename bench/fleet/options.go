package main

import (
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// options is what the command line asks for.
type options struct {
	bars  []bar
	laws  []string // the first is judged
	seeds int
	first uint64
	draw  string // directory for pictures, instead of a judgement; "": none
	quick bool

	json, markdown bool
}

const (
	seedsDefault = 20 // what the bars are meant for
	seedsQuick   = 5
	seedsBeside  = 5 // of laws that are not judged
	seedsMax     = 1000
)

func parse(args []string, out io.Writer) (*options, error) {
	var o options
	var bars, laws string
	fs := flag.NewFlagSet("fleet", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.StringVar(&bars, "bars", "", "`numbers` of the bars to judge, such as 1,4,6-8; none: all")
	fs.IntVar(&o.seeds, "seeds", 0, "`runs` of each scenario, each with its own chance; 0: 20, or 5 with -quick. The bars are meant for 20. Laws beside the first get 5 at most")
	fs.Uint64Var(&o.first, "first", 1, "`seed` of the first run; the others follow it. Equal seeds give equal figures")
	fs.StringVar(&laws, "laws", "flowctl", "`names` of the laws to run, of "+strings.Join(lawNames(), ", ")+"; the first is judged, and \"all\" compares each scenario with the laws that belong there")
	fs.BoolVar(&o.quick, "quick", false, "few seeds, and one for the longest runs: a check for every change, not a measurement. Says the same each time")
	fs.BoolVar(&o.json, "json", false, "print JSON, with the figures of every seed")
	fs.BoolVar(&o.markdown, "markdown", false, "print Markdown, a table for each bar")
	fs.StringVar(&o.draw, "draw", "", "`directory` for pictures (SVG) of some scenarios of the bars asked for, which are not judged")
	fs.Usage = func() {
		fmt.Fprint(out, usage)
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q; see -help", fs.Arg(0))
	}
	return &o, o.resolve(bars, laws)
}

// seedsOf returns how many runs a trial gets with a law. Only the first law is judged; the others need fewer.
func (o *options) seedsOf(t trial, law int) int {
	switch {
	case o.quick && t.Long:
		return 1
	case law > 0:
		return min(o.seeds, seedsBeside)
	default:
		return o.seeds
	}
}

func (o *options) resolve(bars, laws string) error {
	if o.seeds == 0 {
		o.seeds = seedsDefault
		if o.quick {
			o.seeds = seedsQuick
		}
	}
	if o.seeds < 1 || o.seeds > seedsMax {
		return fmt.Errorf("-seeds %d is not in 1..%d", o.seeds, seedsMax)
	}
	o.bars = allBars()
	if o.quick {
		o.fewSeeds()
	}
	if bars != "" {
		wanted, err := numbers(bars)
		if err != nil {
			return fmt.Errorf("-bars: %w", err)
		}
		for _, n := range wanted {
			if !slices.ContainsFunc(o.bars, func(b bar) bool { return b.No == n }) {
				return fmt.Errorf("-bars: there is no bar %d", n)
			}
		}
		o.bars = slices.DeleteFunc(o.bars, func(b bar) bool { return !slices.Contains(wanted, b.No) })
	}
	o.laws = strings.Split(laws, ",")
	for _, l := range o.laws {
		if _, ok := lawMakers[l]; !ok && l != everyLaw {
			return fmt.Errorf("-laws: %q is none of %s", l, strings.Join(lawNames(), ", "))
		}
	}
	return nil
}

// fewSeeds makes the judgement that of a quick look: figures that no two runs have alike are dropped.
func (o *options) fewSeeds() {
	for _, b := range o.bars {
		for i := range b.Trials {
			t := &b.Trials[i]
			t.Figures = slices.DeleteFunc(slices.Clone(t.Figures), func(f figure) bool { return f.Machine })
			for j := range t.Figures {
				t.Figures[j].FewSeeds = true
			}
		}
	}
}

// numbers reads 1,4,6-8.
func numbers(s string) ([]int, error) {
	var all []int
	for _, part := range strings.Split(s, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		a, err := strconv.Atoi(low)
		if err != nil {
			return nil, fmt.Errorf("%q is no number", low)
		}
		b, err := strconv.Atoi(high)
		if err != nil || b < a || b-a > 100 {
			return nil, fmt.Errorf("%q is no range", part)
		}
		for ; a <= b; a++ {
			all = append(all, a)
		}
	}
	return all, nil
}

const usage = `Fleet plays scenarios of many processes that share one mail relay, in virtual time, with the real controller of
package flowctl in each process, and judges what comes of it.

	go run ./bench/fleet -bars 1,4 -seeds 3   # two bars, a quick look
	go run ./bench/fleet -quick               # all bars, few seeds
	go run ./bench/fleet                      # all bars as they are meant, some minutes
	go run ./bench/fleet -laws all -bars 4    # beside other laws
	go run ./bench/fleet -bars 3 -draw pictures

Each line of the table is one figure of one scenario: its bar, the median over all seeds and in parentheses the worst seed.
A bar is reached when the median is on its right side and the worst is within a tolerance: fairness .05, utilisation two points,
counts and times half as much again; with -quick only the tolerance is judged. Some bars are known not to be reached: what is attained instead must not get worse.
The exit code is 0 when every bar is reached or known not to be, 1 when one is missed, 64 when the command line is wrong.

Utilisation is the time of the messages that were delivered over the time of all slots the relay allows. A connection
spends a tenth of a second on setting up and closing: who closes after ten seconds can have 99 % at most, in a fleet everybody must.

`
