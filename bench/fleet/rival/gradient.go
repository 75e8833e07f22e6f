package rival

import (
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
	"github.com/mailweir/mailweir/flowctl"
)

// gradient is Gradient2 of Netflix's concurrency-limits: the limit follows the ratio of a long mean of the response time and the latest one.
// It sees each response, as behind the library's SimpleLimiter; behind its WindowedLimit it drifts to the configured maximum.
type gradient struct {
	widthOnly
	w, most float64
	long    float64 // seconds
	n       int     // responses averaged into long
	inUse   func() int
}

// The defaults of Gradient2, but for the initial limit of 20, which would be more than a small upstream bears.
const (
	gradientInitial   = 5
	gradientQueue     = 4
	gradientTolerance = 1.5
	gradientSmoothing = 0.2
	gradientMean      = 600 // responses in the long mean
	gradientWarm      = 10
)

// Gradient2 makes a pool whose width follows it.
func Gradient2(t *model.Team, _ int, seed uint64, _ time.Time) (model.Law, error) {
	g := &gradient{w: gradientInitial, most: float64(maxConns(t))}
	p := newPool(g, seed)
	p.strict = true
	g.inUse = func() int { return p.busy + 1 } // with the one that has just ended
	return p, nil
}

func (g *gradient) width() int { return int(g.w) }

func (g *gradient) dialed(_ time.Time, o flowctl.Outcome) {
	if o.Class != flowctl.OK {
		g.w = max(1, g.w*0.9)
	}
}

func (g *gradient) sent(_ time.Time, o flowctl.Outcome) {
	short := o.Took.Seconds()
	g.n++
	if g.n <= gradientWarm {
		g.long += (short - g.long) / float64(g.n)
	} else {
		g.long += (short - g.long) * 2 / (gradientMean + 1)
	}
	if g.long > 2*short {
		g.long *= 0.95
	}
	if float64(g.inUse()) < g.w/2 {
		return
	}
	slope := max(0.5, min(1, gradientTolerance*g.long/short))
	g.w = max(1, min(g.most, g.w*(1-gradientSmoothing)+(g.w*slope+gradientQueue)*gradientSmoothing))
}
