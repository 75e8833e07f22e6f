package model

import (
	"math"
	"slices"
	"time"
)

// Result is what came of one run.
type Result struct {
	Seed    uint64
	Slots   int // connections the upstream allowed at the start; 0: any number
	Pods    []PodResult
	Bins    []Moment
	Latency Histogram     // of messages that arrived after Warm one by one, from arrival to delivery; what waits at the end counts with its age
	Took    time.Duration // until the last message, or the whole run
	Warm    time.Duration
	For     time.Duration

	Totals Totals
	Faults Faults
	Replay Replay // only of RunReplay
}

// Totals account for every dial and every message.
type Totals struct {
	Dials, Accepted, Refused, Failed, Dialling int // Dialling: at the end
	Starts, Sent, Throttled, Cut, Sending      int // transactions; Cut: by the upstream; Sending: at the end
	Offered, Waiting                           int // messages of finite demand; Waiting: at the end, not being sent
	FiniteSent, FiniteSending                  int // of them
	MostHeld                                   int // connections at one backend, at any time
	MostSending                                int // messages under way at any time
	Events, Plans                              int
}

// Faults are plans that no obedient pool can carry out.
type Faults struct {
	TooWide   int // more connections and dials than Config.MaxConns
	TooHasty  int // more than flowctl.MaxDials in flight
	NoIdle    int // more transactions than idle connections
	LateWake  int // a wake that is not ahead, with nothing to do
	Forgotten int // the width fell below what was established, because of a count refusal
}

// PodResult is what one pod got.
type PodResult struct {
	Group     int
	Delivered int
	Dials     int
	WorstWait time.Duration // the longest it had something to send and nothing was delivered
	Heard     time.Duration // since the last change of the upstream: until a dial or transaction was answered; -1: never
}

// span returns the bins of [from, to).
func (r *Result) span(from, to time.Duration) []Moment {
	return r.Bins[min(int(from/Bin), len(r.Bins)):min(int(to/Bin), len(r.Bins))]
}

// Sum adds up the bins of [from, to).
func (r *Result) Sum(from, to time.Duration) Moment {
	var s Moment
	bins := r.span(from, to)
	for i := range bins {
		b := &bins[i]
		s.Work += b.Work
		s.Took += b.Took
		s.Busy += b.Busy
		s.Sent += b.Sent
		s.Refused += b.Refused
		s.Failed += b.Failed
		s.Throttled += b.Throttled
		s.Dials += b.Dials
		for g := range s.By {
			s.By[g] += b.By[g]
		}
	}
	return s
}

// Util is the time of the messages delivered in [from, to) over that of so many slots.
func (r *Result) Util(from, to time.Duration, slots int) float64 {
	return float64(r.Sum(from, to).Work) / (float64(to-from) * float64(slots))
}

// Reaches returns how long after from a whole bin first has this share of the slots at work; to-from when none has.
func (r *Result) Reaches(share float64, slots int, from, to time.Duration) time.Duration {
	least := int64(share * float64(slots) * float64(Bin))
	for i, b := range r.span(from, to) {
		if b.Busy >= least {
			return time.Duration(i+1) * Bin
		}
	}
	return to - from
}

// Jain is the fairness index of what the pods of these groups got (R. Jain and others, DEC-TR-301, 1984): 1 when all got the same, 1/n when one got everything. Without groups: of all pods.
func (r *Result) Jain(groups ...int) float64 {
	var sum, squares, n float64
	for _, p := range r.Pods {
		if len(groups) > 0 && !slices.Contains(groups, p.Group) {
			continue
		}
		x := float64(p.Delivered)
		sum, squares, n = sum+x, squares+x*x, n+1
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / (n * squares)
}

// WorstWait is the longest any pod waited.
func (r *Result) WorstWait() time.Duration {
	var worst time.Duration
	for i := range r.Pods {
		worst = max(worst, r.Pods[i].WorstWait)
	}
	return worst
}

// Histogram counts durations in steps of 2 %. The zero value is empty.
type Histogram struct {
	counts [histogramSteps]int32
	n      int
}

const (
	histogramLeast = float64(time.Millisecond)
	histogramRatio = 1.02
	histogramSteps = 900 // up to 15 hours
)

func (h *Histogram) add(d time.Duration) {
	i := 0
	if x := float64(d); x > histogramLeast {
		i = int(math.Log(x/histogramLeast) / math.Log(histogramRatio))
	}
	h.counts[min(i, histogramSteps-1)]++
	h.n++
}

// Quantile returns the upper end of the step that holds the q-th part; 0 when empty.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int(math.Ceil(q * float64(h.n)))
	for i, c := range h.counts {
		if rank -= int(c); rank <= 0 && h.n > 0 {
			return time.Duration(histogramLeast * math.Pow(histogramRatio, float64(i+1)))
		}
	}
	return 0
}

// Count returns how many durations were added.
func (h *Histogram) Count() int { return h.n }
