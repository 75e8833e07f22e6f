package queue

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/mailweir/mailweir/proxy/message"
)

func TestTheOldestReadyIsTheOneThatWasReadyFirst(t *testing.T) {
	q := New(cfg, 1, start).Lane(0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	want := func(now, since int) {
		t.Helper()
		if got := q.ReadySince(at(now)); !got.Equal(at(since)) {
			t.Fatalf("at %d s: since %v; want %d s", now, got.Sub(start), since)
		}
	}
	arrive := func(s int, id message.ID) {
		// Received long before: what counts is when it could be sent.
		q.Add(at(s), id, at(-1000), 1, []Group{{Key: "a"}})
	}
	if got := q.ReadySince(start); !got.IsZero() {
		t.Fatalf("of nothing: %v", got)
	}
	arrive(1, 1)
	arrive(5, 2)
	arrive(9, 3)
	want(10, 1)
	first := next(t, q, at(10))
	want(10, 5)
	if !first.Since.Equal(at(1)) {
		t.Errorf("since %v", first.Since.Sub(start))
	}
	q.Return(first.Ref, first.Since)
	want(11, 1)
	first = next(t, q, at(11))
	due, _ := q.Defer(at(11), first.Ref, ByUpstream, 0)
	want(11, 5)
	next(t, q, at(11))
	next(t, q, at(11))
	if got := q.ReadySince(at(11)); !got.IsZero() {
		t.Errorf("with one deferred: %v", got)
	}
	if got := q.ReadySince(due); !got.Equal(due) { // ready again: a new wait
		t.Errorf("since %v; want %v", got.Sub(start), due.Sub(start))
	}
}

// However many come, none counts as younger than it is, and as long as they are few the time is exact.
func TestAgesAreNeverTooYoung(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a ages
		var line []time.Time      // of those ready
		now, exact := start, true // until there are too many
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "s")) * time.Second)
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1, 2:
				a.come(now)
				line = append(line, now)
			case 3:
				if len(line) > 0 {
					a.leave()
					line = line[1:]
				}
			case 4:
				if len(line) > 0 {
					since := a.leave()
					a.back(since)
				}
			}
			if len(a.marks) > maxMarks {
				t.Fatalf("%d marks", len(a.marks))
			}
			exact = exact && len(a.marks) < maxMarks
			got := a.oldest()
			switch {
			case len(line) == 0:
				if !got.IsZero() {
					t.Fatalf("%v of nothing", got)
				}
			case got.After(line[0]) || got.IsZero():
				t.Fatalf("since %v; the oldest is from %v", got, line[0])
			case exact && !got.Equal(line[0]):
				t.Fatalf("since %v; the oldest is from %v", got, line[0])
			}
		}
	})
}
