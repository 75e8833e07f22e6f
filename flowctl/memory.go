package flowctl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// What MarshalBinary writes, big endian: version (1 byte), when (8, Unix nanoseconds), ceiling (4), gap (8),
// idle limit (8), its age (8), CRC-32 of all before (4). Durations are nanoseconds.
const (
	memoryVersion = 1
	memorySize    = 1 + 8 + 4 + 8 + 8 + 8 + 4
	ceilingKeep   = 24 * time.Hour   // an older ceiling is not believed at all
	gapHalfLife   = 10 * time.Minute // a gap halves for each such time it was not used
)

// ErrMemory is what Restore returns, wrapped, for data it does not understand.
var ErrMemory = errors.New("not a memory of this version, or damaged")

// MarshalBinary returns what is worth knowing after a restart: the ceiling and its gap, and the idle limit. It carries the time of the latest event, so that Restore knows how old it is. The error is always nil.
func (c *Controller) MarshalBinary() ([]byte, error) {
	be := binary.BigEndian
	b := make([]byte, 0, memorySize)
	b = append(b, memoryVersion)
	b = be.AppendUint64(b, uint64(c.now.UnixNano()))
	b = be.AppendUint32(b, uint32(c.ceiling))
	b = be.AppendUint64(b, uint64(c.gap))
	b = be.AppendUint64(b, uint64(c.knownIdleLimit(c.now)))
	b = be.AppendUint64(b, uint64(c.now.Sub(c.idleLimitAt)))
	return be.AppendUint32(b, crc32.ChecksumIEEE(b)), nil
}

// Restore takes over what MarshalBinary wrote, for a new controller before its first connection. An old ceiling is where slow start
// ends, no more: it is probed early, and one of more than a day is forgotten. On an error, which wraps
// ErrMemory, nothing changes.
func (c *Controller) Restore(now time.Time, data []byte) error {
	if len(data) != memorySize || data[0] != memoryVersion {
		return fmt.Errorf("flowctl: restore %d bytes: %w", len(data), ErrMemory)
	}
	be := binary.BigEndian
	body := data[:memorySize-4]
	if be.Uint32(data[len(body):]) != crc32.ChecksumIEEE(body) {
		return fmt.Errorf("flowctl: restore: checksum: %w", ErrMemory)
	}
	when := time.Unix(0, int64(be.Uint64(data[1:])))
	ceiling, gap := be.Uint32(data[9:]), time.Duration(be.Uint64(data[13:]))
	idle, idleAge := time.Duration(be.Uint64(data[21:])), time.Duration(be.Uint64(data[29:]))
	if ceiling > trackedMax || gap < 0 || idle < 0 || idleAge < 0 {
		return fmt.Errorf("flowctl: restore: impossible values: %w", ErrMemory)
	}
	now = c.advance(now)
	age := max(now.Sub(when), 0)
	c.idleLimit, c.idleLimitAt = idle, when.Add(-idleAge)
	if ceiling > 0 && age < c.cfg.scaled(ceilingKeep) {
		c.setCeiling(now, max(int(ceiling), c.established), reasonRestored, "")
		halved := min(uint(age/c.cfg.scaled(gapHalfLife)), 62)
		c.gap = min(max(gap>>halved, c.cfg.ProbeMin), c.cfg.ProbeMax)
		c.nextProbe = now.Add(c.jitter(c.cfg.ProbeMin))
		c.setWidth(now, min(c.width, float64(c.ceiling)), reasonRestored, "")
	}
	c.settle(now)
	return nil
}
