package journal

import (
	"errors"
	"fmt"
)

// Config says where a journal is and how large it may grow.
type Config struct {
	Dir          string // the directory; created with mode 0700
	MaxBytes     int64  // bytes of all its files together, beyond which no message is begun; 0: 1 GiB
	SegmentBytes int64  // bytes of one segment; 0: the lesser of 64 MiB and MaxBytes/16
	InlineBytes  int64  // a larger body gets a file of its own; 0: 256 KiB, at most SegmentBytes/8
	FS           FS     // nil: Dir on the operating system's file system
}

const (
	defaultMaxBytes     = 1 << 30
	defaultSegmentBytes = 64 << 20
	defaultInlineBytes  = 256 << 10

	minSegmentBytes   = 4 << 10
	maxSegmentBytes   = 1 << 30 // an offset fits the 32 bits it has in the index
	maxInlineBytes    = 1 << 20
	segmentsPerMax    = 16
	segmentShare      = 8            // one group of records, one meta, one body, all blobs: each at most this part of a segment
	minSegmentsPerMax = 4 + reserves // tail, reserves, a spare, and room for something to be freed
)

// Validate reports every fault of the configuration.
func (c Config) Validate() error {
	var faults []error
	c = c.filled()
	if c.Dir == "" && c.FS == nil {
		faults = append(faults, errors.New("journal: dir: must not be empty"))
	}
	if c.SegmentBytes < minSegmentBytes || c.SegmentBytes > maxSegmentBytes {
		faults = append(faults, fmt.Errorf("journal: segment bytes: %d is not between %d and %d", c.SegmentBytes, minSegmentBytes, maxSegmentBytes))
	}
	if c.MaxBytes < minSegmentsPerMax*c.SegmentBytes || c.MaxBytes < minSegmentsPerMax*minSegmentBytes {
		faults = append(faults, fmt.Errorf("journal: max bytes: %d is less than %d segments of %d bytes",
			c.MaxBytes, minSegmentsPerMax, max(c.SegmentBytes, minSegmentBytes)))
	}
	if c.InlineBytes < 0 || c.InlineBytes > maxInlineBytes {
		faults = append(faults, fmt.Errorf("journal: inline bytes: %d is not between 0 and %d", c.InlineBytes, maxInlineBytes))
	}
	return errors.Join(faults...)
}

// filled returns c with its zero values replaced. A segment is rounded down to whole frames.
func (c Config) filled() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = defaultMaxBytes
	}
	if c.SegmentBytes == 0 {
		c.SegmentBytes = min(defaultSegmentBytes, c.MaxBytes/segmentsPerMax)
	}
	c.SegmentBytes &^= frameAlign - 1
	if c.InlineBytes == 0 {
		c.InlineBytes = defaultInlineBytes
	}
	c.InlineBytes = min(c.InlineBytes, c.SegmentBytes/segmentShare)
	return c
}

// maxMeta is the longest meta of a message, and maxGroup the longest atomic group, in bytes.
func (c Config) maxMeta() int64  { return min(maxMetaBytes, c.SegmentBytes/segmentShare) }
func (c Config) maxGroup() int64 { return min(maxGroupBytes, c.SegmentBytes/segmentShare) }

// maxMove is the longest copy of a message with its history: it fits every new segment, whatever that begins with.
func (c Config) maxMove() int64 {
	beginning := segmentStart + 2*batchHeader + frameSize(sealedKept*sealBytes) + c.SegmentBytes/segmentShare
	return min(c.SegmentBytes/2, c.SegmentBytes-beginning)
}
