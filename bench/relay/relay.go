// Package relay is a scriptable SMTP relay for tests, measurements and the demo.
//
// It speaks the server side of RFC 5321 on its own, with no code of the proxy's and none of an SMTP library's, so
// that it is a second opinion. It keeps a ledger of every message it took and of every rule of the
// protocol its client broke, it has the limits that real relays have, and any reply can be scripted. It works
// over TCP, over bench/memconn, and inside testing/synctest bubbles.
package relay

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// What a relay says by default where Exchange has words of its own.
const (
	ExchangeBusy     = "421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel"
	ExchangePressure = "452 4.3.1 Insufficient system resources"
)

const (
	defaultMaxSize       = 64 << 20 // octets
	defaultMaxRecipients = 1000
)

// Config describes a relay. The zero value is one without limits that offers PIPELINING, 8BITMIME, SIZE,
// SMTPUTF8, DSN, CHUNKING and ENHANCEDSTATUSCODES.
type Config struct {
	Hostname string   // in the greeting; "": relay.example
	Without  []string // EHLO keywords not to offer, upper case

	MaxConnections int    // at once; more are greeted with Busy and closed; 0: no limit
	Busy           string // "": ExchangeBusy
	BusyInClear    bool   // with ImplicitTLS: Busy is sent before the handshake, unencrypted, as some balancers do

	RTT         time.Duration // every reply leaves so long after its command came; the greeting after two of them
	ServiceTime time.Duration // spent on each message after its dot, before its reply; later commands wait

	PressureEvery  int  // every n-th transaction of the relay is answered ExchangePressure; 0: none
	PressureAtMail bool // at MAIL in place of the dot

	MessagesPerConnection int           // the MAIL after so many messages is answered CapReply, a 421; 0: no limit
	CapReply              string        // "": a text of its own
	MaxRecipients         int           // of one transaction; beyond it 452 4.5.3; 0: 1000
	MaxSize               int64         // octets of content; 0: 64 MiB
	Limits                string        // what LIMITS says in the EHLO reply (RFC 9422), whatever the limits are; "": it is not offered
	IdleTimeout           time.Duration // longest wait for input, then 421 4.4.2; 0: for ever

	RatePerSecond   float64       // contents let in a second, by a bucket of tokens; the dot of one too many is answered RateReply at once; 0: no limit
	RateBurst       int           // tokens that the bucket holds, and has at first; 0: those of one second
	RateReply       string        // "": AmazonThrottle
	Threads         int           // contents worked on at once, for ServiceTime each; the dot of one too many is answered ThreadsReply at once; 0: no limit
	ThreadsReply    string        // "": ExchangeOnline
	DailyRecipients int           // recipients of a day; the dot of a message with one too many is answered DailyReply at once; 0: no limit
	Day             time.Duration // how long a day is, from its first message on; 0: 24 h
	DailyReply      string        // "": GoogleQuota

	TLS         *tls.Config // nil: no TLS; else STARTTLS is offered
	ImplicitTLS bool        // TLS from the first octet in place of STARTTLS
	RequireTLS  bool        // MAIL before TLS is answered 530

	Username   string // with Password: offers AUTH and requires it; "": no AUTH
	Password   string
	Mechanisms []string                // offered; nil: PLAIN and LOGIN. Those that are not implemented are offered all the same
	TakesToken func(token string) bool // for XOAUTH2 and OAUTHBEARER; called from all connections at once; nil: none
	Impostor   bool                    // SCRAM: accepts, but without the proof that it knows the password

	KeepBodies bool               // Message.Body is kept
	Reply      func(Event) Action // scripts replies; called from all connections at once; nil: no script
}

// Counters counts since New.
type Counters struct {
	Accepted     int // connections let in
	Refused      int // connections over MaxConnections
	Current      int // connections let in and not ended
	Peak         int // the greatest Current
	Transactions int // MAIL commands that were in order
	Taken        int // messages, those in the ledger
	Pressed      int // transactions answered because of PressureEvery
	Capped       int // connections ended by MessagesPerConnection
	Throttled    int // contents turned away by RatePerSecond
	Crowded      int // contents turned away by Threads
	OverQuota    int // contents turned away by DailyRecipients
	Idled        int // connections ended by IdleTimeout
	Truncated    int // contents that ended with the connection
	TLSFailed    int // handshakes
}

// Relay is a fake relay. Its methods are safe for concurrent use.
type Relay struct {
	cfg  Config
	done chan struct{} // closed by Close

	mu         sync.Mutex
	closed     bool
	listeners  []net.Listener
	sessions   map[int]*session // also refused and lingering ones
	lastConn   int
	count      Counters
	gate       gate
	ledger     []Message
	violations []Violation

	running sync.WaitGroup // one for each session
}

// New returns a relay that serves nothing yet.
func New(cfg Config) *Relay {
	if cfg.Hostname == "" {
		cfg.Hostname = "relay.example"
	}
	if cfg.Busy == "" {
		cfg.Busy = ExchangeBusy
	}
	if cfg.MaxRecipients == 0 {
		cfg.MaxRecipients = defaultMaxRecipients
	}
	if cfg.MaxSize == 0 {
		cfg.MaxSize = defaultMaxSize
	}
	cfg.limits()
	return &Relay{cfg: cfg, done: make(chan struct{}), sessions: map[int]*session{}}
}

// Serve accepts connections of l until Close, and then returns nil; any other end is an error. It may run for several
// listeners at once. Close closes l.
func (r *Relay) Serve(l net.Listener) error {
	if !r.listens(l) {
		return l.Close()
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			if r.isClosed() && errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("relay: accept: %w", err)
		}
		s := r.admit(conn)
		if s == nil {
			_ = conn.Close() // Close came between: this peer was never served
			return nil
		}
		go func() {
			defer r.running.Done()
			defer r.forget(s)
			s.serve()
		}()
	}
}

// listens is false after Close.
func (r *Relay) listens(l net.Listener) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.listeners = append(r.listeners, l)
	return true
}

func (r *Relay) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// admit gives a connection its number and decides whether there is room for it. It returns nil after Close.
func (r *Relay) admit(conn net.Conn) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.lastConn++
	s := newSession(r, r.lastConn, conn)
	if limit := r.cfg.MaxConnections; limit > 0 && r.count.Current >= limit {
		s.refused = true
		r.count.Refused++
	} else {
		r.count.Accepted++
		r.count.Current++
		r.count.Peak = max(r.count.Peak, r.count.Current)
	}
	r.sessions[s.id] = s
	r.running.Add(1)
	return s
}

// leave frees the place of a connection. It is called just before the client can learn that the connection is over, so
// that a client which keeps exactly to the limit is never refused.
func (r *Relay) leave(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !s.refused && !s.left {
		r.count.Current--
	}
	s.left = true
}

func (r *Relay) forget(s *session) {
	r.leave(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s.id)
}

// Close closes the listeners, resets every connection, and returns when no goroutine is left. The ledger stays
// readable. It must not be called from Config.Reply.
func (r *Relay) Close() {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	listeners := r.listeners
	sessions := r.liveSessions()
	r.mu.Unlock()
	if first {
		close(r.done)
	}
	for _, l := range listeners {
		_ = l.Close() // a listener that fails to close is closed all the same
	}
	for _, s := range sessions {
		s.cut()
	}
	r.running.Wait()
}

func (r *Relay) liveSessions() []*session {
	var all []*session
	for _, s := range r.sessions {
		all = append(all, s)
	}
	return all
}

// Cut resets a connection by its number (Event.Conn), whatever it is doing; a message whose ServiceTime runs is still
// taken. It returns false when there is no such connection.
func (r *Relay) Cut(conn int) bool {
	r.mu.Lock()
	s := r.sessions[conn]
	r.mu.Unlock()
	if s == nil {
		return false
	}
	s.cut()
	return true
}

// CutAll resets every connection and returns how many there were.
func (r *Relay) CutAll() int {
	r.mu.Lock()
	sessions := r.liveSessions()
	r.mu.Unlock()
	for _, s := range sessions {
		s.cut()
	}
	return len(sessions)
}

// SetMaxConnections changes the limit for connections to come; 0 is no limit.
func (r *Relay) SetMaxConnections(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cfg.MaxConnections = n
}

// Counters returns the counters of this moment.
func (r *Relay) Counters() Counters {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.count
	c.Taken = len(r.ledger)
	return c
}

func (r *Relay) add(counter *int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	*counter++
	return *counter
}

func (r *Relay) offers(keyword string) bool {
	return !slices.ContainsFunc(r.cfg.Without, func(w string) bool { return strings.EqualFold(w, keyword) })
}

// sleep is false when the relay was closed meanwhile.
func (r *Relay) sleep(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.done:
		return false
	case <-t.C:
		return true
	}
}
