package journal

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowFS takes a while for each sync of a file.
type slowFS struct {
	FS
	sync time.Duration
}

type slowFile struct {
	File
	sync time.Duration
}

func (s slowFS) Create(name string) (File, error) {
	f, err := s.FS.Create(name)
	return slowFile{f, s.sync}, err
}

func (f slowFile) Sync() error {
	<-time.After(f.sync)
	return f.File.Sync()
}

// syncsFor has senders commit rounds messages each, with a pause before each, and returns what that took.
func syncsFor(t *testing.T, senders, rounds int, sync1, think time.Duration) (syncs int64, took time.Duration) {
	cfg := small(newMemFS())
	cfg.FS = slowFS{cfg.FS, sync1}
	cfg.SegmentBytes, cfg.MaxBytes = 1<<20, 16<<20
	j, _ := mustOpen(t, cfg)
	<-time.After(100 * sync1) // until the reserves are there
	before, begun := j.Stats().Syncs, time.Now()
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			<-time.After(time.Duration(i) * sync1 / time.Duration(senders)) // so that they do not begin together
			for n := range rounds {
				<-time.After(think)
				d, err := j.Begin(uint64(1+i+n*senders), 0)
				if err == nil {
					err = d.Commit(nil)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	took, syncs = time.Since(begun), j.Stats().Syncs-before
	mustClose(t, j)
	return syncs, took
}

func TestALoneSenderWaitsForItsSyncAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rounds, sync1, think = 20, time.Millisecond, 100 * time.Microsecond
		// The first sync of a segment is under way when the first message comes.
		if syncs, took := syncsFor(t, 1, rounds, sync1, think); syncs > rounds+1 || took > rounds*(sync1+think)+sync1 {
			t.Errorf("%d messages: %d syncs in %v", rounds, syncs, took)
		}
	})
}

func TestSendersWhoComeBackAtOnceShareTheirSyncs(t *testing.T) {
	for _, senders := range []int{2, 5, 20} {
		synctest.Test(t, func(t *testing.T) {
			const rounds, sync1, think = 50, time.Millisecond, 200 * time.Microsecond
			syncs, took := syncsFor(t, senders, rounds, sync1, think)
			// In turns it would be two syncs a round.
			if limit := int64(rounds * 5 / 4); syncs > limit || took > time.Duration(limit)*(sync1+think) {
				t.Errorf("%d senders, %d messages each: %d syncs in %v", senders, rounds, syncs, took)
			}
		})
	}
}

func TestPausesInVainBecomeRare(t *testing.T) {
	var g gathering
	now := time.Unix(1, 0)
	const syncs = 4 * gatherSkip
	pauses := 0
	for range syncs {
		g.syncBegins(now)
		now = now.Add(time.Millisecond)
		g.syncEnded(now, 1, 1)
		if g.waits(now, 1) {
			pauses++
			now = g.until
			if g.waits(now, 1) {
				t.Fatal("a pause has no end")
			}
		}
	}
	if pauses < 5 || pauses > 13 { // after 0, 1, 3, 7 ... 255 and then 256 syncs
		t.Errorf("%d pauses in %d syncs", pauses, syncs)
	}
	for range gatherSkip + 1 { // somebody comes back at last
		g.syncBegins(now)
		g.syncEnded(now.Add(time.Millisecond), 1, 1)
	}
	if !g.waits(now, 1) || g.waits(now, 2) || g.vain != 0 {
		t.Errorf("after a pause that was of use: %+v", g)
	}
}

func TestAPauseIsShortAndForFew(t *testing.T) {
	for _, c := range []struct {
		name              string
		sync              time.Duration
		answered, waiting int
		pause             time.Duration // 0: none
	}{
		{"nobody else", time.Millisecond, 1, 0, 0},
		{"nobody was answered", time.Millisecond, 0, 5, 0},
		{"two in turns", time.Millisecond, 1, 1, time.Millisecond / gatherShare},
		{"all together, to stay so", time.Millisecond, 2, 0, time.Millisecond / gatherShare},
		{"a slow disk", time.Second, 1, 1, gatherWait},
		{"enough", time.Millisecond, gatherMost, 1, 0},
	} {
		var g gathering
		now := time.Unix(1, 0)
		g.syncBegins(now)
		now = now.Add(c.sync)
		g.syncEnded(now, c.answered, c.waiting)
		if g.waits(now, c.waiting) != (c.pause > 0) || c.pause > 0 && g.until.Sub(now) != c.pause {
			t.Errorf("%s: %+v", c.name, g)
		}
	}
}

// The scheduler may take the processor away between the decision to wait and the setting of the timer. If the pause is over by
// then, nobody else is going to wake the writer: all senders may be among those who wait.
func TestAPauseThatEndsBeforeItsTimerIsSetStillEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal(small(newMemFS()).filled())
		w := newWriter(j)
		w.firstTail()
		for range reserves {
			w.segmentMade(j.make(ask{id: w.newID()}))
		}
		now := time.Now()
		w.fresh, w.opening, w.prelude = false, nil, 0 // or its beginning would be written first
		w.company = gathering{begun: now, want: 2, until: now.Add(time.Millisecond)}
		w.commits = []*request{{kind: messageKind, id: 1, accepted: [][]byte{{}}, size: frameSize(0), result: make(chan error, 1)}}
		w.step()
		if len(w.commits) == 0 {
			t.Fatal("that is no test: the message did not wait for company")
		}
		<-time.After(2 * time.Millisecond)
		w.setTimer()
		select {
		case <-w.timer.C:
		case <-time.After(time.Hour):
			t.Fatal("the writer sleeps, and the message waits for ever")
		}
		if w.step(); len(w.commits) > 0 || !w.running {
			t.Errorf("%d messages wait, a sync runs: %v", len(w.commits), w.running)
		}
	})
}
