package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
)

// The payloads of the journal's state records. The journal carries them without looking inside.
// Each is a list of (tag, length, value); a reader passes over tags it does not know.

const (
	tagDelivered = 1 // indices of recipients, uvarints
	tagFailed    = 2 // likewise: for good
	tagTo        = 3 // likewise: whom an attempt concerned; absent: all that have no verdict
	tagReply     = 4 // the upstream's words
	tagDue       = 5 // uvarint, Unix microseconds
	tagTries     = 6 // four octets: attempts, strikes, uncertain, suspects
	tagAt        = 7 // uvarint, Unix microseconds
)

// maxReplyText is how much of a reply is kept.
const maxReplyText = 512

var errRecord = errors.New("malformed state record")

// verdict says which recipients of a message have ended.
type verdict struct {
	Delivered []int
	Failed    []int
	Reply     string // why they failed
}

func (v verdict) record(id message.ID) journal.Record {
	var b []byte
	b = appendIndices(b, tagDelivered, v.Delivered)
	b = appendIndices(b, tagFailed, v.Failed)
	b = appendReply(b, v.Reply)
	return journal.Record{Type: journal.Verdict, ID: uint64(id), Payload: b}
}

// attempt says what a failed try left: when these recipients are due again.
type attempt struct {
	To    []int // nil: all without a verdict
	Whole bool  // it concerned all recipients of the message, none of which has a verdict: what earlier tries left is void
	Due   time.Time
	Tries queue.Tries
	Reply string
}

func (a attempt) record(id message.ID) journal.Record {
	var b []byte
	if a.To != nil {
		b = appendIndices(b, tagTo, a.To)
	}
	b = appendTime(b, tagDue, a.Due)
	b = message.AppendField(b, tagTries, []byte{a.Tries.Attempts, a.Tries.Strikes, a.Tries.Uncertain, a.Tries.Suspects})
	b = appendReply(b, a.Reply)
	return journal.Record{Type: journal.Attempt, ID: uint64(id), Payload: b, Whole: a.Whole}
}

// started says that these recipients are about to be tried.
func started(id message.ID, to []int) journal.Record {
	var b []byte
	if to != nil {
		b = appendIndices(b, tagTo, to)
	}
	return journal.Record{Type: journal.Started, ID: uint64(id), Payload: b}
}

func settled(id message.ID) journal.Record {
	return journal.Record{Type: journal.Settled, ID: uint64(id)}
}

// death says that a message has ended with recipients that could not be delivered. Who they are, Verdict records have said.
type death struct {
	At     time.Time
	Failed []int
	Reply  string
}

func (d death) record(id message.ID) journal.Record {
	b := appendTime(nil, tagAt, d.At)
	b = appendReply(b, d.Reply)
	return journal.Record{Type: journal.Dead, ID: uint64(id), Payload: b}
}

// fields is the union of what the payloads hold.
type fields struct {
	Delivered, Failed, To []int
	HasTo                 bool
	Reply                 string
	Due, At               time.Time
	Tries                 queue.Tries
}

func parseFields(b []byte) (fields, error) {
	var f fields
	for len(b) > 0 {
		tag, v, rest, err := message.NextField(b)
		if err != nil {
			return fields{}, errors.Join(errRecord, err)
		}
		if err := f.set(tag, v); err != nil {
			return fields{}, fmt.Errorf("%w: field %d: %w", errRecord, tag, err)
		}
		b = rest
	}
	return f, nil
}

func (f *fields) set(tag uint64, v []byte) (err error) {
	switch tag {
	case tagDelivered:
		f.Delivered, err = parseIndices(v)
	case tagFailed:
		f.Failed, err = parseIndices(v)
	case tagTo:
		f.To, err = parseIndices(v)
		f.HasTo = true
	case tagReply:
		f.Reply = string(v)
	case tagDue:
		f.Due, err = parseTime(v)
	case tagAt:
		f.At, err = parseTime(v)
	case tagTries:
		if len(v) != 4 {
			return errRecord
		}
		f.Tries = queue.Tries{Attempts: v[0], Strikes: v[1], Uncertain: v[2], Suspects: v[3]}
	}
	return err
}

func appendIndices(b []byte, tag uint64, to []int) []byte {
	if len(to) == 0 {
		return b
	}
	var v []byte
	for _, i := range to {
		v = binary.AppendUvarint(v, uint64(i))
	}
	return message.AppendField(b, tag, v)
}

func parseIndices(v []byte) ([]int, error) {
	var to []int
	for len(v) > 0 {
		i, n := binary.Uvarint(v)
		if n <= 0 || i > maxRecipientIndex {
			return nil, errRecord
		}
		to = append(to, int(i))
		v = v[n:]
	}
	return to, nil
}

// maxRecipientIndex bounds what a damaged record could make us believe.
const maxRecipientIndex = 1 << 20

func appendReply(b []byte, text string) []byte {
	if text == "" {
		return b
	}
	return message.AppendField(b, tagReply, []byte(text[:min(len(text), maxReplyText)]))
}

func appendTime(b []byte, tag uint64, t time.Time) []byte {
	var buf [binary.MaxVarintLen64]byte
	return message.AppendField(b, tag, binary.AppendUvarint(buf[:0], uint64(t.UnixMicro())))
}

func parseTime(v []byte) (time.Time, error) {
	us, n := binary.Uvarint(v)
	if n <= 0 {
		return time.Time{}, errRecord
	}
	return time.UnixMicro(int64(us)), nil
}

// The pauses of the queue's clock, as a blob.

func encodePauses(pauses []queue.Pause) []byte {
	var b []byte
	for _, p := range pauses {
		b = binary.AppendVarint(b, p.From.UnixMicro())
		end := int64(0)
		if !p.To.IsZero() {
			end = p.To.UnixMicro()
		}
		b = binary.AppendVarint(b, end)
	}
	return b
}

func decodePauses(b []byte) ([]queue.Pause, error) {
	var pauses []queue.Pause
	for len(b) > 0 {
		from, n := binary.Varint(b)
		if n <= 0 {
			return nil, errRecord
		}
		to, m := binary.Varint(b[n:])
		if m <= 0 {
			return nil, errRecord
		}
		p := queue.Pause{From: time.UnixMicro(from)}
		if to != 0 {
			p.To = time.UnixMicro(to)
		}
		pauses = append(pauses, p)
		b = b[n+m:]
	}
	return pauses, nil
}
