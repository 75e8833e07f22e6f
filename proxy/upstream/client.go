// Package upstream sends messages to one upstream over connections that others count, and says what its replies mean.
//
// A Conn never sends part of a message followed by the dot, never takes a reply for that of another command, and ends
// every Job with exactly one Result: decided by the server or by us, handed back because nothing can have been
// delivered, or uncertain. How many connections there are, when they are dialled and what becomes of a message is
// decided elsewhere; nothing here retries, sleeps or logs.
package upstream

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// Client brings connections to one upstream up. It is safe for concurrent use and holds no connection.
type Client struct {
	cfg    Config
	hosts  []Host // never empty
	mode   string // none, opportunistic, require
	tls    *tlsFiles
	logins *logins

	ladder  *ladder
	offered atomic.Uint32 // Level that the last session allows
}

// errSettings is wrapped by errors that only a change of our settings, or of the upstream's, can cure.
var errSettings = errors.New("settings do not fit the upstream")

// New checks the configuration and reads the files for TLS.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	hosts, err := cfg.Hosts()
	if err != nil {
		return nil, err
	}
	mode, verify := cfg.security(anyImplicit(hosts))
	c := &Client{cfg: cfg, hosts: hosts, mode: mode, logins: newLogins(), ladder: newLadder(cfg.window(), cfg.levelMax())}
	c.offered.Store(uint32(L4))
	if cfg.OAuth && cfg.Token == nil {
		return nil, errors.New("upstream: oauth is set, but nothing gives tokens")
	}
	c.tls = newTLS(cfg, verify)
	if _, err := c.tls.config(); err != nil {
		return nil, err
	}
	if c.cfg.Hostname == "" {
		c.cfg.Hostname = "localhost"
	}
	if c.cfg.AgeMax == 0 {
		c.cfg.AgeMax = ageMaxDefault
	}
	if c.cfg.Dial == nil && c.cfg.Resolve == nil {
		c.cfg.Resolve = lookupUsable
	}
	if c.cfg.Dial == nil {
		c.cfg.Dial = (&net.Dialer{}).DialContext
	}
	c.cfg.Timeouts = cfg.Timeouts.orDefaults()
	return c, nil
}

// Standing returns how much pipelining the upstream is trusted with at present, and offers.
func (c *Client) Standing() Standing {
	st := c.ladder.standing()
	if offered := Level(c.offered.Load()); offered < st.Level {
		st.Level, st.Window = offered, 1
	}
	return st
}

// Steps returns what changed in that since the last call, the oldest first; of very many the first.
func (c *Client) Steps() []Step { return c.ladder.drain() }

// Connect dials addr, one of Addresses or Resolve, or the URL's first host when addr is "", and brings the session to where MAIL is
// allowed: greeting, EHLO, STARTTLS, AUTH. Certificates are verified for the host of the URL that addr belongs to.
// Cancelling ctx ends it. On failure there is no Conn, nothing is left open, and the Outcome says class and
// stage; with class OK the Conn must be given to Run or Cut.
//
// There is no way back to clear text: an upstream that offers STARTTLS and fails at it is Unavailable, or
// Misconfigured when its certificate does not hold.
func (c *Client) Connect(ctx context.Context, addr string) (*Conn, flowctl.Outcome) {
	if addr == "" {
		addr = c.hosts[0].Address()
	}
	started := time.Now()
	s, f := c.attempt(ctx, addr, c.logins.rejected(), nil)
	if f != nil && f.lapsed && c.cfg.OAuth {
		// The token was withdrawn before its time. One that is new tells more, and needs a session of its own; but if a new
		// one is refused, others that are new will be too.
		s, f = c.attempt(ctx, addr, s.secret, f)
	}
	out := flowctl.Outcome{Stage: s.stage, Started: started, Took: time.Since(started)}
	if f != nil {
		out.Class, out.RetryAfter, out.Limit, out.Text = f.meaning.Class, f.meaning.RetryAfter, f.meaning.Limit, f.text
		return nil, out
	}
	return newConn(s), out
}

// attempt is one session, up to where MAIL is allowed. rejected is a token that the upstream did not take; "": none. earlier is
// the fault of a session just now, which stands if there is no other token; nil: there was none. On a fault nothing is left open.
func (c *Client) attempt(ctx context.Context, addr, rejected string, earlier *fault) (*setup, *fault) {
	s := &setup{client: c, began: time.Now(), stage: flowctl.StageAuth}
	s.host, addr = c.find(addr)
	if f := s.fetchSecret(ctx, rejected); f != nil {
		return s, f
	}
	if earlier != nil && s.secret == rejected {
		return s, earlier
	}
	s.stage = flowctl.StageConnect
	f := s.dial(ctx, addr)
	if f == nil {
		stop := context.AfterFunc(ctx, s.cut)
		f = s.open(ctx)
		if !stop() && f == nil {
			f = s.fail(context.Cause(ctx))
		}
	}
	if f != nil && s.raw != nil {
		s.cut()
	}
	return s, f
}
