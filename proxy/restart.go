package proxy

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/config"
)

// Routes, rules and the list of signing keys act at a start, which decides anew where everything goes that waits. Who
// changes their file is told that, and whether a start would take it: otherwise the next one, at night, would fail for it.

// restart knows whether the files that only a start reads have changed since.
type restart struct {
	files config.AtStart
	log   *zap.Logger
	needs atomic.Pointer[admin.RestartStatus] // nil: nothing has changed
}

// watch looks at them until ctx is done. A change counts when two looks have seen the same, for files are written in pieces.
func (r *restart) watch(ctx context.Context) {
	if !r.files.Any() {
		return
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var seen, told config.Look
	for {
		now := r.files.Look()
		if now == seen && now != told {
			r.tell(now)
			told = now
		}
		seen = now
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (r *restart) tell(now config.Look) {
	if now.Changed == "" {
		r.needs.Store(nil)
		r.log.Info("the configuration is again as it was at the start")
		return
	}
	s := &admin.RestartStatus{Files: now.Changed}
	if err := r.files.Check(); err != nil {
		s.Refused = strings.ReplaceAll(err.Error(), "\n  ", "; ") // one line
		r.log.Error("configuration has changed and would be refused, the next start will fail", zap.String("files", now.Changed), zap.String("reason", s.Refused))
	} else {
		r.log.Warn("configuration has changed, a restart takes it in", zap.String("files", now.Changed))
	}
	r.needs.Store(s)
}

func (r *restart) status() admin.RestartStatus {
	if s := r.needs.Load(); s != nil {
		return *s
	}
	return admin.RestartStatus{}
}
