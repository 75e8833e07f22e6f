package rival

import (
	"math"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
	"github.com/mailweir/mailweir/flowctl"
)

// widthOnly is embedded by rules that know no pauses.
type widthOnly struct{}

func (widthOnly) tokens(time.Time) (int, time.Time) { return math.MaxInt, time.Time{} }
func (widthOnly) take(time.Time)                    {}

func maxConns(t *model.Team) int {
	if t.Config.MaxConns > 0 {
		return t.Config.MaxConns
	}
	return 20
}

// aimd grows by one in the time of a round and halves at each failure (D. Chiu, R. Jain, 1989).
type aimd struct {
	widthOnly
	w, most float64
}

// AIMD makes a pool whose width follows it.
func AIMD(t *model.Team, _ int, seed uint64, _ time.Time) (model.Law, error) {
	return newPool(&aimd{w: 1, most: float64(maxConns(t))}, seed), nil
}

// AIMDNoLinger is AIMD that closes what is idle at once.
func AIMDNoLinger(t *model.Team, _ int, seed uint64, _ time.Time) (model.Law, error) {
	p := newPool(&aimd{w: 1, most: float64(maxConns(t))}, seed)
	p.linger = 0
	return p, nil
}

func (a *aimd) width() int { return int(a.w) }

func (a *aimd) dialed(_ time.Time, o flowctl.Outcome) {
	if o.Class != flowctl.OK {
		a.w = max(1, a.w/2)
	}
}

func (a *aimd) sent(_ time.Time, o flowctl.Outcome) {
	if o.Class == flowctl.OK {
		a.w = min(a.most, a.w+1/a.w)
	} else {
		a.w = max(1, a.w/2)
	}
}

// postfix is the concurrency scheduler of Postfix's queue manager (SCHEDULER_README), with a feedback of 1/N in both directions or of
// 1: success and failure each fill a reserve, which moves the window by one when it is full. A window's worth of failures without a
// success declares the destination dead for as long as minimal_backoff_time.
type postfix struct {
	window   float64
	success  float64
	failure  float64
	cohorts  float64 // failed in a row
	dead     time.Time
	constant bool // feedback 1
	most     float64
	immortal bool // never declares the destination dead
}

// The defaults of Postfix.
const (
	postfixInitial = 5
	postfixMost    = 50
	postfixDead    = 300 * time.Second
	postfixCohorts = 1
	postfixStep    = 1 // of the window ("hysteresis")
	rounding       = 1e-9
)

// Postfix makes a pool whose width follows it.
func Postfix(_ *model.Team, _ int, seed uint64, _ time.Time) (model.Law, error) {
	p := newPool(&postfix{window: postfixInitial, most: postfixMost}, seed)
	p.strict = true
	return p, nil
}

// PostfixTable makes the set-up of the table in SCHEDULER_README: a limit of 20 at the client, one delivery a connection.
func PostfixTable(constant bool) model.Maker {
	return func(_ *model.Team, _ int, seed uint64, _ time.Time) (model.Law, error) {
		p := newPool(&postfix{window: postfixInitial, most: 20, constant: constant, immortal: true}, seed)
		p.perConn, p.strict = 1, true
		return p, nil
	}
}

func (q *postfix) width() int { return int(q.window) }

func (q *postfix) feedback() float64 {
	if q.constant {
		return 1
	}
	return 1 / q.window
}

func (q *postfix) dialed(now time.Time, o flowctl.Outcome) {
	if o.Class != flowctl.OK {
		q.failed(now)
	}
}

func (q *postfix) sent(now time.Time, o flowctl.Outcome) {
	if o.Class != flowctl.OK {
		q.failed(now)
		return
	}
	q.cohorts = 0
	if q.window >= q.most {
		return
	}
	f := q.feedback()
	for q.success += f; q.success >= postfixStep-rounding; q.success -= postfixStep {
		q.window += postfixStep
		q.failure = 0
	}
	q.window = min(q.window, q.most)
}

func (q *postfix) failed(now time.Time) {
	q.cohorts += 1 / q.window
	if q.cohorts >= postfixCohorts && !q.immortal {
		q.dead = now.Add(postfixDead)
		q.window, q.success, q.failure, q.cohorts = postfixInitial, 0, 0, 0
		return
	}
	f := q.feedback()
	for q.failure -= f; q.failure < -rounding; q.failure += postfixStep {
		q.window -= postfixStep
		q.success = 0
	}
	q.window = max(1, q.window)
}

func (q *postfix) tokens(now time.Time) (int, time.Time) {
	if q.dead.After(now) {
		return 0, q.dead
	}
	return math.MaxInt, time.Time{}
}

func (q *postfix) take(time.Time) {}
