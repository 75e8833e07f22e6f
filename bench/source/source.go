// Package source sends mail as applications do, keeps a ledger of what it was told about each message, and checks
// that ledger against a relay's: whatever was acknowledged must have arrived, once, unaltered.
//
// Its client is its own and plain, one command at a time, since that is what applications use and since a second
// opinion must not share code with what it judges.
package source

import (
	"context"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const defaultTimeout = time.Minute

// Config describes a load. Address or Dial, and Messages, must be set.
type Config struct {
	Address string // host:port over TCP
	Dial    func(ctx context.Context, network, address string) (net.Conn, error)

	Name        string // in every X-Id; two sources of one relay need different ones; "": "source"
	Messages    int    // in all
	Connections int    // at once; 0: 1. All of them dial at the same moment
	Reuse       bool   // a connection sends one message after another; else each message has a connection of its own
	Size        int    // octets of content of each message; at least its header's, some 200

	From       string             // "": sender@source.example
	Recipients func(int) []string // of the n-th message, from 0; nil: one of its own each
	Timeout    time.Duration      // of the dial, of each command and of the reply to the content; 0: 1 min
	Progress   func(Progress)     // after each message, from all connections at once; nil: none
}

// Progress counts messages so far.
type Progress struct {
	Acknowledged int
	Failed       int
}

// Record is what became of one message.
type Record struct {
	XID  string
	From string
	To   []string // but for recipients that were refused
	Sum  [32]byte // SHA-256 of the content
	Size int64

	Stage   Stage         // how far it came
	Code    int           // of the last reply, 0 when there was none
	Reply   string        // its text with the code, lines joined by spaces
	Err     error         // of the connection; nil when a reply decided
	Began   time.Time     // of the dial, or with Reuse of MAIL
	Took    time.Duration // from Began to the last reply or the error
	DotTook time.Duration // from the end of the content to its reply; 0 when there was none
}

// Stage is a step of a message's way.
type Stage string

// The stages; a message that ends at StageDot has sent its content.
const (
	StageDial     Stage = "dial"
	StageGreeting Stage = "greeting"
	StageHello    Stage = "ehlo"
	StageMail     Stage = "mail"
	StageRcpt     Stage = "rcpt"
	StageData     Stage = "data"
	StageContent  Stage = "content"
	StageDot      Stage = "dot"
)

// Acknowledged is whether the server took responsibility for the message.
func (r Record) Acknowledged() bool { return r.Stage == StageDot && r.Code/100 == 2 }

// Refused is whether the connection was turned away before a command was answered.
func (r Record) Refused() bool { return r.Stage == StageDial || r.Stage == StageGreeting }

// Unheard is whether the content may have arrived although no reply said so.
func (r Record) Unheard() bool { return r.Stage == StageDot && r.Code == 0 }

// Ledger is what became of all messages, in their order.
type Ledger struct {
	Records []Record
	Began   time.Time
	Ended   time.Time
}

// Count returns how many records fulfil a condition, as in l.Count(Record.Acknowledged).
func (l Ledger) Count(is func(Record) bool) int {
	n := 0
	for _, r := range l.Records {
		if is(r) {
			n++
		}
	}
	return n
}

// Quantile returns the q-quantile (0 to 1, nearest rank) of a duration over the acknowledged messages; 0 without any.
func (l Ledger) Quantile(q float64, of func(Record) time.Duration) time.Duration {
	var all []time.Duration
	for _, r := range l.Records {
		if r.Acknowledged() {
			all = append(all, of(r))
		}
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	rank := int(math.Ceil(q * float64(len(all))))
	return all[min(max(rank, 1), len(all))-1]
}

// Took is Record.Took, for Quantile.
func Took(r Record) time.Duration { return r.Took }

// DotTook is Record.DotTook, for Quantile.
func DotTook(r Record) time.Duration { return r.DotTook }

// Run sends the load and returns when every message has a record. Once ctx ends, connections are cut and the messages
// not sent yet fail.
func Run(ctx context.Context, cfg Config) Ledger {
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Name == "" {
		cfg.Name = "source"
	}
	if cfg.From == "" {
		cfg.From = "sender@source.example"
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	run := &run{cfg: cfg, records: make([]Record, cfg.Messages), start: make(chan struct{})}
	var workers sync.WaitGroup
	for range min(max(cfg.Connections, 1), cfg.Messages) {
		workers.Go(func() { run.work(ctx) })
	}
	began := time.Now()
	close(run.start)
	workers.Wait()
	return Ledger{Records: run.records, Began: began, Ended: time.Now()}
}

type run struct {
	cfg     Config
	records []Record // each written by the worker that took its number
	start   chan struct{}
	next    atomic.Int64
	good    atomic.Int64
	bad     atomic.Int64
}

// work sends messages until none is left.
func (r *run) work(ctx context.Context) {
	<-r.start
	var c *client // kept between messages with Reuse
	for {
		n := int(r.next.Add(1)) - 1
		if n >= len(r.records) {
			c.quit()
			return
		}
		m := compose(r.cfg, n)
		c = r.deliver(ctx, c, m)
		r.records[n] = m.record
		r.report(m.record)
	}
}

// deliver returns the connection if it may be used again.
func (r *run) deliver(ctx context.Context, c *client, m *mail) *client {
	m.record.Began = time.Now()
	if c == nil {
		if c = r.connect(ctx, m); c == nil {
			return nil
		}
	}
	c.transfer(m)
	m.record.Took = time.Since(m.record.Began)
	if r.cfg.Reuse && m.record.Err == nil && m.record.Code != 421 && c.reset(m) {
		return c
	}
	c.quit()
	return nil
}

func (r *run) report(rec Record) {
	if rec.Acknowledged() {
		r.good.Add(1)
	} else {
		r.bad.Add(1)
	}
	if r.cfg.Progress != nil {
		r.cfg.Progress(Progress{Acknowledged: int(r.good.Load()), Failed: int(r.bad.Load())})
	}
}
