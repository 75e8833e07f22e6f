package proxy

import (
	"encoding/binary"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
)

// What outlives the process beside the mail: what the controller learnt and the quota used, and that the fuse has tripped.

const (
	// A kill costs at most what was learnt, and counted of a quota, in rememberEvery; a new limit is written down after
	// rememberSoon. Where others hold connections too limits move every few seconds, and each writing takes about a
	// kilobyte of the journal.
	rememberEvery = 5 * time.Minute
	rememberSoon  = 30 * time.Second
	// What is known of pipelining is believed for a day after it was written down, so that it is written again also where it has not changed.
	rememberAnew = 6 * time.Hour
)

// learnt says what of the controller's memory is in the journal. The zero value: nothing, and nothing is owed.
type learnt struct {
	at     time.Time      // when it was last written
	counts flowctl.Counts // as of then: whatever changes the memory is counted there
	limits bool           // a limit has moved since
}

// rememberSometimes has the controller's memory written down if it has changed and that is due.
func (d *dispatcher) rememberSometimes(now time.Time) {
	l := &d.learnt
	if l.at.IsZero() {
		l.at = now
	}
	age := now.Sub(l.at)
	if age >= d.scaled(rememberEvery) && d.flow.Snapshot(now).Counts != l.counts || l.limits && age >= d.scaled(rememberSoon) {
		d.remember(now)
	}
}

// remember has what the controller learnt written down, so that a restart need not learn it again.
func (d *dispatcher) remember(now time.Time) {
	d.learnt = learnt{at: now, counts: d.flow.Snapshot(now).Counts}
	data, err := d.flow.MarshalBinary()
	if err != nil {
		d.log.Error("controller state not kept", zap.Error(err))
		return
	}
	d.recorder.put(blobFlow, data)
}

// rememberLadder has it written down how much the upstream can be given at once.
func (d *dispatcher) rememberLadder(now time.Time) {
	age := now.Sub(d.ladderSaved)
	if !d.ladderSaved.IsZero() && age < d.scaled(rememberSoon) && !d.stopping {
		return
	}
	data, changed := d.pool.client.Memory(now)
	if changed || d.ladderSaved.IsZero() || age >= rememberAnew {
		d.recorder.put(blobLadder, data)
	}
	d.ladderSaved = now
}

// rememberFuse has it written down that the fuse has tripped, or that it has not, so that a restart does not let the next ten die.
func (d *dispatcher) rememberFuse() {
	if w := d.fuse.waited; (w == 0) == (d.fuseSaved == 0) && w-d.fuseSaved < time.Hour {
		return
	}
	d.fuseSaved = d.fuse.waited
	var data []byte // none: not tripped
	if d.fuse.waited > 0 {
		data = binary.AppendVarint(nil, int64(d.fuse.waited))
	}
	d.recorder.put(blobFuse, data)
}
