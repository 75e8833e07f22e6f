package upstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mailweir/mailweir/proxy/message"
)

// The memory of a ladder: its version, one octet, and a list of (tag, length, value). A reader passes over tags it does not know.
const (
	ladderVersion = 1

	tagAddress = 1 // of the upstream
	tagWritten = 2 // 8 octets, Unix seconds
	tagRung    = 3 // level, window: an octet each
	tagUntil   = 4 // 8 octets, Unix seconds; absent: nothing is barred
	tagReason  = 5
)

// ErrMemory is what Restore returns, wrapped, for data it does not understand.
var ErrMemory = errors.New("not a memory of this version, or damaged")

// Memory returns what a restart should know of the ladder, and whether that has changed since the last call. How the upstream words its answers is
// not in it: a new process hears that from the first message, which goes with DATA.
func (c *Client) Memory(now time.Time) (data []byte, changed bool) {
	l := c.ladder
	l.mu.Lock()
	defer l.mu.Unlock()
	changed, l.changed = l.changed, false
	number := func(t time.Time) []byte { return binary.BigEndian.AppendUint64(nil, uint64(t.Unix())) }
	b := []byte{ladderVersion}
	b = message.AppendField(b, tagAddress, []byte(c.cfg.URL))
	b = message.AppendField(b, tagWritten, number(now))
	b = message.AppendField(b, tagRung, []byte{byte(l.at.level), byte(l.at.window)})
	if !l.until.IsZero() {
		b = message.AppendField(b, tagUntil, number(l.until))
		b = message.AppendField(b, tagReason, []byte(l.reason))
	}
	return b, changed
}

// Restore takes over what Memory returned, for a client before its first connection. What another upstream has shown, or this one more
// than a day ago, is not believed. On an error, which wraps ErrMemory, nothing changes.
func (c *Client) Restore(now time.Time, data []byte) error {
	m, err := parseLadder(data)
	if err != nil {
		return err
	}
	if m.address != c.cfg.URL || now.Sub(m.written) >= stepKeep {
		return nil
	}
	l := c.ladder
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.until, l.reason = m.at, m.until, m.reason
	if l.at.level == L4 && (!l.learns || l.at.window > l.widest) {
		l.at.window = l.widest
	}
	if l.at.level == L4 && l.at.window == 1 { // the settings have changed
		l.at.level = L3
	}
	return nil
}

type ladderMemory struct {
	address        string
	written, until time.Time
	at             rung
	reason         string
}

func parseLadder(b []byte) (m ladderMemory, err error) {
	bad := func(what string) (ladderMemory, error) {
		return ladderMemory{}, fmt.Errorf("upstream: restore %s: %w", what, ErrMemory)
	}
	if len(b) == 0 || b[0] != ladderVersion {
		return bad("version")
	}
	number := func(v []byte) (t time.Time, ok bool) {
		if len(v) != 8 {
			return t, false
		}
		return time.Unix(int64(binary.BigEndian.Uint64(v)), 0), true
	}
	for b = b[1:]; len(b) > 0; {
		tag, v, rest, err := message.NextField(b)
		if err != nil {
			return bad(err.Error())
		}
		b = rest
		ok := true
		switch tag {
		case tagAddress:
			m.address = string(v)
		case tagWritten:
			m.written, ok = number(v)
		case tagRung:
			if ok = len(v) == 2; ok {
				m.at = rung{Level(v[0]), int(v[1])}
			}
		case tagUntil:
			m.until, ok = number(v)
		case tagReason:
			m.reason = truncate(clean(string(v)), replyTextMax)
		}
		if !ok {
			return bad(fmt.Sprintf("field %d", tag))
		}
	}
	if m.at.level > L4 || m.at.window < 1 || m.at.window > WindowMax || m.at.level < L4 && m.at.window != 1 || m.written.IsZero() {
		return bad("impossible values")
	}
	return m, nil
}
