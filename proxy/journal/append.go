package journal

import (
	"fmt"
	"slices"
)

// Append writes state records as one atomic group: all or none survive a crash. It returns when they are written
// (write(2)), which a crash of the process does not undo; against a power cut they are synced with the next batch, 50 ms
// later at most. It is safe for concurrent use; groups that queue up together are written together.
//
// Settled and Void end a message: Read finds it no more when Append returns. After a failed sync the records
// are written again, and can then come twice on replay. ErrFull only when not even the reserve is left; ErrUnavailable,
// ErrClosed; ErrTooLarge for a group above 1 MiB or an eighth of a segment. After an error of the disk the records may or may not be found.
func (j *Journal) Append(recs ...Record) error {
	for _, rec := range recs {
		if rec.ID == 0 || rec.Type == 0 || rec.Type == Accepted || rec.Type == Blob || rec.Type >= firstControl {
			return fmt.Errorf("journal: append type %d for %016x: %w", rec.Type, rec.ID, errRecord)
		}
	}
	if len(recs) == 0 {
		return nil
	}
	r := newGroup(slices.Clone(recs))
	if r.size > j.cfg.maxGroup() {
		return fmt.Errorf("journal: append %d bytes: %w", r.size, ErrTooLarge)
	}
	if err := j.submit(r); err != nil {
		return fmt.Errorf("journal: append: %w", err)
	}
	return nil
}
