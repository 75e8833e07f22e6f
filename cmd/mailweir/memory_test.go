package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestALargeHeapIsNotLetDouble(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 100}, {4 << 20, 100}, {24 << 20, 100}, {25 << 20, 95}, {48 << 20, 50}, {100 << 20, 20}, {1 << 30, 20}, {1 << 40, 20},
	} {
		if got := gcPercent(c.live); got != c.want {
			t.Errorf("%d MiB live: %d, want %d", c.live>>20, got, c.want)
		}
	}
}

// In this process: a heap that has grown and shrunk.
func TestTheCollectorFollowsTheHeap(t *testing.T) {
	was := debug.SetGCPercent(mostGCPercent)
	defer debug.SetGCPercent(was)
	stop := paceCollector(nil)
	backlog := make([]byte, 128<<20) // never touched, so it costs addresses and no memory
	awaitGCPercent(t, leastGCPercent)
	runtime.KeepAlive(backlog)
	backlog = nil
	awaitGCPercent(t, mostGCPercent)
	backlog = make([]byte, 128<<20)
	awaitGCPercent(t, leastGCPercent)
	runtime.KeepAlive(backlog)
	stop()
	if got := gcPercentNow(); got != mostGCPercent {
		t.Errorf("%d is left behind", got)
	}
}

func TestTheUsersOwnSettingOfTheCollectorStays(t *testing.T) {
	was := debug.SetGCPercent(77)
	defer debug.SetGCPercent(was)
	stop := paceCollector([]string{"GOGC=77"})
	backlog := make([]byte, 128<<20)
	runtime.GC()
	<-time.After(2 * lookInterval) // in which it would have been changed
	runtime.KeepAlive(backlog)
	stop()
	if got := gcPercentNow(); got != 77 {
		t.Errorf("%d in place of the user's 77", got)
	}
}

func gcPercentNow() int {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64())
}

func awaitGCPercent(t *testing.T, want int) {
	t.Helper()
	runtime.GC()
	for deadline := time.Now().Add(10 * time.Second); gcPercentNow() != want; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d after 10 s, want %d", gcPercentNow(), want)
		}
	}
}
