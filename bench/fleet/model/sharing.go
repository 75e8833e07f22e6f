package model

import (
	"slices"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// sharing is processor sharing beyond a knee: n messages proceed at full speed, more at n/more of it. Its clock runs at the
// speed of a message, so that each is done when the clock has advanced by its service time, however the speed changed.
type sharing struct {
	clock float64 // nanoseconds of work each message has been given
	at    int64   // when clock was right
	jobs  []job   // the last is done first
	valid uint32  // of the event for it
}

type job struct {
	done float64 // by the clock
	conn uint32
	gen  uint32
}

// share starts a message at a server that has a knee.
func (f *fleet) share(i uint32) {
	s := &f.server.share
	f.advanceShare()
	j := job{done: s.clock + float64(f.conns[i].service), conn: i, gen: f.conns[i].gen}
	at, _ := slices.BinarySearchFunc(s.jobs, j, func(a, b job) int {
		switch {
		case a.done > b.done:
			return -1
		case a.done < b.done:
			return 1
		}
		return 0
	})
	s.jobs = slices.Insert(s.jobs, at, j)
	f.planShare()
}

// speed is the part of full speed at which each message proceeds.
func (f *fleet) speed() float64 {
	return min(1, float64(f.server.Knee)/float64(max(1, len(f.server.share.jobs))))
}

func (f *fleet) advanceShare() {
	s := &f.server.share
	s.clock += float64(f.now-s.at) * f.speed()
	s.at = f.now
}

// planShare sets when the first message will be done, if nothing changes until then.
func (f *fleet) planShare() {
	s := &f.server.share
	s.valid++
	if n := len(s.jobs); n > 0 {
		wait := max(0, (s.jobs[n-1].done-s.clock)/f.speed())
		f.after(time.Duration(wait)+1, drained, 0, s.valid)
	}
}

// drained ends the messages that are done, unless the plan is an old one.
func (f *fleet) drained(valid uint32) {
	s := &f.server.share
	if valid != s.valid {
		return
	}
	f.advanceShare()
	for n := len(s.jobs); n > 0 && s.jobs[n-1].done <= s.clock; n = len(s.jobs) {
		j := s.jobs[n-1]
		s.jobs = s.jobs[:n-1]
		if f.conns[j.conn].gen == j.gen {
			f.sendEnd(j.conn, flowctl.OK)
		}
	}
	f.planShare()
}
