package journal

// Sync is F_FULLFSYNC: the drive's own cache is flushed too.
func (f osFile) Sync() error { return bare(f.File.Sync()) }

// Allocate makes a sparse file.
func (f osFile) Allocate(size int64) error { return f.Truncate(size) }
