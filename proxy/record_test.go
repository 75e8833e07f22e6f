package proxy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
)

func TestStateRecordsReadBack(t *testing.T) {
	due := time.UnixMicro(1_700_000_000_000_001)
	tries := queue.Tries{Attempts: 1, Strikes: 2, Uncertain: 3, Suspects: 255}
	for _, c := range []struct {
		rec  journal.Record
		want fields
	}{
		{verdict{Delivered: []int{0, 300}, Failed: []int{2}, Reply: "550 no"}.record(7), fields{Delivered: []int{0, 300}, Failed: []int{2}, Reply: "550 no"}},
		{attempt{To: []int{1}, Due: due, Tries: tries, Reply: "450"}.record(7), fields{To: []int{1}, HasTo: true, Due: due, Tries: tries, Reply: "450"}},
		{attempt{Due: due}.record(7), fields{Due: due}},
		{started(7, nil), fields{}},
		{started(7, []int{3}), fields{To: []int{3}, HasTo: true}},
		{death{At: due, Failed: []int{0}, Reply: "expired"}.record(7), fields{At: due, Reply: "expired"}},
	} {
		got, err := parseFields(c.rec.Payload)
		if err != nil || !reflect.DeepEqual(got, c.want) || c.rec.ID != 7 {
			t.Errorf("%+v, %v; want %+v", got, err, c.want)
		}
	}
	if b := appendReply(nil, strings.Repeat("x", 5000)); len(b) > maxReplyText+10 {
		t.Errorf("a reply of %d octets was kept", len(b))
	}
}

func FuzzStateRecord(f *testing.F) {
	f.Add(verdict{Delivered: []int{0, 300}, Reply: "r"}.record(7).Payload)
	f.Add(attempt{To: []int{1}, Due: time.UnixMicro(5)}.record(7).Payload)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseFields(b)
		if err != nil {
			return
		}
		for _, i := range append(append(x.Delivered, x.Failed...), x.To...) {
			if i < 0 || i > maxRecipientIndex {
				t.Fatalf("recipient %d", i)
			}
		}
	})
}

func TestPausesReadBack(t *testing.T) {
	want := []queue.Pause{{From: noon, To: noon.Add(time.Hour)}, {From: noon.Add(2 * time.Hour)}}
	got, err := decodePauses(encodePauses(want))
	if err != nil || len(got) != 2 || !got[0].To.Equal(want[0].To) || !got[1].From.Equal(want[1].From) || !got[1].To.IsZero() {
		t.Fatalf("%v, %v", got, err)
	}
	if _, err := decodePauses([]byte{1}); err == nil {
		t.Error("half a pause was taken")
	}
}

// replayed feeds records to a recovery and returns the groups that it makes of message 1.
func replayed(t *testing.T, to []string, records ...journal.Record) (*recovery, []queue.Group) {
	t.Helper()
	env := message.Envelope{ID: 1, Received: noon}
	for _, a := range to {
		env.To = append(env.To, message.Recipient{Addr: a})
	}
	meta, err := env.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRecovery(new(message.IDs), zap.NewNop())
	for _, rec := range append([]journal.Record{{Type: journal.Accepted, ID: 1, Payload: meta}}, records...) {
		if err := r.replay(rec); err != nil {
			t.Fatal(err)
		}
	}
	m := r.pending.get(1)
	if m == nil {
		return r, nil
	}
	return r, r.groups(nil, m, noon, time.Minute)
}

func TestRecoveryRestoresEveryRecipientsFate(t *testing.T) {
	to := []string{"a@x.example", "b@x.example", "c@y.example"}
	later := noon.Add(time.Hour)
	tried := queue.Tries{Attempts: 2}

	_, got := replayed(t, to)
	if len(got) != 1 || got[0].To != nil || got[0].Key != mixedKey {
		t.Errorf("untried: %+v, want one delivery of all", got)
	}
	_, got = replayed(t, to, verdict{Delivered: []int{1}}.record(1))
	if len(got) != 1 || !reflect.DeepEqual(got[0].To, []int{0, 2}) {
		t.Errorf("one delivered: %+v, want recipients 0 and 2", got)
	}
	_, got = replayed(t, to, verdict{Delivered: []int{1}}.record(1), attempt{To: []int{2}, Due: later, Tries: tried}.record(1))
	if len(got) != 2 || !got[1].Due.Equal(later) || got[1].Key != "y.example" || !reflect.DeepEqual(got[1].To, []int{2}) || got[1].Tries != tried {
		t.Errorf("one deferred: %+v, want it to wait alone", got)
	}
	_, got = replayed(t, to, started(1, nil), started(1, nil), started(1, nil))
	if len(got) != 1 || !got[0].Due.After(noon) {
		t.Errorf("three crashes: %+v, want it to wait", got)
	}
	_, got = replayed(t, to, started(1, nil), started(1, nil), verdict{Delivered: []int{0}}.record(1), attempt{To: []int{1, 2}, Due: noon}.record(1), started(1, []int{1, 2}))
	if len(got) != 1 || got[0].Due.After(noon) {
		t.Errorf("an answer between: %+v, want it at once", got)
	}
	r, _ := replayed(t, to, settled(1))
	if r.pending.get(1) != nil {
		t.Error("a settled message came back")
	}
	r, _ = replayed(t, to, verdict{Failed: []int{0, 1, 2}, Reply: "550"}.record(1), death{At: noon, Failed: []int{0, 1, 2}, Reply: "550"}.record(1))
	if x, dead := r.deaths[1]; !dead || x.Reply != "550" || len(x.Failed) != 3 {
		t.Error("a dead message did not stay dead")
	}
}

func TestRecoverySurvivesAStateRecordItCannotRead(t *testing.T) {
	r, got := replayed(t, []string{"a@x.example"}, journal.Record{Type: journal.Attempt, ID: 1, Payload: []byte{5, 200}})
	if r.bad != 1 || len(got) != 1 {
		t.Fatalf("%d bad records, groups %+v: want the message due", r.bad, got)
	}
}

func TestACrashCountsForWhoWasOnTheWay(t *testing.T) {
	to := make([]string, 400)
	for i := range to {
		to[i] = fmt.Sprintf("u%d@x.example", i)
	}
	idx := func(a, b int) (x []int) {
		for i := a; i < b; i++ {
			x = append(x, i)
		}
		return x
	}
	// one crash, four deliveries of one message on their way
	_, got := replayed(t, to, started(1, idx(0, 100)), started(1, idx(100, 200)), started(1, idx(200, 300)))
	if got[len(got)-1].Due.After(noon) {
		t.Errorf("one crash with three deliveries on their way counts as three crashes: even the untried fourth waits until %s", got[len(got)-1].Due)
	}
	// a verdict of one delivery hides that another was on its way
	r, _ := replayed(t, to, started(1, idx(0, 100)), started(1, idx(100, 200)), verdict{Delivered: idx(0, 100)}.record(1))
	if r.crashes(r.pending.get(1)) == 0 {
		t.Error("recipients 100 to 199 were on their way, will be sent again, and are not counted")
	}
	// a pause that is longer than the crash pause is cut short
	later := noon.Add(50 * time.Minute)
	_, got = replayed(t, to[:2], attempt{To: []int{0}, Due: later}.record(1), started(1, []int{1}), started(1, []int{1}), started(1, []int{1}))
	if !got[0].Due.Equal(later) {
		t.Errorf("due %s, its Attempt said %s", got[0].Due, later)
	}
}
