package flowctl

import "testing"

// served simulates an upstream that serves so many at full speed and makes the others wait, for d seconds from s on. Each message
// takes 0.1 s there.
func (f *flow) served(s, d float64, knee int) float64 {
	f.t.Helper()
	next := s
	for end := s + d; s < end; {
		p := f.plan(s, 1000)
		for range p.Dial {
			f.connect(s, 1)
		}
		if p = f.plan(s, 1000); p.Send > 0 {
			for i := range f.conns {
				if k := &f.conns[i]; p.Send > 0 && k.established && k.sending == 0 {
					f.SendStart(at(s), k.id, 1, 1)
					p.Send--
				}
			}
		}
		next = max(next, s) + .1/float64(min(knee, max(f.busy, 1)))
		s = next
		oldest := ConnID(0)
		for i := range f.conns {
			if k := &f.conns[i]; k.sending > 0 && (oldest == 0 || k.began.Before(f.find(oldest).began)) {
				oldest = k.id
			}
		}
		f.done(s, oldest, OK)
	}
	return s
}

func TestAWiderPoolIsKeptOnlyIfItDeliversMore(t *testing.T) {
	for _, knee := range []int{1, 3, 12} {
		f := newFlow(t, Config{MaxConns: 100, Gain: true})
		now := f.served(0, 600, knee)
		low, high := int(f.width), int(f.width)
		for range 100 {
			now = f.served(now, 3, knee)
			low, high = min(low, int(f.width)), max(high, int(f.width))
		}
		if low < knee-max(1, knee/8) || high > knee+max(1, knee/6) {
			t.Errorf("%d served at full speed: the width is %d to %d", knee, low, high)
		}
	}
}

func TestWithoutTheGainTestTheWidthGrowsAllTheSame(t *testing.T) {
	f := newFlow(t, Config{MaxConns: 30})
	f.served(0, 300, 3)
	f.want(30, 0)
}

func TestATestWithoutDemandChangesNothing(t *testing.T) {
	f := newFlow(t, Config{MaxConns: 100, Gain: true})
	now := f.served(0, 300, 10)
	f.slowStart = false
	f.setWidth(at(now), 10, "", "")
	f.beginGain(at(now), gainMeasures)
	f.gain.rate = 1
	f.tryWidth(at(now))
	if f.gain.phase != gainTries {
		t.Fatalf("%+v", f.gain)
	}
	f.plan(now, 0)
	for i := range f.conns {
		if k := &f.conns[i]; k.sending > 0 {
			f.done(now+.1, k.id, OK)
		}
	}
	if int(f.width) != 10 || f.gain.phase == gainTries {
		t.Errorf("width %v, %+v", f.width, f.gain)
	}
}
