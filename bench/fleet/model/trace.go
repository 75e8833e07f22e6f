package model

import (
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// Step is one thing a law was told or asked.
type Step struct {
	What    What
	At      time.Time
	ID      flowctl.ConnID
	Addr    string
	Outcome flowctl.Outcome
	Demand  flowctl.Demand
	Plan    flowctl.Plan // what it answered; its lists are borrowed until the step has been seen
}

// What names the method of Law.
type What uint8

// The methods of Law.
const (
	DialStart What = iota
	DialDone
	SendStart
	SendDone
	Closed
	Plan
)

// Apply tells l the step again, and returns its plan if it was asked for one.
func (t *Step) Apply(l Law) flowctl.Plan {
	switch t.What {
	case DialStart:
		l.DialStart(t.At, t.ID, t.Addr)
	case DialDone:
		l.DialDone(t.At, t.ID, t.Outcome)
	case SendStart:
		l.SendStart(t.At, t.ID, 1, 1)
	case SendDone:
		l.SendDone(t.At, t.ID, t.Outcome)
	case Closed:
		l.Closed(t.At, t.ID, t.Outcome)
	default:
		return l.Plan(t.At, t.Demand)
	}
	return flowctl.Plan{}
}

// recorder shows somebody what passes between a pool and its law.
type recorder struct {
	law Law
	see func(Step)
}

func (r *recorder) pass(t Step) flowctl.Plan {
	t.Plan = t.Apply(r.law)
	r.see(t)
	return t.Plan
}

func (r *recorder) DialStart(now time.Time, id flowctl.ConnID, addr string) {
	r.pass(Step{What: DialStart, At: now, ID: id, Addr: addr})
}

func (r *recorder) DialDone(now time.Time, id flowctl.ConnID, o flowctl.Outcome) {
	r.pass(Step{What: DialDone, At: now, ID: id, Outcome: o})
}

func (r *recorder) SendStart(now time.Time, id flowctl.ConnID, _, _ int) {
	r.pass(Step{What: SendStart, At: now, ID: id})
}

func (r *recorder) SendDone(now time.Time, id flowctl.ConnID, o flowctl.Outcome) {
	r.pass(Step{What: SendDone, At: now, ID: id, Outcome: o})
}

func (r *recorder) Closed(now time.Time, id flowctl.ConnID, o flowctl.Outcome) {
	r.pass(Step{What: Closed, At: now, ID: id, Outcome: o})
}

func (r *recorder) Plan(now time.Time, d flowctl.Demand) flowctl.Plan {
	return r.pass(Step{What: Plan, At: now, Demand: d})
}

// watcher is a law that can be looked at.
type watcher interface {
	Snapshot(now time.Time) flowctl.Snapshot
}

func (p *pod) snapshot(now time.Time) (s flowctl.Snapshot, ok bool) {
	law := p.law
	if r, isRecorder := law.(*recorder); isRecorder {
		law = r.law
	}
	if w, can := law.(watcher); can {
		return w.Snapshot(now), true
	}
	return s, false
}

// checkRefusal counts it when a count refusal left a width below what is established, for that many fit.
func (f *fleet) checkRefusal(p *pod) {
	if s, ok := p.snapshot(f.time()); ok && int(s.Width) < min(s.Established, s.Max) && s.Width < float64(s.Established) {
		f.res.Faults.Forgotten++
	}
}

// watch notes the width of the first pod in the bins that have ended.
func (f *fleet) watch() {
	done := f.now / int64(Bin)
	if f.seen >= done || f.pods[0].law == nil {
		return
	}
	s, _ := f.pods[0].snapshot(f.time())
	for ; f.seen < done; f.seen++ {
		f.series.bins[f.seen].Width, f.series.bins[f.seen].Ceiling = float32(s.Width), int32(s.Ceiling)
	}
}
