//go:build backlog

package backlog

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
)

const (
	contentBytes = 2 << 10
	domains      = 200
	fillers      = 500     // senders at once: one sync serves them all
	journalBytes = 8 << 30 // most of which is never written
)

// fill makes a journal of so many messages as the front door would have left it: same metas, same trace header.
func fill(t *testing.T, dir string, messages int) {
	t.Helper()
	j, err := journal.Open(journal.Config{Dir: dir, MaxBytes: journalBytes}, func(journal.Record) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, contentBytes)
	for i := range content {
		content[i] = 'a' + byte(rand.IntN(26))
	}
	var ids message.IDs
	var next atomic.Int64
	var wg sync.WaitGroup
	for range fillers {
		wg.Go(func() {
			for n := next.Add(1); n <= int64(messages); n = next.Add(1) {
				if err := put(j, &ids, int(n), content); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if t.Failed() {
		t.FailNow()
	}
}

func put(j *journal.Journal, ids *message.IDs, n int, content []byte) error {
	env := &message.Envelope{
		From:   "notifications@app.example",
		To:     []message.Recipient{{Addr: recipient(n)}},
		Client: "127.0.0.1:54321",
		Helo:   "app.example",
	}
	env.Received = time.Now()
	env.ID = ids.Next(env.Received)
	draft, err := j.Begin(uint64(env.ID), int64(len(content)))
	if err != nil {
		return err
	}
	var body bytes.Buffer
	body.Write(env.AppendReceived(nil, "weir.example"))
	body.Write(content)
	env.Size = int64(body.Len())
	if _, err := draft.Write(body.Bytes()); err != nil {
		draft.Abort()
		return err
	}
	meta, err := env.AppendBinary(nil)
	if err != nil {
		draft.Abort()
		return err
	}
	return draft.Commit(meta)
}

func recipient(n int) string { return fmt.Sprintf("user.name%d@customer%d.example", n, n%domains) }
