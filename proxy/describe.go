package proxy

import (
	"time"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
)

// Describe returns what a record of a journal says, as a value for encoding/json; nil for a type that this version does not know
// and for blobs, whose owners know what they mean. The payload is not kept.
func Describe(rec journal.Record) (any, error) {
	switch rec.Type {
	case journal.Accepted:
		var env message.Envelope
		if err := env.UnmarshalBinary(rec.Payload); err != nil {
			return nil, err
		}
		return describeEnvelope(env), nil
	case journal.Verdict, journal.Attempt, journal.Started, journal.Hold, journal.Settled, journal.Dead, journal.Void:
		f, err := parseFields(rec.Payload)
		if err != nil {
			return nil, err
		}
		return describeFields(f), nil
	}
	return nil, nil
}

// Envelope is an envelope as Describe shows it.
type Envelope struct {
	From     string         `json:"from"`
	To       []string       `json:"to"`
	Size     int64          `json:"size"` // bytes
	Received time.Time      `json:"received"`
	Client   string         `json:"client,omitempty"`
	Helo     string         `json:"helo,omitempty"`
	Body8    bool           `json:"8bitmime,omitempty"`
	UTF8     bool           `json:"smtputf8,omitempty"`
	Ret      string         `json:"ret,omitempty"`
	EnvID    string         `json:"envid,omitempty"`
	Notify   map[int]string `json:"notify,omitempty"` // by index in To
	ORcpt    map[int]string `json:"orcpt,omitempty"`  // likewise
}

func describeEnvelope(env message.Envelope) Envelope {
	e := Envelope{From: env.From, Size: env.Size, Received: env.Received.UTC(), Client: env.Client, Helo: env.Helo,
		Body8: env.Body8, UTF8: env.UTF8, Ret: env.Ret, EnvID: env.EnvID, Notify: map[int]string{}, ORcpt: map[int]string{}}
	for n, to := range env.To {
		e.To = append(e.To, to.Addr)
		if to.Notify != "" {
			e.Notify[n] = to.Notify
		}
		if to.ORcpt != "" {
			e.ORcpt[n] = to.ORcpt
		}
	}
	return e
}

// note is a state record as Describe shows it. Numbers are indices of recipients.
type note struct {
	Delivered []int     `json:"delivered,omitempty"`
	Failed    []int     `json:"failed,omitempty"`
	To        []int     `json:"to,omitempty"` // whom it concerns; absent: all that have no verdict
	Due       time.Time `json:"due,omitzero"`
	At        time.Time `json:"at,omitzero"`
	Tries     *tries    `json:"tries,omitempty"`
	Reply     string    `json:"reply,omitempty"`
}

type tries struct {
	Attempts  uint8 `json:"attempts"`
	Strikes   uint8 `json:"strikes"`
	Uncertain uint8 `json:"uncertain"`
	Suspects  uint8 `json:"suspects"`
}

func describeFields(f fields) note {
	n := note{Delivered: f.Delivered, Failed: f.Failed, To: f.To, Reply: f.Reply}
	if !f.Due.IsZero() {
		n.Due = f.Due.UTC()
	}
	if !f.At.IsZero() {
		n.At = f.At.UTC()
	}
	if f.Tries != (queue.Tries{}) {
		n.Tries = &tries{f.Tries.Attempts, f.Tries.Strikes, f.Tries.Uncertain, f.Tries.Suspects}
	}
	return n
}
