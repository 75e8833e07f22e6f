package flowctl

import (
	"testing"
	"time"
)

// spend sends transactions of n recipients in all over connection 1 at s seconds, each ending in class.
func (f *flow) spend(s float64, n int, class Class) {
	f.SendStart(at(s), 1, 1, n)
	f.done(s, 1, class)
}

func metered(t *testing.T, perDay int) *flow {
	f := newFlow(t, Config{MaxConns: 3, RecipientsPerDay: perDay})
	f.connect(0, 1)
	f.conns[0].lease = at(1e9)
	return f
}

const day = 86400.0

func TestTheQuotaIsOfTheLastDayToFiveMinutes(t *testing.T) {
	f := metered(t, 1000)
	type use struct {
		at float64
		n  int
	}
	var used []use
	for i := range 2000 {
		s := float64(i) * 97
		n := i % 7
		f.spend(s, n, OK)
		used = append(used, use{s, n})
		least, most := 0, 0
		for _, u := range used {
			if s-u.at < day-300 {
				least += u.n
			}
			if s-u.at <= day {
				most += u.n
			}
		}
		if got := f.Snapshot(at(s)).QuotaUsed; got < least || got > most {
			t.Fatalf("at %v s: %d used, want %d to %d", s, got, least, most)
		}
	}
}

func TestASpentQuotaWaitsUntilTheOldestIsADayAgo(t *testing.T) {
	f := metered(t, 100)
	f.spend(10, 60, OK)
	f.spend(7210, 39, OK)
	if p := f.plan(7211, 50); p.Send != 1 {
		t.Fatalf("one recipient left: %+v", p)
	}
	f.spend(7211, 1, OK)
	p := f.plan(7212, 50)
	s := f.Snapshot(at(7212))
	if p.Send != 0 || p.Ahead != 0 || len(p.Dial) != 0 || p.State != Paused || p.Reason != reasonQuota || s.QuotaUsed != 100 || s.QuotaLimit != 100 {
		t.Fatalf("%+v, %d used", p, s.QuotaUsed)
	}
	until := sec(p.SendAt)
	if !p.Wake.Equal(p.SendAt) || until < day-300 || until > day+310 {
		t.Errorf("waits until %v s, want a day after the first", until)
	}
	if p := f.plan(until-.001, 50); p.Send != 0 {
		t.Errorf("sends before: %+v", p)
	}
	if p := f.plan(until, 50); p.Send != 1 || p.State == Paused {
		t.Errorf("at the time it said: %+v", p)
	}
	if got := f.Snapshot(at(until)).QuotaUsed; got != 40 {
		t.Errorf("%d used a day after the first 60 of 100", got)
	}
}

func TestNoMoreThanTheQuotaIsBegun(t *testing.T) {
	f := newFlow(t, Config{MaxConns: 10, RecipientsPerDay: 4})
	f.connect(0, 6)
	if p := f.plan(1, 50); p.Send != 4 || p.Ahead != 0 || len(p.Dial) != 0 {
		t.Fatalf("%+v, want the four that are left", p)
	}
	f.SendStart(at(1), 1, 1, 1)
	f.SendStart(at(1), 2, 1, 1)
	if p := f.plan(1, 50); p.Send+p.Ahead != 2 {
		t.Errorf("%+v, want two", p)
	}
}

func TestWhatWasNotTakenIsGivenBack(t *testing.T) {
	for class, used := range map[Class]int{
		OK: 30, Unavailable: 30, // nobody knows: it may have been taken
		PerMessage: 0, Permanent: 0, Busy: 0, RateLimited: 0, IdleClose: 0, Overload: 0, Quota: 0,
	} {
		f := metered(t, 1000)
		f.spend(10, 30, class)
		if got := f.Snapshot(at(10)).QuotaUsed; got != used {
			t.Errorf("%v: %d of 30 recipients count, want %d", class, got, used)
		}
		f = metered(t, 1000)
		f.SendStart(at(10), 1, 1, 30)
		f.Closed(at(11), 1, Outcome{Class: class})
		if got := f.Snapshot(at(11)).QuotaUsed; got != used {
			t.Errorf("closed with %v: %d of 30 recipients count, want %d", class, got, used)
		}
	}
}

func TestRecipientsThatWereTakenCountThoughOthersWereRefused(t *testing.T) {
	f := metered(t, 1000)
	f.SendStart(at(10), 1, 1, 30)
	f.SendDone(at(11), 1, Outcome{Class: Permanent, Stage: StageRcpt, Taken: 29})
	if got := f.Snapshot(at(11)).QuotaUsed; got != 29 {
		t.Errorf("%d count, want 29", got)
	}
	f.SendStart(at(12), 1, 1, 3)
	f.SendDone(at(12), 1, Outcome{Class: Permanent, Taken: 99})
	if got := f.Snapshot(at(12)).QuotaUsed; got != 32 {
		t.Errorf("%d count, want 32: no more are taken than were sent", got)
	}
}

func TestTheQuotaTellsApartWhatIsQueuedBehind(t *testing.T) {
	f := metered(t, 1000)
	f.SendStart(at(10), 1, 1, 1)
	f.SendStart(at(10), 1, 1, 99)
	f.done(11, 1, Permanent)
	if got := f.Snapshot(at(11)).QuotaUsed; got != 99 {
		t.Errorf("%d count after the first was refused, want 99", got)
	}
	f.done(12, 1, OK)
	if got := f.Snapshot(at(12)).QuotaUsed; got != 99 {
		t.Errorf("%d count after the second was taken, want 99", got)
	}
	f.SendStart(at(20), 1, 1, 5)
	f.SendStart(at(20), 1, 1, 7)
	f.Closed(at(21), 1, Outcome{Class: Unavailable})
	if got := f.Snapshot(at(21)).QuotaUsed; got != 104 {
		t.Errorf("%d count after a cut, want 104: the second was not begun", got)
	}
}

func TestTheQuotaIsGivenBackAcrossItsGrain(t *testing.T) {
	f := metered(t, 1000)
	f.SendStart(at(299), 1, 1, 30)
	f.done(301, 1, PerMessage)
	if got := f.Snapshot(at(301)).QuotaUsed; got != 0 {
		t.Errorf("%d count", got)
	}
}

func TestTheQuotaSurvivesARestart(t *testing.T) {
	f := metered(t, 100)
	f.spend(10, 60, OK)
	f.spend(7210, 40, OK)
	until := f.plan(7212, 1).SendAt
	data, err := f.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		at   float64
		used int
	}{{7212, 100}, {sec(until) - 1, 100}, {sec(until), 40}, {3 * day, 0}} {
		g := newFlow(t, Config{RecipientsPerDay: 100})
		if err := g.Restore(at(s.at), data); err != nil {
			t.Fatal(err)
		}
		if got := g.Snapshot(at(s.at)).QuotaUsed; got != s.used {
			t.Errorf("restored at %v s: %d used, want %d", s.at, got, s.used)
		}
	}
	g := newFlow(t, Config{RecipientsPerDay: 100, Scale: .1}) // a test at ten times the speed
	if err := g.Restore(at(7212), data); err != nil || g.Snapshot(at(7212)).QuotaUsed != 0 {
		t.Errorf("of another scale: %v, %d used", err, g.Snapshot(at(7212)).QuotaUsed)
	}
}

// A second quota would be the price of trusting a clock; a quota for ever that of not doing so.
func TestAClockThatWentBackNeitherDoublesNorFreezesTheQuota(t *testing.T) {
	f := metered(t, 100)
	f.spend(100*day, 100, OK)
	data, err := f.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	g := newFlow(t, Config{RecipientsPerDay: 100})
	if err := g.Restore(at(1000), data); err != nil {
		t.Fatal(err)
	}
	p := g.plan(1000, 1)
	if d := p.SendAt.Sub(at(1000)); len(p.Dial) != 0 || d < 23*time.Hour || d > 25*time.Hour {
		t.Errorf("%+v, want to wait for a day", p)
	}
}
