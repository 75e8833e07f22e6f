package main

import (
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/proxy/config"
)

// setMemoryLimit tells the garbage collector about the cgroup's limit, unless GOMEMLIMIT has told it
// something already: it collects earlier then, where it would have been killed.
func setMemoryLimit(environ []string, log *zap.Logger) {
	limit := memoryLimit(environ, config.MemoryLimit())
	if limit == 0 {
		return
	}
	debug.SetMemoryLimit(limit)
	log.Info("memory limit set from the cgroup", zap.Int64("bytes", limit))
}

// memoryLimit returns the bytes for the heap in a cgroup of that many, 0 for no change. The tenth left is for what
// the runtime does not count: thread stacks, the page tables, a burst between two collections.
func memoryLimit(environ []string, cgroup int64) int64 {
	if isSet(environ, "GOMEMLIMIT") {
		return 0
	}
	return cgroup / 10 * 9
}

func isSet(environ []string, name string) bool {
	for _, entry := range environ {
		if text, ok := strings.CutPrefix(entry, name+"="); ok && text != "" {
			return true
		}
	}
	return false
}

// The collector lets a heap double before it runs again. A backlog of a million messages is 100 MiB in which it finds no pointer: to
// wait for as much garbage costs memory and saves next to no work, since it looks only at what has pointers. A small heap does
// double: there a collection for each few megabytes would cost a tenth of the processor, and saves nothing that matters.
const (
	garbageRoom    = 24 << 20 // bytes that may be added between two collections, unless the heap is so large
	leastGCPercent = 20       // that this part of it is more
	mostGCPercent  = 100
	gcPercentStep  = 5 // no change for less: each stops the process for a moment
	lookInterval   = 250 * time.Millisecond
)

// gcPercent is the setting for a heap of which so many bytes were in use after the last collection.
func gcPercent(live uint64) int {
	percent := uint64(mostGCPercent)
	if live > 0 {
		percent = min(garbageRoom*100/live, mostGCPercent)
	}
	return max(int(percent)/gcPercentStep*gcPercentStep, leastGCPercent)
}

// paceCollector keeps the collector's setting right for the size of the heap until stop is called, which is to be done once. A
// setting of the user's stays.
func paceCollector(environ []string) (stop func()) {
	if isSet(environ, "GOGC") {
		return func() {}
	}
	done := make(chan struct{})
	var pacing sync.WaitGroup
	pacing.Go(func() {
		look := time.NewTicker(lookInterval)
		defer look.Stop()
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		for now := mostGCPercent; ; {
			select {
			case <-done:
				debug.SetGCPercent(mostGCPercent)
				return
			case <-look.C:
			}
			metrics.Read(live)
			if want := gcPercent(live[0].Value.Uint64()); want != now {
				debug.SetGCPercent(want)
				now = want
			}
		}
	})
	return func() {
		close(done)
		pacing.Wait()
	}
}

// giveBack returns to the system what only the start has needed: to read a backlog takes half as much memory again as to keep it,
// and by itself the runtime would return it in the course of minutes.
func giveBack() { debug.FreeOSMemory() }
