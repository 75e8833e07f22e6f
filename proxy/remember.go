package proxy

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/admin"
)

// What outlives the process beside the mail: what the controller learnt and the quota used, the level of pipelining, and that the fuse has tripped.

const (
	// A kill costs at most what was learnt, and counted of a quota, in rememberEvery; a new limit is written down after
	// rememberSoon. Where others hold connections too limits move every few seconds, and each writing takes about a
	// kilobyte of the journal.
	rememberEvery = 5 * time.Minute
	rememberSoon  = 30 * time.Second
	// What is known of pipelining is believed for a day after it was written down, so that it is written again also where it has not changed.
	rememberAnew = 6 * time.Hour
)

// Blobs in the journal; those of an upstream that is not the default one have its name behind them, see blob.
const (
	blobFlow   = "flow"   // what the controller learnt
	blobPauses = "pauses" // when the clock of expiry stood still
	blobLadder = "ladder" // how much the upstream can be given at once
	blobFuse   = "fuse"   // since when the fuse has tripped; absent: it has not
)

// blob returns the name of a blob of this lane.
func (d *lane) blob(kind string) string {
	if d.name == admin.DefaultUpstream {
		return kind
	}
	return kind + "/" + d.name
}

// blobNames lists the upstreams of which there are blobs, separated by commas.
const blobNames = "upstreams"

// forgetStrangers removes what is known of upstreams that are not configured any more, since the journal has room for few names. It
// is called before anything is learnt.
func (d *dispatcher) forgetStrangers() {
	var names []string
	for _, l := range d.lanes[1:] {
		names = append(names, l.name)
	}
	before := string(d.journal.Blob(blobNames))
	for name := range strings.SplitSeq(before, ",") {
		if name != "" && !slices.Contains(names, name) {
			for _, kind := range []string{blobFlow, blobLadder, blobPauses, blobFuse} {
				d.recorder.put((&lane{name: name}).blob(kind), nil)
			}
		}
	}
	if now := strings.Join(names, ","); now != before {
		d.recorder.put(blobNames, []byte(now))
	}
}

// restoreBlobs takes back what earlier runs learnt. What cannot be read is learnt again.
func (d *lane) restoreBlobs(now time.Time) {
	if b := d.journal.Blob(d.blob(blobFlow)); b != nil {
		if err := d.flow.Restore(now, b); err != nil {
			d.log.Warn("controller state not restored", zap.Error(err))
		}
	}
	if b := d.journal.Blob(d.blob(blobLadder)); b != nil {
		if err := d.pool.client.Restore(now, b); err != nil {
			d.log.Warn("level of pipelining not restored", zap.Error(err))
		}
	}
	if b := d.journal.Blob(d.blob(blobPauses)); b != nil {
		pauses, err := decodePauses(b)
		if err != nil {
			d.log.Warn("pauses not restored", zap.Error(err))
		}
		d.queue.RestorePauses(now, pauses)
	}
	if b := d.journal.Blob(d.blob(blobFuse)); len(b) > 0 {
		waited, n := binary.Varint(b)
		if n <= 0 {
			d.log.Warn("state of the fuse not restored")
			return
		}
		d.fuse.restore(time.Duration(waited))
		d.fuseSaved = d.fuse.waited
	}
}

// learnt says what of the controller's memory is in the journal. The zero value: nothing, and nothing is owed.
type learnt struct {
	at     time.Time      // when it was last written
	counts flowctl.Counts // as of then: whatever changes the memory is counted there
	limits bool           // a limit has moved since
}

// rememberSometimes has the controller's memory written down if it has changed and that is due.
func (d *lane) rememberSometimes(now time.Time) {
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
func (d *lane) remember(now time.Time) {
	d.learnt = learnt{at: now, counts: d.flow.Snapshot(now).Counts}
	data, err := d.flow.MarshalBinary()
	if err != nil {
		d.log.Error("controller state not kept", zap.Error(err))
		return
	}
	d.recorder.put(d.blob(blobFlow), data)
}

// rememberLadder has it written down how much the upstream can be given at once.
func (d *lane) rememberLadder(now time.Time) {
	age := now.Sub(d.ladderSaved)
	if !d.ladderSaved.IsZero() && age < d.scaled(rememberSoon) && !d.stopping {
		return
	}
	data, changed := d.pool.client.Memory(now)
	if changed || d.ladderSaved.IsZero() || age >= rememberAnew {
		d.recorder.put(d.blob(blobLadder), data)
	}
	d.ladderSaved = now
}

// rememberFuse has it written down that the fuse has tripped, or that it has not, so that a restart does not let the next ten die.
func (d *lane) rememberFuse() {
	if w := d.fuse.waited; (w == 0) == (d.fuseSaved == 0) && w-d.fuseSaved < time.Hour {
		return
	}
	d.fuseSaved = d.fuse.waited
	var data []byte // none: not tripped
	if d.fuse.waited > 0 {
		data = binary.AppendVarint(nil, int64(d.fuse.waited))
	}
	d.recorder.put(d.blob(blobFuse), data)
}
