//go:build crash

package crash

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

var (
	hits  = flag.Int("hits", 5, "kills at each call site of the journal")
	lives = flag.Int("lives", 6, "lives of a process that a hit may cost, on average")
)

// hunt kills mailweir at its system calls.
type hunt struct {
	*rig
	hit    map[site]int
	wanted map[site]stage // found by looking on, or by chance
	shots  map[site]map[aim]*shot
	lives  int
	missed int    // lives that were over before their kill
	other  int    // kills at a call that was not the journal's
	last   []call // of the life that was traced last
	tally  killTally
}

// shot is what is known of one aim at one site.
type shot struct{ predicted, tried, hit float64 }

// promise is how likely it is to hit, in no unit.
func (s shot) promise() float64 { return (1 + s.predicted + 4*s.hit) / (1 + s.tried) }

// TestAKillAtEachSystemCallLosesNothing: first the tracer looks on, to learn which calls there are; then each of them
// is the last that a process makes, several times.
func TestAKillAtEachSystemCallLosesNothing(t *testing.T) {
	h := &hunt{
		rig: newRig(t, relay.Config{}),
		hit: map[site]int{}, wanted: map[site]stage{}, shots: map[site]map[aim]*shot{},
	}
	h.tally.began = time.Now()
	for range 2 {
		for _, st := range stages {
			h.look(t, st)
		}
	}
	most := len(h.wanted) * *hits * *lives
	for h.lives < most && !t.Failed() {
		s, ok := h.next()
		if !ok {
			break
		}
		h.kill(t, s)
		if h.lives%killsPerPage == 0 {
			h.tally.take(h.page(t, relay.Config{}))
		}
	}
	h.tally.take(h.close(t))
	h.report(t)
}

// next is any of the sites that want more hits.
func (h *hunt) next() (site, bool) {
	var left []site
	for s := range h.wanted {
		if h.hit[s] < *hits {
			left = append(left, s)
		}
	}
	if len(left) == 0 {
		return site{}, false
	}
	slices.SortFunc(left, func(a, b site) int { return strings.Compare(a.String(), b.String()) }) // the seed decides, and no map
	return left[h.random.IntN(len(left))], true
}

// look runs a stage under a tracer that does nothing else.
func (h *hunt) look(t *testing.T, st stage) {
	t.Helper()
	h.run(t, st, "", "trace="+diskCalls)
	for _, s := range h.learn(st, h.last) {
		if _, known := h.wanted[s]; !known {
			h.wanted[s] = st
		}
	}
}

// run is one life of a process, traced in one stage of it; file is the kind of file whose calls count, "" for all. It returns
// whether the process ended in that stage.
func (h *hunt) run(t *testing.T, st stage, file string, expressions ...string) (ended bool) {
	t.Helper()
	tr := h.enter(t, st, file, expressions...)
	h.carryOn(t, st)
	tr.detach(t)
	h.last = tr.seen(t)
	if ended = h.w.endsWithin(reapLimit); !ended {
		h.w.tell(t, syscall.SIGKILL)
	}
	if code := h.w.wait(t, exitLimit); code != killed && !(st == closing && stoppedByMail(code)) {
		t.Errorf("exit code %d\n%s", code, tail(h.w.log))
	}
	h.buried(t, nil)
	return ended
}

// learn remembers which aims would have hit what, and returns what was seen.
func (h *hunt) learn(st stage, calls []call) []site {
	seen, aims := sitesOf(st, h.w.journal, calls)
	for s, list := range aims {
		for _, a := range list {
			h.shot(s, a).predicted++
		}
	}
	return seen
}

func (h *hunt) shot(s site, a aim) *shot {
	if h.shots[s] == nil {
		h.shots[s] = map[aim]*shot{}
	}
	if h.shots[s][a] == nil {
		h.shots[s][a] = new(shot)
	}
	return h.shots[s][a]
}

// maxCall bounds the guess where a site is that no aim is known for.
const maxCall = 12

// aimAt chooses a call at which s may be hit: mostly one that promises to, sometimes any.
func (h *hunt) aimAt(s site) aim {
	var known []aim
	var sum float64
	for a, shot := range h.shots[s] {
		known = append(known, a)
		sum += shot.promise()
	}
	if len(known) == 0 || h.random.IntN(10) == 0 {
		return aim{s.call, 1 + h.random.IntN(maxCall)}
	}
	slices.SortFunc(known, func(a, b aim) int { return cmp.Compare(a.n, b.n) }) // the seed decides, and no map
	at := h.random.Float64() * sum
	for _, a := range known {
		if at -= h.shots[s][a].promise(); at <= 0 {
			return a
		}
	}
	return known[len(known)-1]
}

// kill has a process end at a call that may be one of s.
func (h *hunt) kill(t *testing.T, s site) {
	t.Helper()
	h.lives++
	st, a := h.wanted[s], h.aimAt(s)
	h.shot(s, a).tried++
	file := ""
	if tells(st, s) {
		file = s.file
	}
	if !h.run(t, st, file, "trace="+diskCalls, fmt.Sprintf("inject=%s:signal=KILL:when=%d", a.name, a.n)) {
		h.missed++
	} else if at, ok := h.lastWords(st, a); ok {
		h.hit[at]++
		h.tally.kills++
		h.shot(at, a).hit++
		if _, known := h.wanted[at]; !known {
			h.wanted[at] = st
		}
	}
	h.learn(st, h.last)
}

// lastWords is the call at which the process ended: the last of the name aimed at that has no result.
func (h *hunt) lastWords(st stage, a aim) (s site, ok bool) {
	for _, c := range slices.Backward(h.last) {
		if !c.cut || c.name != a.name {
			continue
		}
		if s, ok = siteOf(st, h.w.journal, c); !ok {
			h.other++
		}
		return s, ok
	}
	h.missed++ // it ended by itself
	return s, false
}

const (
	reapLimit    = 30 * time.Millisecond // for a death to be told after the tracer has gone
	backlog      = 40                    // messages of a stage: more than a segment of them, together
	backlogBytes = 40 << 10
	bodyBytes    = 200 << 10 // goes into a file of its own
	stageLimit   = 20 * time.Second
)

// enter brings a process to the beginning of a stage and has it traced from there.
func (h *hunt) enter(t *testing.T, st stage, file string, expressions ...string) *tracer {
	t.Helper()
	if st == starting {
		h.s.is(takes)
		h.leave(t)
		if file == spareFile {
			h.haveSpare(t)
		}
		h.w.launchStopped(t)
		return trace(t, h.w.pid(), h.ownFiles(t, file), expressions...)
	}
	h.s.is(takes)
	h.w.start(t)
	switch st {
	case taking:
		h.awaitEmpty(t)
		h.s.is(isBusy)
	case giving:
		h.s.is(isBusy)
		h.fill(t)
	case closing:
		h.awaitEmpty(t)
		h.fill(t)
		h.awaitEmpty(t)
	}
	if file == "" {
		return trace(t, h.w.pid(), nil, expressions...)
	}
	return trace(t, h.w.pid(), h.ownFiles(t, file), expressions...)
}

// leave has a process killed that leaves mail, and now and then a body that is not finished.
func (h *hunt) leave(t *testing.T) {
	t.Helper()
	h.w.start(t)
	h.s.is(isBusy)
	l := h.beside(t, source.Config{Messages: backlog / 2, Connections: 4, Size: bodyBytes})
	<-l.first
	h.rig.kill(t, l)
	h.s.is(takes)
}

// spareFile is the kind of file that a freed segment becomes. A kill leaves one only in the moment between that and the next segment,
// so what has to be met at a start is put there.
const spareFile = "spare"

func (h *hunt) haveSpare(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(h.w.journal, spareFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// fill has mail wait that is more than one segment.
func (h *hunt) fill(t *testing.T) {
	t.Helper()
	h.send(t, source.Config{Messages: backlog, Connections: 4, Reuse: true, Size: backlogBytes})
	h.send(t, source.Config{Messages: 2, Connections: 2, Size: bodyBytes})
}

// carryOn goes through a stage to its end or to that of the process, whichever comes first.
func (h *hunt) carryOn(t *testing.T, st stage) {
	t.Helper()
	switch st {
	case starting:
		h.w.tell(t, syscall.SIGCONT)
		h.w.greetsOrEnds(t)
	case taking:
		h.fill(t)
	case giving:
		h.s.is(takes)
		await(t, stageLimit, "deliveries or the end", func() error {
			if h.w.ended() {
				return nil
			}
			if a := h.b.account(); len(a.Lost) > 0 {
				return a.Err()
			}
			return nil
		})
		h.w.endsWithin(giveMoment)
	case closing:
		h.w.tell(t, syscall.SIGTERM)
		await(t, exitLimit, "the end", func() error {
			if !h.w.ended() {
				return fmt.Errorf("it drains")
			}
			return nil
		})
	}
}

// giveMoment is for what comes after the last delivery: verdicts are synced, segments freed.
const giveMoment = 200 * time.Millisecond

// report prints the table and judges it.
func (h *hunt) report(t *testing.T) {
	t.Helper()
	all := make([]site, 0, len(h.wanted))
	for s := range h.wanted {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b site) int { return strings.Compare(a.String(), b.String()) })
	var table strings.Builder
	for _, s := range all {
		fmt.Fprintf(&table, "\n%4d  %v", h.hit[s], s)
		if h.hit[s] < *hits {
			t.Errorf("%d kills at %v, %d wanted", h.hit[s], s, *hits)
		}
	}
	t.Logf("kills at call sites of the journal:%s\n%d call sites, %d lives, %d too late, %d elsewhere; %v",
		table.String(), len(all), h.lives, h.missed, h.other, h.tally)
}
