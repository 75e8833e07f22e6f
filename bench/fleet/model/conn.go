package model

import (
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// phase is where a connection is in its life.
type phase uint8

const (
	gone phase = iota // the place is free
	dialling
	idle
	sending
)

// conn is one connection; its place is used again after its end.
type conn struct {
	gen      uint32 // counts the uses of the place
	index    uint32
	pod      int
	phase    phase
	retiring bool
	held     bool // the server counts it
	backend  uint32
	verdict  flowctl.Class // of the dial
	began    int64         // the dial, then the transaction
	since    int64         // idle since
	service  int64         // of the message under way
	message  int64         // its arrival; -1: it has none
}

// A ConnID is the generation and the place of a connection.
const (
	indexBits = 24
	indexMask = 1<<indexBits - 1
)

func (k *conn) id() flowctl.ConnID { return flowctl.ConnID(k.gen)<<indexBits | flowctl.ConnID(k.index) }

func (f *fleet) newConn(p *pod) uint32 {
	var i uint32
	if n := len(f.free); n > 0 {
		i = f.free[n-1]
		f.free = f.free[:n-1]
	} else {
		f.conns = append(f.conns, conn{})
		i = uint32(len(f.conns) - 1)
	}
	f.conns[i] = conn{gen: f.conns[i].gen + 1, index: i, pod: p.index, phase: dialling, began: f.now, message: -1}
	p.conns = append(p.conns, i)
	return i
}

// forget frees the place.
func (f *fleet) forget(p *pod, i uint32) {
	if f.conns[i].phase == idle {
		p.idle--
	}
	f.conns[i].phase = gone
	f.conns[i].gen++ // what is still planned for it concerns nobody
	f.free = append(f.free, i)
	for j, x := range p.conns {
		if x == i {
			p.conns = append(p.conns[:j], p.conns[j+1:]...)
			return
		}
	}
}

func (f *fleet) dial(p *pod, addr string) {
	i := f.newConn(p)
	p.dialing++
	p.dials++
	f.res.Totals.Dials++
	f.series.at(f.now).Dials++
	if len(p.conns) > f.widest() {
		f.res.Faults.TooWide++
	}
	if p.dialing > flowctl.MaxDials {
		f.res.Faults.TooHasty++
	}
	k := &f.conns[i]
	p.law.DialStart(f.time(), k.id(), addr)
	f.after(RTT/2, atServer, i, k.gen)
}

func (f *fleet) widest() int {
	if n := f.s.Config.MaxConns; n > 0 {
		return n
	}
	return 20 // the default of flowctl.Config
}

// atServer is where the upstream accepts a dial or does not.
func (f *fleet) atServer(i uint32) {
	k := &f.conns[i]
	var wait time.Duration
	k.verdict, k.backend, wait = f.server.admit()
	switch k.verdict {
	case flowctl.OK:
		k.held = true
		f.server.held[k.backend]++
		f.res.Totals.MostHeld = max(f.res.Totals.MostHeld, f.server.held[k.backend])
	case flowctl.Busy:
		f.series.at(f.now).Refused++
	default:
		f.series.at(f.now).Failed++
	}
	f.after(wait, dialEnd, i, k.gen)
}

// dialEnd tells the law what became of its dial.
func (f *fleet) dialEnd(i uint32) {
	k := &f.conns[i]
	p := &f.pods[k.pod]
	p.dialing--
	o := flowctl.Outcome{Class: k.verdict, Stage: flowctl.StageGreeting, Started: Epoch.Add(time.Duration(k.began)), Took: time.Duration(f.now - k.began)}
	id := k.id()
	switch o.Class {
	case flowctl.OK:
		f.res.Totals.Accepted++
		o.Stage = flowctl.StageAuth
		k.phase, k.since = idle, f.now
		p.idle++
		f.hear(p)
	case flowctl.Busy:
		f.res.Totals.Refused++
		f.hear(p)
		f.forget(p, i)
	default:
		f.res.Totals.Failed++
		o.Stage = flowctl.StageConnect
		f.forget(p, i)
	}
	p.law.DialDone(f.time(), id, o)
	if o.Class == flowctl.OK && (p.left || f.server.overfull(k.backend)) {
		f.part(p, i)
	}
	if f.opt.Watch && o.Class == flowctl.Busy {
		f.checkRefusal(p)
	}
	f.obey(p)
}

// part ends an idle connection whose pod is going, or whose place the server has taken away.
func (f *fleet) part(p *pod, i uint32) {
	if p.left || f.conns[i].retiring {
		f.hangUp(i, flowctl.OK)
	} else {
		f.hangUp(i, flowctl.Unavailable)
	}
}

func (f *fleet) send(p *pod, i uint32) {
	k := &f.conns[i]
	k.phase, k.began, k.message = sending, f.now, -1
	p.idle--
	p.ready--
	if p.queued {
		k.message = p.arrived.pop()
	}
	f.res.Totals.Starts++
	k.service = f.server.serviceTime()
	f.series.at(f.now)
	f.series.running++
	f.res.Totals.MostSending = max(f.res.Totals.MostSending, f.series.running)
	p.law.SendStart(f.time(), k.id(), 1, 1)
	if f.server.Knee > 0 {
		f.share(i)
		return
	}
	f.after(time.Duration(k.service), sendEnd, i, k.gen)
}

// sendEnd is the answer to a message: OK unless the rate forbids it, or what cut the connection.
func (f *fleet) sendEnd(i uint32, class flowctl.Class) {
	k := &f.conns[i]
	p := &f.pods[k.pod]
	bin := f.series.at(f.now)
	f.series.running--
	if class == flowctl.OK && !f.server.affords(f.now) {
		class = flowctl.RateLimited
	}
	k.phase, k.since = idle, f.now
	p.idle++
	if class == flowctl.OK {
		f.delivered(p, k, bin)
	} else {
		f.handBack(p, k)
		if class == flowctl.RateLimited {
			bin.Throttled++
			f.res.Totals.Throttled++
		} else {
			f.res.Totals.Cut++
		}
	}
	if class != flowctl.Unavailable {
		f.hear(p)
	}
	p.law.SendDone(f.time(), k.id(), flowctl.Outcome{
		Class: class, Stage: flowctl.StageDot, Started: Epoch.Add(time.Duration(k.began)), Took: time.Duration(f.now - k.began),
	})
	switch {
	case class == flowctl.Unavailable:
		f.hangUp(i, class)
	case k.retiring || f.server.overfull(k.backend):
		f.part(p, i)
	}
	f.obey(p)
}

func (f *fleet) delivered(p *pod, k *conn, bin *Moment) {
	bin.Work += k.service
	bin.Took += f.now - k.began
	bin.Sent++
	bin.By[p.group]++
	f.res.Totals.Sent++
	f.latest = f.now
	p.delivered++
	if k.message >= 0 {
		f.series.waiting--
		f.late(k.message)
	}
	if !p.endless {
		f.res.Totals.FiniteSent++
	}
	f.endWait(p, f.now)
	if p.endless || p.ready > 0 {
		p.since = f.now
	}
}

// handBack puts the message back to the front.
func (f *fleet) handBack(p *pod, k *conn) {
	p.ready++
	if k.message >= 0 {
		p.arrived.unpop(k.message)
		k.message = -1
	}
}

// hangUp ends an established, idle connection. Class OK: we do, and the server learns it half a round trip later.
func (f *fleet) hangUp(i uint32, class flowctl.Class) {
	k := &f.conns[i]
	p := &f.pods[k.pod]
	id, backend := k.id(), k.backend
	f.forget(p, i)
	if class == flowctl.OK {
		f.after(RTT/2, release, backend, 0)
	} else {
		f.server.held[backend]--
	}
	p.law.Closed(f.time(), id, flowctl.Outcome{Class: class, Stage: flowctl.StageIdle})
}
