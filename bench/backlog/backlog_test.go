//go:build backlog

package backlog

import (
	"cmp"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/bench/source"
)

var messages = flag.Int("messages", 100_000, "pending messages")

const (
	roundSends  = 10_000 // messages a round
	connections = 100
	slowest     = 0.8 // of the rate without a backlog, at least so much is left with one

	// Rounds with and without the backlog go by turns. A neighbour on the same disk can spoil some: as long as the medians are too far
	// apart there are more.
	leastRounds = 3
	mostRounds  = 9

	// A million messages fit in 160 MiB: so much is there without any, and the rest is what each of them may cost, the room
	// that the collector leaves included.
	emptyBytes   = 40 << 20
	messageBytes = 125

	calm = 5 * time.Second // between two looks at the memory
)

// binary is the path of the mailweir under test.
var binary string

func TestMain(m *testing.M) { rig.Main(m, &binary) }

func TestABacklogIsNotNoticed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	began := time.Now()
	fill(t, dir, *messages)
	t.Logf("%d messages written in %.1f s", *messages, time.Since(began).Seconds())

	evict(t, dir)
	p := start(t, dir, *messages)
	t.Logf("start to ready, nothing of the journal in memory: %.2f s", p.took.Seconds())
	p.kill(t)
	p = start(t, dir, *messages)
	t.Logf("start to ready, after a kill: %.2f s", p.took.Seconds())
	if n := p.pending(t); n != *messages {
		t.Errorf("%d pending, want all %d", n, *messages)
	}
	checkMemory(t, p, "when ready", *messages)
	<-time.After(calm)
	checkMemory(t, p, fmt.Sprintf("%s later", calm), *messages)

	full, empty := compare(t, p)
	t.Logf("with the backlog %.0f messages accepted a second, %v of processor each; without %.0f and %v; ratio %.2f (medians)",
		full.perSecond, full.cpu, empty.perSecond, empty.cpu, full.perSecond/empty.perSecond)
	if full.perSecond < slowest*empty.perSecond {
		t.Errorf("with a backlog mail is accepted at %.2f of the rate without, want %.2f", full.perSecond/empty.perSecond, slowest)
	}
	checkMemory(t, p, "after the load", p.pending(t))
}

func checkMemory(t *testing.T, p *process, when string, messages int) {
	t.Helper()
	got, most := p.memory(t, "RssAnon"), int64(emptyBytes+messageBytes*messages)
	t.Logf("RssAnon %s: %.1f MiB of at most %.1f; the most that was resident, files included: %.1f MiB",
		when, mib(got), mib(most), mib(p.memory(t, "VmHWM")))
	if got > most {
		t.Errorf("%s: %.1f MiB of memory for %d messages, want %.1f at most", when, mib(got), messages, mib(most))
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// pace is how fast mail was accepted, and at what cost.
type pace struct {
	perSecond float64
	cpu       time.Duration // of mailweir, for each message
}

// compare sends the same load to p and to processes with an empty journal by turns, and returns the medians.
func compare(t *testing.T, p *process) (full, empty pace) {
	t.Helper()
	var with, without []pace
	for i := 0; i < leastRounds || i < mostRounds && full.perSecond < slowest*empty.perSecond; i++ {
		other := start(t, filepath.Join(t.TempDir(), "journal"), 0)
		without = append(without, measure(t, other, i))
		other.kill(t)
		with = append(with, measure(t, p, i))
		t.Logf("round %d: %.0f a second with the backlog, %.0f without", i+1, with[i].perSecond, without[i].perSecond)
		full, empty = median(with), median(without)
	}
	return full, empty
}

func median(of []pace) pace {
	half := len(of) / 2
	byRate := slices.SortedFunc(slices.Values(of), func(a, b pace) int { return cmp.Compare(a.perSecond, b.perSecond) })
	byCPU := slices.SortedFunc(slices.Values(of), func(a, b pace) int { return cmp.Compare(a.cpu, b.cpu) })
	return pace{byRate[half].perSecond, byCPU[half].cpu}
}

// measure sends one round. What comes first warms up and does not count.
func measure(t *testing.T, p *process, round int) pace {
	t.Helper()
	load := source.Config{
		Address: p.door, Name: fmt.Sprintf("warm%d", round), Messages: roundSends / 10, Connections: connections, Reuse: true, Size: contentBytes,
		Recipients: func(n int) []string { return []string{recipient(n)} },
	}
	source.Run(t.Context(), load)
	load.Name, load.Messages = fmt.Sprintf("round%d", round), roundSends
	before := p.cpu(t)
	sent := source.Run(t.Context(), load)
	if n := sent.Count(source.Record.Acknowledged); n != roundSends {
		t.Fatalf("%d of %d messages accepted\n%s", n, roundSends, p.tail())
	}
	return pace{roundSends / sent.Ended.Sub(sent.Began).Seconds(), (p.cpu(t) - before) / roundSends}
}
