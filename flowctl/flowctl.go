// Package flowctl decides how many connections one upstream gets, and how fast they are used.
//
// It is a deterministic state machine: it does no I/O, starts no goroutines and
// never reads the clock. The caller passes the time in and carries the decisions out.
//
// The caller reports events (DialStart ... Closed), asks for a Plan after each of them and at
// Plan.Wake, and does what the plan says. The same configuration, seed and events give the same plans.
//
// # The law
//
// At heart it is AIMD (V. Jacobson, Congestion Avoidance and Control, 1988): the width grows after successes, doubling at the
// start and by one afterwards, and an overload takes three tenths off, once per event. What it adds:
//
//   - An exact ceiling. "Too many connections" says how many fit: those that are established. It is remembered, and one more is
//     tried at growing gaps (width.go).
//   - Leases. Others who share the upstream cannot be seen, so each connection is given up after a while and its place left
//     free for a moment. If it is gone then, there are others, and leases become short (lease.go).
//   - Turns. With less than one connection for each, a process holds one for a lease and waits in line for the next. How often it asks
//     follows how long it has waited, and never whether it was lucky; a message now and then asks at once (turn.go).
//   - Idle connections are priced: where a connection was refused, an idle one is kept no longer than connecting again takes (conns.go).
//   - A remembered rate. What was accepted when a rate was refused is sent a little below, and probed (rate.go).
//   - A gain test, if asked for: a wider pool is kept only if it delivers more (gain.go).
//   - Quotas over a rolling day (quota.go), messages per connection as learnt (sessioncap.go), a circuit breaker for each address
//     (breaker.go), and a memory of all this that survives a restart (memory.go).
//
// bench/fleet shows what comes of it, for one process and for a thousand.
package flowctl

import "time"

// Class says what an answer of the upstream, or its absence, means for the flow.
type Class uint8

// The classes, ordered by how much of the upstream they concern: a transaction with several
// reports the greatest. The words in parentheses are those of the table in package upstream.
const (
	OK            Class = iota // taken
	PerMessage                 // this message or recipient only, temporary (rcpt, split, temp)
	Permanent                  // this message or recipient only, for good (perm); the server answered, so it is no congestion
	IdleClose                  // closed for being idle; says nothing about load
	SessionCap                 // messages or bytes per connection used up (conn-cap)
	RateLimited                // too many messages a second (rate)
	Overload                   // resources short, server-wide limits, a reply that did not come (conc-server, pressure)
	Busy                       // more connections than we are allowed (conc-source)
	Unavailable                // no answer at all, or "not now" before any work (unavailable)
	Reputation                 // blocked or slowed for content
	AuthThrottle               // too many logins, or the authentication backend away (auth-churn, auth-temp)
	Quota                      // hours or a day used up
	Misconfigured              // our settings are wrong: credentials, certificate, relay denied
)

// Classes is the number of classes: an array indexed by Class has this length.
const Classes = int(Misconfigured) + 1

var classNames = [Classes]string{
	OK: "ok", PerMessage: "per_message", Permanent: "permanent", IdleClose: "idle_close",
	SessionCap: "session_cap", RateLimited: "rate_limited", Overload: "overload", Busy: "busy",
	Unavailable: "unavailable", Reputation: "reputation", AuthThrottle: "auth_throttle",
	Quota: "quota", Misconfigured: "misconfigured",
}

// String returns the class as a metric label has it; "unknown" beyond the last.
func (c Class) String() string {
	if int(c) >= Classes {
		return "unknown"
	}
	return classNames[c]
}

// Stage is where in a session an Outcome came about.
type Stage uint8

// The stages, in the order of a session.
const (
	StageConnect Stage = iota // TCP connect, and TLS where it comes first
	StageGreeting
	StageEHLO
	StageTLS
	StageAuth
	StageMail
	StageRcpt
	StageData // after the DATA command and before the content
	StageDot  // the reply to the content
	StageIdle // between transactions
)

var stageNames = [...]string{
	StageConnect: "connect", StageGreeting: "greeting", StageEHLO: "ehlo", StageTLS: "tls", StageAuth: "auth",
	StageMail: "mail", StageRcpt: "rcpt", StageData: "data", StageDot: "dot", StageIdle: "idle",
}

// String returns the stage in one lower-case word; "unknown" beyond the last.
func (s Stage) String() string {
	if int(s) >= len(stageNames) {
		return "unknown"
	}
	return stageNames[s]
}

// Outcome is what came of a dial, of a transaction, or of a whole connection.
type Outcome struct {
	Class      Class
	Stage      Stage
	Took       time.Duration // dial: TCP to ready; transaction: MAIL to the last reply
	Started    time.Time     // when the dial or the transaction began; zero: when DialStart or SendStart said
	RetryAfter time.Duration // named by the reply; 0: none
	Limit      int           // named by the reply; 0: none
	Taken      int           // transaction: recipients that were taken, or may have been, although Class is not OK; 0: none
	Text       string        // the reply, for the reason of a move; never interpreted
}

// ConnID names a connection from its DialStart to its Closed. The caller chooses; never 0.
type ConnID uint64

// State is what the controller as a whole is doing.
type State uint8

// The states.
const (
	SlowStart State = iota // the width doubles per round: nothing has been refused yet
	Calm                   // the width is known, grows by one, or probes above its ceiling
	Contended              // others hold connections too
	Sharing                // and there is less than one for each: it holds one in turn with them
	Open                   // every address is down; nothing is tried until the pause is over
	HalfOpen               // one connection or transaction tries whether it is up again
	Paused                 // the upstream asked to wait: rate, logins, reputation, no connection free
	Stopped                // by Stop, until Resume or a probe transaction that succeeds
)

// States is the number of states.
const States = len(stateNames)

var stateNames = [...]string{
	SlowStart: "slow_start", Calm: "calm", Contended: "contended", Sharing: "sharing",
	Open: "open", HalfOpen: "half_open", Paused: "paused", Stopped: "stopped",
}

// String returns the state as a metric label has it; "unknown" beyond the last.
func (s State) String() string {
	if int(s) >= len(stateNames) {
		return "unknown"
	}
	return stateNames[s]
}

// Hint is what a fleet-wide budget granted this process. The zero value has lapsed and caps nothing.
type Hint struct {
	Grant int       // connections, which caps the width; 0 or less: none, it is not our turn
	Until time.Time // when the grant lapses and the local law holds alone again
}

// Demand is what waits to be sent. The zero value: nothing.
type Demand struct {
	Ready  int       // messages due now and not yet on a connection
	Oldest time.Time // since when the oldest of them is due; zero: not known
	Depth  int       // transactions that one connection may be given at once, with the one that it carries out; 0: 2
}

// Plan says what may happen now. It describes the state wanted: a plan that was not carried out is
// given again, and one that names a connection to retire names it until it is Closed.
type Plan struct {
	Dial   []string      // addresses to dial now, at most MaxDials in flight, beside one to each of several that does not answer; borrowed until the next call
	Retire []ConnID      // close after the current transaction, feed no more; borrowed until the next call
	Send   int           // how many further transactions may be started now, each on an idle connection that is not in Retire
	Try    ConnID        // an idle connection that is to have the first of them: whether it serves is not known; 0: none
	Ahead  int           // how many more may be queued behind running ones, on connections that have Room; counts for itself, beside Send
	SendAt time.Time     // earliest time when more may be started, when Send is 0 because of rate, pause, breaker or stop; zero: not known, or now
	Linger time.Duration // how long an idle connection may be kept; ask again after closing one, the last may stay longer
	State  State
	Reason string    // why that state
	Wake   time.Time // come back no later; zero: nothing to wait for but events
}
