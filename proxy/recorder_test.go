package proxy

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
)

func TestWhatWasDecidedIsWrittenWhenTheDiskCanAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		full := errors.New("no space left on device")
		began := time.Now()
		tries := 0
		err := keepTrying(context.Background(), zap.New(core), func() error {
			tries++
			if time.Since(began) < time.Minute {
				return full
			}
			return nil
		})
		if err != nil || logs.Len() != 1 {
			t.Errorf("%v, and %d lines in the log", err, logs.Len())
		}
		if tries < 60 || tries > 70 {
			t.Errorf("%d tries in a minute", tries)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := keepTrying(ctx, zap.NewNop(), func() error { return full }); !errors.Is(err, full) {
			t.Errorf("given up with %v", err)
		}
	})
}

func TestTheRecorderWritesEverythingInOrder(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 16 << 20}, func(journal.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	d, err := j.Begin(7, 0)
	if err != nil {
		t.Fatal(err)
	}
	env := message.Envelope{ID: 7, To: []message.Recipient{{Addr: "a@b.example"}}}
	meta, err := env.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Commit(meta); err != nil {
		t.Fatal(err)
	}
	r := newRecorder(context.Background(), j, zap.NewNop())
	const n = 2000
	for i := range n {
		r.write(attempt{To: []int{0}, Due: time.UnixMicro(int64(i))}.record(7))
		if i%100 == 0 {
			r.put("blob", []byte{byte(i / 100)})
		}
	}
	r.close()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	next := 0
	j, err = journal.Open(journal.Config{Dir: dir, MaxBytes: 16 << 20}, func(rec journal.Record) error {
		if rec.Type != journal.Attempt {
			return nil
		}
		f, err := parseFields(rec.Payload)
		if err != nil || f.Due.UnixMicro() != int64(next) {
			t.Fatalf("record %d: %+v, %v", next, f, err)
		}
		next++
		return nil
	})
	if err != nil || next != n {
		t.Fatalf("%d records of %d, %v", next, n, err)
	}
	if b := j.Blob("blob"); len(b) != 1 || b[0] != n/100-1 {
		t.Errorf("blob %v", b)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}
