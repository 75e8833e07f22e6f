//go:build crash

package crash

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

// The book finds what it is there to find: a kill in a storm loses nothing, and the same with one message struck
// from the sink's side is a loss.
func TestTheHarnessKnowsALoss(t *testing.T) {
	s := newSink(t, relay.Config{RTT: time.Millisecond})
	w := newWeir(t, s.address, filepath.Join(scratch(t), "journal"))
	b := &book{sinks: []*sink{s}}
	w.start(t)
	b.add(source.Run(t.Context(), source.Config{Address: w.address, Name: "first", Messages: 50, Connections: 5}))
	w.freeze(t)
	down := time.Now()
	w.kill(t)
	b.crashed(down, time.Now())
	w.start(t)
	b.add(source.Run(t.Context(), source.Config{Address: w.address, Name: "second", Messages: 50, Connections: 5}))
	a := b.settle(t, 10*time.Second)
	t.Logf("%d acknowledged, %d arrived, %d twice, %d without acknowledgement", a.Acknowledged, a.Arrived, len(a.Duplicated), a.Surplus)
	if code := w.terminate(t); code != 0 {
		t.Errorf("exit code %d after a full drain", code)
	}
	if b.acknowledged() != 100 {
		t.Errorf("%d of 100 acknowledged", b.acknowledged())
	}

	b.add(source.Ledger{Records: []source.Record{{XID: "never sent", To: []string{"a@b.example"}, Stage: source.StageDot, Code: 250}}})
	if a := b.account(); len(a.Lost) != 1 {
		t.Errorf("a message that never arrived is not lost: %+v", a)
	}
	b.add(source.Ledger{Records: []source.Record{
		{XID: "first-0", To: []string{"user0@source.example"}, Stage: source.StageDot, Sum: [32]byte{1}},
	}})
	if a := b.account(); len(a.Altered) == 0 {
		t.Error("a message of another content is not altered")
	}
}
