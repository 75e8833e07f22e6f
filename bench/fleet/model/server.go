package model

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// server is the upstream.
type server struct {
	Server
	held    []int // connections, by backend
	rng     *rand.Rand
	tokens  float64
	filled  int64
	changed int64 // when it last changed
	share   sharing
}

func newServer(s Server, seed uint64) server {
	return server{
		Server: s, held: make([]int, max(1, s.Backends)), rng: rand.New(rand.NewPCG(seed, 2)),
		tokens: max(1, s.PerSecond),
	}
}

// admit decides on a dial that arrives, and how much later the client learns it.
func (s *server) admit() (class flowctl.Class, backend uint32, wait time.Duration) {
	switch {
	case s.Outage == Silent:
		return flowctl.Unavailable, 0, connectTimeout - RTT/2
	case s.Outage == Refuses, s.Fails > 0 && s.rng.Float64() < s.Fails:
		return flowctl.Unavailable, 0, RTT / 2
	}
	if s.Backends > 1 {
		backend = uint32(s.rng.IntN(s.Backends))
	}
	if s.Limit > 0 && s.held[backend] >= s.Limit {
		return flowctl.Busy, backend, RTT / 2
	}
	return flowctl.OK, backend, RTT/2 + Login
}

// overfull says whether a backend holds more than its limit, which has fallen.
func (s *server) overfull(backend uint32) bool { return s.Limit > 0 && s.held[backend] > s.Limit }

// The logarithm of a message's time is normal with this mean and deviation.
var (
	serviceSigma = math.Sqrt(math.Log(1 + serviceCV*serviceCV))
	serviceMu    = math.Log(float64(Service)) - serviceSigma*serviceSigma/2
)

func (s *server) serviceTime() int64 {
	return int64(math.Exp(serviceMu + serviceSigma*s.rng.NormFloat64()))
}

// affords takes a token of the rate, if there is one.
func (s *server) affords(now int64) bool {
	if s.PerSecond == 0 {
		return true
	}
	s.tokens = min(max(1, s.PerSecond), s.tokens+float64(now-s.filled)/float64(time.Second)*s.PerSecond)
	s.filled = now
	if s.tokens < 1 {
		return false
	}
	s.tokens--
	return true
}

// change makes the upstream another. The number of its backends stays.
func (f *fleet) change(to Server) {
	down := f.server.Outage == Up && to.Outage != Up
	to.Backends = f.server.Backends
	f.server.affords(f.now)
	f.server.Server = to
	f.server.changed = f.now
	for i := range f.pods {
		f.pods[i].heard = -1
	}
	for i := range f.conns {
		k := &f.conns[i]
		switch {
		case k.phase == gone || !k.held:
		case down:
			f.cut(uint32(i))
		case k.phase == idle && f.server.overfull(k.backend):
			p := &f.pods[k.pod]
			f.hangUp(uint32(i), flowctl.Unavailable)
			f.obey(p)
		}
	}
}

// cut ends a connection from the server's side, whatever it is doing.
func (f *fleet) cut(i uint32) {
	k := &f.conns[i]
	p := &f.pods[k.pod]
	switch k.phase {
	case dialling:
		k.verdict, k.held = flowctl.Unavailable, false
		f.server.held[k.backend]--
		f.series.at(f.now).Failed++
		f.dialEnd(i)
	case sending:
		f.sendEnd(i, flowctl.Unavailable)
	case idle:
		f.hangUp(i, flowctl.Unavailable)
		f.obey(p)
	}
}
