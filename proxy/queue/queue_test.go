package queue

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mailweir/mailweir/proxy/message"
)

var (
	start = time.Unix(1_700_000_000, 0)
	cfg   = Config{RetryMin: time.Second, RetryMax: time.Minute, RecipientRetryMin: 5 * time.Minute, RecipientRetryMax: time.Hour, ExpireAfter: 96 * time.Hour}
)

func add(q *Lane, id message.ID, key string) { q.Add(start, id, start, 1, []Group{{Key: key}}) }

func next(t *testing.T, q *Lane, now time.Time) Delivery {
	t.Helper()
	d, ok := q.Next(now)
	if !ok {
		t.Fatal("nothing is due")
	}
	return d
}

func wantNothing(t *testing.T, q *Lane, now time.Time) {
	t.Helper()
	if d, ok := q.Next(now); ok {
		t.Fatalf("message %d is due", d.ID)
	}
}

func TestKeysTakeTurns(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	for id := range message.ID(4) {
		add(q, id+1, "flood.example")
	}
	add(q, 10, "quiet.example")
	add(q, 11, "quiet.example")
	for i, want := range []message.ID{1, 10, 2, 11, 3, 4} {
		if d := next(t, q, start); d.ID != want {
			t.Fatalf("turn %d: message %d, want %d", i, d.ID, want)
		}
	}
	wantNothing(t, q, start)
}

func TestTheNewestOfAKeyCanBeTakenFirst(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	for id := range message.ID(4) {
		add(q, id+1, "a")
	}
	for _, want := range []message.ID{4, 3, 2, 1} {
		d, ok := q.NextNewest(start)
		if !ok || d.ID != want {
			t.Fatalf("message %d, want %d", d.ID, want)
		}
	}
	wantNothing(t, q, start)
}

func TestAProbeFindsTheLatestBehindAPileOfKeys(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	for id := range message.ID(300) {
		add(q, id+1, fmt.Sprint("bad", id))
	}
	add(q, 1000, "good")
	if d, ok := q.NextNewest(start); !ok || d.ID != 1000 {
		t.Fatalf("message %d, want the latest", d.ID)
	}
	for i := range message.ID(3) { // a pile of one key must not hide what came just before it
		add(q, 2000+i, "pile")
	}
	q.NextNewest(start)
	if d, ok := q.NextNewest(start); !ok || d.ID != 300 {
		t.Fatalf("message %d, want one of another key", d.ID)
	}
}

func TestAProbeTakesWhatWasNotTriedYet(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	for id := range message.ID(3) {
		add(q, id+1, "a")
	}
	q.StopClock(start)
	d, _ := q.NextNewest(start)
	due, _ := q.Defer(start, d.Ref, ByRecipient, 0)
	for _, want := range []message.ID{2, 1, 3} {
		if d, ok := q.NextNewest(due); !ok || d.ID != want {
			t.Fatalf("message %d, want %d", d.ID, want)
		}
	}
}

func TestBackoffNeverWraps(t *testing.T) {
	for failures := range uint8(255) {
		if got := backoff(5*time.Hour, 24*time.Hour, failures+1); got < 5*time.Hour || got > 24*time.Hour || failures > 3 && got != 24*time.Hour {
			t.Fatalf("after %d failures: %s", failures+1, got)
		}
	}
}

func TestRowsAreTheOldest(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	for i := range message.ID(100) {
		add(q, (i*37)%100+1, "a")
	}
	rows := q.Rows(7)
	if len(rows) != 7 {
		t.Fatalf("%d rows", len(rows))
	}
	for i, r := range rows {
		if r.ID != message.ID(i+1) {
			t.Errorf("row %d is message %d", i, r.ID)
		}
	}
}

func TestWhatIsHandedBackIsTheNextOfItsKey(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	add(q, 1, "a")
	add(q, 2, "a")
	d := next(t, q, start)
	q.Return(d.Ref, d.Since)
	if got := next(t, q, start); got.ID != 1 || got.Tries != (Tries{}) {
		t.Fatalf("got %+v, want message 1, uncharged", got)
	}
}

func TestPausesGrowJitteredAndStayBelowTheirMaximum(t *testing.T) {
	for _, c := range []struct {
		cause  Cause
		lo, hi time.Duration
	}{
		{ByUpstream, cfg.RetryMin, cfg.RetryMax},
		{ByRecipient, cfg.RecipientRetryMin, cfg.RecipientRetryMax},
	} {
		q := New(cfg, 7, start).Lane(0)
		add(q, 1, "a")
		now, base := start, c.lo
		for i := range 40 {
			d := next(t, q, now)
			due, tries := q.Defer(now, d.Ref, c.cause, 0)
			if pause := due.Sub(now); pause < base/2 || pause > base {
				t.Fatalf("cause %d, failure %d: pause %s, want %s to %s", c.cause, i+1, pause, base/2, base)
			}
			if int(tries.Attempts)+int(tries.Strikes) != i+1 {
				t.Fatalf("failure %d counted as %+v", i+1, tries)
			}
			wantNothing(t, q, due.Add(-time.Microsecond))
			if !q.NextDue().Equal(due) {
				t.Fatalf("next due %s, want %s", q.NextDue(), due)
			}
			now, base = due, min(2*base, c.hi)
		}
	}
}

func TestAHintOfTheUpstreamIsObeyedWithinTheLongestPause(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	add(q, 1, "a")
	due, _ := q.Defer(start, next(t, q, start).Ref, ByUpstream, 10*time.Minute)
	if got := due.Sub(start); got != 10*time.Minute {
		t.Fatalf("pause %s, want the 10 minutes that were named", got)
	}
	due, _ = q.Defer(due, next(t, q, due).Ref, ByUpstream, 1000*time.Hour)
	if got := due.Sub(start); got > 25*time.Hour {
		t.Fatalf("a wild hint made it wait %s", got)
	}
}

func TestUncertainDeliveriesAreRepeatedAHandfulOfTimes(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	add(q, 1, "a")
	now := start
	for tries := 1; ; tries++ {
		d := next(t, q, now)
		if now.Sub(start) > cfg.ExpireAfter {
			if tries > 8 {
				t.Fatalf("%d copies before expiry", tries)
			}
			return
		}
		due, _ := q.Defer(now, d.Ref, ByUncertain, 0)
		if due.Sub(now) < uncertainMin {
			t.Fatalf("try %d repeated after %s", tries, due.Sub(now))
		}
		now = due
	}
}

func TestARestoredDueTimeFromAWrongClockIsBroughtNear(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	q.Add(start, 1, start, 1, []Group{{Key: "a", Due: start.Add(10_000 * time.Hour)}})
	next(t, q, start.Add(uncertainHold))
}

func TestExpiryStandsStillInPausesAndAfterAStart(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	q.Add(start, 1, start, 1, []Group{{Key: "a"}})
	q.Add(start, 2, start.Add(-1000*time.Hour), 1, []Group{{Key: "b"}})
	fresh, old := next(t, q, start).Ref, next(t, q, start).Ref
	if q.Expired(start.Add(startGrace-1), old) {
		t.Error("expired within the grace after a start")
	}
	if !q.Expired(start.Add(startGrace), old) {
		t.Error("not expired after the grace")
	}
	q.StopClock(start.Add(time.Hour))
	q.StopClock(start.Add(2 * time.Hour)) // changes nothing
	q.StartClock(start.Add(51 * time.Hour))
	if q.Expired(start.Add(146*time.Hour-1), fresh) {
		t.Error("50 hours of pause counted towards expiry")
	}
	if !q.Expired(start.Add(146*time.Hour), fresh) {
		t.Error("not expired 96 hours of running clock after it was received")
	}
}

func TestAPauseThatARestartInterruptedLastedUntilThen(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	q.StopClock(start)
	saved := q.Pauses()
	later := start.Add(200 * time.Hour)
	q = New(cfg, 1, later).Lane(0)
	q.RestorePauses(later, saved)
	q.Add(later, 1, start, 1, []Group{{Key: "a"}})
	if ref := next(t, q, later).Ref; q.Expired(later.Add(95*time.Hour), ref) {
		t.Error("the pause was forgotten")
	}
}

func TestTooManyPausesNeverExpireEarlier(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	q.Add(start, 1, start, 1, []Group{{Key: "a"}})
	ref := next(t, q, start).Ref
	now := start
	for range 5 * maxPauses {
		q.StopClock(now)
		q.StartClock(now.Add(time.Hour))
		now = now.Add(time.Hour + time.Minute)
	}
	if len(q.pauses) > maxPauses {
		t.Fatalf("%d pauses kept", len(q.pauses))
	}
	if q.Expired(now, ref) {
		t.Errorf("expired after 5 hours and 20 minutes of running clock")
	}
}

func TestADeliverySplitsAndEndsInParts(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	add(q, 1, "*")
	d := next(t, q, start)
	other := q.Split(d.Ref, []int{2}, "slow.example")
	q.Narrow(d.Ref, []int{0, 1})
	q.Return(d.Ref, d.Since)
	due, _ := q.Defer(start, other, ByRecipient, 0)
	if got := next(t, q, start); fmt.Sprint(got.To) != "[0 1]" || got.Last {
		t.Fatalf("got %+v, want recipients 0 and 1 of a message with another delivery", got)
	}
	if q.End(d.Ref) {
		t.Fatal("the message ended with a delivery pending")
	}
	got := next(t, q, due)
	if fmt.Sprint(got.To) != "[2]" || !got.Last || got.Tries.Attempts != 1 {
		t.Fatalf("got %+v, want recipient 2, the last delivery, once charged", got)
	}
	if !q.End(got.Ref) {
		t.Fatal("the message did not end with its last delivery")
	}
	if q.Stats() != (Stats{}) || len(q.to) != 0 || len(q.byName) != 0 {
		t.Fatalf("left behind: %+v, %d lists, %d keys", q.Stats(), len(q.to), len(q.byName))
	}
}

// Whatever the order of calls, nothing is lost, nothing comes twice, and the counts are true.
func TestNothingIsLostOrRepeated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := New(cfg, rapid.Uint64().Draw(t, "seed"), start).Lane(0)
		now, id := start, message.ID(0)
		pending := map[message.ID]bool{}
		flying := map[message.ID]Delivery{}
		anyFlying := func(t *rapid.T) Delivery {
			if len(flying) == 0 {
				t.Skip("nothing in flight")
			}
			var ids []message.ID
			for i := message.ID(1); i <= id; i++ {
				if _, ok := flying[i]; ok {
					ids = append(ids, i)
				}
			}
			d := flying[rapid.SampledFrom(ids).Draw(t, "id")]
			delete(flying, d.ID)
			return d
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				id++
				pending[id] = true
				q.Add(now, id, now, 1, []Group{{Key: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")}})
			},
			"next": func(t *rapid.T) {
				take := q.Next
				if rapid.Bool().Draw(t, "newest") {
					take = q.NextNewest
				}
				d, ok := take(now)
				if !ok {
					return
				}
				if _, twice := flying[d.ID]; twice || !pending[d.ID] {
					t.Fatalf("message %d came though it was in flight or had ended", d.ID)
				}
				flying[d.ID] = d
			},
			"return": func(t *rapid.T) { d := anyFlying(t); q.Return(d.Ref, d.Since) },
			"defer": func(t *rapid.T) {
				q.Defer(now, anyFlying(t).Ref, Cause(rapid.IntRange(0, 2).Draw(t, "cause")), 0)
			},
			"end": func(t *rapid.T) {
				d := anyFlying(t)
				q.End(d.Ref)
				delete(pending, d.ID)
			},
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 7200).Draw(t, "seconds")) * time.Second)
			},
			"": func(t *rapid.T) {
				s := q.Stats()
				if s.Messages != len(pending) || s.InFlight != len(flying) || s.Ready+s.Deferred+s.InFlight != s.Deliveries {
					t.Fatalf("%+v with %d pending and %d in flight", s, len(pending), len(flying))
				}
				if rows := q.Rows(1000); len(rows) != s.Deliveries {
					t.Fatalf("%d rows of %d deliveries", len(rows), s.Deliveries)
				}
			},
		})
		for d := range flying {
			q.Return(flying[d].Ref, flying[d].Since)
			delete(flying, d)
		}
		now = now.Add(uncertainHold)
		for range len(pending) {
			d, ok := q.Next(now)
			if !ok || !pending[d.ID] {
				t.Fatalf("%d messages never came back", len(pending))
			}
			delete(pending, d.ID)
		}
	})
}

func TestGivingBackWhatIsNotInFlightIsAProgrammersError(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	add(q, 1, "a")
	d := next(t, q, start)
	q.Return(d.Ref, d.Since)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	q.Return(d.Ref, d.Since)
}

func BenchmarkQueue(b *testing.B) {
	q := New(cfg, 1, start).Lane(0)
	for id := range message.ID(100_000) {
		add(q, id+1, fmt.Sprint(id%1000))
	}
	b.ReportAllocs()
	id := message.ID(1_000_000)
	groups := []Group{{Key: "17"}}
	for b.Loop() {
		d, _ := q.Next(start)
		q.End(d.Ref)
		id++
		q.Add(start, id, start, 1, groups)
	}
}

// What one host of several is too busy for waits for another one: no longer each time, and it is no failure of the upstream's.
func TestAnotherHostsPauseDoesNotGrow(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	add(q, 1, "a")
	now := start
	for range 10 {
		due, tries := q.Defer(now, next(t, q, now).Ref, ByHost, 0)
		if pause := due.Sub(now); pause < cfg.RetryMin/2-time.Microsecond || pause > cfg.RetryMin || tries != (Tries{}) {
			t.Errorf("a pause of %v, %+v", pause, tries)
		}
		now = due
	}
}
