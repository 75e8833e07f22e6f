package flowctl

import (
	"fmt"
	"hash/fnv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// chaos drives a controller by bytes: any event may come at any time, of the connections there are and of others, with any outcome. It
// holds the controller against check after each of them, and at the end against its main promise: when the upstream is well
// again, a caller that does what the plans say comes to send.
type chaos struct {
	t     rapid.TB
	c     *Controller
	data  []byte
	now   time.Time
	last  ConnID
	ready int
	trace func(format string, args ...any)
}

// byte returns the next byte of the input, 0 after its end.
func (w *chaos) byte() byte {
	if len(w.data) == 0 {
		return 0
	}
	b := w.data[0]
	w.data = w.data[1:]
	return b
}

// of returns a number in [0, n), from the input.
func (w *chaos) of(n int) int { return int(w.byte()) % n }

func (w *chaos) duration() time.Duration {
	return [...]time.Duration{
		-time.Second, 0, time.Nanosecond, time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond, time.Second, 3 * time.Second,
		13 * time.Second, time.Minute, 5 * time.Minute, time.Hour, 7 * time.Hour, 25 * time.Hour, 1<<63 - 1,
	}[w.of(15)]
}

func (w *chaos) config() Config {
	b := w.byte()
	cfg := Config{
		MaxConns: 1 + int(b>>4), Gain: b&1 != 0,
		PerSecond: [...]float64{0, 0, .5, 50}[b>>1&3], RecipientsPerDay: [...]int{0, 40}[b>>3&1],
	}
	return cfg
}

func (w *chaos) outcome() Outcome {
	o := Outcome{Class: Class(w.of(Classes + 1)), Stage: Stage(w.of(11))}
	switch b := w.byte(); {
	case b < 128:
	case b < 160:
		o.RetryAfter = w.duration()
	case b < 200:
		o.Started = w.now.Add(-w.duration() / 2)
	case b < 220:
		o.Took = w.duration()
	default:
		o.Taken = w.of(60)
	}
	return o
}

// id is a connection of the table, or now and then one that is not there.
func (w *chaos) id() ConnID {
	n := w.of(len(w.c.conns) + 1)
	if n == len(w.c.conns) {
		return ConnID(w.of(256))
	}
	return w.c.conns[n].id
}

func (w *chaos) step() {
	c := w.c
	width, floor := c.width, min(c.width, float64(c.held(c.now)))
	switch op := w.of(20); op {
	case 0, 1:
		if d := w.duration(); d < 48*time.Hour {
			w.now = w.now.Add(d)
		}
	case 2:
		w.last++
		c.DialStart(w.now, w.last, [...]string{"", "a", "b", "c"}[w.of(4)])
	case 3, 4:
		o := w.outcome()
		was := c.down
		c.DialDone(w.now, w.id(), o)
		if o.Class == Busy && c.width < floor && !was {
			w.t.Fatalf("a refused dial took width %v to %v with %v held", width, c.width, floor)
		}
	case 5:
		c.SendStart(w.now, w.id(), w.of(3), w.of(60))
	case 6, 7:
		o := w.outcome()
		c.SendDone(w.now, w.id(), o)
		if o.Class == Overload && c.width < max(1, width*overloadFactor)-1e-9 && !c.cfg.Gain {
			w.t.Fatalf("one overload took width %v to %v", width, c.width)
		}
	case 8:
		c.Closed(w.now, w.id(), w.outcome())
	case 9:
		c.SetAddresses(w.now, [][]string{nil, {"a"}, {"a", "b"}, {"b", "c", "b"}}[w.of(4)])
	case 10:
		c.SetHint(w.now, Hint{Grant: w.of(6) - 1, Until: w.now.Add(w.duration() % (100 * 24 * time.Hour))})
	case 11:
		c.Stop(w.now, "test", w.duration()%(24*time.Hour))
	case 12:
		c.Resume(w.now)
	case 13:
		w.memory()
	case 14:
		w.ready = w.of(40) - 1
	case 15:
		if err := c.Reconfigure(w.now, w.config()); err != nil {
			w.t.Fatal(err)
		}
	default:
		w.obey(OK)
		return
	}
	w.look(c.Plan(w.now, Demand{Ready: w.ready}))
}

// memory lets the process be another one that remembers.
func (w *chaos) memory() {
	data, err := w.c.MarshalBinary()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.c.Restore(w.now, data); err != nil {
		w.t.Fatal(err)
	}
}

// look checks a plan and what an operator would see.
func (w *chaos) look(p Plan) {
	check(w.t, w.c, w.c.now, w.ready, p)
	s := w.c.Snapshot(w.now)
	if s.Waiting < 0 || s.Share < 0 || s.Share > 1 || s.Linger < 0 || s.ProbeGap < 0 || s.QuotaUsed < 0 || !(s.Rate >= 0) {
		w.t.Fatalf("impossible: %+v", s)
	}
	w.trace("%+v %+v %v\n", p, s, w.c.Moves())
}

// obey does what the plan says, and everything that is tried ends in class.
func (w *chaos) obey(class Class) (sent int) {
	c := w.c
	p := c.Plan(w.now, Demand{Ready: w.ready})
	w.look(p)
	dial, retire := append([]string(nil), p.Dial...), append([]ConnID(nil), p.Retire...)
	for _, addr := range dial {
		w.last++
		c.DialStart(w.now, w.last, addr)
		c.DialDone(w.now, w.last, Outcome{Class: class, Took: 50 * time.Millisecond})
	}
	for _, id := range retire {
		if k := c.find(id); k.sending == 0 {
			c.Closed(w.now, id, Outcome{})
		}
	}
	for i := 0; i < len(c.conns) && p.Send > 0; i++ {
		if k := &c.conns[i]; k.established && k.sending == 0 && !k.retiring {
			id := k.id
			p.Send, sent = p.Send-1, sent+1
			c.SendStart(w.now, id, 1, 1)
			if class == OK {
				w.now = w.now.Add(time.Millisecond)
			}
			c.SendDone(w.now, id, Outcome{Class: class, Stage: StageDot})
			i = -1 // the table may have changed
			if sent >= MaxConnsLimit {
				break
			}
		}
	}
	if sent == 0 && len(dial) == 0 && p.Wake.After(w.now) {
		w.now = p.Wake
	}
	return sent
}

// patience is how many plans a caller asks for, one at each wake, before it is said to starve.
const patience = 500

// recover ends everything that is under way, and lets a well upstream and an obedient caller go on.
func (w *chaos) recover() {
	c := w.c
	if c.now.After(w.now) {
		w.now = c.now
	}
	for i := 0; i < len(c.conns); i++ {
		k := &c.conns[i]
		switch id := k.id; {
		case !k.established:
			c.DialDone(w.now, id, Outcome{Class: IdleClose})
			i = -1
		case k.sending > 0:
			c.SendDone(w.now, id, Outcome{Class: IdleClose})
			i = -1
		}
	}
	if c.stop.on && c.stop.probeEvery == 0 {
		c.Resume(w.now)
	}
	w.ready = 9
	for range patience {
		if w.obey(OK) > 0 {
			return
		}
	}
	w.t.Fatalf("the upstream is well and nothing is sent in %d plans: %+v\n%+v", patience, c.Plan(w.now, Demand{Ready: w.ready}), c.Snapshot(w.now))
}

// play returns a sum over all decisions.
func play(t rapid.TB, data []byte) uint64 {
	h := fnv.New64a()
	w := &chaos{t: t, data: data, now: epoch, trace: func(format string, args ...any) { fmt.Fprintf(h, format, args...) }}
	cfg, seed := w.config(), uint64(w.byte())
	c, err := New(cfg, seed, epoch)
	if err != nil {
		t.Fatal(err)
	}
	w.c = c
	for range 2000 {
		if len(w.data) == 0 {
			break
		}
		w.step()
	}
	w.recover()
	return h.Sum64()
}

func FuzzEvents(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, b := play(t, data), play(t, data); a != b {
			t.Error("equal events, and other decisions")
		}
	})
}

func TestNothingThatHappensEndsTheSending(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { play(t, rapid.SliceOfN(rapid.Byte(), 0, 800).Draw(t, "events")) })
}
