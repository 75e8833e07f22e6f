package queue

import "time"

// Pause is a span in which no delivery of a lane ages: its upstream was misconfigured, out of quota or held.
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
func (l *Lane) StopClock(now time.Time) {
	if l.clockStopped() {
		return
	}
	if len(l.pauses) == maxPauses {
		l.pauses[1].From = l.pauses[0].From
		l.pauses = l.pauses[1:]
	}
	l.pauses = append(l.pauses, Pause{From: now})
}

// StartClock ends the pause, if one lasts.
func (l *Lane) StartClock(now time.Time) {
	if l.clockStopped() {
		l.pauses[len(l.pauses)-1].To = now
	}
}

func (l *Lane) clockStopped() bool {
	n := len(l.pauses)
	return n > 0 && l.pauses[n-1].To.IsZero()
}

// Pauses returns the spans for the journal; RestorePauses takes them back after a restart, before the
// first Add. Spans that ended before every pending message was received are of no more use.
func (l *Lane) Pauses() []Pause { return append([]Pause(nil), l.pauses...) }

// RestorePauses replaces the spans. One that lasted at the end of the last run is taken to have
// lasted until now.
func (l *Lane) RestorePauses(now time.Time, pauses []Pause) {
	l.pauses = append(l.pauses[:0], pauses[max(0, len(pauses)-maxPauses):]...)
	l.StartClock(now)
}
