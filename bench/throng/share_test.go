//go:build throng && linux

package throng

import (
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
)

const (
	jainBar        = 0.9
	utilisationBar = 0.9
	refusalsBar    = 3.0 // a second before scaling, of all processes together

	trickleBar     = 15 * time.Second       // of the 99th percentile, before scaling
	trickleSlowest = 10 * time.Second       // likewise at -scale=1
	trickleMedian  = 500 * time.Millisecond // not scaled: a message's own way
)

// TestAThrongSharesOneRelay: many processes with more mail than they can send share a relay with places for half of them.
func TestAThrongSharesOneRelay(t *testing.T) {
	f := newFleet(t, *weirs, relay.Config{MaxConnections: *limit, ServiceTime: *service})
	f.feed(t, *weirs)
	every(t.Context(), 5*time.Second) // everybody has a backlog when the relay comes
	f.serve(t)
	every(t.Context(), *warmup)
	s := f.observe(t, *measure)
	f.report(t)

	shares := s.shares(f.members)
	t.Logf("%d processes, limit %d, %v a message: %.1f messages a second; of one process least %.0f, median %.0f, most %.0f; %.1f connections a second",
		*weirs, *limit, *service, float64(len(s.taken))/s.seconds(), quantile(0, shares), quantile(.5, shares), quantile(1, shares), s.perSecond(accepted))
	atLeast(t, "Jain's index of messages of each process", jain(shares), least(jainBar, jainSlack))
	atLeast(t, "utilisation of the relay", s.utilisation(*limit, *service), least(utilisationBar, utilisationSlack))
	atMost(t, "refused connections a second", s.perSecond(refused), most(refusalsBar / *scale, countSlack))
	f.drain(t)
}

// TestATrickleBesideBulkIsFast: whoever has one message now and then does not wait behind those who have thousands.
func TestATrickleBesideBulkIsFast(t *testing.T) {
	f := newFleet(t, *weirs, relay.Config{MaxConnections: *limit, ServiceTime: *service})
	f.feed(t, *bulk)
	every(t.Context(), 2*time.Second)
	f.serve(t)
	every(t.Context(), *warmup/2)
	s := f.observe(t, *measure/2)
	f.report(t)
	f.drain(t)

	waits := f.waits(s)
	bar := scaled(trickleBar)
	if *scale == 1 {
		bar = trickleSlowest
	}
	t.Logf("%d processes with bulk, %d with a message each %v: %d such messages; %.1f messages a second in all; %.1f refusals a second",
		*bulk, *weirs-*bulk, *trickle, len(waits), float64(len(s.taken))/s.seconds(), s.perSecond(refused))
	atLeast(t, "such messages", float64(len(waits)), float64(*weirs-*bulk)*s.seconds()/trickle.Seconds()/2)
	atMost(t, "seconds from 250 to delivery, median", quantile(.5, waits), trickleMedian.Seconds())
	atMost(t, "seconds from 250 to delivery, 99th percentile", quantile(.99, waits), bar.Seconds())
	t.Logf("the longest %.3g s; utilisation %.3g; Jain's index of those with bulk %.3g", quantile(1, waits),
		s.utilisation(*limit, *service), jain(s.shares(f.members)[:*bulk]))
}

// waits returns the seconds from 250 to delivery of what members without bulk were told 250 for in a span. The feeding has ended.
func (f *fleet) waits(s span) (seconds []float64) {
	arrived := map[string]time.Time{}
	for _, m := range f.relay.Ledger() {
		arrived[m.XID] = m.When
	}
	for _, m := range f.members[*bulk:] {
		for _, rec := range m.sent {
			told := rec.Began.Add(rec.Took)
			if rec.Acknowledged() && told.After(s.began) && told.Before(s.ended) {
				at := arrived[rec.XID]
				if at.IsZero() { // it still waits
					at = time.Now()
				}
				seconds = append(seconds, max(0, at.Sub(told).Seconds())) // it may arrive before its 250 is read
			}
		}
	}
	return seconds
}
