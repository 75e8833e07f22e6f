package proxy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/smtpd"
)

// accepter stands between the front door and the journal: it names messages, refuses them when there is no room, and
// tells the dispatcher of those that are safe on disk.
type accepter struct {
	journal   *journal.Journal
	log       *zap.Logger
	addresses string // hash or plain
	ids       *message.IDs
	intake    *intake
	router    *router
	refusing  atomic.Bool  // for want of room
	refusedAt atomic.Int64 // Unix nanoseconds, the last time
}

// begin is called at MAIL.
func (a *accepter) begin(env *message.Envelope, size int64) (smtpd.Draft, error) {
	if a.intake.full() {
		a.refused("the queue holds as many messages as it may")
		return nil, smtpd.ErrFull
	}
	now := time.Now()
	env.ID, env.Received = a.ids.Next(now), now
	draft, err := a.journal.Begin(uint64(env.ID), size)
	if err != nil {
		return nil, a.refusal(err)
	}
	if a.refusing.Load() && now.UnixNano()-a.refusedAt.Load() > int64(calm) && a.refusing.Swap(false) {
		a.log.Info("accepting mail again")
	}
	return &accepting{accepter: a, draft: draft}, nil
}

// refusal tells the front door what an error of the journal means for the application.
func (a *accepter) refusal(err error) error {
	switch {
	case errors.Is(err, journal.ErrFull):
		a.refused(err.Error())
		return smtpd.ErrFull
	case errors.Is(err, journal.ErrClosed):
		return smtpd.ErrClosing
	}
	return fmt.Errorf("proxy: %w", err) // answered 451, and logged, by the front door
}

// calm is how long nothing must have been refused before that is said to be over: at the limit mail is taken and refused by turns.
const calm = time.Minute

// refused says once that mail is refused, until there has been room for a while.
func (a *accepter) refused(why string) {
	a.refusedAt.Store(time.Now().UnixNano())
	if !a.refusing.Swap(true) {
		a.log.Warn("no room, mail is refused with 452", zap.String("reason", why))
	}
}

// accepting is one message on its way into the journal.
type accepting struct {
	*accepter
	draft *journal.Draft
}

func (m *accepting) Write(p []byte) (int, error) {
	n, err := m.draft.Write(p)
	if err != nil {
		err = m.refusal(err)
	}
	return n, err
}

func (m *accepting) Abort() { m.draft.Abort() }

// usualMeta is the bytes of an envelope with a recipient or two; longer ones grow.
const usualMeta = 256

// Commit returns nil when the message is synced; then, and only then, it is ours.
func (m *accepting) Commit(env *message.Envelope) error {
	meta, err := env.AppendBinary(make([]byte, 0, usualMeta))
	if err != nil {
		m.draft.Abort()
		return fmt.Errorf("proxy: %w", err)
	}
	if err := m.draft.Commit(meta); err != nil {
		return m.refusal(err)
	}
	m.intake.add(arrival{id: env.ID, received: env.Received, recipients: len(env.To), groups: m.router.groups(env)})
	m.log.Info("accepted",
		zap.Stringer("id", env.ID),
		zap.String("from", showAddress(m.addresses, env.From)),
		zap.Int("recipients", len(env.To)),
		zap.Int64("size", env.Size),
		zap.String("client", env.Client),
		zap.Duration("took", time.Since(env.Received)))
	return nil
}

// showAddress writes an address as the configuration wants it in logs.
func showAddress(how, addr string) string {
	if how == "plain" || addr == "" {
		return addr
	}
	sum := sha256.Sum256([]byte(addr))
	return hex.EncodeToString(sum[:6])
}

var addressInText = regexp.MustCompile(`[^\s<>"'(),;:]+@[^\s<>"'(),;:]+`)

// showReply is the upstream's words for the log, with the addresses in them as the configuration wants them.
func showReply(how, text string) zap.Field { return zap.String("reply", hideAddresses(how, text)) }

func hideAddresses(how, text string) string {
	if how == "plain" {
		return text
	}
	return addressInText.ReplaceAllStringFunc(text, func(a string) string { return showAddress(how, a) })
}

// intake hands accepted messages to the dispatcher without ever making the application wait for it. It holds at most
// max messages, since no more are admitted.
type intake struct {
	max     int64        // messages; 0: only the journal's size bounds them
	pending atomic.Int64 // accepted or recovered, and not ended
	signal  chan struct{}

	mu       sync.Mutex
	arrivals []arrival
}

type arrival struct {
	id         message.ID
	received   time.Time
	recipients int
	groups     []queue.Group
}

func newIntake(max int) *intake {
	return &intake{max: int64(max), signal: make(chan struct{}, 1)}
}

// full is asked at MAIL; messages that are then being received may overshoot the limit by one a connection.
func (i *intake) full() bool { return i.max > 0 && i.pending.Load() >= i.max }

func (i *intake) add(a arrival) {
	i.pending.Add(1)
	i.mu.Lock()
	i.arrivals = append(i.arrivals, a)
	i.mu.Unlock()
	select {
	case i.signal <- struct{}{}:
	default: // the dispatcher has not looked since the last one
	}
}

func (i *intake) take() []arrival {
	i.mu.Lock()
	defer i.mu.Unlock()
	a := i.arrivals
	i.arrivals = nil
	return a
}

func (i *intake) ended() { i.pending.Add(-1) }
