package flowctl

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"
)

// relay is a simulated upstream in virtual time, and the obedient pool in front of it. It counts
// connections as a server does: from the arrival of the dial until half a round trip after the close.
type relay struct {
	t   testing.TB
	c   *Controller
	now time.Time
	rng *rand.Rand

	limit     int           // connections; beyond it 421 after one round trip
	dataLimit int           // busy connections; beyond it 432 after DATA; 0: none
	perSecond float64       // transactions accepted a second; 0: any number
	up        bool          //
	rtt       time.Duration //
	login     time.Duration // TLS and AUTH, holding the place
	service   time.Duration // mean, of one message
	rotate    int           // messages per connection; 0: any number
	ready     int           // the backlog; never runs out while endless
	endless   bool

	events eventHeap
	seq    uint64
	lastID ConnID
	held   int
	bucket float64
	filled time.Time
	conns  map[ConnID]*link
	order  []*link // as dialled
	wake   time.Time

	dials, refused, sent, throttled int
	work                            time.Duration // of messages delivered
}

type link struct {
	id          ConnID
	established bool
	busy        bool
	gone        bool
	retire      bool
	began       time.Time
	count       int
}

type event struct {
	at  time.Time
	seq uint64
	do  func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at.Before(h[j].at) || h[i].at.Equal(h[j].at) && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

func newRelay(t testing.TB, cfg Config, limit int, seed uint64) *relay {
	t.Helper()
	c, err := New(cfg, seed, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return &relay{
		t: t, c: c, now: epoch, rng: rand.New(rand.NewPCG(seed, 1)),
		limit: limit, up: true, rtt: 20 * time.Millisecond, login: 80 * time.Millisecond, service: 100 * time.Millisecond,
		rotate: 100, endless: true, conns: map[ConnID]*link{}, filled: epoch,
	}
}

func (r *relay) after(d time.Duration, do func()) {
	r.seq++
	heap.Push(&r.events, event{r.now.Add(d), r.seq, do})
}

// run lets the time pass.
func (r *relay) run(d time.Duration) {
	r.t.Helper()
	end := r.now.Add(d)
	r.obey()
	for len(r.events) > 0 && !r.events[0].at.After(end) {
		e := heap.Pop(&r.events).(event)
		r.now = e.at
		e.do()
		r.obey()
	}
	r.now = end
}

// obey asks for plans until there is nothing more to do now.
func (r *relay) obey() {
	for range 100 {
		if r.endless {
			r.ready = 1000
		}
		p := r.c.Plan(r.now, Demand{Ready: r.ready})
		acted := len(p.Dial) > 0 || p.Send > 0
		for _, id := range p.Retire {
			k := r.conns[id]
			k.retire = true
			if !k.busy {
				r.close(k, OK)
				acted = true
			}
		}
		for range p.Dial {
			r.dial()
		}
		n := p.Send
		for _, k := range r.order {
			if n > 0 && k.established && !k.busy && !k.gone && !k.retire {
				r.send(k)
				n--
			}
		}
		if n > 0 {
			r.t.Fatalf("plan of %v lets %d more send than there are idle connections", p, n)
		}
		if !acted {
			if p.Wake.After(r.now) && !p.Wake.Equal(r.wake) {
				r.wake = p.Wake
				r.after(p.Wake.Sub(r.now), func() {})
			}
			return
		}
	}
	r.t.Fatal("the controller never comes to rest")
}

func (r *relay) dial() {
	r.lastID++
	k := &link{id: r.lastID, began: r.now}
	r.conns[k.id] = k
	r.order = append(r.order, k)
	r.dials++
	r.c.DialStart(r.now, k.id, "")
	r.after(r.rtt/2, func() {
		class, wait := OK, r.rtt/2+r.login
		switch {
		case !r.up:
			class, wait = Unavailable, r.rtt/2
		case r.held >= r.limit:
			class, wait = Busy, r.rtt/2
		default:
			r.held++
		}
		r.after(wait, func() {
			if class == OK && !r.up {
				class = Unavailable
				r.held--
			}
			if class == Busy {
				r.refused++
			}
			k.established = class == OK
			if class != OK {
				r.forget(k)
			}
			r.c.DialDone(r.now, k.id, Outcome{Class: class, Stage: StageGreeting, Started: k.began})
		})
	})
}

func (r *relay) send(k *link) {
	k.busy, k.began = true, r.now
	r.ready--
	r.c.SendStart(r.now, k.id, 1, 1)
	took := time.Duration((0.5 + r.rng.Float64()) * float64(r.service))
	r.after(took, func() {
		if k.gone {
			return
		}
		class := r.verdict()
		k.busy = false
		k.count++
		if class == OK {
			r.sent++
			r.work += took
		} else {
			r.ready++
			r.throttled++
		}
		r.c.SendDone(r.now, k.id, Outcome{Class: class, Stage: StageDot, Started: k.began, Took: took})
		switch {
		case k.retire:
			r.close(k, OK)
		case r.rotate > 0 && k.count >= r.rotate:
			r.close(k, SessionCap)
		}
	})
}

func (r *relay) verdict() Class {
	busy := 0
	for _, k := range r.order {
		if k.busy {
			busy++
		}
	}
	if r.dataLimit > 0 && busy > r.dataLimit {
		return Busy
	}
	if r.perSecond > 0 {
		r.bucket = min(r.perSecond, r.bucket+r.now.Sub(r.filled).Seconds()*r.perSecond)
		r.filled = r.now
		if r.bucket < 1 {
			return RateLimited
		}
		r.bucket--
	}
	return OK
}

func (r *relay) close(k *link, class Class) {
	r.forget(k)
	r.after(r.rtt/2, func() { r.held-- })
	r.c.Closed(r.now, k.id, Outcome{Class: class, Stage: StageIdle})
}

func (r *relay) forget(k *link) {
	k.gone = true
	delete(r.conns, k.id)
	for i := range r.order {
		if r.order[i] == k {
			r.order = append(r.order[:i], r.order[i+1:]...)
			return
		}
	}
}

// drop ends the last n connections from the relay's side.
func (r *relay) drop(n int, class Class) {
	for ; n > 0 && len(r.order) > 0; n-- {
		k := r.order[len(r.order)-1]
		if !k.established {
			r.run(100 * time.Millisecond) // the dial is over then
			n++
			continue
		}
		r.forget(k)
		r.held--
		if k.busy {
			r.ready++
			r.c.SendDone(r.now, k.id, Outcome{Class: class, Stage: StageDot, Started: k.began})
		}
		r.c.Closed(r.now, k.id, Outcome{Class: class, Stage: StageIdle})
	}
}

// over returns what fraction of limit connections was at work since a mark of r.work.
func (r *relay) over(mark time.Duration, d time.Duration, limit int) float64 {
	return float64(r.work-mark) / (float64(d) * float64(limit))
}

// until runs in small steps until n connections are established and returns how long that took.
func (r *relay) until(n int, most time.Duration) time.Duration {
	r.t.Helper()
	start := r.now
	for r.now.Sub(start) < most {
		r.run(10 * time.Millisecond)
		if r.c.established >= n {
			return r.now.Sub(start)
		}
	}
	return most
}

const seeds = 3

func TestAloneAtTheRelayItUsesWhatFits(t *testing.T) {
	for _, limit := range []int{3, 5, 20} {
		for seed := range uint64(seeds) {
			r := newRelay(t, Config{MaxConns: 50}, limit, seed)
			r.run(time.Minute)
			mark, refused := r.work, r.refused
			r.run(10 * time.Minute)
			used := r.over(mark, 10*time.Minute, limit)
			t.Logf("limit %d seed %d: used %.4f, %d refused in 10 min (%d in the first), %d messages", limit, seed, used, r.refused-refused, refused, r.sent)
			if used < 0.97 || r.refused-refused > 20 || refused > 12 {
				t.Errorf("limit %d seed %d: used %.4f, %d refused in 10 min after %d, want >= .97, <= 20 after <= 12", limit, seed, used, r.refused-refused, refused)
			}
		}
	}
}

func TestColdStartFindsTheLimitInTwoSeconds(t *testing.T) {
	for seed := range uint64(seeds) {
		r := newRelay(t, Config{MaxConns: 50}, 20, seed)
		took := r.until(18, time.Minute)
		r.run(2*time.Second - took)
		t.Logf("seed %d: 18 connections after %v, %d refused", seed, took, r.refused)
		if took >= 2*time.Second || r.refused > 5 {
			t.Errorf("seed %d: 18 connections after %v with %d refused, want < 2 s and <= 5", seed, took, r.refused)
		}
	}
}

func TestALimitThatFallsAndReturnsIsFollowed(t *testing.T) {
	for seed := range uint64(seeds) {
		r := newRelay(t, Config{MaxConns: 50}, 20, seed)
		r.run(time.Minute)
		r.limit = 5
		r.drop(15, Unavailable)
		mark, refused := r.work, r.refused
		r.run(10 * time.Minute)
		used, asked := r.over(mark, 10*time.Minute, 5), r.refused-refused
		r.limit = 20
		back := r.until(18, 5*time.Minute)
		t.Logf("seed %d: at 5 used %.4f, %d refused; back at 18 after %v", seed, used, asked, back)
		if used < 0.94 || asked > 60 || back > 40*time.Second {
			t.Errorf("seed %d: at 5 used %.4f, %d refused, back after %v; want >= .94, <= 60, <= 40 s", seed, used, asked, back)
		}
	}
}

func TestALimitThatRisesSilentlyIsFound(t *testing.T) {
	for seed := range uint64(seeds) {
		r := newRelay(t, Config{MaxConns: 50}, 5, seed)
		r.run(5 * time.Minute)
		r.limit = 20
		took := r.until(18, 10*time.Minute)
		t.Logf("seed %d: 18 connections after %v", seed, took)
		if took > 2*time.Minute {
			t.Errorf("seed %d: 18 connections after %v, want <= 2 min", seed, took)
		}
	}
}

func TestAnOutageCostsFewDialsAndEndsQuickly(t *testing.T) {
	for seed := range uint64(seeds) {
		r := newRelay(t, Config{MaxConns: 50}, 20, seed)
		r.run(time.Minute)
		r.up = false
		r.run(0)
		for len(r.order) > 0 && !r.order[len(r.order)-1].established {
			r.run(10 * time.Millisecond)
		}
		r.drop(len(r.order), Unavailable)
		dials := r.dials
		r.run(5 * time.Minute)
		dials = r.dials - dials
		if s := r.c.Snapshot(r.now).State; s != Open && s != HalfOpen {
			t.Errorf("seed %d: after 5 min of outage the state is %v", seed, s)
		}
		r.up = true
		first := r.until(1, 5*time.Minute)
		rest := r.until(18, 5*time.Minute)
		t.Logf("seed %d: %d dials in the outage; first connection after %v, 18 another %v later", seed, dials, first, rest)
		if dials > 25 || first > 65*time.Second || rest > 3*time.Second {
			t.Errorf("seed %d: %d dials, %v, %v; want <= 25, <= 65 s, <= 3 s", seed, dials, first, rest)
		}
	}
}

func TestALimitToldAfterDataIsFound(t *testing.T) {
	for seed := range uint64(seeds) {
		r := newRelay(t, Config{}, 100, seed)
		r.dataLimit = 3
		r.run(time.Minute)
		mark, bad := r.work, r.throttled
		r.run(10 * time.Minute)
		used := r.over(mark, 10*time.Minute, 3)
		t.Logf("seed %d: used %.4f, %d refused (%d in the first minute)", seed, used, r.throttled-bad, bad)
		if used < 0.95 || r.throttled-bad > 40 {
			t.Errorf("seed %d: used %.4f, %d refused, want >= .95, <= 40", seed, used, r.throttled-bad)
		}
	}
}

func TestARateThatIsRefusedIsKeptBelow(t *testing.T) {
	for seed := range uint64(seeds) {
		r := newRelay(t, Config{}, 20, seed)
		r.perSecond = 14
		r.run(time.Minute)
		sent, bad := r.sent, r.throttled
		r.run(10 * time.Minute)
		rate, share := float64(r.sent-sent)/600, float64(r.throttled-bad)/float64(r.sent-sent)
		t.Logf("seed %d: %.2f/s accepted, %.2f %% refused, %d connections", seed, rate, 100*share, r.c.established)
		if rate < 9 || share > 0.05 {
			t.Errorf("seed %d: %.2f/s accepted with %.2f %% refused, want >= 9 and <= 5 %%", seed, rate, 100*share)
		}
	}
}
