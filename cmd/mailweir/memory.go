package main

import (
	"runtime/debug"
	"strings"

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
	for _, entry := range environ {
		if text, ok := strings.CutPrefix(entry, "GOMEMLIMIT="); ok && text != "" {
			return 0
		}
	}
	return cgroup / 10 * 9
}
