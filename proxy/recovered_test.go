package proxy

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"pgregory.net/rapid"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
)

// oracle is a message as recovery could keep it if memory were free: the fate of each recipient by itself.
type oracle struct {
	domains []string
	fates   []fate
	failed  []int
	reply   string
	dead    bool
}

func (o *oracle) take(rec journal.Record, f fields) {
	concerned := f.To
	if !f.HasTo {
		concerned = indices(len(o.domains))
	}
	switch rec.Type {
	case journal.Verdict:
		o.failed = append(o.failed, f.Failed...)
		if o.reply == "" && len(f.Failed) > 0 {
			o.reply = f.Reply
		}
		for _, i := range append(f.Delivered, f.Failed...) {
			o.fates[i].ended, o.fates[i].started = true, 0
		}
	case journal.Attempt:
		for _, i := range concerned {
			o.fates[i].due, o.fates[i].tries, o.fates[i].started = micros(f.Due), f.Tries, 0
		}
	case journal.Started:
		for _, i := range concerned {
			o.fates[i].started++
		}
	case journal.Dead:
		o.dead = true
	case journal.Restated:
		*o = oracle{domains: o.domains, fates: make([]fate, len(o.domains))}
	}
}

// fateOf says what the deliveries that recovery makes mean for one recipient.
func fateOf(groups []queue.Group, i int) (due int64, tries queue.Tries, key string, pending bool) {
	for _, g := range groups {
		if g.To == nil && len(groups) == 1 || slices.Contains(g.To, i) {
			return micros(g.Due), g.Tries, g.Key, true
		}
	}
	return 0, queue.Tries{}, "", false
}

// Whatever the records are, what is kept once for all recipients says the same as what would be kept for each.
func TestWhatRecipientsShareIsKeptOnceAndMeansTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 1, 2, 3, queue.MaxGroup, queue.MaxGroup + 1, 250}).Draw(t, "recipients")
		hosts := rapid.IntRange(1, 3).Draw(t, "domains")
		o := &oracle{fates: make([]fate, n)}
		env := message.Envelope{ID: 1, Received: noon, Size: 5}
		for i := range n {
			o.domains = append(o.domains, fmt.Sprintf("d%d.example", i%hosts))
			env.To = append(env.To, message.Recipient{Addr: fmt.Sprintf("u%d@D%d.example", i, i%hosts)})
		}
		r := newRecovery(new(message.IDs), zap.NewNop())
		accept(t, r, &env)
		for range rapid.IntRange(0, 8).Draw(t, "records") {
			rec := anyRecord(t, n)
			replay(t, r, rec)
			f, err := parseFields(rec.Payload)
			if err != nil {
				t.Fatal(err)
			}
			o.take(rec, f)
		}
		compare(t, r, o)
	})
}

// anyRecord draws a state record of message 1, which has n recipients.
func anyRecord(t *rapid.T, n int) journal.Record {
	some := func(what string) []int {
		if rapid.Bool().Draw(t, "all") {
			return indices(n)
		}
		to := rapid.SliceOfNDistinct(rapid.IntRange(0, n-1), 1, n, rapid.ID).Draw(t, what)
		slices.Sort(to)
		return to
	}
	someOrNil := func() []int {
		if rapid.Bool().Draw(t, "named") {
			return some("to")
		}
		return nil
	}
	switch rapid.IntRange(0, 5).Draw(t, "type") {
	case 0:
		return verdict{Delivered: some("delivered")}.record(1)
	case 1:
		return verdict{Failed: some("failed"), Reply: "550"}.record(1)
	case 2:
		due := noon.Add(time.Duration(rapid.IntRange(-9, 9).Draw(t, "due")) * time.Minute)
		return attempt{To: someOrNil(), Due: due, Tries: queue.Tries{Attempts: 1}}.record(1)
	case 3, 4:
		return started(1, someOrNil())
	}
	return journal.Record{Type: rapid.SampledFrom([]journal.Type{journal.Dead, journal.Restated}).Draw(t, "end"), ID: 1}
}

func compare(t *rapid.T, r *recovery, o *oracle) {
	t.Helper()
	m := r.pending.get(1)
	groups := r.groups(nil, m, noon, time.Minute)
	crashes := uint8(0)
	for i, want := range o.fates {
		if !want.ended {
			crashes = max(crashes, want.started)
		}
		want = want.after(noon, time.Minute)
		due, tries, key, pending := fateOf(groups, i)
		if pending == want.ended || pending && (due != want.due || tries != want.tries) {
			t.Fatalf("recipient %d: pending %v, due %d, %+v; want %+v", i, pending, due, tries, want)
		}
		if pending && key != o.domains[i] && key != mixedKey {
			t.Fatalf("recipient %d of %s is under %s", i, o.domains[i], key)
		}
	}
	for _, g := range groups {
		n := len(g.To)
		if g.To == nil {
			n = len(o.fates)
		}
		shared := g.To == nil || g.Key == sharedKey(g.To, func(i int) string { return o.domains[i] })
		if n > queue.MaxGroup || g.To == nil && len(groups) > 1 || !shared {
			t.Fatalf("a delivery to %d recipients under %s, among %d deliveries", n, g.Key, len(groups))
		}
	}
	var p parts
	if r.parts[1] != nil {
		p = *r.parts[1]
	}
	if _, dead := r.deaths[1]; dead != o.dead || !reflect.DeepEqual(p.failed, o.failed) || p.failReply != o.reply || r.crashes(m) != crashes {
		t.Fatalf("dead %v, failed %v %q, %d crashes; want %+v and %d", dead, p.failed, p.failReply, r.crashes(m), o, crashes)
	}
}

type failer interface {
	Helper()
	Fatal(...any)
}

func accept(t failer, r *recovery, env *message.Envelope) {
	t.Helper()
	meta, err := env.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	replay(t, r, journal.Record{Type: journal.Accepted, ID: uint64(env.ID), Payload: meta})
}

func replay(t failer, r *recovery, rec journal.Record) {
	t.Helper()
	if err := r.replay(rec); err != nil {
		t.Fatal(err)
	}
}

// Messages come and go in any order, as in a journal of which most has ended; what is left comes out in the order of acceptance.
func TestTheRecoveredAreFoundRemovedAndSorted(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var b backlog
	want := map[message.ID]int64{}
	for step := range 100_000 {
		id := message.ID(random.IntN(30_000)+1) << 10
		if _, there := want[id]; !there && random.IntN(3) > 0 {
			b.add(id).size = int64(step) + 1
			want[id] = int64(step) + 1
			continue
		}
		if m := b.get(id); (m != nil) != (want[id] > 0) || m != nil && m.size != want[id] {
			t.Fatalf("step %d: found %+v, want size %d", step, m, want[id])
		}
		b.remove(id)
		delete(want, id)
		if b.get(id) != nil {
			t.Fatalf("step %d: still there", step)
		}
	}
	if most := 30_000/piece + 1; len(b.pieces) > most {
		t.Errorf("%d pieces, want %d at most: places are not used again", len(b.pieces), most)
	}
	last := message.ID(0)
	b.empty(func(m *recovered) {
		if m.id <= last || m.size != want[m.id] {
			t.Fatalf("%d of size %d after %d; want size %d", m.id, m.size, last, want[m.id])
		}
		last = m.id
		delete(want, m.id)
	})
	if len(want) > 0 {
		t.Errorf("%d messages are missing", len(want))
	}
}

// A million must fit beside the journal's own index while they are read, also when each has been tried in vain. Recipients of
// several domains, or with several fates, are rarer and may cost more.
func TestAMessageTakesLittleWhileABacklogIsRead(t *testing.T) {
	const messages = 100_000
	for _, c := range []struct {
		name    string
		domains int
		records func(id message.ID) []journal.Record
		most    int64 // bytes each
	}{
		{"untried", 1, nil, 64},
		{"tried in vain", 1, func(id message.ID) []journal.Record {
			return []journal.Record{started(id, nil), attempt{To: []int{0, 1}, Due: noon, Tries: queue.Tries{Attempts: 1}}.record(id)}
		}, 64},
		{"two domains", 2, nil, 256},
		{"two domains and two fates", 2, func(id message.ID) []journal.Record {
			return []journal.Record{verdict{Delivered: []int{1}}.record(id)}
		}, 320},
	} {
		before := heapBytes()
		r := newRecovery(new(message.IDs), zap.NewNop())
		for i := range messages {
			id := message.ID(i+1) << 10
			accept(t, r, &message.Envelope{ID: id, Received: noon, To: []message.Recipient{
				{Addr: fmt.Sprintf("user%d@customer%d.example", i, i%200)}, {Addr: fmt.Sprintf("boss@customer%d.example", (i+c.domains-1)%200)},
			}})
			if c.records != nil {
				for _, rec := range c.records(id) {
					replay(t, r, rec)
				}
			}
		}
		each := (heapBytes() - before) / messages
		runtime.KeepAlive(r)
		t.Logf("%s: %d bytes each", c.name, each)
		if each > c.most {
			t.Errorf("%s: a message takes %d bytes, want %d at most", c.name, each, c.most)
		}
	}
}

// heapBytes returns what is in use.
func heapBytes() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestDomainsAreNamedOnce(t *testing.T) {
	n := newNames()
	numbers := map[string]uint32{}
	for _, c := range []struct{ addr, want string }{
		{"a@x.example", "x.example"}, {"b@X.Example", "x.example"},
		{"postmaster", ""}, {"c@postmaster", "postmaster"}, {"postmaster", ""}, {"POSTMASTER", ""},
		{`"@y"@x.example`, "x.example"}, {"a@BÜCHER.example", "bücher.example"}, {"a@bücher.example", "bücher.example"},
	} {
		i := n.domain(0, []byte(c.addr))
		if i == 0 || n.all[i].domain != c.want || numbers[c.want] != 0 && numbers[c.want] != i {
			t.Errorf("%s: number %d, %q; want %q", c.addr, i, n.all[i].domain, c.want)
		}
		numbers[c.want] = i
	}
	if len(n.all) != 1+len(numbers) {
		t.Errorf("%v", n.all)
	}
}

func TestARestatedMessageIsWhatTheListSays(t *testing.T) {
	to := []string{"a@x.example", "b@y.example"}
	later := noon.Add(time.Hour)
	restated := journal.Record{Type: journal.Restated, ID: 1}
	r, got := replayed(t, to,
		verdict{Failed: []int{0}, Reply: "550 old"}.record(1), started(1, []int{1}), attempt{To: []int{1}, Due: later}.record(1),
		death{At: noon}.record(1),
		restated, verdict{Delivered: []int{1}}.record(1))
	if len(got) != 1 || !slices.Equal(got[0].To, []int{0}) || got[0].Key != "x.example" || len(r.deaths) != 0 || len(r.parts[1].failed) != 0 {
		t.Errorf("deliveries %+v, deaths %v, parts %+v", got, r.deaths, r.parts[1])
	}
	_, got = replayed(t, to, verdict{Delivered: []int{0}}.record(1), restated)
	if len(got) != 1 || got[0].To != nil || got[0].Key != mixedKey {
		t.Errorf("deliveries %+v, want one to both", got)
	}
	if r, _ := replayed(t, to, settled(1), restated, attempt{Due: later}.record(1)); r.pending.n != 0 {
		t.Error("a message that had ended came back")
	}
}

// What may be killing us comes ever more rarely, but it is never given up for that: it may have been a bystander.
func TestAMessageThatWasThereAtEachCrashWaitsTwiceAsLongEachTime(t *testing.T) {
	const pause = 5 * time.Minute
	for started, want := range map[uint8]time.Duration{
		0: 0, 2: 0, 3: pause, 4: 2 * pause, 5: 4 * pause, 12: 24 * time.Hour, 255: 24 * time.Hour,
	} {
		x := fate{started: started}.after(noon, pause)
		if due := time.Duration(x.due-micros(noon)) * time.Microsecond; x.due != 0 && due != want || x.due == 0 && want != 0 {
			t.Errorf("after %d crashes it waits %s, want %s", started, due, want)
		}
	}
	if x := (fate{started: 9}).after(noon, 30*time.Hour); x.due != micros(noon.Add(30*time.Hour)) {
		t.Error("the pause is shorter than the one that was asked for")
	}
}
