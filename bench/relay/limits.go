package relay

import "time"

// What relays say by default about their limits, in the words of those that have them.
const (
	AmazonThrottle = "454 Throttling failure: Maximum sending rate exceeded"
	ExchangeOnline = "432 4.3.2 Concurrent connections limit exceeded"
	GoogleQuota    = "550 5.4.5 Daily user sending limit exceeded"
	manyMessages   = "421 4.7.0 Too many messages in this connection"
)

const day = 24 * time.Hour

// gate keeps the limits that hold for all connections together. The relay's mutex guards it.
type gate struct {
	working  int       // contents that are being worked on
	tokens   float64   // of RatePerSecond
	filled   time.Time // when tokens was right; zero: the bucket was never used and is full
	dayBegan time.Time // zero: nobody has sent yet
	used     int       // recipients of the day
}

// enter lets a content for so many recipients in, or returns the reply that turns it away. Whoever was let in must leave by
// finished. What is turned away uses up nothing.
func (r *Relay) enter(recipients int) (refusal string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, g := time.Now(), &r.gate
	switch {
	case r.cfg.DailyRecipients > 0 && !g.today(now, r.cfg.Day, recipients, r.cfg.DailyRecipients):
		r.count.OverQuota++
		return r.cfg.DailyReply
	case r.cfg.Threads > 0 && g.working >= r.cfg.Threads:
		r.count.Crowded++
		return r.cfg.ThreadsReply
	case r.cfg.RatePerSecond > 0 && !g.token(now, r.cfg.RatePerSecond, float64(r.cfg.RateBurst)):
		r.count.Throttled++
		return r.cfg.RateReply
	}
	g.working++
	g.used += recipients
	return ""
}

func (r *Relay) finished() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate.working--
}

// NewDay begins a day for DailyRecipients before the last one is over.
func (r *Relay) NewDay() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gate.dayBegan, r.gate.used = time.Now(), 0
}

// today reports whether the day still has room.
func (g *gate) today(now time.Time, length time.Duration, recipients, limit int) bool {
	if now.Sub(g.dayBegan) >= length {
		g.dayBegan, g.used = now, 0
	}
	return g.used+recipients <= limit
}

// token takes one out of the bucket if there is one.
func (g *gate) token(now time.Time, perSecond, burst float64) bool {
	if g.filled.IsZero() {
		g.tokens = burst
	} else {
		g.tokens = min(burst, g.tokens+perSecond*now.Sub(g.filled).Seconds())
	}
	g.filled = now
	if g.tokens < 1 {
		return false
	}
	g.tokens--
	return true
}

// limits gives the replies of limits their words.
func (c *Config) limits() {
	for reply, words := range map[*string]string{
		&c.CapReply: manyMessages, &c.RateReply: AmazonThrottle, &c.ThreadsReply: ExchangeOnline, &c.DailyReply: GoogleQuota,
	} {
		if *reply == "" {
			*reply = words
		}
	}
	if c.RateBurst == 0 {
		c.RateBurst = max(1, int(c.RatePerSecond))
	}
	if c.Day == 0 {
		c.Day = day
	}
}
