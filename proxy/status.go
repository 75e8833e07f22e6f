package proxy

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/smtpd"
)

// What operators and probes see.

func (p *Proxy) source() admin.Source {
	return admin.Source{Ready: p.Ready, Live: p.Live, Status: p.Status, Queue: p.pendingRows, Dead: p.deadRows, Resume: p.resume}
}

// Ready returns why no mail should be sent here, nil if it may. It never depends on the upstream, nor on a full
// journal: the readiness of a sidecar is that of its pod.
func (p *Proxy) Ready() error {
	if p.draining.Load() {
		return errors.New("draining")
	}
	if err := p.journal.Err(); err != nil && !errors.Is(err, journal.ErrFull) {
		return err
	}
	return nil
}

// Live returns why the process should be restarted, nil if it should not.
func (p *Proxy) Live() error { return p.dispatcher.pulse.check(time.Now()) }

// resume acts on an operator's word at once.
func (p *Proxy) resume() (was string) {
	p.dispatcher.call(func(now time.Time) { was = p.dispatcher.resume(now) })
	return was
}

// Status returns what is going on. It waits for the dispatcher.
func (p *Proxy) Status() admin.Status {
	s := admin.Status{
		Version:  p.version,
		Started:  p.started,
		Draining: p.draining.Load(),
		Ready:    "yes",
		Journal:  p.journalStatus(),
		Front:    p.frontStatus(),
		Signing:  p.signingStatus(),
		Restart:  p.restart.status(),
	}
	if err := p.Ready(); err != nil {
		s.Ready = err.Error()
	}
	d := p.dispatcher
	d.call(func(now time.Time) {
		d.takeIn(now)
		s.Queue = d.queueStatus()
		for _, l := range d.lanes {
			s.Upstreams = append(s.Upstreams, l.upstreamStatus(now))
		}
	})
	for i, l := range d.lanes {
		l.tokenStatus(&s.Upstreams[i])
	}
	s.Upstream = s.Upstreams[0]
	return s
}

// tokenStatus may be called by anybody.
func (d *lane) tokenStatus(u *admin.UpstreamStatus) {
	if d.tokens == nil {
		return
	}
	expiry, err := d.tokens.Status()
	u.Token, u.TokenExpiry = "good", expiry
	switch {
	case err != nil:
		u.Token = err.Error()
	case expiry.IsZero():
		u.Token = "not asked for yet"
	}
}

// holds tells why nothing is sent, of each upstream where that is so; "": of none.
func (d *dispatcher) holds() string {
	var why []string
	for i, l := range d.lanes {
		switch {
		case l.held.why == "":
		case i == 0:
			why = append(why, l.held.why)
		default:
			why = append(why, l.name+": "+l.held.why)
		}
	}
	return strings.Join(why, "; ")
}

func (d *dispatcher) queueStatus() admin.QueueStatus {
	st, c := d.queue.Stats(), d.counts
	return admin.QueueStatus{
		Accepted: c.accepted, Recovered: c.recovered, Delivered: c.delivered, Dead: c.dead,
		Pending: st.Messages, Deliveries: st.Deliveries, InFlight: st.InFlight, Deferred: st.Deferred,
		DeadRetained: len(d.dead.rows), OldestPending: d.queue.Oldest(), LastDelivered: c.lastDelivered, NextDue: d.queue.NextDue(),
		RecipientsDelivered: c.recipientsDelivered, RecipientsFailed: c.recipientsFailed, DuplicatesPossible: c.duplicatesPossible,
		Held: d.holds(),
	}
}

func (d *lane) upstreamStatus(now time.Time) admin.UpstreamStatus {
	s, st := d.flow.Snapshot(now), d.pool.client.Standing()
	u := admin.UpstreamStatus{
		Name: d.name, Address: d.address, Held: d.held.why, Pending: d.queue.Counts().Deliveries, InFlight: d.queue.Counts().InFlight,
		State: s.State.String(), Reason: s.Reason, States: stateNames,
		Width: s.Width, Ceiling: s.Ceiling, Max: s.Max,
		Connections: s.Established, Busy: s.Busy, Dialing: s.Dialing, Retiring: s.Retiring,
		Rate: s.Rate, Linger: s.Linger.Seconds(), Addresses: s.Addrs, Down: s.OpenAddrs,
		LastMove: explainMove(s.LastMove), LastMoveAt: s.LastMove.At, LastReply: s.LastMove.Text,
		NextProbe: s.NextProbe, ProbeGap: s.ProbeGap.Seconds(), NoDialBefore: s.DialAt, NoSendBefore: s.SendAt,
		Pipelining: st.Level.String(), Window: st.Window, StepReason: st.Reason, StepUntil: st.Until, StepsDown: st.Downs,
		Share: s.Share, Waiting: s.Waiting.Seconds(), SessionCap: s.SessionCap, QuotaUsed: s.QuotaUsed, QuotaLimit: s.QuotaLimit,
		Outcomes: map[string]uint64{}, Dials: d.dials, Transactions: d.transactions, LastError: d.lastError,
	}
	for _, a := range d.flow.Addresses() {
		u.Hosts = append(u.Hosts, admin.AddressStatus{
			Address: a.Name, Priority: a.Priority, Weight: a.Weight, Up: !a.Open && a.Failures == 0,
			Connections: a.Established, Dialing: a.Dialing, Failures: a.Failures, NoDialBefore: a.RetryAt,
			LastError: d.lastDial[a.Name],
		})
	}
	if d.held.why != "" {
		u.ProbeGap = d.scaled(d.held.every).Seconds()
	}
	for class := range flowctl.Class(flowctl.Classes) {
		u.Outcomes[class.String()] = s.Counts.Dials[class] + s.Counts.Sends[class]
	}
	return u
}

// stateNames are all values of UpstreamStatus.State.
var stateNames = func() (names []string) {
	for s := range flowctl.State(flowctl.States) {
		names = append(names, s.String())
	}
	return names
}()

func explainMove(m flowctl.Move) string {
	if m.Reason == "" {
		return describe(m)
	}
	return describe(m) + ": " + m.Reason
}

func (p *Proxy) journalStatus() admin.JournalStatus {
	s := p.journal.Stats()
	j := admin.JournalStatus{
		Dir: p.cfg.Journal.Dir, Bytes: s.Bytes, MaxBytes: s.MaxBytes, Segments: s.Segments,
		Syncs: uint64(s.Syncs), SyncSeconds: s.SyncSeconds, SyncFailures: uint64(s.SyncFailures), Damaged: uint64(s.Damaged),
		Swept: uint64(s.Swept), Moved: uint64(s.Moved), Quarantined: int(s.Quarantined),
	}
	if err := p.journal.Err(); err != nil {
		j.Error = err.Error()
	}
	return j
}

func (p *Proxy) frontStatus() admin.FrontStatus {
	s := p.front.Stats()
	return admin.FrontStatus{
		Connections: s.Connections, Total: s.Total, Refused: s.Refused, BareNewlines: s.BareNewlines, BareReturns: s.BareReturns,
		AcceptBounds: smtpd.AcceptBounds, AcceptSeconds: s.AcceptSeconds, AcceptSum: s.AcceptSum,
	}
}

func (p *Proxy) signingStatus() admin.SigningStatus {
	signer := p.dispatcher.lanes[0].pool.signer
	if signer == nil {
		return admin.SigningStatus{}
	}
	st := signer.Stats()
	s := admin.SigningStatus{Keys: st.Keys, Unusable: st.Unusable, Signed: st.Signed, Unsigned: map[string]uint64{}}
	for reason, n := range st.Unsigned {
		s.Unsigned[string(reason)] = n
	}
	return s
}

// pendingRows lists pending deliveries, the oldest first. The envelopes come from the journal.
func (p *Proxy) pendingRows(max int) ([]admin.Entry, error) {
	d := p.dispatcher
	var rows []queue.Row
	reasons := map[queue.Ref]string{}
	d.call(func(time.Time) {
		rows = d.queue.Rows(max)
		for _, r := range rows {
			reasons[r.Ref] = d.reasons[r.Ref]
		}
	})
	slices.SortFunc(rows, func(a, b queue.Row) int { return a.Received.Compare(b.Received) })
	entries := make([]admin.Entry, 0, len(rows))
	for _, r := range rows {
		e := admin.Entry{
			ID: r.ID.String(), Received: r.Received, State: r.State, Attempts: int(r.Tries.Attempts), Next: r.Due, Reason: reasons[r.Ref],
			Upstream: d.lanes[r.Lane].name,
		}
		p.fillIn(&e, r.ID, r.To)
		entries = append(entries, e)
	}
	return entries, nil
}

// deadRows lists dead messages, the oldest first.
func (p *Proxy) deadRows(max int) ([]admin.Entry, error) {
	var rows []corpse
	d := p.dispatcher
	d.call(func(time.Time) { rows = slices.Clone(d.dead.rows[:min(max, len(d.dead.rows))]) })
	entries := make([]admin.Entry, 0, len(rows))
	for _, r := range rows {
		e := admin.Entry{ID: r.id.String(), Size: r.size, State: "dead", Reason: r.Reply}
		p.fillIn(&e, r.id, r.Failed)
		entries = append(entries, e)
	}
	return entries, nil
}

// fillIn adds what only the journal knows. A message that has ended meanwhile keeps its row as it is.
func (p *Proxy) fillIn(e *admin.Entry, id message.ID, to []int) {
	meta, body, err := p.journal.Read(uint64(id))
	if err != nil {
		e.Reason = err.Error()
		return
	}
	_ = body.Close() // read only
	var env message.Envelope
	if err := env.UnmarshalBinary(meta); err != nil {
		e.Reason = err.Error()
		return
	}
	e.From, e.Size, e.Received = env.From, env.Size, env.Received
	for i, r := range env.To {
		if to == nil || slices.Contains(to, i) {
			e.To = append(e.To, r.Addr)
		}
	}
}
