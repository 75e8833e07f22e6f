package proxy

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/flowctl"
)

// The names of an upstream's hosts are resolved in the background, while there is mail or a connection, and nobody waits for it but at
// the very start. A change acts on what is dialled from then on; connections are closed after a minute anyway.

const (
	// resolveEvery is how old the addresses may become.
	resolveEvery = 30 * time.Second
	// resolveAgain is how old while none of them answers: they may have moved.
	resolveAgain = 2 * time.Second
)

// resolution is what is known of them.
type resolution struct {
	known  []flowctl.Address // as last resolved; at first the hosts by name
	at     time.Time         // when that was, or failed; zero: not yet
	asking bool
	fault  string // why they could not be resolved the last time; "": they could
}

// resolve has the names resolved if that is due. It returns false as long as nothing is known of them.
func (d *lane) resolve(now time.Time, wanted bool) bool {
	n := &d.names
	if !d.pool.client.Resolves() {
		return true
	}
	if wanted && !n.asking && (n.at.IsZero() || now.Sub(n.at) >= d.resolveAfter()) {
		n.asking = true
		known := n.known
		d.pool.done.Go(func() {
			addrs, err := d.pool.client.Resolve(d.pool.dialing, known)
			d.pool.post(func(now time.Time) { d.resolved(now, addrs, err) })
		})
	}
	return !n.at.IsZero()
}

func (d *lane) resolveAfter() time.Duration {
	if slices.ContainsFunc(d.flow.Addresses(), func(a flowctl.AddressState) bool { return !a.Open }) {
		return resolveEvery
	}
	return resolveAgain
}

// resolved takes an answer. What could not be resolved keeps its addresses; what never could is dialled by name.
func (d *lane) resolved(now time.Time, addrs []flowctl.Address, err error) {
	n := &d.names
	n.asking, n.at = false, now
	fault := ""
	if err != nil {
		fault = err.Error()
		if n.fault == "" && d.pool.dialing.Err() == nil {
			d.log.Warn("names not resolved, the addresses known so far stay", zap.Error(err))
		}
	}
	n.fault = fault
	if slices.Equal(addrs, n.known) {
		return
	}
	n.known = addrs
	d.flow.SetAddresses(now, addrs)
	list := make([]string, len(addrs))
	for i, a := range addrs {
		list[i] = a.Name
	}
	d.log.Info("addresses", zap.Strings("addresses", list))
}
