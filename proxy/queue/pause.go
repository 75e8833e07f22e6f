package queue

import "time"

// Pause is a span in which no delivery ages: the upstream was misconfigured, out of quota or held.
type Pause struct {
	From, To time.Time // To is zero while it lasts
}

// maxPauses bounds the spans that are remembered; when there are more, the two oldest become one that
// covers both and what lies between, so that a message expires later and never too early.
const maxPauses = 64

func (p Pause) within(from, to time.Time) time.Duration {
	start, end := p.From, p.To
	if end.IsZero() || end.After(to) {
		end = to
	}
	if start.Before(from) {
		start = from
	}
	return max(0, end.Sub(start))
}

// StopClock begins a pause, unless one lasts already.
func (q *Queue) StopClock(now time.Time) {
	if q.clockStopped() {
		return
	}
	if len(q.pauses) == maxPauses {
		q.pauses[1].From = q.pauses[0].From
		q.pauses = q.pauses[1:]
	}
	q.pauses = append(q.pauses, Pause{From: now})
}

// StartClock ends the pause, if one lasts.
func (q *Queue) StartClock(now time.Time) {
	if q.clockStopped() {
		q.pauses[len(q.pauses)-1].To = now
	}
}

func (q *Queue) clockStopped() bool {
	n := len(q.pauses)
	return n > 0 && q.pauses[n-1].To.IsZero()
}

// Pauses returns the spans for the journal; RestorePauses takes them back after a restart, before the
// first Add. Spans that ended before every pending message was received are of no more use.
func (q *Queue) Pauses() []Pause { return append([]Pause(nil), q.pauses...) }

// RestorePauses replaces the spans. One that lasted at the end of the last run is taken to have
// lasted until now.
func (q *Queue) RestorePauses(now time.Time, pauses []Pause) {
	q.pauses = append(q.pauses[:0], pauses[max(0, len(pauses)-maxPauses):]...)
	q.StartClock(now)
}
