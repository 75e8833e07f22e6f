package proxy

import (
	"math"
	"slices"
	"time"

	"github.com/mailweir/mailweir/proxy/queue"
)

// How recovery keeps what became of each recipient of a message: once for all of them, until they differ.

// each changes the fate of some recipients, or of all.
func (r *recovery) each(m *recovered, some bool, to []int, change func(*fate)) {
	some = some && !isAll(to, int(m.recipients))
	p := r.parts[m.id]
	if some && (p == nil || p.fates == nil) {
		p = r.part(m)
		p.fates = slices.Repeat([]fate{m.fate}, int(m.recipients))
	}
	switch {
	case some:
		for _, i := range to {
			if i < len(p.fates) {
				change(&p.fates[i])
			}
		}
	case p != nil && p.fates != nil:
		for i := range p.fates {
			change(&p.fates[i])
		}
	default:
		change(&m.fate)
	}
}

// isAll reports whether to is 0 to n-1.
func isAll(to []int, n int) bool {
	for i := range to {
		if to[i] != i {
			return false
		}
	}
	return len(to) == n
}

// groups makes deliveries of the recipients that have not ended, in the room of buf: those with the same history and route go together. What was
// on its way at several crashes waits: see after.
func (r *recovery) groups(buf []queue.Group, m *recovered, now time.Time, pause time.Duration) []queue.Group {
	buf = buf[:0]
	p := r.parts[m.id]
	if p == nil {
		p = new(parts)
	}
	if r.oneDelivery(m, p) { // nearly always
		if m.ended {
			return buf
		}
		return append(buf, m.fate.after(now, pause).group(r.names.all[m.domain]))
	}
	type kin struct {
		fate
		lane int
	}
	at := map[kin]int{}
	for i := range int(m.recipients) {
		x, to := m.fate, m.domain
		if p.fates != nil {
			x = p.fates[i]
		}
		if p.domains != nil {
			to = p.domains[i]
		}
		if x.ended {
			continue
		}
		k := kin{x.after(now, pause), r.names.all[to].lane}
		g, ok := at[k]
		if !ok || len(buf[g].To) == r.router.most[k.lane] {
			g = len(buf)
			at[k] = g
			buf = append(buf, k.group(r.names.all[to]))
		}
		buf[g].To = append(buf[g].To, i)
	}
	for i := range buf {
		g := &buf[i]
		if p.domains != nil {
			g.Key = sharedKey(g.To, func(i int) string { return r.names.all[p.domains[i]].domain })
		}
		if len(g.To) == int(m.recipients) {
			g.To = nil
		}
	}
	return buf
}

// oneDelivery reports whether all recipients of a message share a history and a lane, and are few enough.
func (r *recovery) oneDelivery(m *recovered, p *parts) bool {
	return p.fates == nil && (m.domain != 0 || len(r.router.table) == 0) && int(m.recipients) <= r.router.most[r.names.all[m.domain].lane]
}

// after delays what was on its way at crashTries crashes: by pause, and twice as long with each further one. It forgets about fewer.
func (x fate) after(now time.Time, pause time.Duration) fate {
	if x.started < crashTries {
		x.started = 0
		return x
	}
	doublings := min(int(x.started)-crashTries, maxDoublings)
	due := now.Add(min(pause<<doublings, max(pause, maxCrashPause)))
	x.started, x.due = crashTries, max(x.due, due.UnixMicro())
	return x
}

const (
	maxCrashPause = 24 * time.Hour // else a message that kills us would do so every few minutes until it expires
	maxDoublings  = 16             // before which the longest pause is reached, or no pause is wanted
)

func (x fate) group(at place) queue.Group {
	g := queue.Group{Lane: at.lane, Key: at.domain, Tries: x.tries}
	if x.due != 0 {
		g.Due = time.UnixMicro(x.due)
	}
	return g
}

// crashes returns how often the process died while a recipient of the message was being tried.
func (r *recovery) crashes(m *recovered) (n uint8) {
	fates := []fate{m.fate}
	if p := r.parts[m.id]; p != nil && p.fates != nil {
		fates = p.fates
	}
	for _, x := range fates {
		if !x.ended {
			n = max(n, x.started)
		}
	}
	return n
}

// micros keeps the zero time as 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// up counts, and stops at the most that fits.
func up(n uint8) uint8 { return n + min(1, math.MaxUint8-n) }
