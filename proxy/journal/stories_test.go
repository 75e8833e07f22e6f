package journal

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// exhaustive lists the stories whose every crash is tried: from so many to so many messages, and each way a journal goes.
func exhaustive(from, to uint64) map[string]story {
	all := map[string]story{}
	for n := from; n <= to; n++ {
		each := func(s *scene, f func(id uint64)) {
			for id := uint64(1); id <= n; id++ {
				f(id)
			}
		}
		for name, tale := range map[string]story{
			"first start": func(s *scene) { each(s, func(id uint64) { s.commit(id, 100) }) },
			"restate": func(s *scene) {
				s.commit(1, 300)
				each(s, func(id uint64) { s.attempt(1); s.restate(1); s.fill(id*100, 5); s.drain(id*100, 5) })
			},
			"append": func(s *scene) {
				each(s, func(id uint64) { s.commit(id, int(id*id)*100); s.attempt(id); s.attempt(1) })
			},
			"body files": func(s *scene) { each(s, func(id uint64) { s.commit(id, 3000); s.settle(id); s.attempt(1) }) },
			"at once":    func(s *scene) { s.together(n, func(id uint64) { s.commit(id, 450); s.attempt(id) }) },
			"body files at once": func(s *scene) {
				s.together(n, func(id uint64) { s.commit(id, 3000); s.settle(id); s.commit(id+10, 1000); s.attempt(id + 10) })
				s.rest()
			},
			"settle":       func(s *scene) { each(s, func(id uint64) { s.commit(id, 100) }); each(s, s.settle); s.rest() },
			"settle again": func(s *scene) { each(s, func(id uint64) { s.commit(id, 100); s.rest(); s.settle(id) }); s.rest() },
			"rotate": func(s *scene) {
				each(s, func(id uint64) { s.commit(id, 500); s.fill(id*100, 3); s.attempt(id); s.attempt(1) })
			},
			"reclaim": func(s *scene) {
				each(s, func(id uint64) { s.commit(id, 400); s.attempt(id); s.fill(id*100, 5); s.drain(id*100, 5) })
				each(s, func(id uint64) { s.settle(id); s.rest() })
			},
			"sweep": func(s *scene) {
				each(s, func(id uint64) { s.commit(id, 300); s.attempt(id); s.fill(id*100, 6); s.attempt(1); s.drain(id*100, 6) })
				s.age()
				each(s, func(id uint64) { s.attempt(id); s.settle(id); s.age() })
				s.fill(1000, 6)
			},
			// What ends it is written and not synced when what it went through is swept: a power cut brings it back.
			"end just before a sweep": func(s *scene) {
				began := time.Now() // and with it the sweeper's clock
				each(s, func(id uint64) { s.commit(id, 300) })
				s.fill(100, 6)
				each(s, s.attempt)
				s.fill(200, 6)
				for id := uint64(0); id < 6; id++ {
					s.settle(100 + id)
					s.settle(200 + id)
				}
				s.rest()
				<-time.After(sweepAge + sweepInterval - syncDelay/5 - time.Since(began))
				each(s, s.settle)
				<-time.After(syncDelay / 2)
			},
			"sweep, then restart": func(s *scene) {
				each(s, func(id uint64) {
					s.commit(id, 300)
					s.attempt(id)
					s.fill(id*100, 6)
					s.drain(id*100, 6)
					s.age()
					s.attempt(1)
				})
				s.die()
				each(s, func(id uint64) { s.restate(id); s.settle(id); s.fill(id*1000, 6); s.drain(id*1000, 6); s.age() })
			},
			"restart": func(s *scene) {
				each(s, func(id uint64) {
					s.commit(id, 100)
					s.attempt(1)
					s.restart()
					s.attempt(id)
					s.put("learnt", fmt.Sprint(id))
				})
				each(s, func(id uint64) { s.settle(id); s.restart() })
			},
			"killed": func(s *scene) {
				each(s, func(id uint64) { s.commit(id, 100); s.attempt(1); s.die(); s.attempt(id) })
				each(s, func(id uint64) { s.settle(id); s.die() })
			},
			"a bounce": func(s *scene) {
				each(s, func(id uint64) { s.commit(id, 100); s.commit(id+10, 100); s.bounce(id, id+10) })
				s.rest()
			},
			"a failed sync": func(s *scene) {
				each(s, func(id uint64) {
					s.commit(id, 100)
					s.attempt(1)
					s.failSync()
					s.commit(id+10, 400*int(id)) // the third in a file of its own
					s.attempt(id)
					s.settle(1)
				})
				s.rest()
			},
		} {
			all[fmt.Sprintf("%s, %d", name, n)] = tale
		}
	}
	return all
}

// fill commits n messages that take about half a segment together with three others.
func (s *scene) fill(first uint64, n uint64) {
	for id := first; id < first+n; id++ {
		s.commit(id, 480)
	}
}

func (s *scene) drain(first uint64, n uint64) {
	for id := first; id < first+n; id++ {
		s.settle(id)
	}
	s.rest()
}

// long lists stories that take more steps than can be tried one by one.
var long = map[string]story{
	"one message stays while dozens of segments come and go": func(s *scene) {
		s.commit(1, 300)
		for round := uint64(1); round <= 30; round++ {
			s.fill(round*100, 7)
			s.attempt(1)
			s.drain(round*100, 7)
			s.put("learnt", fmt.Sprint(round))
			if round%5 == 0 {
				s.age()
			}
		}
		s.settle(1)
		s.age()
	},
	"one message in five stays, some of them large": func(s *scene) {
		for id := uint64(1); id <= 120; id++ {
			s.commit(id, []int{100, 480, 3000}[id%3])
			s.attempt(id)
			if id%5 > 0 {
				s.settle(id)
			}
			if id > 20 && id%5 == 0 {
				s.attempt(id - 10)
				s.settle(id - 20)
				s.age()
			}
		}
	},
	"the first to come is the last to go": func(s *scene) {
		s.fill(1, 60)
		for id := uint64(60); id >= 1; id-- {
			s.attempt(1)
			s.settle(id)
		}
		s.rest()
		s.fill(100, 10)
	},
	"many segments go at once": func(s *scene) {
		s.fill(1, 50)
		s.drain(1, 50)
		s.fill(100, 50)
	},
	"the journal is full, and empties": func(s *scene) {
		s.full = true
		for round := uint64(1); round <= 3; round++ {
			s.fill(round*1000, 130)
			for n := uint64(0); n < 20; n++ {
				s.attempt(round*1000 + n)
			}
			s.drain(round*1000, 130)
		}
	},
	"full of large bodies": func(s *scene) {
		s.full = true
		for id := uint64(1); id <= 30; id++ {
			s.commit(id, 4000)
			s.attempt(1)
		}
		s.restart()
		s.drain(2, 25)
		s.commit(100, 9000)
	},
	"small restarts": func(s *scene) {
		for id := uint64(1); id <= 20; id++ {
			s.commit(id, 200)
			s.attempt(1)
			if id%2 == 0 {
				s.restart()
			} else {
				s.die()
			}
			s.attempt(id)
			if id > 3 {
				s.settle(id - 2)
			}
		}
	},
	"syncs fail now and then": func(s *scene) {
		for id := uint64(1); id <= 40; id++ {
			if id%7 == 0 {
				s.failSync()
			}
			s.commit(id, 300+int(id%3)*800)
			s.attempt(id)
			if id > 5 {
				s.settle(id - 3)
			}
			if id%10 == 0 {
				s.rest()
			}
		}
	},
	"many senders at once": func(s *scene) {
		for round := uint64(1); round <= 8; round++ {
			s.together(6, func(k uint64) {
				id := round*10 + k
				s.commit(id, int(k)*150)
				s.attempt(id)
				s.put(fmt.Sprint("of ", k), fmt.Sprint(round))
				if k%3 > 0 {
					s.settle(id)
				}
			})
		}
		s.rest()
	},
}

// randomSteps is how long a random story is at most.
const randomSteps = 60

// random makes up a story.
func random(seed uint64) story {
	return func(s *scene) {
		s.full = true
		rng := rand.New(rand.NewPCG(seed, 1))
		var live []uint64
		pick := func() uint64 { return live[rng.IntN(len(live))] }
		next := uint64(1)
		for range 5 + rng.IntN(randomSteps) {
			step := rng.IntN(20)
			switch {
			case step < 6 || len(live) == 0:
				s.commit(next, []int{0, 50, 450, 500, 600, 5000}[rng.IntN(6)])
				live = append(live, next)
				next++
			case step < 8:
				s.attempt(pick())
			case step == 8:
				s.restate(pick())
			case step < 13:
				i := rng.IntN(len(live))
				s.settle(live[i])
				live = append(live[:i], live[i+1:]...)
			case step == 13:
				first := next
				next += 6
				s.fill(first, 6)
				s.drain(first, 6)
			case step == 14:
				s.put("learnt", []string{"", fmt.Sprint(next, step)}[rng.IntN(2)])
			case step == 15 && len(live) > 1:
				s.bounce(live[0], live[1])
				live = live[1:]
			case step == 16 && rng.IntN(2) == 0:
				s.rest()
			case step == 16:
				s.age()
			case step == 17:
				s.restart()
			case step == 18:
				s.die()
			case step == 19 && seed%4 == 0:
				s.failSync()
			default:
				s.abort(next, 50+rng.IntN(2000))
				next++
			}
		}
	}
}
