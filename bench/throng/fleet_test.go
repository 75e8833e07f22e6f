//go:build throng && linux

package throng

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/bench/source"
)

const (
	backlog   = 100 // messages that a process with bulk mail has pending at any time: more than its connections take between two looks
	batch     = 50  // the least that is sent at one time
	feeders   = 2   // connections of the application that sends them
	look      = 100 * time.Millisecond
	size      = 1000             // octets of a message
	drainTime = 2 * time.Minute  // at least, for the rest of the backlog;
	drainWait = 20 * time.Minute // before scaling: the longest that one waits for its turns
)

// fleet is some processes before one relay, and the applications that feed them.
type fleet struct {
	relay   *relay.Relay
	address string // of the relay
	members []*member

	stop    context.CancelFunc // ends the feeding
	feeding sync.WaitGroup
}

// member is a process and what its application was told. Its messages have a sender of its own.
type member struct {
	*rig.Weir
	name string
	dir  string
	sent []source.Record // its feeder's; read when the feeding has ended
}

func (m *member) sender() string { return m.name + "@throng.example" }

// newFleet starts n processes before a relay that does not answer yet.
func newFleet(t *testing.T, n int, cfg relay.Config, settings ...string) *fleet {
	t.Helper()
	f := &fleet{address: rig.FreeAddress(t), relay: relay.New(cfg)}
	dir := rig.Scratch(t, *room)
	for i := range n {
		m := &member{name: fmt.Sprintf("weir%02d", i), dir: filepath.Join(dir, fmt.Sprint(i))}
		if err := os.Mkdir(m.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		m.Weir = rig.NewWeir(t, binary, m.dir, f.address,
			"GOMAXPROCS=1", "MAILWEIR_LOG_LEVEL="+logLevel(),
			fmt.Sprintf("MAILWEIR_TIME_SCALE=%g", *scale),
			"MAILWEIR_RETRY_MIN="+max(scaled(time.Second), 100*time.Millisecond).String(),
			"MAILWEIR_RETRY_MAX="+max(scaled(time.Minute), time.Second).String(),
			"MAILWEIR_RECIPIENT_RETRY_MIN="+max(scaled(10*time.Second), 100*time.Millisecond).String(),
			"MAILWEIR_RECIPIENT_RETRY_MAX="+max(scaled(time.Minute), time.Second).String(),
			"MAILWEIR_JOURNAL_ALLOW_VOLATILE=true",
			"MAILWEIR_JOURNAL_MAX_BYTES=64MiB", "MAILWEIR_MAX_MESSAGE_BYTES=1MiB", "MAILWEIR_DEAD_MAX_BYTES=4MiB")
		m.Set(settings...)
		if *logs != "" {
			m.Log = filepath.Join(*logs, t.Name()+"-"+m.name)
		}
		m.Start(t)
		f.members = append(f.members, m)
	}
	return f
}

// logLevel is what concerns a failure, or all that the controllers decide.
func logLevel() string {
	if *logs != "" {
		return "info"
	}
	return "error"
}

// serve has the relay answer.
func (f *fleet) serve(t *testing.T) {
	t.Helper()
	rig.Serve(t, f.address, f.relay)
}

// feed begins to keep a backlog in some members, and to send one message every now and then to the others.
func (f *fleet) feed(t *testing.T, bulk int) {
	ctx, cancel := context.WithCancel(t.Context())
	f.stop = cancel
	t.Cleanup(func() { cancel(); f.feeding.Wait() })
	arrived := f.watch(ctx)
	for i, m := range f.members {
		if i < bulk {
			f.feeding.Go(func() { m.keepBacklog(ctx, t.Context(), arrived) })
		} else {
			f.feeding.Go(func() { m.drip(ctx, t.Context()) })
		}
	}
}

// watch returns how many messages of a sender have arrived, as of a moment ago. It is for keepers of backlogs, which must not
// copy the whole ledger each time.
func (f *fleet) watch(ctx context.Context) func(sender string) int {
	var mu sync.Mutex
	from, seen := map[string]int{}, 0
	f.feeding.Go(func() {
		for every(ctx, look) {
			mu.Lock()
			for _, m := range f.relay.Since(seen) {
				seen++
				from[m.From]++
			}
			mu.Unlock()
		}
	})
	return func(sender string) int {
		mu.Lock()
		defer mu.Unlock()
		return from[sender]
	}
}

// every waits; it is false when ctx has ended.
func every(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// keepBacklog has backlog messages pending in the process until ctx ends; what is being sent then is sent to its end, within whole.
func (m *member) keepBacklog(ctx, whole context.Context, arrived func(string) int) {
	acknowledged := 0
	for round := 0; ; round++ {
		if missing := backlog - (acknowledged - arrived(m.sender())); missing >= batch {
			acknowledged += m.send(whole, round, missing, feeders)
		}
		if !every(ctx, look) {
			return
		}
	}
}

// drip sends one message now and then, at times of its own.
func (m *member) drip(ctx, whole context.Context) {
	for round := 0; every(ctx, time.Duration((0.5+rand.Float64())*float64(*trickle))); round++ {
		m.send(whole, round, 1, 1)
	}
}

// send returns how many messages were acknowledged.
func (m *member) send(ctx context.Context, round, messages, connections int) int {
	l := source.Run(ctx, source.Config{
		Address: m.Address, Name: fmt.Sprintf("%s.%d", m.name, round), From: m.sender(), Size: size,
		Messages: messages, Connections: connections, Reuse: true,
		Recipients: func(n int) []string { return []string{fmt.Sprintf("user%d@domain%d.example", n, n%100)} },
	})
	m.sent = append(m.sent, l.Records...)
	return l.Count(source.Record.Acknowledged)
}

// drain ends the feeding, waits until everything has arrived, and fails unless it has, once.
func (f *fleet) drain(t *testing.T) {
	t.Helper()
	f.stop()
	f.feeding.Wait()
	var all source.Ledger
	for _, m := range f.members {
		all.Records = append(all.Records, m.sent...)
	}
	f.check(t, all)
}

func (f *fleet) check(t *testing.T, sent source.Ledger) {
	t.Helper()
	began := time.Now()
	var rep source.Report
	limit := max(drainTime, scaled(drainWait))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err := rig.Poll(ctx, func() error {
		if f.relay.Counters().Taken < sent.Count(source.Record.Acknowledged) {
			return fmt.Errorf("%d of %d", f.relay.Counters().Taken, len(sent.Records))
		}
		rep = source.Check(sent, f.relay.Ledger())
		return rep.Err()
	})
	if err != nil {
		t.Errorf("not everything arrived within %v: %v", limit, err)
		rep = source.Check(sent, f.relay.Ledger())
	}
	t.Logf("acknowledged %d, arrived %d, twice %d; the last %v after the end", rep.Acknowledged, rep.Arrived, len(rep.Duplicated),
		time.Since(began).Round(time.Second))
	if rep.Acknowledged != len(sent.Records) {
		t.Errorf("%d of %d were acknowledged", rep.Acknowledged, len(sent.Records))
	}
	if len(rep.Duplicated) > 0 {
		t.Errorf("%d arrived more than once: %v", len(rep.Duplicated), rep.Duplicated[0])
	}
	if v := f.relay.Violations(); len(v) > 0 {
		t.Errorf("the relay complains: %+v", v[0])
	}
}
