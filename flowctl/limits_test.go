package flowctl

import (
	"testing"
	"time"
)

// carry sends n messages over a connection, 0.1 s each, and returns when the last was taken.
func (f *flow) carry(s float64, id ConnID, n int) float64 {
	for range n {
		f.SendStart(at(s), id, 1, 1)
		s += .1
		f.done(s, id, OK)
	}
	return s
}

func TestACapThatIsSaidIsLearntAtOnce(t *testing.T) {
	f := newFlow(t, Config{})
	id := f.connect(0, 1)
	now := f.carry(0, id, 5)
	f.SendStart(at(now), id, 1, 1)
	f.done(now, id, SessionCap)
	f.Closed(at(now), id, Outcome{Class: SessionCap})
	if c := f.Snapshot(at(now)).SessionCap; c != 5 {
		t.Fatalf("cap %d, want 5", c)
	}
	id = f.connect(now, 1)
	now = f.carry(now, id, 4)
	f.SendStart(at(now), id, 1, 1)
	p := f.plan(now, 100)
	if len(p.Retire) != 1 || p.Ahead != 0 {
		t.Errorf("with the fifth message under way: %+v, want the connection retired and nothing queued", p)
	}
	if p := f.plan(now+capKeep.Seconds()+1, 100); f.sessionCap(f.now) != 0 {
		t.Errorf("an hour later still %+v", p)
	}
}

func TestACloseThatSaysNothingMustComeTwiceAtTheSameCount(t *testing.T) {
	for _, s := range []struct {
		counts []int
		want   int
	}{
		{[]int{5}, 0},
		{[]int{5, 5}, 5},
		{[]int{5, 6}, 0},
		{[]int{5, 6, 5}, 0},
		{[]int{1, 1}, 0}, // a login for each message wants more proof
		{[]int{1, 1, 1}, 1},
	} {
		f := newFlow(t, Config{})
		now := 0.0
		for _, n := range s.counts {
			id := f.connect(now, 1)
			now = f.carry(now, id, n)
			f.Closed(at(now+.5), id, Outcome{Class: IdleClose, Stage: StageIdle})
			now++
		}
		if c := f.Snapshot(at(now)).SessionCap; c != s.want {
			t.Errorf("closed after %v messages: cap %d, want %d", s.counts, c, s.want)
		}
	}
}

func TestAnIdleCloseIsNeverACap(t *testing.T) {
	f := newFlow(t, Config{})
	now := 0.0
	for range 5 {
		id := f.connect(now, 1)
		now = f.carry(now, id, 3) + 30
		f.Closed(at(now), id, Outcome{Class: IdleClose, Stage: StageIdle})
	}
	if c := f.Snapshot(at(now)).SessionCap; c != 0 {
		t.Errorf("cap %d", c)
	}
}

func TestWhatWeEndedOurselvesIsNoCap(t *testing.T) {
	f := leased(t, 1)
	for id := ConnID(1); f.last < 5; id = f.last {
		f.find(id).sent, f.find(id).retiring = 3, true
		f.done(2, id, OK)
		f.Closed(at(2), id, Outcome{Class: IdleClose})
		f.connect(2, 1)
		f.busyAll(2)
	}
	if c := f.Snapshot(at(2)).SessionCap; c != 0 {
		t.Errorf("cap %d", c)
	}
}

// spend sends to n recipients at s seconds.
func (f *flow) spend(s float64, n int, class Class) {
	f.SendStart(at(s), 1, 1, n)
	f.done(s, 1, class)
}

func TestTheQuotaCountsTheLastDayAtEveryMoment(t *testing.T) {
	f := newFlow(t, Config{RecipientsPerDay: 100})
	f.connect(0, 1)
	f.spend(0, 60, OK)
	f.spend(12*3600, 40, OK)
	now := 12*3600 + 1.0
	p := f.plan(now, 10)
	if free := p.SendAt.Sub(at(24 * 3600)); p.Send != 0 || p.State != Paused || p.Reason != reasonQuota || free < 0 || free > 10*time.Minute {
		t.Fatalf("%+v, want a wait of half a day", p)
	}
	f.spend(now, 0, OK) // asked in vain
	later := p.SendAt.Sub(epoch).Seconds()
	if p := f.plan(later, 10); p.Send != 1 || p.State == Paused {
		t.Errorf("a day after the first 60: %+v", p)
	}
	if s := f.Snapshot(at(later)); s.QuotaUsed != 40 || s.QuotaLimit != 100 {
		t.Errorf("used %d of %d", s.QuotaUsed, s.QuotaLimit)
	}
}

func TestWhatWasRefusedIsGivenBackToTheQuota(t *testing.T) {
	f := newFlow(t, Config{RecipientsPerDay: 100})
	f.connect(0, 1)
	for _, s := range []struct {
		class Class
		used  int
	}{{OK, 10}, {PerMessage, 10}, {RateLimited, 10}, {Permanent, 10}, {Unavailable, 20}} { // no answer may have been a yes
		f.spend(1, 10, s.class)
		if got := f.Snapshot(at(1)).QuotaUsed; got != s.used {
			t.Errorf("%v: %d used, want %d", s.class, got, s.used)
		}
	}
}

func TestNoMoreIsSentAtOnceThanTheQuotaLeaves(t *testing.T) {
	f := newFlow(t, Config{RecipientsPerDay: 3})
	f.connect(0, 8)
	f.width = 8
	if p := f.plan(0, 100); p.Send != 3 {
		t.Errorf("%d sends with a quota of 3", p.Send)
	}
}

func TestTheQuotaSurvivesARestart(t *testing.T) {
	f := newFlow(t, Config{RecipientsPerDay: 100})
	f.connect(0, 1)
	f.spend(0, 30, OK)
	f.spend(3600, 50, OK)
	data, err := f.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		hours float64
		used  int
	}{{1, 80}, {23.9, 80}, {24.2, 50}, {25.2, 0}, {100, 0}} {
		g := newFlow(t, Config{RecipientsPerDay: 100})
		if err := g.Restore(at(s.hours*3600), data); err != nil {
			t.Fatal(err)
		}
		if got := g.Snapshot(at(s.hours * 3600)).QuotaUsed; got != s.used {
			t.Errorf("%v hours later: %d used, want %d", s.hours, got, s.used)
		}
	}
}

func TestAllThatWasLearntSurvivesARestart(t *testing.T) {
	f := limited(t)
	f.cap = sessionCap{most: 350, at: at(10)}
	f.lease.lost, f.refusedAt = at(15), at(15)
	data, err := f.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	g := newFlow(t, Config{})
	if err := g.Restore(at(60), data); err != nil {
		t.Fatal(err)
	}
	s := g.Snapshot(at(60))
	if s.Rate == 0 || s.Rate != f.Snapshot(at(60)).Rate || s.SessionCap != 350 || !g.lease.contended() || !g.refusedLately(at(60)) {
		t.Errorf("%+v; contended %v", s, g.lease.contended())
	}
}
