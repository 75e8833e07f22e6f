package flowctl

import "time"

// Some upstreams take only so many messages over one connection, and then say 421 or just close. A connection that is replaced in time
// costs nothing; one that is cut costs a refusal, and a message its place.

// Constants of the cap. Times scale with Config.Scale.
const (
	capKeep   = time.Hour       // how long a cap is believed: upstreams are reconfigured, and sums mistaken
	capAtOnce = 2 * time.Second // a connection that is closed so soon after work was not closed for being idle
	capTwice  = 2               // connections in a row that must end at the same count when no reply says why,
	capThrice = 3               // or when the count is one, since that would cost a login for each message
)

// sessionCap is what is known of the messages that one connection takes. The zero value: nothing.
type sessionCap struct {
	most int // messages; 0: not known
	at   time.Time
	last int // the count at which the last suspicious end came
	row  int // so many ended there one after the other
}

// sessionCap returns after how many messages a connection must be replaced; 0: none known.
func (c *Controller) sessionCap(now time.Time) int {
	if c.cap.most == 0 || now.Sub(c.cap.at) >= c.cfg.scaled(capKeep) {
		return 0
	}
	return c.cap.most
}

// endedSession learns from the end of a connection that the upstream brought about.
func (c *Controller) endedSession(now time.Time, k *conn, class Class) {
	switch class {
	case SessionCap:
		c.endedAt(now, k, true)
	case IdleClose, Unavailable:
		if now.Sub(k.idleSince) < c.cfg.scaled(capAtOnce) {
			c.endedAt(now, k, false)
		}
	}
}

// endedAt learns from a connection that ended after k.sent messages; told: the upstream said that they were too many.
func (c *Controller) endedAt(now time.Time, k *conn, told bool) {
	s := &c.cap
	if k.sent == 0 {
		return
	}
	if s.row++; k.sent != s.last {
		s.last, s.row = k.sent, 1
	}
	need := capTwice
	switch {
	case k.sent == 1:
		need = capThrice
	case told:
		need = 1
	}
	if s.row >= need {
		if s.most != k.sent {
			c.log.add(Move{At: now, What: "session_cap", From: float64(s.most), To: float64(k.sent), Reason: reasonSessionCap})
		}
		s.most, s.at = k.sent, now
	}
}

// endFull marks the connections that have carried as many messages as they may. Their places are taken again at once.
func (c *Controller) endFull(now time.Time) {
	most := c.sessionCap(now)
	if most == 0 {
		return
	}
	for i := range c.conns {
		if k := &c.conns[i]; k.established && k.sent+k.sending >= most {
			k.retiring = true
		}
	}
}
