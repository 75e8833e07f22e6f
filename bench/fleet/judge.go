package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
)

// verdict is one bar's.
type verdict struct {
	Bar    bar
	Grade  grade // of the first law, the worst of all figures
	Trials []trialVerdict
}

// trialVerdict has for each law that was run a summary of each figure.
type trialVerdict struct {
	Trial     trial
	Laws      []string
	Summaries [][]summary // by law, by figure
	Grades    []grade     // by figure, of the first law
}

// task is one run.
type task struct {
	trial *trialVerdict
	law   int
	seed  int
}

// workersMax bounds the runs at one time; each is single-threaded and keeps some megabytes.
const workersMax = 2

// judgeAll runs everything that was asked for. The figures do not depend on how many run at one time.
func judgeAll(ctx context.Context, o *options, progress io.Writer) ([]verdict, error) {
	verdicts := make([]verdict, len(o.bars))
	var tasks []task
	for i, b := range o.bars {
		verdicts[i] = verdict{Bar: b, Trials: make([]trialVerdict, len(b.Trials))}
		for j := range b.Trials {
			t := &verdicts[i].Trials[j]
			t.begin(b.Trials[j], o)
			for law := range t.Laws {
				for seed := range len(t.Summaries[law][0].Seeds) {
					tasks = append(tasks, task{t, law, seed})
				}
			}
		}
	}
	if err := runTasks(ctx, o, tasks, progress); err != nil {
		return nil, err
	}
	for i := range verdicts {
		verdicts[i].conclude()
	}
	return verdicts, nil
}

func (t *trialVerdict) begin(tr trial, o *options) {
	t.Trial = tr
	t.Laws = lawsFor(tr, o.laws)
	t.Summaries = make([][]summary, len(t.Laws))
	for law := range t.Summaries {
		t.Summaries[law] = make([]summary, len(tr.Figures))
		for f := range t.Summaries[law] {
			t.Summaries[law][f].Seeds = make([]float64, o.seedsOf(tr, law))
		}
	}
}

// lawsFor puts in place of "all" the law that is judged and its rivals in this trial.
func lawsFor(t trial, asked []string) []string {
	var laws []string
	for _, l := range asked {
		if l == everyLaw {
			laws = append(append(laws, "flowctl"), t.Rivals...)
		} else {
			laws = append(laws, l)
		}
	}
	return laws
}

func runTasks(ctx context.Context, o *options, tasks []task, progress io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan task)
	report := newReporter(progress, len(tasks))
	var workers sync.WaitGroup
	var alone sync.RWMutex
	for range min(workersMax, runtime.GOMAXPROCS(0)) {
		workers.Go(func() {
			for t := range queue {
				if err := t.run(o, &alone); err != nil {
					cancel(err)
				}
				report.done(t.trial.Trial.Scenario.Name)
			}
		})
	}
	for _, t := range tasks {
		select {
		case queue <- t:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(queue)
	workers.Wait()
	report.end()
	return context.Cause(ctx)
}

// play runs the scenario. Who counts allocations holds alone; everybody else shares it.
func (t *task) play(o *options, alone *sync.RWMutex) (*model.Result, error) {
	s, law, seed := &t.trial.Trial.Scenario, lawMakers[t.trial.Laws[t.law]], o.first+uint64(t.seed)
	if t.trial.Trial.Replay {
		alone.Lock()
		defer alone.Unlock()
		return model.RunReplay(s, law, seed, model.Options{Watch: true})
	}
	alone.RLock()
	defer alone.RUnlock()
	return model.Run(s, law, seed, model.Options{})
}

func (t *task) run(o *options, alone *sync.RWMutex) error {
	r, err := t.play(o, alone)
	if err != nil {
		return fmt.Errorf("%s, %s, seed %d: %w", t.trial.Trial.Scenario.Name, t.trial.Laws[t.law], o.first+uint64(t.seed), err)
	}
	for i := range t.trial.Trial.Figures {
		t.trial.Summaries[t.law][i].Seeds[t.seed] = t.trial.Trial.Figures[i].Of(r)
	}
	return nil
}

// conclude summarises and judges.
func (v *verdict) conclude() {
	v.Grade = reached
	for i := range v.Trials {
		t := &v.Trials[i]
		for f := range t.Trial.Figures {
			for law := range t.Laws {
				s := &t.Summaries[law][f]
				*s = t.Trial.Figures[f].summarise(s.Seeds)
			}
			g := t.Trial.Figures[f].grade(t.Summaries[0][f])
			t.Grades = append(t.Grades, g)
			v.Grade = min(v.Grade, g)
		}
	}
}

// reporter says how far the work is, at most once a second.
type reporter struct {
	sync.Mutex
	out   io.Writer
	total int
	n     int
	began time.Time
	said  time.Time
}

func newReporter(out io.Writer, total int) *reporter {
	now := time.Now()
	return &reporter{out: out, total: total, began: now, said: now}
}

func (r *reporter) done(what string) {
	r.Lock()
	defer r.Unlock()
	r.n++
	if now := time.Now(); now.Sub(r.said) >= time.Second {
		r.said = now
		fmt.Fprintf(r.out, "fleet: %d of %d runs, %v, last %s\n", r.n, r.total, now.Sub(r.began).Round(time.Second), what)
	}
}

func (r *reporter) end() {
	fmt.Fprintf(r.out, "fleet: %d of %d runs in %v\n", r.n, r.total, time.Since(r.began).Round(100*time.Millisecond))
}
