package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

// A story is a small life of a journal. It ends early when the power goes.
type story func(m *memFS, l *ledger) error

// during opens a journal for f.
func during(m *memFS, f func(j *Journal) error) error {
	j, _, err := reopen(small(m))
	if err != nil {
		return err
	}
	return errors.Join(f(j), j.Close())
}

func each(j *Journal, calls ...func(*Journal) error) error {
	for _, call := range calls {
		if err := call(j); err != nil {
			return err
		}
	}
	return nil
}

var stories = map[string]story{
	"three messages, small and large, one settled, then a restart": func(m *memFS, l *ledger) error {
		err := during(m, func(j *Journal) error {
			return each(j,
				func(j *Journal) error { return l.commit(j, 1, 100) },
				func(j *Journal) error { return l.commit(j, 2, 3000) },
				func(j *Journal) error { return l.attempt(j, 1) },
				func(j *Journal) error { return l.settleSynced(j, 2) },
				func(j *Journal) error { return l.commit(j, 3, 400) })
		})
		if err != nil {
			return err
		}
		return during(m, func(j *Journal) error {
			return each(j,
				func(j *Journal) error { return l.attempt(j, 3) },
				func(j *Journal) error { return l.settleSynced(j, 1) })
		})
	},
	"segments fill, rotate and are freed": func(m *memFS, l *ledger) error {
		return during(m, func(j *Journal) error {
			for id := uint64(1); id <= 9; id++ {
				if err := l.commit(j, id, 500); err != nil {
					return err
				}
				if err := l.attempt(j, id); err != nil {
					return err
				}
				if id > 3 {
					if err := l.settleSynced(j, id-3); err != nil {
						return err
					}
				}
			}
			return nil
		})
	},
	"many segments go at once": func(m *memFS, l *ledger) error {
		return during(m, func(j *Journal) error {
			const last = 8
			for id := uint64(1); id <= last; id++ {
				if err := l.commit(j, id, 500); err != nil {
					return err
				}
			}
			for id := uint64(1); id < last; id++ {
				if err := l.settle(j, id); err != nil {
					return err
				}
			}
			err := l.settleSynced(j, last)
			for id := uint64(1); l.synced[last] && id < last; id++ {
				l.synced[id] = true
			}
			return err
		})
	},
	"three senders at once": func(m *memFS, l *ledger) error {
		return during(m, func(j *Journal) error {
			var wg sync.WaitGroup
			var mu sync.Mutex
			var all error
			for id := uint64(1); id <= 3; id++ {
				wg.Go(func() {
					own := newLedger()
					own.groups = int(id) * 100
					err := errors.Join(own.commit(j, id, 450), own.attempt(j, id))
					mu.Lock()
					defer mu.Unlock()
					all = errors.Join(all, err)
					l.merge(own)
				})
			}
			wg.Wait()
			if all != nil {
				return all
			}
			return errors.Join(l.settle(j, 2), l.settleSynced(j, 3))
		})
	},
	"blobs live on while segments go": func(m *memFS, l *ledger) error {
		return during(m, func(j *Journal) error {
			for id := uint64(1); id <= 6; id++ {
				value := fmt.Sprint(id)
				if err := errors.Join(l.commit(j, id, 500), j.PutBlob("learnt", []byte(value))); err != nil {
					return err
				}
				if err := l.settleSynced(j, id); err != nil {
					return err
				}
				if l.synced[id] {
					l.blob = value
				}
			}
			return nil
		})
	},
}

func (l *ledger) merge(o *ledger) {
	for id, b := range o.begun {
		l.begun[id] = b
	}
	for id := range o.acked {
		l.acked[id] = true
	}
	for n := range o.noted {
		l.noted[n] = true
	}
}

// The power goes at every single operation of every story, and of what was not synced the disk keeps everything,
// nothing, or whatever.
func TestNoCrashLosesWhatWasAcknowledged(t *testing.T) {
	const seeds = 2
	for name, tell := range stories {
		t.Run(name, func(t *testing.T) {
			runs := 0
			for at := 1; ; at++ {
				crashed := false
				for c := killed; c <= garbled; c++ {
					for seed := range uint64(seeds) {
						if seed > 0 && c < anything {
							break
						}
						runs++
						died, err := crashRun(t, tell, at, c, rand.New(rand.NewPCG(uint64(at), seed)))
						if err != nil {
							t.Fatalf("crash %d at operation %d, seed %d: %v", c, at, seed, err)
						}
						crashed = crashed || died
					}
				}
				if !crashed {
					break // the story was over before
				}
			}
			t.Logf("%d crashes survived", runs)
			if runs < 100 {
				t.Fatalf("only %d runs: the story has no operations", runs)
			}
		})
	}
}

func crashRun(t *testing.T, tell story, at int, c crash, rng *rand.Rand) (died bool, fault error) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		m.fault = func(string, string) error {
			if m.ops == at {
				return errPower
			}
			return nil
		}
		err := tell(m, l)
		died = m.dead
		if err != nil && !died {
			fault = fmt.Errorf("the story failed by itself: %w", err)
			return
		}
		next := m.revive()
		if c != killed {
			next = m.after(c, rng)
		}
		fault = survives(next, l, c, rng)
	})
	return died, fault
}

// survives opens what a crash left, once more after a second crash, and again after a clean end.
func survives(m *memFS, l *ledger, c crash, rng *rand.Rand) error {
	for round := range 3 {
		j, f, err := reopen(small(m))
		if err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if err := errors.Join(l.check(j, f, c), l.checkBlob(j)); err != nil {
			return errors.Join(fmt.Errorf("round %d: %w", round, err), j.Close())
		}
		// What is there now was read by its users, and so must stay.
		for id := range f.live {
			l.acked[id] = true
		}
		for id := range l.begun {
			if _, live := f.live[id]; !live {
				l.synced[id] = true
			}
		}
		id := uint64(1000 + round)
		if err := l.commit(j, id, 300); err != nil {
			return errors.Join(fmt.Errorf("round %d: cannot go on: %w", round, err), j.Close())
		}
		if round == 0 {
			m.mu.Lock()
			m.dead = true
			m.mu.Unlock()
			j.Close() // has nothing to write to any more
			m = m.after(nothing+crash(rng.IntN(3)), rng)
			continue
		}
		if err := j.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) checkBlob(j *Journal) error {
	if got := string(j.Blob("learnt")); l.blob != "" && got < l.blob {
		return fmt.Errorf("the blob is %q, %q was synced", got, l.blob)
	}
	return nil
}

// A fault of the disk, anywhere: nobody is told a lie, nothing acknowledged is lost, no file whose sync failed is
// synced again, and when the disk works again so does the journal.
func TestAFaultAtAnyOperationIsSurvived(t *testing.T) {
	for _, kind := range []error{errIO, errRoom} {
		for name, tell := range stories {
			t.Run(fmt.Sprintf("%v/%s", kind, name), func(t *testing.T) {
				for at := 1; ; at++ {
					failed, err := faultRun(t, tell, at, kind)
					if err != nil {
						t.Fatalf("%v at operation %d: %v", kind, at, err)
					}
					if !failed {
						break
					}
				}
			})
		}
	}
}

func faultRun(t *testing.T, tell story, at int, kind error) (failed bool, fault error) {
	synctest.Test(t, func(t *testing.T) {
		m, l := newMemFS(), newLedger()
		m.fault = func(op, _ string) error {
			if m.ops == at {
				failed = true
				return kind
			}
			return nil
		}
		tell(m, l) // its error is the fault, or none: whoever got nil counts
		m.heal()
		rng := rand.New(rand.NewPCG(uint64(at), 1))
		for _, c := range []crash{killed, nothing} {
			if err := survivesFault(m.after(c, rng), l); err != nil {
				fault = fmt.Errorf("crash %d: %w", c, err)
			}
		}
		if m.resynced > 0 {
			fault = errors.Join(fault, fmt.Errorf("%d syncs of a file after one had failed", m.resynced))
		}
	})
	return failed, fault
}

func survivesFault(m *memFS, l *ledger) error {
	j, f, err := reopen(small(m))
	if err != nil {
		return err
	}
	err = l.check(j, f, nothing)
	for _, id := range []uint64{2000, 2001} {
		own := newLedger()
		err = errors.Join(err, own.commit(j, id, 300))
	}
	return errors.Join(err, j.Close())
}
