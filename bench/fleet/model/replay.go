package model

import (
	"hash/fnv"
	"runtime"
	"slices"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// Replay is what came of telling a new law of the same seed what the first pod's law was told.
type Replay struct {
	Steps   int
	Differs int     // plans that are not the same to the last byte
	Allocs  float64 // allocations per step
	PerStep float64 // nanoseconds; says as much about the machine
}

// replayMax bounds the steps that are kept.
const replayMax = 200_000

// RunReplay is Run, and replays the first pod's part in it. Nothing else should run in the process, since allocations are counted.
func RunReplay(s *Scenario, m Maker, seed uint64, opt Options) (*Result, error) {
	var steps []Step
	var sums []uint64
	opt.Trace = func(pod int, t Step) {
		if pod == 0 && len(steps) < replayMax {
			sums = append(sums, digest(&t.Plan))
			t.Plan = flowctl.Plan{} // its lists are lent
			steps = append(steps, t)
		}
	}
	r, err := Run(s, m, seed, opt)
	if err != nil {
		return nil, err
	}
	r.Replay.Steps = len(steps)
	again := func() (Law, error) {
		return m(&Team{Config: s.Config, Pods: len(r.Pods), Limit: s.Server.slots(), Shared: map[string]any{}}, 0, podSeed(seed, 0), steps[0].At)
	}
	law, err := again()
	if err != nil {
		return nil, err
	}
	for i := range steps {
		plan := steps[i].Apply(law)
		if digest(&plan) != sums[i] {
			r.Replay.Differs++
		}
	}
	if law, err = again(); err != nil {
		return nil, err
	}
	r.Replay.measure(law, steps)
	return r, nil
}

// measure lets the first half of the steps warm up what the law keeps.
func (r *Replay) measure(law Law, steps []Step) {
	half := len(steps) / 2
	for i := range steps[:half] {
		steps[i].Apply(law)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	for i := half; i < len(steps); i++ {
		steps[i].Apply(law)
	}
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	n := float64(max(1, len(steps)-half))
	r.Allocs = max(0, float64(after.Mallocs-before.Mallocs)-growth) / n
	r.PerStep = float64(took) / n
}

// growth is how many allocations are not counted: lists that reach their size late, and what the runtime does meanwhile.
const growth = 32

// digest sums up every byte of a plan.
func digest(p *flowctl.Plan) uint64 {
	h := fnv.New64a()
	var b []byte
	for _, n := range [...]int{len(p.Dial), len(p.Retire), p.Send, p.Ahead, int(p.Linger), int(p.State)} {
		b = appendInt(b, int64(n))
	}
	for _, t := range [...]time.Time{p.SendAt, p.Wake} {
		b = appendInt(b, t.UnixNano())
	}
	for _, id := range p.Retire {
		b = appendInt(b, int64(id))
	}
	for _, addr := range slices.Concat(p.Dial, []string{p.Reason}) {
		b = append(append(b, addr...), 0)
	}
	h.Write(b) // never fails
	return h.Sum64()
}

func appendInt(b []byte, n int64) []byte {
	for i := 0; i < 64; i += 8 {
		b = append(b, byte(n>>i))
	}
	return b
}
