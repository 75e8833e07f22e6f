package flowctl

import (
	"container/heap"
	"testing"
	"time"
)

// equals returns addresses that differ in their names only.
func equals(names ...string) (addrs []Address) {
	for _, n := range names {
		addrs = append(addrs, Address{Name: n})
	}
	return addrs
}

// host is one address of a simulated upstream.
type host struct {
	dead      bool  // a dial hangs for 30 s
	refuses   bool  // a dial fails at once
	answer    Class // of each transaction
	dialing   int
	mostDials int // at one time since it was reset
	dials     int
	conns     map[ConnID]bool
	sent      int
}

// hosts simulates a caller with endless demand and an upstream with several addresses, where connecting and a message take 100 ms each.
type hosts struct {
	t      *testing.T
	c      *Controller
	now    time.Time
	last   ConnID
	at     map[string]*host
	of     map[ConnID]*host
	events eventHeap
	seq    uint64
	armed  time.Time
}

const (
	simSetup   = 100 * time.Millisecond
	simMessage = 100 * time.Millisecond
	simTimeout = 30 * time.Second
)

func newHosts(t *testing.T, cfg Config, seed uint64, addrs ...Address) *hosts {
	t.Helper()
	c, err := New(cfg, seed, epoch)
	if err != nil {
		t.Fatal(err)
	}
	s := &hosts{t: t, c: c, now: epoch, at: map[string]*host{}, of: map[ConnID]*host{}}
	for _, a := range addrs {
		s.at[a.Name] = &host{conns: map[ConnID]bool{}}
	}
	c.SetAddresses(epoch, addrs)
	return s
}

func (s *hosts) after(d time.Duration, do func()) {
	s.seq++
	heap.Push(&s.events, event{s.now.Add(d), s.seq, do})
}

func (s *hosts) dial(addr string) {
	h := s.at[addr]
	s.last++
	id := s.last
	h.dialing++
	h.dials++
	h.mostDials = max(h.mostDials, h.dialing)
	s.c.DialStart(s.now, id, addr)
	took, class := simSetup, OK
	switch {
	case h.dead:
		took, class = simTimeout, Unavailable
	case h.refuses:
		took, class = time.Millisecond, Unavailable
	}
	s.after(took, func() {
		h.dialing--
		s.c.DialDone(s.now, id, Outcome{Class: class, Took: took})
		if class == OK {
			h.conns[id], s.of[id] = true, h
		}
	})
}

func (s *hosts) send(id ConnID) {
	h := s.of[id]
	s.c.SendStart(s.now, id, 1, 1)
	s.after(simMessage, func() {
		if !h.conns[id] {
			return // it was cut
		}
		s.c.SendDone(s.now, id, Outcome{Class: h.answer, Stage: StageDot, Took: simMessage})
		if h.answer == OK {
			h.sent++
		}
	})
}

// cut ends all connections of a host, as its crash does.
func (s *hosts) cut(addr string) {
	h := s.at[addr]
	for id := range h.conns {
		delete(h.conns, id)
		s.c.Closed(s.now, id, Outcome{Class: Unavailable, Stage: StageMail})
	}
}

// pump does what the plan says.
func (s *hosts) pump() {
	p := s.c.Plan(s.now, Demand{Ready: 1000})
	check(s.t, s.c, s.now, 1000, p)
	closed := false
	for _, id := range append([]ConnID(nil), p.Retire...) {
		if k := s.c.find(id); k.sending == 0 {
			delete(s.of[id].conns, id)
			s.c.Closed(s.now, id, Outcome{})
			closed = true
		}
	}
	if closed {
		s.pump()
		return
	}
	for _, addr := range append([]string(nil), p.Dial...) {
		s.dial(addr)
	}
	if p.Try != 0 {
		s.send(p.Try)
		p.Send--
	}
	for i := 0; i < len(s.c.conns) && p.Send > 0; i++ {
		if k := s.c.conns[i]; k.established && k.sending == 0 && !k.retiring {
			p.Send--
			s.send(k.id)
		}
	}
	for _, t := range []time.Time{p.Wake, p.SendAt} {
		if t.After(s.now) && (!s.armed.After(s.now) || t.Before(s.armed)) {
			s.armed = t
			s.after(t.Sub(s.now), func() {})
		}
	}
}

// run lets time pass and returns how many messages a second went out.
func (s *hosts) run(d time.Duration) float64 {
	s.t.Helper()
	before, end := s.sent(), s.now.Add(d)
	s.pump()
	for len(s.events) > 0 && !s.events[0].at.After(end) {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
		s.pump()
	}
	s.now = end
	return float64(s.sent()-before) / d.Seconds()
}

func (s *hosts) sent() (n int) {
	for _, h := range s.at {
		n += h.sent
	}
	return n
}

func (s *hosts) resetDials() {
	for _, h := range s.at {
		h.mostDials, h.dials = h.dialing, 0
	}
}

// The case of Postfix's tuning guide: one of two hosts is dead, and finding that out takes 30 s each time.
func TestABlackHoledHostCostsOneDialAtATimeAndNoThroughput(t *testing.T) {
	for _, most := range []int{1, 3, 20, 100} {
		for seed := range uint64(3) {
			cfg := Config{MaxConns: most}
			alone := newHosts(t, cfg, seed, equals("live")...)
			alone.run(10 * time.Second)
			want := alone.run(2 * time.Minute)

			s := newHosts(t, cfg, seed, equals("dead", "live")...)
			s.at["dead"].dead = true
			s.run(10 * time.Second)
			got := s.run(2 * time.Minute)
			if d := s.at["dead"]; got < .9*want || d.mostDials > 1 || most > 1 && d.dials < 3 {
				t.Errorf("%d connections, dead from the start: %.1f a second, alone %.1f; dials to it %d, %d at once", most, got, want, d.dials, d.mostDials)
			}

			s = newHosts(t, cfg, seed, equals("dead", "live")...)
			s.run(time.Minute)
			s.at["dead"].dead = true
			s.cut("dead")
			s.run(10 * time.Second)
			s.at["dead"].mostDials = 0
			got = s.run(2 * time.Minute)
			if d := s.at["dead"]; got < .9*want || d.mostDials > 1 {
				t.Errorf("%d connections, dead later: %.1f a second, alone %.1f; dials to it %d, %d at once", most, got, want, d.dials, d.mostDials)
			}
		}
	}
}

func TestMailGoesToTheNextPriorityWithinSecondsAndComesBack(t *testing.T) {
	for name, fail := range map[string]func(*host){
		"refuses": func(h *host) { h.refuses = true },
		"hangs":   func(h *host) { h.dead = true },
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(5) {
				s := newHosts(t, Config{MaxConns: 10}, seed, Address{Name: "spare", Priority: 10}, Address{Name: "main"})
				whole := s.run(time.Minute)
				if n := s.at["spare"].dials; n != 0 {
					t.Errorf("%d dials to the spare one while the preferred one serves", n)
				}
				fail(s.at["main"])
				s.cut("main")
				s.run(5 * time.Second)
				before := s.at["spare"].sent
				s.run(10 * time.Second)
				if n := s.at["spare"].sent - before; float64(n) < 5*whole {
					t.Errorf("%d messages in 10 s by the spare one; %.1f a second before", n, whole)
				}
				s.resetDials()
				s.run(10 * time.Minute)
				if m := s.at["main"]; m.mostDials > 1 || m.dials < 3 {
					t.Errorf("dead: %d dials in 10 min, %d at once", m.dials, m.mostDials)
				}
				*s.at["main"] = host{conns: map[ConnID]bool{}, sent: s.at["main"].sent}
				s.run(time.Minute + simTimeout)
				if len(s.at["main"].conns) == 0 {
					t.Error("alive for a minute and a half, and not used")
				}
				if m := s.at["main"]; m.mostDials > MaxDials {
					t.Errorf("it was met with %d dials at once", m.mostDials)
				}
				s.run(2 * time.Minute)
				if n := len(s.at["spare"].conns); n > 0 {
					t.Errorf("%d connections to the spare one after some minutes", n)
				}
			}
		})
	}
}

func TestConnectionsAreInProportionToWeights(t *testing.T) {
	for seed := range uint64(5) {
		s := newHosts(t, Config{MaxConns: 20}, seed, Address{Name: "a", Weight: 3}, Address{Name: "b"})
		s.run(5 * time.Minute)
		if a, b := len(s.at["a"].conns), len(s.at["b"].conns); a < 13 || a > 16 || b < 4 || b > 6 {
			t.Errorf("%d and %d connections at weights 3 and 1", a, b)
		}
	}
}

// Who has one message now and then has no connection to compare: chance is in proportion then.
func TestSingleConnectionsAreSharedByChance(t *testing.T) {
	c, err := New(Config{}, 1, epoch)
	if err != nil {
		t.Fatal(err)
	}
	c.SetAddresses(epoch, []Address{{Name: "a", Weight: 3}, {Name: "b"}, {Name: "c", Priority: 1}})
	n := map[string]int{}
	for range 1000 {
		p := c.Plan(epoch, Demand{Ready: 1})
		n[p.Dial[0]]++
	}
	if n["a"] < 700 || n["a"] > 800 || n["c"] > 0 {
		t.Errorf("%v", n)
	}
}

// A host that refuses all work shall not make us believe that there is little to be had.
func TestOneOverloadedHostDoesNotPullTheWidthDown(t *testing.T) {
	for seed := range uint64(5) {
		s := newHosts(t, Config{MaxConns: 20}, seed, equals("full", "well")...)
		s.run(time.Minute)
		s.at["full"].answer = Overload
		s.run(20 * time.Second)
		if got := s.run(5 * time.Minute); got < 150 {
			t.Errorf("%.1f a second, of 200", got)
		}
		s.at["full"].answer = OK
		s.run(3 * time.Minute)
		if n := len(s.at["full"].conns); n < 5 {
			t.Errorf("%d of 20 connections to it when it is well again", n)
		}
	}
}

// A trial that fails is not served before others who wait, and one that connects gets its message however busy the others are.
func TestAConnectionOnTrialHasTheNextMessage(t *testing.T) {
	f := newFlow(t, Config{MaxConns: 3})
	f.SetAddresses(epoch, equals("a", "b"))
	f.connect(0, 2) // to a
	f.busyAll(0)
	b := &f.addrs[1]
	f.open(at(0), b, Outcome{})
	now := b.openUntil.Sub(epoch).Seconds() + .1
	f.width = 3
	p := f.plan(now, 10)
	if len(p.Dial) == 0 || p.Dial[0] != "b" {
		t.Fatalf("%+v", p)
	}
	f.last++
	f.DialStart(at(now), f.last, "b")
	f.DialDone(at(now+.1), f.last, Outcome{})
	if p := f.plan(now+.1, 10); p.Try != f.last || p.Send == 0 || p.Ahead != 0 {
		t.Errorf("%+v", p)
	}
}
