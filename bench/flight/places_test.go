//go:build flight && linux

package flight

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/bench/source"
)

var share = flag.Int("messages", 2000, "messages at default settings; with a window thrice as many, by Postfix a fifth")

const (
	places    = 3
	placesRTT = 50 * time.Millisecond
	barOne    = 0.85 // of one round trip a message
	barAuto   = 15   // of a tuned Postfix
	patience  = 5 * time.Minute
)

var binary string // path of the mailweir under test

func TestMain(m *testing.M) { rig.Main(m, &binary, rig.NeedsPostfix) }

// TestThreePlacesFarAway is about a relay with places for three connections and a round trip of 50 ms. mailweir is not told of either.
func TestThreePlacesFarAway(t *testing.T) {
	most := float64(places) / placesRTT.Seconds()
	one := race(t, "mailweir", *share, func(t *testing.T, dir, up string) entrant { return startWeir(t, dir, up, "1") })
	auto := race(t, "mailweir, window auto", 3**share, func(t *testing.T, dir, up string) entrant { return startWeir(t, dir, up, "auto") })
	tuned := race(t, "Postfix, tuned", *share/5, startTuned)
	t.Logf("messages a second: mailweir %.1f (%.2f of one a round trip), with a window that it finds out %.1f, Postfix tuned %.1f; %.1f times Postfix",
		one, one/most, auto, tuned, auto/tuned)
	if one < barOne*most {
		t.Errorf("%.1f a second, want %.1f", one, barOne*most)
	}
	if auto < barAuto*tuned {
		t.Errorf("%.1f times Postfix, want %d", auto/tuned, barAuto)
	}
}

// race returns how many messages a second arrived, from the first sent to the last. It is a subtest, so that everything of it ends
// before the next one begins.
func race(t *testing.T, name string, messages int, start func(t *testing.T, dir, up string) entrant) (rate float64) {
	t.Run(name, func(t *testing.T) {
		up := relay.New(relay.Config{MaxConnections: places, RTT: placesRTT})
		e := start(t, rig.Scratch(t, ""), rig.Serve(t, "", up))
		began := time.Now()
		sent := source.Run(t.Context(), source.Config{Address: e.address, Messages: messages, Connections: 10, Reuse: true, Size: size})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := rig.Poll(ctx, func() error {
			if n := up.Counters().Taken; n < messages {
				return fmt.Errorf("%d of %d arrived", n, messages)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		ledger := up.Ledger()
		rate = float64(messages) / ledger[messages-1].When.Sub(began).Seconds()
		e.tell(t)
		rep := source.Check(sent, ledger)
		if err := rep.Err(); err != nil || len(rep.Duplicated) > 0 {
			t.Errorf("%v, %d twice", err, len(rep.Duplicated))
		}
		if v := up.Violations(); len(v) > 0 && name != "Postfix, tuned" {
			t.Errorf("%+v", v[0])
		}
	})
	return rate
}

// entrant is a process to which mail is given.
type entrant struct {
	address string
	tell    func(t *testing.T) // how it stands when all has arrived
}

func startWeir(t *testing.T, dir, up, window string) entrant {
	w := rig.NewWeir(t, binary, dir, up, "MAILWEIR_JOURNAL_ALLOW_VOLATILE=true", "MAILWEIR_UPSTREAM_WINDOW="+window)
	w.Start(t)
	return entrant{w.Address, func(t *testing.T) {
		u := w.Status(t).Upstream
		t.Logf("%s, window %d, width %.1f, %d refused", u.Pipelining, u.Window, u.Width, u.Outcomes["busy"])
	}}
}

// startTuned is set by somebody who knows the limit: three connections, used again, and soon tried again after a refusal.
func startTuned(t *testing.T, dir, up string) entrant {
	p := rig.NewPostfix(t, dir, up, "smtpd_client_connection_count_limit = 0", "default_process_limit = 100",
		"smtp_destination_concurrency_limit = 3", "default_destination_concurrency_limit = 3", "initial_destination_concurrency = 3",
		"default_destination_concurrency_failed_cohort_limit = 100", "smtp_destination_concurrency_failed_cohort_limit = 100",
		"minimal_backoff_time = 1s", "maximal_backoff_time = 5s", "queue_run_delay = 1s",
		"smtp_connection_cache_on_demand = yes", "smtp_connection_cache_time_limit = 30s", "smtp_connection_reuse_time_limit = 600s",
		"smtp_connection_cache_destinations = 127.0.0.1")
	return entrant{p.Address, func(*testing.T) {}}
}
