//go:build postfix

package interop

import (
	"fmt"
	"testing"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/rig"
)

// postfix is an instance of its own: what it takes goes over loopback to a sink that keeps a ledger.
type postfix struct {
	*rig.Postfix
	sink *relay.Relay
}

// processesEach is default_process_limit: more sessions than any test opens.
const processesEach = 100

// newPostfix starts an instance that lets each client have limit connections, as a relay does that many applications share.
func newPostfix(t *testing.T, limit int) *postfix {
	t.Helper()
	sink, address := newSink(t)
	return &postfix{rig.NewPostfix(t, scratch(t), address,
		fmt.Sprintf("smtpd_client_connection_count_limit = %d", limit),
		"smtpd_client_event_limit_exceptions =", // anvil counts, and exempts nobody: by default all of mynetworks would be
		fmt.Sprintf("default_process_limit = %d", processesEach)), sink}
}

// refusals counts the connections that were answered 421 because the client had too many.
func (p *postfix) refusals(t *testing.T) int {
	t.Helper()
	return p.Logged(t, "Connection concurrency limit exceeded")
}

// newSink serves a relay without limits until the test ends.
func newSink(t *testing.T) (*relay.Relay, string) {
	t.Helper()
	sink := relay.New(relay.Config{Hostname: "sink.example", KeepBodies: true})
	return sink, rig.Serve(t, "", sink)
}
