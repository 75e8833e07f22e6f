package flowctl

import (
	"slices"
	"testing"
	"time"
)

// The rules about addresses one by one; what they come to together is in addresses_test.go.

func addressesFlow(t *testing.T, addrs ...Address) *flow {
	t.Helper()
	f := newFlow(t, Config{})
	f.SetAddresses(epoch, addrs)
	for i := range f.addrs {
		f.addrs[i].known = true
	}
	return f
}

func TestWhichAddressIsDialledNext(t *testing.T) {
	a := func(name string, priority int, set ...func(*address)) address {
		x := address{Address: Address{Name: name, Priority: priority, Weight: 1}, known: true}
		for _, s := range set {
			s(&x)
		}
		return x
	}
	has := func(n int) func(*address) { return func(x *address) { x.established = n } }
	dialling := func(n int) func(*address) { return func(x *address) { x.dialing = n } }
	fails := func(x *address) { x.fails = 1 }
	openUntil := func(s float64) func(*address) {
		return func(x *address) { x.open, x.fails, x.openUntil = true, 3, at(s) }
	}
	retryAt := func(s float64) func(*address) { return func(x *address) { x.retryAt = at(s) } }
	trial := func(x *address) { x.trial = 7 }
	late := func(x *address) { x.late, x.dialing = 1, 1 }
	unknown := func(x *address) { x.known = false }
	planned := func(x *address) { x.planned = 1 }
	for name, tt := range map[string]struct {
		addrs []address
		want  string
		wake  float64 // 0: none
	}{
		"the preferred one, however busy":              {[]address{a("spare", 5), a("main", 0, has(9))}, "main", 0},
		"the one with the fewest":                      {[]address{a("x", 0, has(2)), a("y", 0, has(1))}, "y", 0},
		"a dial counts":                                {[]address{a("x", 0, dialling(2)), a("y", 0, has(1))}, "y", 0},
		"a planned one too":                            {[]address{a("x", 0, planned), a("y", 0)}, "y", 0},
		"a doubtful one first":                         {[]address{a("x", 0), a("y", 0, fails, has(3))}, "y", 0},
		"but not one beyond those that answer":         {[]address{a("x", 0), a("y", 5, fails), a("z", 9)}, "x", 0},
		"of doubtful ones the preferred":               {[]address{a("y", 5, fails), a("x", 0, fails, has(3))}, "x", 0},
		"a doubtful one is dialled once":               {[]address{a("x", 0), a("y", 0, fails, dialling(1))}, "x", 0},
		"one that hangs likewise":                      {[]address{a("x", 0, late), a("y", 0, openUntil(5))}, "", 5},
		"and no priority is kept for it":               {[]address{a("x", 0, late), a("y", 5)}, "y", 0},
		"a closed one waits":                           {[]address{a("x", 0, openUntil(5)), a("y", 0, openUntil(3))}, "", 3},
		"for the first of them":                        {[]address{a("x", 0, openUntil(3)), a("y", 0, openUntil(5))}, "", 3},
		"for the later of its times":                   {[]address{a("x", 0, openUntil(3), retryAt(4)), a("y", 0, openUntil(8))}, "", 4},
		"whichever that is":                            {[]address{a("x", 0, openUntil(4), retryAt(3)), a("y", 0, openUntil(8))}, "", 4},
		"it is tried once":                             {[]address{a("x", 0, openUntil(0), trial), a("y", 0, openUntil(8))}, "", 8},
		"also when the trial is dialled":               {[]address{a("x", 0, openUntil(0), dialling(1)), a("y", 0, openUntil(8))}, "", 8},
		"then it goes before the others":               {[]address{a("x", 0), a("y", 0, openUntil(0))}, "y", 0},
		"what never answered has one dial":             {[]address{a("x", 0, unknown, dialling(1)), a("y", 0, has(9))}, "y", 0},
		"a planned one included":                       {[]address{a("x", 0, unknown, planned), a("y", 0, has(9))}, "y", 0},
		"but alone it has as many as it may":           {[]address{a("x", 0, unknown, dialling(1))}, "x", 0},
		"a spare one serves while none of main answer": {[]address{a("x", 0, openUntil(5)), a("y", 5, has(9)), a("z", 9)}, "y", 0},
	} {
		f := newFlow(t, Config{})
		f.addrs = tt.addrs
		best, wake := f.pick(at(1))
		got := ""
		if best != nil {
			got = best.Name
		}
		if want := at(tt.wake); got != tt.want || tt.want == "" && !wake.Equal(want) {
			t.Errorf("%s: %q, wake %s; want %q, wake %s", name, got, wake, tt.want, want)
		}
	}
}

func TestEqualAddressesAreDrawnByWeight(t *testing.T) {
	for name, tt := range map[string]struct {
		addrs []Address
		busy  int // connections that the first has
		want  int // of a thousand, for the last
	}{
		"the heavy one last":      {[]Address{{Name: "a"}, {Name: "b", Weight: 3}}, 0, 750},
		"the heavy one first":     {[]Address{{Name: "a", Weight: 3}, {Name: "b"}}, 0, 250},
		"three":                   {[]Address{{Name: "a", Weight: 2}, {Name: "b", Weight: 2}, {Name: "c", Weight: 6}}, 0, 600},
		"one that is out of it":   {[]Address{{Name: "a"}, {Name: "b"}, {Name: "c"}}, 1, 500},
		"load is one per weight":  {[]Address{{Name: "a"}, {Name: "b", Weight: 3}}, 1, 1000},
		"a heavy one out of it":   {[]Address{{Name: "a", Weight: 5}, {Name: "b"}, {Name: "c"}}, 6, 500},
		"a heavy one is not full": {[]Address{{Name: "a", Weight: 5}, {Name: "b"}}, 0, 167},
	} {
		f := addressesFlow(t, tt.addrs...)
		f.addrs[0].established = tt.busy
		n := 0
		for range 1000 {
			if best, _ := f.pick(epoch); best == &f.addrs[len(f.addrs)-1] {
				n++
			}
		}
		if n < tt.want-50 || n > tt.want+50 {
			t.Errorf("%s: %d of a thousand, want about %d", name, n, tt.want)
		}
	}
}

// A name is resolved again every half minute: what is known of an address that stays is kept, and so are connections to one that leaves.
func TestANewListKeepsWhatIsKnown(t *testing.T) {
	f := addressesFlow(t, equals("a", "b")...)
	f.connect(0, 2) // to a
	for range tripMin {
		f.last++
		f.DialStart(at(1), f.last, "b")
		f.DialDone(at(1), f.last, Outcome{Class: Unavailable})
	}
	f.last++
	f.DialStart(at(2), f.last, "b")
	want := f.Addresses()
	if b := want[1]; !b.Open || b.Failures != tripMin || b.Dialing != 1 || !b.RetryAt.After(at(1)) || want[0].Established != 2 {
		t.Fatalf("nothing is tested: %+v", want)
	}
	f.SetAddresses(at(3), []Address{{Name: "b", Priority: 5, Weight: 2}, {Name: "a"}})
	want[0], want[1] = want[1], want[0]
	want[0].Priority, want[0].Weight = 5, 2
	if got := f.Addresses(); !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	f.SetAddresses(at(4), equals("b"))
	if f.established != 2 || f.Addresses()[0].Dialing != 1 || f.OthersServe("a") {
		t.Errorf("%d connections, %+v", f.established, f.Addresses())
	}
	f.SetAddresses(at(5), equals("a", "b"))
	if a := f.Addresses()[0]; a.Established != 2 || !f.OthersServe("b") {
		t.Errorf("%+v", f.Addresses())
	}
}

func TestOthersServeUnlessTheyFailed(t *testing.T) {
	f := addressesFlow(t, equals("a", "b")...)
	is := func(what string, want bool) {
		t.Helper()
		if got := f.OthersServe("a"); got != want {
			t.Errorf("%s: %v", what, got)
		}
	}
	is("the other one is not connected, as a spare one never is", true)
	f.addrs[0].fails = 1
	is("it failed itself", true)
	f.addrs[1].fails = 1
	is("the other one did not answer the last time", false)
	f.addrs[1].fails, f.addrs[1].open = 0, true
	is("nor for a while", false)
	if f.OthersServe("unknown") {
		t.Error("an address that is not listed any more")
	}
}

// A host that is full without us says nothing about how many connections the others take; one that has some of ours does.
func TestAFullHostSaysNothingAboutTheOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		addrs []Address
		held  int // by us, at a
		fails int // of b
		want  int // the ceiling
	}{
		"none of ours":                 {equals("a", "b"), 0, 0, 0},
		"some of ours":                 {equals("a", "b"), 2, 0, 2},
		"none of ours, nor at another": {equals("a", "b"), 0, 1, 1},
		"there is no other":            {equals("a"), 0, 0, 1},
	} {
		f := addressesFlow(t, tt.addrs...)
		f.connect(0, tt.held)
		if len(f.addrs) > 1 {
			f.addrs[1].fails = tt.fails
		}
		f.last++
		f.DialStart(at(5), f.last, "a")
		f.DialDone(at(5), f.last, Outcome{Class: Busy, Stage: StageGreeting})
		if f.ceiling != tt.want || (f.addrs[0].fails > 0) != (tt.want == 0) {
			t.Errorf("%s: ceiling %d, want %d; %+v", name, f.ceiling, tt.want, f.addrs[0])
		}
	}
}

// A stopped upstream with several addresses is probed at all of them, and any that answers has the probe, whenever the others fail.
func TestAProbeIsSentWhereverAnAddressAnswers(t *testing.T) {
	for name, order := range map[string][]string{"then the other fails": {"a", "b"}, "after the other failed": {"b", "a"}} {
		f := addressesFlow(t, equals("a", "b")...)
		f.addrs[0].fails = 1
		f.Stop(at(0), "misconfigured", time.Minute)
		p := f.plan(61, 5)
		if !slices.Equal(p.Dial, []string{"a", "b"}) {
			t.Fatalf("%s: %+v", name, p)
		}
		ids := map[string]ConnID{}
		for _, addr := range slices.Clone(p.Dial) {
			f.last++
			ids[addr] = f.last
			f.DialStart(at(61), f.last, addr)
		}
		for _, addr := range order {
			if addr == "a" {
				f.DialDone(at(62), ids[addr], Outcome{})
				continue
			}
			f.DialDone(at(62), ids[addr], Outcome{Class: Misconfigured})
			f.Stop(at(62), "misconfigured", time.Minute)
		}
		if p := f.plan(63, 5); p.Send != 1 || p.Try != ids["a"] {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

// A dial that takes long is not counted on, where there are other addresses.
func TestADialIsWaitedForAsLongAsOnesTake(t *testing.T) {
	f := addressesFlow(t, equals("a", "b")...)
	for setup, want := range map[time.Duration]time.Duration{0: lateAfter, 100 * time.Millisecond: lateAfter, 2 * time.Second: lateSetups * 2 * time.Second} {
		f.lease.setup = setup
		if got := f.dialPatience(); got != want {
			t.Errorf("connecting takes %s: %s, want %s", setup, got, want)
		}
	}
	f.lease.setup = 0
	f.last = 2
	f.DialStart(at(0), 1, "a")
	f.DialStart(at(.5), 2, "a")
	look := func(s float64, expected, late int, lateAt time.Time) {
		t.Helper()
		f.lookAtDials(at(s))
		if f.expecting != expected || f.addrs[0].late != late || !f.lateAt.Equal(lateAt) {
			t.Errorf("at %gs: %d expected, %d late, the next at %s", s, f.expecting, f.addrs[0].late, f.lateAt)
		}
	}
	look(.6, 2, 0, at(1))
	look(1.2, 1, 1, at(1.5))
	look(2, 0, 2, time.Time{})
	f.DialDone(at(3), 1, Outcome{})
	f.DialDone(at(3), 2, Outcome{})
	look(3, 0, 0, time.Time{})
	f.addrs[1].fails = 1
	f.DialStart(at(4), 3, "b")
	look(4, 0, 0, time.Time{}) // and one to an address that is doubtful never
	if f.addrs[1].late != 1 {
		t.Error("a dial to a doubtful address is counted on")
	}
}

func TestConnectionsToAClosedAddressLeaveWhileOthersAnswer(t *testing.T) {
	for name, tt := range map[string]struct {
		open  []bool
		trial bool // the connection to the first one is its trial
		want  []bool
	}{
		"all answer":    {[]bool{false, false}, false, []bool{false, false}},
		"one does not":  {[]bool{true, false}, false, []bool{true, false}},
		"it is tried":   {[]bool{true, false}, true, []bool{false, false}},
		"none answers":  {[]bool{true, true}, false, []bool{false, false}},
		"there is none": {[]bool{true}, false, []bool{false}},
	} {
		f := addressesFlow(t, equals("a", "b")[:len(tt.open)]...)
		for i := range tt.open {
			f.last++
			f.DialStart(epoch, f.last, f.addrs[i].Name)
			f.DialDone(epoch, f.last, Outcome{})
		}
		for i, open := range tt.open {
			f.addrs[i].open = open
		}
		if tt.trial {
			f.addrs[0].trial = f.conns[0].id
		}
		f.leaveOpen()
		for i, want := range tt.want {
			if f.conns[i].retiring != want {
				t.Errorf("%s: connection %d leaves: %v", name, i, !want)
			}
		}
	}
}

func TestAnAddressIsClosedByThreeFailuresAndForSoLong(t *testing.T) {
	f := addressesFlow(t, equals("a", "b")...)
	fail := func(s float64, o Outcome) {
		f.last++
		f.DialStart(at(s), f.last, "b")
		o.Class = Unavailable
		f.DialDone(at(s), f.last, o)
	}
	b := &f.addrs[1]
	for i := range tripMin {
		if b.open {
			t.Errorf("closed after %d failures", i)
		}
		fail(float64(i), Outcome{})
	}
	if !b.open || b.openWait > f.cfg.OpenMax || b.openUntil.Before(at(2).Add(f.cfg.OpenMin)) {
		t.Errorf("open %v, %s, until %s", b.open, b.openWait, b.openUntil)
	}
	most := time.Duration(0)
	for i := range 50 {
		fail(float64(1000*(i+1)), Outcome{})
		most = max(most, b.openWait)
	}
	if most <= 3*f.cfg.OpenMin || most > f.cfg.OpenMax { // three times the least is the most of a first time
		t.Errorf("the longest wait was %s, of %s to %s", most, f.cfg.OpenMin, f.cfg.OpenMax)
	}
	fail(100_000, Outcome{RetryAfter: time.Hour})
	if got := b.openUntil.Sub(at(100_000)); got != time.Hour {
		t.Errorf("asked for an hour, tried again after %s", got)
	}
	f.last++
	f.DialStart(at(200_000), f.last, "b")
	f.DialDone(at(200_000), f.last, Outcome{})
	f.answered(at(200_000), f.find(f.last))
	if b.open || b.fails != 0 || b.openWait != 0 || b.trial != 0 {
		t.Errorf("it has answered: %+v", *b)
	}
}

// A trial that ends without having shown anything is followed by another.
func TestATrialThatShowedNothingIsRepeated(t *testing.T) {
	f := addressesFlow(t, equals("a", "b")...)
	f.connect(0, 1)
	b := &f.addrs[1]
	f.open(at(0), b, Outcome{})
	now := b.openUntil.Sub(epoch).Seconds() + .1
	f.last++
	f.DialStart(at(now), f.last, "b")
	if b.trial != f.last {
		t.Fatal("it is no trial")
	}
	f.DialDone(at(now), f.last, Outcome{})
	f.Closed(at(now+1), f.last, Outcome{Class: IdleClose, Stage: StageIdle})
	if b.trial != 0 {
		t.Error("the address is never tried again")
	}
}

func TestABackoffBeginsAnewAfterAQuietTime(t *testing.T) {
	var b backoff
	for i, s := range []struct{ at, want float64 }{{0, 1}, {2, 2}, {5, 4}, {10, 8}, {20, 10}, {31, 10}, {51, 10}, {72, 1}, {73, 2}} {
		if got := b.next(at(s.at), time.Second, 10*time.Second); got.Seconds() != s.want {
			t.Errorf("failure %d: %s, want %gs", i+1, got, s.want)
		}
	}
}
