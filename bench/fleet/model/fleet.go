package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// Epoch is the start of every run.
var Epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

const never = math.MaxInt64

// Options of a run.
type Options struct {
	Watch bool                  // record the width of the first pod, and check each of its count refusals
	Trace func(pod int, t Step) // sees what the laws are told and what they answer; nil: nobody does
}

// fleet is one run.
type fleet struct {
	s      *Scenario
	opt    Options
	team   Team
	make   Maker
	now    int64 // nanoseconds since Epoch
	end    int64
	heap   heap
	pods   []pod
	first  []int // of each group: its first pod
	conns  []conn
	free   []uint32 // indices into conns
	server server
	series series
	rng    *rand.Rand // of the demand
	poked  []int
	joined int
	seen   int64 // bins that watch has filled
	latest int64 // when the last message was delivered
	err    error
	res    *Result
	closes []flowctl.ConnID // a plan's, since the plan's own is only lent
}

// Run plays a scenario. The error is that of a law that could not be made, or that never came to rest.
func Run(s *Scenario, m Maker, seed uint64, opt Options) (*Result, error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	f := &fleet{
		s: s, opt: opt, make: m, end: int64(s.For), series: newSeries(s.For),
		rng: rand.New(rand.NewPCG(seed, 1)), conns: make([]conn, 1), // index 0 is nobody
		res: &Result{Seed: seed, Slots: s.Server.slots(), Warm: s.Warm, For: s.For},
	}
	f.server = newServer(s.Server, seed)
	f.team = Team{Config: s.Config, Budget: s.Budget, Limit: s.Server.slots(), Shared: map[string]any{}, Poke: f.poke}
	f.populate(seed)
	for i, c := range s.Changes {
		f.push(c.At, change, uint32(i), 0)
	}
	for len(f.heap.list) > 0 && f.heap.list[0].at < f.end && f.err == nil {
		if s.Quiet && f.allSent() {
			break
		}
		e := f.heap.pop()
		f.now = e.at
		if opt.Watch {
			f.watch()
		}
		f.res.Totals.Events++
		f.handle(e)
		f.obeyPoked()
	}
	if f.err != nil {
		return nil, f.err
	}
	f.finish()
	return f.res, nil
}

// podSeed is the seed of a pod's law.
func podSeed(seed uint64, pod int) uint64 { return seed*1_000_003 + uint64(pod) }

// allSent says whether the last message of a finite demand has been delivered.
func (f *fleet) allSent() bool {
	return f.joined == len(f.pods) && f.res.Totals.FiniteSent == f.res.Totals.Offered
}

// populate plans the lives of the pods.
func (f *fleet) populate(seed uint64) {
	for g, group := range f.s.Groups {
		f.first = append(f.first, len(f.pods))
		for range group.Pods {
			i := uint32(len(f.pods))
			f.pods = append(f.pods, pod{index: int(i), group: g, armed: never, wakeAt: never, since: never, heard: -1, seed: podSeed(seed, int(i))})
			f.push(group.Join+time.Duration(f.rng.Float64()*float64(group.Spread)), join, i, 0)
			if group.Leave > 0 {
				f.push(group.Leave, leave, i, 0)
			}
		}
		if group.PerSecond > 0 {
			f.nextArrival(g, int64(group.Join+group.Spread))
		}
	}
	f.team.Pods = len(f.pods)
}

func (f *fleet) push(at time.Duration, k kind, arg, gen uint32) {
	f.heap.push(event{at: int64(at), kind: k, arg: arg, gen: gen})
}

func (f *fleet) after(d time.Duration, k kind, arg, gen uint32) {
	f.heap.push(event{at: f.now + int64(d), kind: k, arg: arg, gen: gen})
}

func (f *fleet) time() time.Time { return Epoch.Add(time.Duration(f.now)) }

func (f *fleet) handle(e event) {
	switch e.kind {
	case atServer, dialEnd, sendEnd:
		if f.conns[e.arg].gen == e.gen {
			f.handleConn(e)
		}
	case release:
		f.server.held[e.arg]--
	case wake:
		f.wakeUp(&f.pods[e.arg], e.at)
	case join:
		f.join(&f.pods[e.arg])
	case leave:
		f.leave(&f.pods[e.arg])
	case arrival:
		f.arrive(int(e.arg))
	case change:
		f.change(f.s.Changes[e.arg].To)
	case drained:
		f.drained(e.gen)
	}
}

func (f *fleet) handleConn(e event) {
	switch e.kind {
	case atServer:
		f.atServer(e.arg)
	case dialEnd:
		f.dialEnd(e.arg)
	default:
		f.sendEnd(e.arg, flowctl.OK)
	}
}

func (f *fleet) join(p *pod) {
	law, err := f.make(&f.team, p.index, p.seed, f.time())
	if err != nil {
		f.err = fmt.Errorf("model: make the law of pod %d: %w", p.index, err)
		return
	}
	p.law = law
	f.joined++
	if f.opt.Trace != nil {
		p.law = &recorder{law: law, see: func(t Step) { f.opt.Trace(p.index, t) }}
	}
	group := &f.s.Groups[p.group]
	p.endless, p.queued = group.Backlog == Endless, group.PerSecond > 0
	if group.Backlog > 0 {
		p.ready = group.Backlog
		f.res.Totals.Offered += group.Backlog
	}
	if p.endless || p.ready > 0 {
		p.since, p.oldest = f.now, f.now
	}
	f.obey(p)
}

func (f *fleet) nextArrival(g int, from int64) {
	gap := f.rng.ExpFloat64() / f.s.Groups[g].PerSecond * float64(time.Second)
	f.heap.push(event{at: from + int64(gap), kind: arrival, arg: uint32(g)})
}

// arrive gives one message to a pod of the group.
func (f *fleet) arrive(g int) {
	group := &f.s.Groups[g]
	f.nextArrival(g, f.now)
	p := &f.pods[f.first[g]+f.rng.IntN(group.Pods)]
	if p.left || p.law == nil {
		return
	}
	f.series.at(f.now)
	f.series.waiting++
	f.res.Totals.Offered++
	p.ready++
	p.arrived.push(f.now)
	if p.since == never {
		p.since = f.now
	}
	f.obey(p)
}

func (f *fleet) poke(p int) bool {
	if f.pods[p].left {
		return false
	}
	f.poked = append(f.poked, p)
	return true
}

// obeyPoked lets those ask again whom a law with perfect knowledge poked.
func (f *fleet) obeyPoked() {
	for i := 0; i < len(f.poked); i++ {
		if p := &f.pods[f.poked[i]]; p.law != nil && !p.left {
			f.obey(p)
		}
	}
	f.poked = f.poked[:0]
}

// finish closes the books.
func (f *fleet) finish() {
	end := f.end
	f.res.Took = f.s.For
	if f.s.Quiet && f.allSent() {
		end, f.res.Took = f.latest, time.Duration(f.latest)
	}
	f.now = max(end, f.now)
	f.series.at(f.now)
	if f.opt.Watch {
		f.watch()
	}
	t := &f.res.Totals
	for i := range f.conns {
		switch k := &f.conns[i]; {
		case k.phase == dialling:
			t.Dialling++
		case k.phase == sending:
			t.Sending++
			if !f.pods[k.pod].endless {
				t.FiniteSending++
			}
		}
	}
	for i := range f.pods {
		p := &f.pods[i]
		f.endWait(p, end)
		if !p.endless {
			t.Waiting += p.ready
		}
		for p.arrived.len() > 0 {
			f.late(p.arrived.pop())
		}
		r := PodResult{Group: p.group, Delivered: p.delivered, Dials: p.dials, WorstWait: time.Duration(p.worst), Heard: -1}
		if p.heard >= 0 {
			r.Heard = time.Duration(p.heard - f.server.changed)
		}
		f.res.Pods = append(f.res.Pods, r)
	}
	f.res.Bins = f.series.bins[:f.end/int64(Bin)]
}

// late counts a message that arrived at t as delivered now.
func (f *fleet) late(t int64) {
	if t >= int64(f.s.Warm) {
		f.res.Latency.add(time.Duration(f.now - t))
	}
}
