package journal

import "time"

type syncJob struct {
	file File
	upTo int64 // what was written below this offset is what the sync is for
}

type syncDone struct {
	upTo int64
	err  error
}

// syncFiles is the goroutine that syncs the tail. The writer goes on writing meanwhile.
func (j *Journal) syncFiles() {
	for {
		select {
		case job := <-j.unsaved:
			begun := time.Now()
			err := job.file.Sync()
			now := time.Now()
			j.count(func(s *Stats) { s.synced(now.Sub(begun), now, err) })
			j.synced <- syncDone{job.upTo, err}
		case <-j.ended:
			return
		}
	}
}
