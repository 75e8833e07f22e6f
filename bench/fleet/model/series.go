package model

import "time"

// Bin is the width of a bin of the series.
const Bin = 250 * time.Millisecond

// Moment is what happened within one bin.
type Moment struct {
	Work      int64 // nanoseconds of the messages delivered in it
	Took      int64 // nanoseconds their transactions took, which is more when the server is slow
	Busy      int64 // messages being worked on, integrated: connection-nanoseconds
	Sent      int32 // messages delivered
	Refused   int32 // dials refused for the number of connections
	Failed    int32 // dials that found nobody
	Throttled int32 // messages refused for the rate
	Dials     int32
	By        [groupsMax]int32 // messages delivered, by group
	Waiting   int32            // messages of groups with arrivals, undelivered at the end of the bin
	Width     float32          // of the first pod, at the end of the bin; only when Options.Watch
	Ceiling   int32            // likewise
}

// series is the whole run in bins.
type series struct {
	bins    []Moment
	now     int64
	running int // messages being worked on
	waiting int32
}

func newSeries(d time.Duration) series { return series{bins: make([]Moment, d/Bin+1)} }

// at returns the bin of now, after the time since the last call has been counted.
func (s *series) at(now int64) *Moment {
	i := s.now / int64(Bin)
	for end := (i + 1) * int64(Bin); end <= now; end += int64(Bin) {
		s.bins[i].Busy += int64(s.running) * (end - s.now)
		s.bins[i].Waiting = s.waiting
		s.now = end
		i++
	}
	s.bins[i].Busy += int64(s.running) * (now - s.now)
	s.now = now
	return &s.bins[i]
}
