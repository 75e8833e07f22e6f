//go:build throng && linux

package throng

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
)

// span is what the relay saw from one moment to another.
type span struct {
	began, ended  time.Time
	before, after relay.Counters
	taken         []relay.Message
}

// observe lets time pass.
func (f *fleet) observe(t *testing.T, d time.Duration) span {
	t.Helper()
	return f.during(t, d, func() {})
}

// during lets time pass and looks at something now and then.
func (f *fleet) during(t *testing.T, d time.Duration, sample func()) span {
	t.Helper()
	s := span{began: time.Now(), before: f.relay.Counters()}
	for left := d; left > 0; left = d - time.Since(s.began) {
		if !every(t.Context(), min(left, time.Second)) {
			t.Fatal(t.Context().Err())
		}
		sample()
	}
	s.ended, s.after = time.Now(), f.relay.Counters()
	s.taken = f.relay.Since(s.before.Taken)[:s.after.Taken-s.before.Taken]
	return s
}

func (s *span) seconds() float64 { return s.ended.Sub(s.began).Seconds() }

// perSecond is the rate of a counter.
func (s *span) perSecond(counter func(relay.Counters) int) float64 {
	return float64(counter(s.after)-counter(s.before)) / s.seconds()
}

func refused(c relay.Counters) int   { return c.Refused }
func accepted(c relay.Counters) int  { return c.Accepted }
func throttled(c relay.Counters) int { return c.Throttled }
func crowded(c relay.Counters) int   { return c.Crowded }

// utilisation is how much of what so many connections can do was done.
func (s *span) utilisation(connections int, each time.Duration) float64 {
	return float64(len(s.taken)) * each.Seconds() / float64(connections) / s.seconds()
}

// shares is how many messages of each member arrived.
func (s *span) shares(members []*member) []float64 {
	from := map[string]float64{}
	for _, m := range s.taken {
		from[m.From]++
	}
	var all []float64
	for _, m := range members {
		all = append(all, from[m.sender()])
	}
	return all
}

// jain is 1 when all have the same, and 1/n when one has everything (Jain, Chiu, Hawe 1984). Nothing is shared equally.
func jain(x []float64) float64 {
	var sum, squares float64
	for _, v := range x {
		sum += v
		squares += v * v
	}
	if squares == 0 {
		return 1
	}
	return sum * sum / (float64(len(x)) * squares)
}

// quantile is by nearest rank; 0 of nothing.
func quantile[T int | float64 | time.Duration](q float64, all []T) T {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[min(max(int(math.Ceil(q*float64(len(all)))), 1), len(all))-1]
}

// report tells what the processes believe, for who tunes the law.
func (f *fleet) report(t *testing.T) {
	t.Helper()
	var connections, dials int
	states, outcomes := map[string]uint64{}, map[string]uint64{}
	var widths []float64
	for _, m := range f.members {
		u := m.Status(t).Upstream
		states[u.State]++
		connections += u.Connections
		dials += int(u.Dials)
		widths = append(widths, u.Width)
		for class, n := range u.Outcomes {
			outcomes[class] += n
		}
	}
	t.Logf("processes: %d connections, width %.3g to %.3g, median %.3g; states%s; %d dials; outcomes%s", connections,
		slices.Min(widths), slices.Max(widths), quantile(.5, widths), counted(states), dials, counted(outcomes))
}

func counted(all map[string]uint64) string {
	var text strings.Builder
	for name, n := range all {
		if n > 0 {
			fmt.Fprintf(&text, " %s:%d", name, n)
		}
	}
	return text.String()
}

// atLeast and atMost print a figure beside its bar and fail when it is missed.
func atLeast(t *testing.T, what string, got, bar float64) {
	t.Helper()
	t.Logf("%-48s %8.4g   bar: at least %.4g", what, got, bar)
	if !(got >= bar) {
		t.Errorf("%s: %.4g, the bar is %.4g", what, got, bar)
	}
}

func atMost(t *testing.T, what string, got, bar float64) {
	t.Helper()
	t.Logf("%-48s %8.4g   bar: at most %.4g", what, got, bar)
	if !(got <= bar) {
		t.Errorf("%s: %.4g, the bar is %.4g", what, got, bar)
	}
}

func TestFigures(t *testing.T) {
	for _, tt := range []struct {
		x    []float64
		want float64
	}{{[]float64{3, 3, 3}, 1}, {[]float64{9, 0, 0}, 1. / 3}, {[]float64{0, 0}, 1}, {[]float64{1, 3}, .8}} {
		if got := jain(tt.x); math.Abs(got-tt.want) > 1e-9 {
			t.Errorf("jain %v: %v; want %v", tt.x, got, tt.want)
		}
	}
	s := span{began: time.Unix(0, 0), ended: time.Unix(10, 0), taken: make([]relay.Message, 1000), after: relay.Counters{Refused: 30}, before: relay.Counters{Refused: 10}}
	if u, r := s.utilisation(20, 100*time.Millisecond), s.perSecond(refused); u != 0.5 || r != 2 {
		t.Errorf("utilisation %v, refusals %v", u, r)
	}
	if q := quantile(.5, []int{5, 1, 3}); q != 3 {
		t.Errorf("median %d", q)
	}
}
