package flowctl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"
)

// What MarshalBinary writes, big endian, numbers of 8 bytes, durations in nanoseconds and ages before the time of writing, -1 for never:
// version (1 byte); the time (Unix); ceiling, gap; idle limit, its age; age of the last refusal; age of the last place lost; ceiling
// of the rate (IEEE 754), gap between its probes; session cap, its age; length of a bucket of the quota, number of the newest,
// how many follow, oldest first (recipients, 4 bytes each); CRC-32 of all before (4 bytes).
const (
	memoryVersion = 2
	memoryNumbers = 14
	memoryLeast   = 1 + 8*memoryNumbers + 4
	ceilingKeep   = 24 * time.Hour   // an older ceiling is not believed at all
	gapHalfLife   = 10 * time.Minute // a gap halves for each such time it was not used
)

// ErrMemory is what Restore returns, wrapped, for data it does not understand.
var ErrMemory = errors.New("not a memory of this version, or damaged")

// MarshalBinary returns what is worth knowing after a restart: the ceilings of connections and rate, and what else the upstream
// showed of its limits, and the quota used. It carries the time of the latest event, so that Restore knows how old it is. The error is always nil.
func (c *Controller) MarshalBinary() ([]byte, error) {
	be := binary.BigEndian
	b := append(make([]byte, 0, memoryLeast), memoryVersion)
	number := func(n int64) { b = be.AppendUint64(b, uint64(n)) }
	age := func(t time.Time) {
		if t.IsZero() {
			number(-1)
			return
		}
		number(int64(max(c.now.Sub(t), 0)))
	}
	number(c.now.UnixNano())
	number(int64(c.ceiling))
	number(int64(c.gap))
	number(int64(c.knownIdleLimit(c.now)))
	age(c.idleLimitAt)
	age(c.refusedAt)
	age(c.lease.lost)
	number(int64(math.Float64bits(c.pace.ceiling)))
	number(int64(c.pace.gap))
	number(int64(c.sessionCap(c.now)))
	age(c.cap.at)
	number(c.bucket())
	number(c.quota.newest)
	buckets := 0
	if c.quota.total > 0 {
		buckets = quotaBuckets
	}
	number(int64(buckets))
	for i := range buckets {
		b = be.AppendUint32(b, c.quota.used[(c.quota.newest+1+int64(i))%quotaBuckets])
	}
	return be.AppendUint32(b, crc32.ChecksumIEEE(b)), nil
}

// memory is what MarshalBinary wrote.
type memory struct {
	when                   time.Time
	ceiling, cap           int64
	gap, idle, rateGap     time.Duration
	idleAt, refused, lost  time.Time // zero: never
	capAt                  time.Time
	rate                   float64
	bucket, newest, number int64
	used                   []byte
}

// parseMemory checks everything, so that whoever takes it over need not.
func parseMemory(data []byte) (m memory, err error) {
	be := binary.BigEndian
	if len(data) < memoryLeast || data[0] != memoryVersion {
		return m, fmt.Errorf("flowctl: restore %d bytes: %w", len(data), ErrMemory)
	}
	body := data[:len(data)-4]
	if be.Uint32(data[len(body):]) != crc32.ChecksumIEEE(body) {
		return m, fmt.Errorf("flowctl: restore: checksum: %w", ErrMemory)
	}
	at := 1
	sound := true
	number := func(least, most int64) int64 {
		n := int64(be.Uint64(body[at:]))
		at += 8
		sound = sound && n >= least && n <= most
		return n
	}
	ago := func() time.Time {
		n := number(-1, math.MaxInt64)
		if n < 0 {
			return time.Time{}
		}
		return m.when.Add(-time.Duration(n))
	}
	m.when = time.Unix(0, number(math.MinInt64, math.MaxInt64))
	m.ceiling = number(0, trackedMax)
	m.gap = time.Duration(number(0, math.MaxInt64))
	m.idle = time.Duration(number(0, math.MaxInt64))
	m.idleAt, m.refused, m.lost = ago(), ago(), ago()
	m.rate = math.Float64frombits(uint64(number(math.MinInt64, math.MaxInt64)))
	m.rateGap = time.Duration(number(0, math.MaxInt64))
	m.cap = number(0, math.MaxInt32)
	m.capAt = ago()
	m.bucket, m.newest, m.number = number(1, math.MaxInt64), number(0, math.MaxInt64), number(0, quotaBuckets)
	m.used = body[at:]
	if !sound || !(m.rate >= 0) || math.IsInf(m.rate, 0) || int64(len(m.used)) != 4*m.number {
		return m, fmt.Errorf("flowctl: restore: impossible values: %w", ErrMemory)
	}
	return m, nil
}

// Restore takes over what MarshalBinary wrote, for a new controller before its first connection. An old ceiling is where slow start
// ends, no more: it is probed early, and one of more than a day is forgotten. On an error, which wraps
// ErrMemory, nothing changes.
func (c *Controller) Restore(now time.Time, data []byte) error {
	m, err := parseMemory(data)
	if err != nil {
		return err
	}
	now = c.advance(now)
	age := max(now.Sub(m.when), 0)
	c.idleLimit, c.idleLimitAt = m.idle, earlier(m.idleAt, now)
	c.refusedAt = earlier(m.refused, now)
	c.cap.most, c.cap.at = int(m.cap), earlier(m.capAt, now)
	c.restoreQuota(now, &m)
	if age < c.cfg.scaled(ceilingKeep) {
		c.restoreCeilings(now, age, &m)
	}
	c.settle(now)
	return nil
}

func (c *Controller) restoreCeilings(now time.Time, age time.Duration, m *memory) {
	if !m.lost.IsZero() && age < c.cfg.scaled(quietTime) {
		c.lease.lost = earlier(m.lost, now)
	}
	if m.ceiling > 0 {
		c.setCeiling(now, max(int(m.ceiling), c.established), reasonRestored, "")
		halved := min(uint(age/c.cfg.scaled(gapHalfLife)), 62)
		c.gap = min(max(m.gap>>halved, c.cfg.ProbeMin), c.cfg.ProbeMax)
		c.nextProbe = now.Add(c.jitter(c.cfg.ProbeMin))
		c.setWidth(now, min(c.width, float64(c.ceiling)), reasonRestored, "")
	}
	if m.rate > 0 {
		c.pace.ceiling, c.pace.gap = max(m.rate, rateLeast), min(max(m.rateGap, c.cfg.scaled(rateProbeMin)), c.cfg.scaled(rateProbeMax))
		c.rateMoved(now, 0, reasonRestored, "")
	}
}

// earlier returns t, but no later than now: a clock that was ahead when it was read must not make a belief outlast its time.
func earlier(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

// restoreQuota takes over what was used, unless the buckets had another length: then the time scale has changed, in a test. What a
// clock that was ahead has counted is dated now: a day later it is forgotten, and not before.
func (c *Controller) restoreQuota(now time.Time, m *memory) {
	if m.bucket != c.bucket() || m.number == 0 {
		return
	}
	m.newest = min(m.newest, max(now.UnixNano()/m.bucket, 0))
	c.quota = quota{newest: m.newest}
	for i := range m.number {
		n := binary.BigEndian.Uint32(m.used[4*i:])
		c.quota.used[(m.newest+1+quotaBuckets-m.number+i)%quotaBuckets] = n
		c.quota.total += int64(n)
	}
	c.quota.roll(now, m.bucket)
}
