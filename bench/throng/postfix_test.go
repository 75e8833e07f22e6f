//go:build throng && postfix && linux

package throng

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/bench/source"
)

var (
	patience = flag.Duration("patience", 2*time.Minute, "after which a way of sending is given up and the next one measured")
	share    = flag.Int("messages", 2000, "messages that all processes of one way of sending have together")
)

// race is one way to bring messages to the relay.
type race struct {
	name      string
	processes int
	limit     int // connections that the relay allows
	messages  int
	start     func(t *testing.T, dir string, r race, relay string) entrant
}

// entrant is a process to which mail is given.
type entrant struct {
	address  string
	deferred func(t *testing.T) int // messages that were put off, counted each time
}

// finish is how it went.
type finish struct {
	accepted time.Duration // until everything was accepted
	took     time.Duration // from the first message sent to the last one arrived, or until it was given up
	arrived  int
	counters relay.Counters
	deferred int
	jain     float64 // of the messages of each process when the race was half over, or given up
}

// TestBesidePostfix has the same messages sent by mailweir and by Postfix, alone and several beside each other, to a relay that
// refuses what is too much. It asserts of mailweir alone: Postfix is there to compare with, as it comes and as somebody sets it who
// knows the limit, the number of processes, and what each parameter does.
func TestBesidePostfix(t *testing.T) {
	needPostfix(t)
	var races []race
	for _, place := range []struct{ processes, limit, messages int }{
		{1, 20, *share}, {1, 3, *share * 3 / 20}, {5, 20, *share}, {5, 3, *share * 3 / 20},
	} {
		races = append(races,
			race{"mailweir", place.processes, place.limit, place.messages, startWeir},
			race{"Postfix, defaults", place.processes, place.limit, place.messages, startPostfix},
			race{"Postfix, tuned", place.processes, place.limit, place.messages, startTuned})
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "processes\tlimit\tmessages\tway\tarrived\tmakespan s\tof ideal\tdelivered/s\tutilisation\trefused\tdeferred\tJain at half\taccepted s\t")
	for _, r := range races {
		f := r.run(t)
		ideal := float64(r.messages) * service.Seconds() / float64(r.limit)
		perSecond := float64(f.arrived) / f.took.Seconds()
		fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%d\t%.1f\t%.2f\t%.1f\t%.2f\t%d\t%d\t%.2f\t%.1f\t\n", r.processes, r.limit, r.messages, r.name, f.arrived,
			f.took.Seconds(), f.took.Seconds()/ideal, perSecond, perSecond*service.Seconds()/float64(r.limit),
			f.counters.Refused, f.deferred, f.jain, f.accepted.Seconds())
		if r.name == "mailweir" && f.arrived != r.messages {
			t.Errorf("%s, %d processes, limit %d: %d of %d arrived within %v", r.name, r.processes, r.limit, f.arrived, r.messages, *patience)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Logf("a message takes %v; not arrived after %v: given up\n%s", *service, *patience, table.String())
}

func needPostfix(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test must run as root: Postfix starts as root only")
	}
	if _, err := exec.LookPath("postfix"); err != nil {
		t.Fatal("Postfix is not installed: apt-get install postfix")
	}
}

// run is a subtest, so that everything of it ends before the next one begins.
func (r race) run(t *testing.T) (f finish) {
	t.Run(fmt.Sprintf("%s, %d before %d", r.name, r.processes, r.limit), func(t *testing.T) {
		up := relay.New(relay.Config{MaxConnections: r.limit, ServiceTime: *service})
		address := rig.Serve(t, "", up)
		dir := rig.Scratch(t, *room)
		var all []entrant
		for i := range r.processes {
			own := filepath.Join(dir, fmt.Sprint(i))
			if err := os.Mkdir(own, 0o755); err != nil {
				t.Fatal(err)
			}
			all = append(all, r.start(t, own, r, address))
		}
		began := time.Now()
		filled := fill(t, all, r.messages)
		ctx, cancel := context.WithDeadline(t.Context(), began.Add(*patience))
		defer cancel()
		_ = rig.Poll(ctx, func() error { // whoever is given up has arrived less, which the table tells
			taken := up.Counters().Taken
			if f.jain == 0 && taken >= r.messages/2 {
				f.jain = jain(byProcess(up.Ledger(), r.processes))
			}
			if taken < r.messages {
				return fmt.Errorf("%d of %d", taken, r.messages)
			}
			return nil
		})
		f.took, f.counters = time.Since(began), up.Counters()
		ledger := up.Ledger()
		f.arrived = len(ledger)
		if f.jain == 0 { // it did not come to half
			f.jain = jain(byProcess(ledger, r.processes))
		}
		if f.arrived >= r.messages {
			f.took = ledger[len(ledger)-1].When.Sub(began)
		}
		for _, e := range all {
			f.deferred += e.deferred(t)
		}
		f.accepted = filled.Ended.Sub(began)
		rep := source.Check(filled, ledger)
		if len(rep.Duplicated) > 0 || len(rep.Altered) > 0 || filled.Count(source.Record.Acknowledged) != r.messages {
			t.Errorf("%d of %d acknowledged, %d twice, %d altered", rep.Acknowledged, r.messages, len(rep.Duplicated), len(rep.Altered))
		}
	})
	return f
}

// fill gives each process its part, all at the same time.
func fill(t *testing.T, all []entrant, messages int) source.Ledger {
	t.Helper()
	parts := make(chan source.Ledger)
	for i, e := range all {
		n := messages*(i+1)/len(all) - messages*i/len(all)
		go func() { // received below
			parts <- source.Run(t.Context(), source.Config{Address: e.address, Name: fmt.Sprintf("process%d", i), From: processSender(i),
				Messages: n, Connections: 10, Reuse: true, Size: size})
		}()
	}
	var whole source.Ledger
	for range all {
		l := <-parts
		whole.Records = append(whole.Records, l.Records...)
	}
	whole.Ended = time.Now()
	return whole
}

func processSender(i int) string { return fmt.Sprintf("process%d@throng.example", i) }

func byProcess(ledger []relay.Message, processes int) []float64 {
	from := map[string]float64{}
	for _, m := range ledger {
		from[m.From]++
	}
	var counts []float64
	for i := range processes {
		counts = append(counts, from[processSender(i)])
	}
	return counts
}

// startWeir has no settings that concern the relay: it does not know its limit.
func startWeir(t *testing.T, dir string, _ race, relay string) entrant {
	w := rig.NewWeir(t, binary, dir, relay, "MAILWEIR_LOG_LEVEL=debug", "MAILWEIR_JOURNAL_ALLOW_VOLATILE=true",
		"MAILWEIR_JOURNAL_MAX_BYTES=64MiB", "MAILWEIR_MAX_MESSAGE_BYTES=1MiB", "MAILWEIR_DEAD_MAX_BYTES=4MiB")
	w.Start(t)
	return entrant{w.Address, func(t *testing.T) int { return rig.Logged(t, w.Log, `"msg":"deferred"`) }}
}

// startPostfix has the defaults in all that concerns delivery.
func startPostfix(t *testing.T, dir string, _ race, relay string) entrant {
	return newPostfix(t, dir, relay)
}

// startTuned knows that the limit is shared by so many, asks for no more than its part, and comes back soon when it was refused.
func startTuned(t *testing.T, dir string, r race, relay string) entrant {
	part := max(r.limit/r.processes, 1)
	return newPostfix(t, dir, relay,
		fmt.Sprintf("smtp_destination_concurrency_limit = %d", part),
		fmt.Sprintf("default_destination_concurrency_limit = %d", part),
		fmt.Sprintf("initial_destination_concurrency = %d", part),
		// A refusal does not condemn the relay for minutes.
		"default_destination_concurrency_failed_cohort_limit = 100",
		"smtp_destination_concurrency_failed_cohort_limit = 100",
		"minimal_backoff_time = 1s", "maximal_backoff_time = 5s", "queue_run_delay = 1s")
}

func newPostfix(t *testing.T, dir, relay string, parameters ...string) entrant {
	p := rig.NewPostfix(t, dir, relay, append(parameters, "smtpd_client_connection_count_limit = 0", "default_process_limit = 100")...)
	return entrant{p.Address, func(t *testing.T) int { return p.Logged(t, "status=deferred") }}
}
