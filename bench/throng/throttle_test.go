//go:build throng && linux

package throng

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/proxy/admin"
)

// Limits of real relays, each met by one process.
const (
	amazonRate   = 14                     // messages a second, before scaling: the constants of time scale, so that a rate scales the other way
	amazonTime   = 200 * time.Millisecond // for a message, before scaling
	rateScale    = 0.1                    // at least: below it the grain of timers shows in the intervals between messages
	rateWarm     = 5 * time.Minute        // before scaling, as the simulation has it
	rateBar      = 0.95
	throttledBar = 0.01

	exchangeThreads = 3
	widthBar        = 0.9  // of the time at the limit
	crowdedBar      = 0.05 // of the messages

	sessionMessages = 350
	sessionWidth    = 4
	sessionSpeed    = 5 * time.Millisecond // for a message: many sessions in little time
	sessionWarm     = 4 * sessionWidth * sessionMessages
	sessionMeasured = 4 * sessionWidth * sessionMessages
	sessionUsed     = 0.7 // of what a session may carry: replacing it much earlier costs logins
	sessionLimit    = 2 * time.Minute
	sessionScale    = 0.1 // at least: below it the lease of a connection would be over before its messages
	sessionReply    = "421 Connection closed by server. Maximum message count per session reached."

	dailyRecipients = 50
	dailyMore       = 30 // messages that have to wait for the next day
	heldLimit       = time.Minute
	heldFor         = time.Minute      // before scaling
	heldTries       = 3                // messages that may be tried for it
	quotaLook       = 20 * time.Minute // before scaling: at the longest until a day that is over is noticed
)

// TestARateOfMessagesIsFoundAndKept: Amazon SES answers the end of a message that is one too many in this second.
func TestARateOfMessagesIsFoundAndKept(t *testing.T) {
	scale := max(*scale, rateScale)
	rate := amazonRate / scale
	f := newFleet(t, 1, relay.Config{RatePerSecond: rate, RateBurst: amazonRate, ServiceTime: time.Duration(scale * float64(amazonTime))},
		fmt.Sprintf("MAILWEIR_TIME_SCALE=%g", scale))
	f.feed(t, 1)
	f.serve(t)
	every(t.Context(), max(*warmup/2, time.Duration(scale*float64(rateWarm))))
	s := f.observe(t, *measure/3)
	f.report(t)
	t.Logf("%.4g messages a second allowed, %.4g taken, %.4g turned away", rate, float64(len(s.taken))/s.seconds(), s.perSecond(throttled))
	atLeast(t, "share of the rate that was used", float64(len(s.taken))/s.seconds()/rate, rateBar)
	turned := s.perSecond(throttled) * s.seconds()
	atMost(t, "share of the transactions that was turned away", turned/(turned+float64(len(s.taken))), throttledBar)
	f.drain(t)
}

// TestThreadsAreFoundByWhatIsSaidAfterTheContent: Exchange Online lets everybody connect, and says after the content that these were
// too many.
func TestThreadsAreFoundByWhatIsSaidAfterTheContent(t *testing.T) {
	f := newFleet(t, 1, relay.Config{Threads: exchangeThreads, ServiceTime: *service})
	f.feed(t, 1)
	f.serve(t)
	every(t.Context(), *warmup/2)
	var widths []float64
	s := f.during(t, *measure/3, func() { widths = append(widths, f.members[0].Status(t).Upstream.Width) })
	f.report(t)
	settled := 0
	for _, w := range widths {
		if int(w) == exchangeThreads {
			settled++
		}
	}
	t.Logf("width least %.3g, median %.3g, most %.3g; %.3g refusals a minute", quantile(0, widths), quantile(.5, widths), quantile(1, widths),
		s.perSecond(crowded)*60)
	atLeast(t, fmt.Sprintf("share of the time at width %d", exchangeThreads), float64(settled)/float64(len(widths)), widthBar)
	atLeast(t, "utilisation of the relay", s.utilisation(exchangeThreads, *service), utilisationBar)
	atMost(t, "refusals for each message", s.perSecond(crowded)*s.seconds()/float64(len(s.taken)), crowdedBar)
	f.drain(t)
}

// TestTheMessagesOfASessionAreLearnt: Amazon SES ends a session after so many messages. That is no refusal of the message that heard
// it, and once it is known it is not heard any more.
func TestTheMessagesOfASessionAreLearnt(t *testing.T) {
	f := newFleet(t, 1, relay.Config{MessagesPerConnection: sessionMessages, CapReply: sessionReply, ServiceTime: sessionSpeed},
		fmt.Sprintf("MAILWEIR_UPSTREAM_MAX_CONNECTIONS=%d", sessionWidth),
		fmt.Sprintf("MAILWEIR_TIME_SCALE=%g", max(*scale, sessionScale)))
	f.feed(t, 1)
	f.serve(t)
	charged := 0
	after := func(messages int) relay.Counters {
		end := time.Now().Add(sessionLimit)
		for every(t.Context(), look) {
			if q := f.members[0].Status(t).Queue; q.Deferred > 0 {
				charged = max(charged, q.Deferred)
			}
			if c := f.relay.Counters(); c.Taken >= messages {
				return c
			}
			if time.Now().After(end) {
				t.Fatalf("%+v after %v; want %d messages", f.relay.Counters(), sessionLimit, messages)
			}
		}
		return relay.Counters{}
	}
	learnt := after(sessionWarm)
	last := after(sessionWarm + sessionMeasured)
	f.report(t)
	t.Logf("%d messages over %d connections, %d of them ended by the relay; then %d over %d, %d ended by the relay", learnt.Taken, learnt.Accepted,
		learnt.Capped, last.Taken-learnt.Taken, last.Accepted-learnt.Accepted, last.Capped-learnt.Capped)
	atLeast(t, "sessions that ended while it was learnt", float64(learnt.Capped), 1)
	atMost(t, "sessions that the relay had to end later", float64(last.Capped-learnt.Capped), 0)
	atLeast(t, "messages for each later connection", float64(last.Taken-learnt.Taken)/float64(max(last.Accepted-learnt.Accepted, 1)), sessionUsed*sessionMessages)
	atMost(t, "messages that had to wait for a retry", float64(charged), 0)
	f.drain(t)
	if q := f.members[0].Status(t).Queue; q.Dead > 0 || q.DuplicatesPossible > 0 {
		t.Errorf("%+v", q)
	}
}

// TestADaysQuotaHoldsTheMailUntilTheDayIsOver: Gmail says with a 5yz that no more can be sent today. Nothing bounces of it.
func TestADaysQuotaHoldsTheMailUntilTheDayIsOver(t *testing.T) {
	f := newFleet(t, 1, relay.Config{DailyRecipients: dailyRecipients, ServiceTime: scaled(*service)})
	m := f.members[0]
	f.stop = func() {} // nobody feeds
	f.serve(t)
	m.send(t.Context(), 0, dailyRecipients+dailyMore, 1)
	held := m.AwaitStatus(t, heldLimit, "the hold", func(s admin.Status) bool { return s.Queue.Held != "" })
	t.Logf("held: %s; state %s", held.Queue.Held, held.Upstream.State)
	if !strings.Contains(held.Queue.Held, "5.4.5") {
		t.Error("the hold does not say what the relay said")
	}
	before := f.relay.Counters()
	s := f.observe(t, scaled(heldFor))
	q := m.Status(t).Queue
	t.Logf("tries until the hold %d, in the %v after it %d", before.OverQuota, scaled(heldFor), s.after.OverQuota-before.OverQuota)
	atMost(t, "tries while held", float64(s.after.OverQuota-before.OverQuota), heldTries)
	if q.Pending != dailyMore || q.Dead != 0 || q.RecipientsFailed != 0 || q.Held == "" {
		t.Errorf("while held: %+v", q)
	}

	f.relay.NewDay()
	began := time.Now()
	m.AwaitStatus(t, scaled(quotaLook), "a new day to be noticed", func(s admin.Status) bool { return s.Queue.Held == "" })
	t.Logf("a new day was noticed after %v", time.Since(began).Round(time.Second))
	m.AwaitStatus(t, heldLimit, "delivery of the rest", func(s admin.Status) bool { return s.Queue.Pending == 0 })
	if q := m.Status(t).Queue; q.Delivered != dailyRecipients+dailyMore || q.Dead != 0 || q.RecipientsFailed != 0 {
		t.Errorf("in the end: %+v", q)
	}
	f.drain(t)
}
