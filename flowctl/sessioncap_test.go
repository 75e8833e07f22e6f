package flowctl

import "testing"

// session dials a connection at s seconds, has n messages taken over it, and returns it, idle.
func (f *flow) session(s float64, n int) ConnID {
	id := f.connect(s, 1)
	f.find(id).lease = at(1e9)
	for i := range n {
		f.SendStart(at(s+.01*float64(i)), id, 1, 1)
		f.done(s+.01*float64(i), id, OK)
	}
	return id
}

func (f *flow) capAt(s float64) int { return f.Snapshot(at(s)).SessionCap }

func TestACapThatIsToldIsBelievedAtOnce(t *testing.T) {
	for name, tell := range map[string]func(f *flow, id ConnID){
		"in a transaction": func(f *flow, id ConnID) {
			f.SendStart(at(2), id, 1, 1)
			f.SendDone(at(2), id, Outcome{Class: SessionCap, Stage: StageMail})
			f.Closed(at(2), id, Outcome{Class: IdleClose})
		},
		"at the end": func(f *flow, id ConnID) { f.Closed(at(2), id, Outcome{Class: SessionCap}) },
	} {
		f := newFlow(t, Config{})
		tell(f, f.session(1, 5))
		if n := f.capAt(2); n != 5 {
			t.Errorf("%s: cap %d, want 5", name, n)
		}
		if m := f.Moves(); len(m) == 0 || m[len(m)-1].What != "session_cap" || m[len(m)-1].To != 5 {
			t.Errorf("%s: not told: %+v", name, m)
		}
	}
}

func TestACapThatIsNotToldNeedsTwoThatEndAtTheSameCount(t *testing.T) {
	f := newFlow(t, Config{})
	for i, s := range []struct {
		messages, cap int
	}{{5, 0}, {4, 0}, {5, 0}, {5, 5}, {3, 5}, {3, 3}} {
		now := 10 * float64(i+1)
		id := f.session(now, s.messages)
		f.Closed(at(now+.5), id, Outcome{Class: IdleClose})
		if n := f.capAt(now + 1); n != s.cap {
			t.Errorf("end %d, after %d messages: cap %d, want %d", i, s.messages, n, s.cap)
		}
	}
}

func TestACapOfOneNeedsThreeEnds(t *testing.T) {
	for _, class := range []Class{SessionCap, IdleClose, Unavailable} {
		f := newFlow(t, Config{})
		for i := range capThrice {
			if n := f.capAt(10 * float64(i)); n != 0 {
				t.Fatalf("%v: cap %d after %d ends", class, n, i)
			}
			f.Closed(at(10*float64(i)+1), f.session(10*float64(i)+1, 1), Outcome{Class: class})
		}
		if n := f.capAt(40); n != 1 {
			t.Errorf("%v: cap %d after three ends, want 1", class, n)
		}
	}
}

func TestACapIsForgottenAfterAnHour(t *testing.T) {
	f := newFlow(t, Config{})
	f.Closed(at(2), f.session(1, 5), Outcome{Class: SessionCap})
	if f.capAt(2+capKeep.Seconds()-1) != 5 || f.capAt(2+capKeep.Seconds()) != 0 {
		t.Errorf("cap %d just before, %d after", f.capAt(3601), f.capAt(3602))
	}
	f = newFlow(t, Config{})
	f.Closed(at(2), f.session(1, 5), Outcome{Class: SessionCap})
	f.Closed(at(1802), f.session(1801, 5), Outcome{Class: SessionCap})
	if n := f.capAt(3700); n != 5 {
		t.Errorf("cap %d, though it was told again", n)
	}
}

func TestWhatEndsForAnotherReasonIsNoCap(t *testing.T) {
	for name, end := range map[string]func(f *flow, id ConnID, now float64){
		"idle for long": func(f *flow, id ConnID, now float64) { f.Closed(at(now+5), id, Outcome{Class: IdleClose}) },
		"we closed it":  func(f *flow, id ConnID, now float64) { f.Closed(at(now), id, Outcome{}) },
		"retired": func(f *flow, id ConnID, now float64) {
			f.find(id).retiring = true
			f.Closed(at(now), id, Outcome{Class: IdleClose})
		},
		"overloaded": func(f *flow, id ConnID, now float64) { f.Closed(at(now), id, Outcome{Class: Overload}) },
	} {
		f := newFlow(t, Config{})
		for i := range 5 {
			now := 10 * float64(i+1)
			end(f, f.session(now, 3), now+.1)
		}
		if n := f.capAt(100); n != 0 {
			t.Errorf("%s: cap %d", name, n)
		}
	}
	f := newFlow(t, Config{})
	for i := range 5 { // ended before any message: there is nothing to count
		f.Closed(at(float64(i)), f.session(float64(i), 0), Outcome{Class: SessionCap})
	}
	if n := f.capAt(10); n != 0 {
		t.Errorf("without a message: cap %d", n)
	}
}

// The server counts a message that it took for some of its recipients.
func TestAMessageTakenInPartCountsForTheCap(t *testing.T) {
	f := newFlow(t, Config{})
	id := f.session(1, 2)
	f.SendStart(at(2), id, 1, 2)
	f.SendDone(at(2), id, Outcome{Class: Permanent, Stage: StageRcpt, Taken: 1})
	f.SendStart(at(2), id, 1, 2)
	f.SendDone(at(2), id, Outcome{Class: Permanent, Stage: StageRcpt})
	f.Closed(at(2), id, Outcome{Class: SessionCap})
	if n := f.capAt(2); n != 3 {
		t.Errorf("cap %d, want 3", n)
	}
}

func TestAConnectionIsReplacedBeforeTheCap(t *testing.T) {
	f := newFlow(t, Config{MaxConns: 1})
	f.Closed(at(2), f.session(1, 5), Outcome{Class: SessionCap})
	id := f.session(10, 4)
	if p := f.plan(11, 9); len(p.Retire) != 0 || p.Send != 1 {
		t.Fatalf("after four of five: %+v", p)
	}
	f.SendStart(at(11), id, 1, 1)
	p := f.plan(11, 9)
	if len(p.Retire) != 1 || p.Ahead != 0 {
		t.Fatalf("during the fifth: %+v", p)
	}
	f.done(11.1, id, OK)
	f.Closed(at(11.1), id, Outcome{})
	if p := f.plan(11.1, 9); len(p.Dial) != 1 {
		t.Errorf("its place is not taken again at once: %+v", p)
	}
}

func TestNothingIsQueuedBeyondTheCap(t *testing.T) {
	f := newFlow(t, Config{MaxConns: 1})
	f.Closed(at(2), f.session(1, 5), Outcome{Class: SessionCap})
	id := f.session(10, 3)
	f.SendStart(at(11), id, 1, 1)
	if p := f.plan(11, 9); p.Ahead != 1 {
		t.Fatalf("the fifth may wait behind the fourth: %+v", p)
	}
	f.SendStart(at(11), id, 1, 1)
	if p := f.plan(11, 9); p.Ahead != 0 || len(p.Retire) != 1 {
		t.Errorf("and no more: %+v", p)
	}
}
