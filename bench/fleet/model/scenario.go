package model

import (
	"fmt"
	"slices"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// Scenario is a run, but for its law and its seed.
type Scenario struct {
	Name    string
	Groups  []Group // at most groupsMax
	Server  Server  // at the start
	Changes []Change
	For     time.Duration
	Warm    time.Duration  // figures of the steady state begin here
	Config  flowctl.Config // of every pod; the zero value has 20 connections at most
	Budget  *Budget        // that the real controllers share; nil: none. Pods that share one do not leave
	Quiet   bool           // ends when no message waits and none is to come
}

const groupsMax = 3

// Group is so many pods of one kind. With Backlog and PerSecond both zero they have nothing to send.
type Group struct {
	Pods      int
	Join      time.Duration // since the start
	Spread    time.Duration // they join within so long, at random
	Leave     time.Duration // since the start; 0: never
	Backlog   int           // messages of each pod when it joins; Endless: never fewer than a thousand
	PerSecond float64       // messages a second of the whole group, each at a pod drawn at random (Poisson)
}

// Endless is the Backlog of a pod that always has more to send.
const Endless = -1

// endlessReady is what such a pod says is waiting.
const endlessReady = 1000

// Server is the upstream at one time. The zero value takes everything.
type Server struct {
	Limit     int     // connections to one backend; 0: any number
	Backends  int     // behind the one address, each dial at one of them by chance; 0: one
	Fails     float64 // share of dials that find nobody (connection refused)
	PerSecond float64 // messages a second, from a bucket that holds those of a second (one at least); beyond it 454 to the content; 0: any number
	Knee      int     // messages that are worked on at full speed; more share the time of so many; 0: any number
	Outage    Outage
}

// Outage says how an upstream that is down behaves.
type Outage uint8

// The kinds of an outage. At its start every connection is cut.
const (
	Up      Outage = iota
	Refuses        // dials are refused one round trip later
	Silent         // dials time out after ten seconds
)

// slots returns how many connections fit in all; 0: any number.
func (s *Server) slots() int { return s.Limit * max(1, s.Backends) }

// Change is what the upstream becomes at some time.
type Change struct {
	At time.Duration
	To Server
}

// validate refuses what the model cannot play.
func (s *Scenario) validate() error {
	knee, outage := s.Server.Knee > 0, s.Server.Outage != Up
	for _, c := range s.Changes {
		if (c.To.Knee > 0) != knee {
			return fmt.Errorf("model: scenario %q: a knee that comes or goes", s.Name)
		}
		outage = outage || c.To.Outage != Up
	}
	leave := slices.ContainsFunc(s.Groups, func(g Group) bool { return g.Leave > 0 })
	switch {
	case s.Budget != nil && leave:
		return fmt.Errorf("model: scenario %q: pods that share a budget and leave", s.Name)
	case s.Budget != nil && (s.Budget.Renew <= 0 || s.Budget.TTL <= s.Budget.Renew):
		return fmt.Errorf("model: scenario %q: a budget whose word lapses before it is renewed", s.Name)
	case len(s.Groups) > groupsMax:
		return fmt.Errorf("model: scenario %q: %d groups, at most %d", s.Name, len(s.Groups), groupsMax)
	case knee && outage:
		return fmt.Errorf("model: scenario %q: an outage of a server with a knee", s.Name)
	}
	return nil
}
