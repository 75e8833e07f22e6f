package admin

import "time"

// Status is the answer of GET /v1/status.
type Status struct {
	Version   string           `json:"version"`
	Started   time.Time        `json:"started"`
	Ready     string           `json:"ready"` // ReadyYes, or why not
	Draining  bool             `json:"draining"`
	Queue     QueueStatus      `json:"queue"`
	Upstream  UpstreamStatus   `json:"upstream"`  // the default one
	Upstreams []UpstreamStatus `json:"upstreams"` // all, the default one first
	Journal   JournalStatus    `json:"journal"`
	Front     FrontStatus      `json:"front"`
	Signing   SigningStatus    `json:"signing"`
	Restart   RestartStatus    `json:"restart"`
}

// RestartStatus is about the files that only a start reads: routes, rules, the list of signing keys, the YAML file. The zero value: they
// are as they were read.
type RestartStatus struct {
	Files   string `json:"files,omitempty"`   // what has changed since, and acts after a restart
	Refused string `json:"refused,omitempty"` // why a start would refuse the configuration as it is now; "": it would not
}

// DefaultUpstream is the name of the upstream that takes what no route names.
const DefaultUpstream = "default"

// ReadyYes is Status.Ready while the readiness probe succeeds.
const ReadyYes = "yes"

// QueueStatus counts messages and deliveries. Accepted + Recovered = Delivered + Dead + Pending at every snapshot, in messages since
// start plus those recovered.
type QueueStatus struct {
	Accepted            uint64    `json:"accepted"`
	Recovered           uint64    `json:"recovered"`
	Delivered           uint64    `json:"delivered"`
	Dead                uint64    `json:"dead"`
	Pending             int       `json:"pending"`    // messages
	Deliveries          int       `json:"deliveries"` // pending deliveries
	InFlight            int       `json:"in_flight"`
	Deferred            int       `json:"deferred"` // waiting for a retry time
	DeadRetained        int       `json:"dead_retained"`
	OldestPending       time.Time `json:"oldest_pending,omitzero"`
	LastDelivered       time.Time `json:"last_delivered,omitzero"`
	NextDue             time.Time `json:"next_due,omitzero"`
	RecipientsDelivered uint64    `json:"recipients_delivered"`
	RecipientsFailed    uint64    `json:"recipients_failed"`
	DuplicatesPossible  uint64    `json:"duplicates_possible"` // uncertain transactions sent again, and deliveries found started at recovery
	Held                string    `json:"held,omitempty"`      // why nothing is sent, e.g. "misconfigured: 535 ..."
}

// UpstreamStatus is the controller's and the pool's.
type UpstreamStatus struct {
	Name         string            `json:"name"` // DefaultUpstream, or as routes name it
	Address      string            `json:"address"`
	Held         string            `json:"held,omitempty"` // why nothing is sent
	Pending      int               `json:"pending"`        // deliveries
	InFlight     int               `json:"in_flight"`      // of them
	State        string            `json:"state"`
	Reason       string            `json:"reason"` // why that state
	States       []string          `json:"-"`      // every value that State can have, for the metric; nil: only the present one is shown
	Width        float64           `json:"width"`
	Ceiling      int               `json:"ceiling"` // 0: none known
	Max          int               `json:"max"`
	Connections  int               `json:"connections"`
	Busy         int               `json:"busy"`
	Dialing      int               `json:"dialing"`
	Retiring     int               `json:"retiring"`        // of Connections: to be closed after their transaction
	Rate         float64           `json:"rate_per_second"` // transactions; 0: no limit
	Linger       float64           `json:"linger_seconds"`  // how long an idle connection is kept
	Addresses    int               `json:"addresses"`
	Down         int               `json:"addresses_down"` // of Addresses: those that do not answer
	Hosts        []AddressStatus   `json:"hosts"`          // one for each of Addresses, in the order of the configuration
	LastMove     string            `json:"last_move"`      // what moved, from, to, why
	LastMoveAt   time.Time         `json:"last_move_at,omitzero"`
	LastReply    string            `json:"last_move_reply,omitempty"` // what the upstream said to cause it
	NextProbe    time.Time         `json:"next_probe,omitzero"`
	ProbeGap     float64           `json:"probe_gap_seconds"`           // from one probe to the next, without chance, of the ceiling or while held; 0: none is to come
	NoDialBefore time.Time         `json:"no_dial_before,omitzero"`     // zero or past: none withheld
	NoSendBefore time.Time         `json:"no_send_before,omitzero"`     // likewise
	Share        float64           `json:"share"`                       // of one connection, in the long run, where there is less than one for each process; 0: not so
	Waiting      float64           `json:"waiting_seconds"`             // for a connection, with mail and none held; 0: not so
	Pipelining   string            `json:"pipelining"`                  // how much it may be given at once: L0 to L4
	Window       int               `json:"window"`                      // messages in flight that one connection may have
	StepReason   string            `json:"pipelining_reason,omitempty"` // why it was last made less; "": it was not, or that is forgotten
	StepUntil    time.Time         `json:"pipelining_until,omitzero"`   // when more may be tried again; zero: no time
	StepsDown    uint64            `json:"pipelining_steps_down"`       // since the start
	SessionCap   int               `json:"session_cap"`                 // messages after which a connection is replaced, as learnt; 0: not known
	QuotaUsed    int               `json:"quota_used"`                  // recipients in the last 24 hours
	QuotaLimit   int               `json:"quota_limit"`                 // of them, as configured; 0: none
	Outcomes     map[string]uint64 `json:"outcomes"`                    // transactions and dials by class
	Dials        uint64            `json:"dials"`
	LastError    string            `json:"last_error,omitempty"`
	Token        string            `json:"token,omitempty"` // what became of the last request for one; "": no OAuth
	TokenExpiry  time.Time         `json:"token_expiry,omitzero"`
	Transactions uint64            `json:"transactions"`
}

// AddressStatus is one address of an upstream.
type AddressStatus struct {
	Address      string    `json:"address"` // as relay.example[192.0.2.1]:25
	Priority     int       `json:"priority"`
	Weight       int       `json:"weight"`
	Up           bool      `json:"up"` // the last attempt was answered, or there was none
	Connections  int       `json:"connections"`
	Dialing      int       `json:"dialing"`
	Failures     int       `json:"failures"` // attempts in a row without an answer
	NoDialBefore time.Time `json:"no_dial_before,omitzero"`
	LastError    string    `json:"last_error,omitempty"` // class and stage
}

// JournalStatus is the journal's.
type JournalStatus struct {
	Dir          string  `json:"dir"`
	Bytes        int64   `json:"bytes"`
	MaxBytes     int64   `json:"max_bytes"`
	Segments     int     `json:"segments"`
	Syncs        uint64  `json:"syncs"`
	SyncSeconds  float64 `json:"sync_seconds"` // total
	SyncFailures uint64  `json:"sync_failures"`
	Damaged      uint64  `json:"damaged"`     // records found damaged
	Quarantined  int     `json:"quarantined"` // files kept for a human
	Swept        uint64  `json:"swept"`       // segments emptied by copying what was left
	Moved        uint64  `json:"moved"`       // messages and ends copied for that
	Error        string  `json:"error,omitempty"`
}

// FrontStatus is the front door's.
type FrontStatus struct {
	Connections   int               `json:"connections"`
	Total         uint64            `json:"total"`
	Refused       map[string]uint64 `json:"refused"`       // replies other than 2yz and 3yz, by code and enhanced code
	BareNewlines  uint64            `json:"bare_newlines"` // normalised
	BareReturns   uint64            `json:"bare_returns"`
	AcceptBounds  []float64         `json:"accept_bounds"`  // upper bounds of the buckets of AcceptSeconds, in seconds, rising
	AcceptSeconds []uint64          `json:"accept_seconds"` // accepts by the time they took, not cumulated: one count for each of AcceptBounds, and one beyond
	AcceptSum     float64           `json:"accept_sum"`     // seconds
}

// SigningStatus is about DKIM. It counts transactions, so that a message which is tried again counts again.
type SigningStatus struct {
	Keys     int               `json:"keys"`               // 0: nothing is signed
	Unusable []string          `json:"unusable,omitempty"` // keys that cannot be used, with the reason: mail that needs one waits
	Signed   uint64            `json:"signed"`
	Unsigned map[string]uint64 `json:"unsigned,omitempty"` // by reason; nil without keys
}

// Entry is a row of `mailweir queue ls` or `mailweir queue dead`.
type Entry struct {
	ID       string    `json:"id"`
	From     string    `json:"from"`
	To       []string  `json:"to"`                // recipients still open, or failed
	ToMore   int       `json:"to_more,omitempty"` // how many more there are; the operator API lists no more than 100
	Size     int64     `json:"size"`
	Received time.Time `json:"received"`
	State    string    `json:"state"` // due, in flight, deferred, dead
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next,omitzero"`
	Upstream string    `json:"upstream,omitempty"` // where it goes by the routes in force, DefaultUpstream or as they name it; "": it is dead
	Reason   string    `json:"reason,omitempty"`   // the last reply
}

// Resumed answers an operator who said that something was cured.
type Resumed struct {
	Held string `json:"held"` // why mail was held, and is until the probe gets through; "": it was not
}
