package proxy

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
)

func TestEachRecordIsDescribed(t *testing.T) {
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	meta, err := (&message.Envelope{ID: 7, From: "a@x", To: []message.Recipient{{Addr: "b@y"}, {Addr: "c@y", Notify: "NEVER"}}, Size: 3,
		Received: at, UTF8: true, Helo: "app"}).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		rec  journal.Record
		want string
	}{
		{journal.Record{Type: journal.Accepted, ID: 7, Payload: meta},
			`{"from":"a@x","to":["b@y","c@y"],"size":3,"received":"2026-05-01T12:00:00Z","helo":"app","smtputf8":true,"notify":{"1":"NEVER"}}`},
		{verdict{Delivered: []int{0}, Failed: []int{1}, Reply: "550 no"}.record(7), `{"delivered":[0],"failed":[1],"reply":"550 no"}`},
		{attempt{To: []int{1}, Due: at, Tries: queue.Tries{Attempts: 2}, Reply: "450"}.record(7),
			`{"to":[1],"due":"2026-05-01T12:00:00Z","tries":{"attempts":2,"strikes":0,"uncertain":0,"suspects":0},"reply":"450"}`},
		{started(7, nil), `{}`},
		{death{At: at, Reply: "expired"}.record(7), `{"at":"2026-05-01T12:00:00Z","reply":"expired"}`},
		{settled(7), `{}`},
		{journal.Record{Type: journal.Blob, Payload: []byte{1}}, `null`},
		{journal.Record{Type: 99, ID: 7, Payload: []byte{1}}, `null`},
	} {
		v, err := Describe(c.rec)
		if err != nil {
			t.Errorf("type %d: %v", c.rec.Type, err)
			continue
		}
		if got, err := json.Marshal(v); err != nil || string(got) != c.want {
			t.Errorf("type %d: %v\ngot  %s\nwant %s", c.rec.Type, err, got, c.want)
		}
	}
	for _, typ := range []journal.Type{journal.Accepted, journal.Attempt} {
		if _, err := Describe(journal.Record{Type: typ, ID: 7, Payload: []byte{0xff}}); err == nil {
			t.Errorf("type %d: nonsense was described", typ)
		}
	}
}
