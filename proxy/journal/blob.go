package journal

import (
	"fmt"
	"slices"
)

// PutBlob keeps data under a name until it is put again; no data removes the name. It is as durable as Append. ErrTooLarge
// when it, its name or all blobs together pass their bounds (64 names, 64 KiB each, an eighth of a segment together);
// otherwise as Append. After an error either value may be found. Two calls with one name must not overlap.
func (j *Journal) PutBlob(name string, data []byte) error {
	if name == "" || len(name) > maxBlobName || len(data) > maxBlobBytes {
		return fmt.Errorf("journal: put blob %.40q of %d bytes: %w", name, len(data), ErrTooLarge)
	}
	payload := appendBlob(nil, name, data)
	r := newGroup([]Record{{Type: Blob, Payload: payload}})
	if err := j.submit(r); err != nil {
		return fmt.Errorf("journal: put blob %q: %w", name, err)
	}
	return nil
}

// Blob returns what was last put under name, nil if nothing was. The caller owns it.
func (j *Journal) Blob(name string) []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.blobs[name])
}

// admitBlob makes a blob the latest of its name, if there is room. Only the writer calls it, in the order of
// writing: what memory and disk hold cannot part.
func (j *Journal) admitBlob(payload []byte) error {
	name, data, _ := parseBlob(payload)
	j.mu.Lock()
	defer j.mu.Unlock()
	total, names := frameSize(len(payload)), 1
	for other, d := range j.blobs {
		if other != name {
			total += blobSize(other, d)
			names++
		}
	}
	if len(data) > 0 && (names > maxBlobs || total > j.cfg.SegmentBytes/segmentShare) {
		return ErrTooLarge
	}
	j.setBlob(name, data)
	return nil
}

// fitBlobs makes segments large enough for the blobs of a journal that was larger: each begins with all of them, and must have room for
// something else.
func (j *Journal) fitBlobs() error {
	var total int64
	for name, data := range j.blobs {
		total += blobSize(name, data)
	}
	if total <= j.cfg.SegmentBytes/segmentShare {
		return nil
	}
	j.cfg.SegmentBytes = max(j.cfg.SegmentBytes, total*segmentShare&^(frameAlign-1))
	if least := minSegmentsPerMax * j.cfg.SegmentBytes; j.cfg.MaxBytes < least {
		return fmt.Errorf("%d bytes of blobs, from when the journal was larger, want max bytes of %d at least: %w", total, least, ErrTooLarge)
	}
	return nil
}

func blobSize(name string, data []byte) int64 { return frameSize(2 + len(name) + len(data)) }

// setBlob wants Journal.mu held.
func (j *Journal) setBlob(name string, data []byte) {
	if len(data) == 0 {
		delete(j.blobs, name)
		return
	}
	j.blobs[name] = slices.Clone(data)
}
