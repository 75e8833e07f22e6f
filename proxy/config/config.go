// Package config turns the environment, and an optional YAML file, into one typed Config.
//
// It promises that nothing is guessed: an unknown name, a value without its unit or a contradiction
// is a fault, all faults are reported together, and every value in force can say where it came from.
// Load reads the environment it is given, never the process's own, and changes nothing.
package config

import (
	"fmt"
	"io"
	"time"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/dkim"
	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/oauth"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/route"
	"github.com/mailweir/mailweir/proxy/smtpd"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// Config is everything that can be set. The zero value is of no use: Default and Load make them.
//
// It holds secrets, so neither fmt nor encoding/json nor zap.Any show its fields; Report is
// what may be shown.
type Config struct {
	File     string // the YAML file that was read; "": none
	Hostname string // our name in greetings, EHLO and Received; "": the host's (Load fills it in)
	Log      Log
	SMTPD    smtpd.Config
	Journal  journal.Config
	Queue    queue.Config
	Upstream upstream.Config
	OAuth    oauth.Config // where the upstream's tokens come from; the zero value: nowhere
	Flow     flowctl.Config
	Admin    admin.Config
	DKIM     []dkim.Key  // what to sign with; nil: nothing is signed
	Others   []Upstream  // upstreams beside the default one; nil: none
	Table    route.Table // which mail goes to which of them; nil: all to the default one
	AtStart  AtStart     // the files that were read, for whoever wants to know whether they still hold that

	UpstreamProfile      string        // one of profiles: where defaults come from
	UpstreamSlowness     string        // ignore or gain; what it comes to is in Flow
	UpstreamRules        YAMLText      // a list of rules; compiled they are in Upstream
	UpstreamRulesFile    string        // with such a list, in place of it; "": none
	DKIMKeys             YAMLText      // a list of keys; parsed they are in DKIM
	DKIMKeysFile         string        // with such a list, in place of it; "": none
	Routes               YAMLText      // a list of routes; parsed they are in Others and Table
	RoutesFile           string        // with such a list, in place of it; "": none
	QueueMaxMessages     int           // pending messages; beyond it 452 4.3.1; 0: by the memory limit (Load fills it in)
	JournalAllowVolatile bool          // accepts a journal on tmpfs or overlayfs
	DrainTimeout         time.Duration // after SIGTERM
	AcceptAfterTerm      time.Duration // after SIGTERM, keeps accepting for so long
	DeadKeep             time.Duration // how long a dead message is retained
	DeadMaxBytes         int64         // and how many bytes of them; 0: only their age bounds them (Load fills it in)
}

// Log says how the log is written.
type Log struct {
	Level     string // debug, info, warn, error
	Addresses string // hash or plain: how mail addresses appear
}

// Default returns the configuration of an empty environment, before Load fills in what depends on
// the host. It is not valid: there is no default upstream.
func Default() Config {
	var c Config
	for _, s := range settings {
		if s.value == "" {
			continue
		}
		if p := parseInto(s.at(&c), s.value); p != nil {
			panic("config: default of " + s.key + ": " + p.problem)
		}
	}
	return c
}

const withheld = "mailweir configuration, withheld because it may hold secrets"

// Format implements fmt.Formatter so that no verb, %+v and %#v included, prints a secret.
func (Config) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, withheld) // fmt.State has nowhere to report an error to
}

// MarshalText keeps the secrets out of encoding/json, and so out of zap.Any, for the reason Format gives.
func (Config) MarshalText() ([]byte, error) { return []byte(withheld), nil }
