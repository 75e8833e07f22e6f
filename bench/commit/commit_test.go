//go:build commit && linux

package commit

import (
	"testing"
	"time"
)

const (
	rounds = 5 // of which the best counts: the machine is not ours alone

	// shareKept is the part of the unsynced rate that 100 senders must keep.
	shareKept = 0.7

	// roundTrips is how many times as long as for an answer that needs no journal a sender may wait beside one sync: that is
	// another thread's, and on a machine that is busy each waits for a core. A delay in hope of company would show here.
	roundTrips = 10

	// spareSyncs is the part of all syncs that may be for something else than the one message that waits.
	spareSyncs = 0.05
)

// quick is long enough for thousands of messages.
func quick(senders int) load {
	return load{Senders: senders, Warm: 200 * time.Millisecond, Measure: 500 * time.Millisecond}
}

func TestOneSenderPaysOneSync(t *testing.T) {
	for range rounds {
		d := measureDisk(t)
		got := measureDoor(t, quick(1), true)
		limit := d.fresh.median + roundTrips*got.Envelope
		t.Logf("%.3f syncs a message; median %v, without a journal %v; the disk takes %v", got.Syncs, got.P50, got.Envelope, d.fresh.median)
		if got.Syncs > 1+spareSyncs {
			t.Fatalf("%.3f syncs a message", got.Syncs)
		}
		if got.P50 <= limit {
			return
		}
	}
	t.Errorf("one sender waits longer than for a sync of the disk and %d round trips", roundTrips)
}

func TestAHundredSendersHardlyNoticeTheSyncs(t *testing.T) {
	const senders = 100
	best := 0.0
	for range rounds {
		d := measureDisk(t)
		got, free := measureDoor(t, quick(senders), true), measureDoor(t, quick(senders), false)
		// On a slow disk it is the limit: a message waits for the sync under way, and then for its own.
		limit := min(free.Rate, senders*d.fresh.rate/2)
		best = max(best, got.Rate/limit)
		t.Logf("%.0f messages a second with %.3f syncs each; %.0f without; the disk syncs %.0f a second",
			got.Rate, got.Syncs, free.Rate, d.fresh.rate)
		if got.Served < senders {
			t.Fatalf("%d of %d senders were served", got.Served, senders)
		}
		if best >= shareKept {
			return
		}
	}
	t.Errorf("%.0f %% of what is possible without syncs, at best", 100*best)
}
