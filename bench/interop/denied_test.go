//go:build postfix

package interop

import (
	"fmt"
	"testing"

	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/admin"
)

// TestARelayThatDeniesEverythingHoldsTheMail: somebody changed the relay's rules, and it answers every recipient with a 5yz
// about relaying. That is no reason to give up a backlog.
func TestARelayThatDeniesEverythingHoldsTheMail(t *testing.T) {
	p := newPostfix(t, stormLimit)
	p.Configure(t, "mynetworks=192.0.2.0/24")
	p.Reload(t)
	m := newMailweir(t, p.Address)
	const messages = 40
	sent := source.Run(t.Context(), source.Config{Address: m.Address, Messages: messages, Connections: messages})
	if n := sent.Count(source.Record.Acknowledged); n != messages {
		t.Errorf("%d of %d acknowledged", n, messages)
	}
	s := m.AwaitStatus(t, settleLimit, "the hold", func(s admin.Status) bool { return s.Queue.Held != "" })
	t.Logf("held: %s", s.Queue.Held)
	if s.Queue.Pending != messages || s.Queue.Dead != 0 || s.Queue.RecipientsFailed != 0 {
		t.Errorf("mail was given up: %+v", s.Queue)
	}
	if n := p.Logged(t, "Relay access denied"); n == 0 {
		t.Error("Postfix denied nothing, so nothing is shown")
	}

	p.Configure(t, "mynetworks=127.0.0.0/8")
	p.Reload(t)
	s = m.awaitEmpty(t)
	arrived(t, p, sent, 0)
	if s.Queue.Held != "" {
		t.Errorf("still held: %s", s.Queue.Held)
	}
}

// errRefused says why a message was not taken.
func errRefused(r source.Record) error { return fmt.Errorf("%s at %s: %w", r.Reply, r.Stage, r.Err) }
