package proxy

import (
	"time"

	"github.com/mailweir/mailweir/proxy/message"
)

// morgue lists the dead messages, oldest first: those whose bodies are kept although a recipient can never be
// delivered, until they are too old or too many.
type morgue struct {
	rows  []corpse
	bytes int64
}

type corpse struct {
	id   message.ID
	size int64
	death
}

func (m *morgue) add(id message.ID, d death, size int64) {
	m.rows = append(m.rows, corpse{id, size, d})
	m.bytes += size
}

// expire forgets the oldest while they are older than keep or all together larger than maxBytes; 0: however
// large. The newest is never too large.
func (m *morgue) expire(now time.Time, keep time.Duration, maxBytes int64, forget func(corpse)) {
	for len(m.rows) > 0 {
		oldest := m.rows[0]
		tooMany := maxBytes > 0 && m.bytes > maxBytes && len(m.rows) > 1
		if now.Sub(oldest.At) < keep && !tooMany {
			return
		}
		m.drop(forget)
	}
}

// drop forgets the oldest, if there is one.
func (m *morgue) drop(forget func(corpse)) {
	if len(m.rows) == 0 {
		return
	}
	oldest := m.rows[0]
	m.rows = m.rows[1:]
	m.bytes -= oldest.size
	forget(oldest)
}
