// Package rival has other laws of concurrency and rate, each in its plainest form, to be compared in the model of package model.
//
// It promises the published law and no more: what a law does not define is chosen alike for all of them and in their favour. A pod
// that holds nothing and is refused waits at random up to half a second, doubling to a minute ("full jitter", M. Brooker, Exponential
// Backoff and Jitter, 2015). A connection that is above a lowered width is not closed, but not replaced either. A connection
// is closed after a hundred messages.
package rival

import (
	"math/rand/v2"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
	"github.com/mailweir/mailweir/flowctl"
)

// Constants that the laws share.
const (
	perConn    = 100 // messages, then the connection is closed
	backoffMin = 500 * time.Millisecond
	backoffMax = time.Minute
	lingerMost = 5 * time.Second // of idle connections
)

// rule is what the laws differ in.
type rule interface {
	width() int // connections wanted
	dialed(now time.Time, o flowctl.Outcome)
	sent(now time.Time, o flowctl.Outcome)
	// tokens returns how many messages may be sent now and, if none, when one may; until then nothing is dialled either.
	tokens(now time.Time) (n int, at time.Time)
	take(now time.Time) // a message was sent
}

// link is a connection.
type link struct {
	id          flowctl.ConnID
	established bool
	busy        bool
	count       int // messages
}

// pool follows a rule.
type pool struct {
	rule    rule
	rng     *rand.Rand
	strict  bool // no more messages under way than the width; otherwise a fallen width only keeps connections from being replaced
	links   []link
	dialing int
	busy    int
	perConn int
	linger  time.Duration
	fails   int // dials in a row that left us with nothing
	until   time.Time
	dials   []string
	retire  []flowctl.ConnID
}

var _ model.Law = (*pool)(nil)

func newPool(r rule, seed uint64) *pool {
	return &pool{rule: r, rng: rand.New(rand.NewPCG(seed, 3)), perConn: perConn, linger: lingerMost}
}

func (p *pool) find(id flowctl.ConnID) int {
	for i := range p.links {
		if p.links[i].id == id {
			return i
		}
	}
	return -1
}

func (p *pool) DialStart(_ time.Time, id flowctl.ConnID, _ string) {
	p.links = append(p.links, link{id: id})
	p.dialing++
}

func (p *pool) DialDone(now time.Time, id flowctl.ConnID, o flowctl.Outcome) {
	p.dialing--
	i := p.find(id)
	if o.Class == flowctl.OK {
		p.links[i].established = true
		p.fails = 0
	} else {
		p.links = append(p.links[:i], p.links[i+1:]...)
		if len(p.links) == 0 {
			most := min(backoffMin<<min(p.fails, 10), backoffMax)
			p.until = now.Add(time.Duration(p.rng.Float64() * float64(most)))
			p.fails++
		}
	}
	p.rule.dialed(now, o)
}

func (p *pool) SendStart(now time.Time, id flowctl.ConnID, _, _ int) {
	p.links[p.find(id)].busy = true
	p.busy++
	p.rule.take(now)
}

func (p *pool) SendDone(now time.Time, id flowctl.ConnID, o flowctl.Outcome) {
	k := &p.links[p.find(id)]
	k.busy = false
	k.count++
	p.busy--
	p.rule.sent(now, o)
}

func (p *pool) Closed(_ time.Time, id flowctl.ConnID, _ flowctl.Outcome) {
	i := p.find(id)
	if p.links[i].busy {
		p.busy--
	}
	p.links = append(p.links[:i], p.links[i+1:]...)
}

func (p *pool) Plan(now time.Time, d flowctl.Demand) flowctl.Plan {
	p.dials, p.retire = p.dials[:0], p.retire[:0]
	idle := 0
	for i := range p.links {
		switch k := &p.links[i]; {
		case k.count >= p.perConn:
			p.retire = append(p.retire, k.id)
		case k.established && !k.busy:
			idle++
		}
	}
	plan := flowctl.Plan{Retire: p.retire, Linger: p.linger}
	tokens, at := p.rule.tokens(now)
	if tokens == 0 {
		plan.Wake = at
		return plan
	}
	plan.Send = min(idle, d.Ready, tokens)
	if p.strict {
		plan.Send = max(0, min(plan.Send, p.rule.width()-p.busy))
	}
	need := min(p.rule.width(), p.busy+d.Ready) - len(p.links)
	switch {
	case need <= 0:
	case p.until.After(now):
		plan.Wake = p.until
	default:
		for ; need > 0; need-- {
			p.dials = append(p.dials, model.Address)
		}
	}
	plan.Dial = p.dials
	return plan
}
