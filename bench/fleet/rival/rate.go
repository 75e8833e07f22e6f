package rival

import (
	"math"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
	"github.com/mailweir/mailweir/flowctl"
)

// adaptive is the client-side rate limit of the AWS SDKs' adaptive retry mode: a token bucket whose rate follows CUBIC. A refused message
// is tried again as soon as there is a token.
type adaptive struct {
	conns   int
	began   time.Time
	rate    float64 // tokens a second
	have    float64 // tokens
	filled  time.Time
	enabled bool // since the first refusal

	lastMax   float64 // the rate at the last refusal
	refused   time.Time
	window    float64 // seconds until lastMax is reached again
	measured  float64 // messages a second, smoothed
	sentCount int     // in the bucket of measurement
	bucket    int64   // half seconds
}

// The constants of the adaptive mode.
const (
	adaptiveLeast  = 0.5
	adaptiveScale  = 0.4
	adaptiveBeta   = 0.7
	adaptiveSmooth = 0.8
)

// AWS makes a pool of MaxConns connections whose rate follows it.
func AWS(t *model.Team, _ int, seed uint64, now time.Time) (model.Law, error) {
	return newPool(&adaptive{conns: maxConns(t), began: now, filled: now, refused: now}, seed), nil
}

func (a *adaptive) width() int                        { return a.conns }
func (a *adaptive) dialed(time.Time, flowctl.Outcome) {}

func (a *adaptive) fill(now time.Time) {
	a.have = min(max(1, a.rate), a.have+now.Sub(a.filled).Seconds()*a.rate)
	a.filled = now
}

func (a *adaptive) tokens(now time.Time) (int, time.Time) {
	if !a.enabled {
		return math.MaxInt, time.Time{}
	}
	if a.fill(now); a.have >= 1 {
		return int(a.have), time.Time{}
	}
	return 0, now.Add(time.Duration((1-a.have)/a.rate*float64(time.Second)) + time.Millisecond)
}

func (a *adaptive) take(now time.Time) {
	if a.enabled {
		a.fill(now)
		a.have--
	}
}

func (a *adaptive) sent(now time.Time, o flowctl.Outcome) {
	a.measure(now)
	var to float64
	if o.Class == flowctl.RateLimited {
		r := a.measured
		if a.enabled {
			r = min(r, a.rate)
		}
		a.lastMax, a.refused, a.enabled = r, now, true
		a.window = math.Cbrt(r * (1 - adaptiveBeta) / adaptiveScale)
		to = r * adaptiveBeta
	} else {
		a.window = math.Cbrt(a.lastMax * (1 - adaptiveBeta) / adaptiveScale)
		to = adaptiveScale*math.Pow(now.Sub(a.refused).Seconds()-a.window, 3) + a.lastMax
	}
	if a.enabled {
		a.fill(now)
		a.rate = max(adaptiveLeast, min(to, 2*a.measured))
	}
}

// measure smooths the rate over half seconds.
func (a *adaptive) measure(now time.Time) {
	a.sentCount++
	b := int64(now.Sub(a.began) / (500 * time.Millisecond))
	if b > a.bucket {
		current := float64(a.sentCount) / (float64(b-a.bucket) / 2)
		a.measured = current*adaptiveSmooth + a.measured*(1-adaptiveSmooth)
		a.sentCount, a.bucket = 0, b
	}
}
