//go:build crash

package crash

import (
	"context"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/source"
)

const sourceLimit = 20 * time.Second // for each step of a source

// load sends in the background and tells of the first acknowledgement.
type load struct {
	first  chan struct{} // closed at the first acknowledgement, or when the load is over
	cancel context.CancelFunc
	ended  chan source.Ledger
}

func sendBeside(t *testing.T, cfg source.Config) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{first: make(chan struct{}), cancel: cancel, ended: make(chan source.Ledger, 1)}
	acknowledged := make(chan struct{}, 1)
	cfg.Timeout = sourceLimit
	cfg.Progress = func(p source.Progress) {
		if p.Acknowledged > 0 {
			select {
			case acknowledged <- struct{}{}:
			default:
			}
		}
	}
	over := make(chan struct{})
	go func() { // received by stop
		sent := source.Run(ctx, cfg)
		close(over)
		l.ended <- sent
	}()
	go func() { // ends with the one above
		defer close(l.first)
		select {
		case <-acknowledged:
		case <-over:
		}
	}()
	return l
}

// stop ends the load. What it was told until now stands in its ledger.
func (l *load) stop() source.Ledger {
	l.cancel()
	return <-l.ended
}
