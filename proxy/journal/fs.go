package journal

import "io"

// FS is one directory as the journal uses it, and the place where tests put faults. Names have no
// slash. It must be safe for concurrent use.
type FS interface {
	// Lock creates the directory if need be and takes it for this process; ErrLocked when another has it.
	Lock() (io.Closer, error)
	// Create makes a file that must not exist, for reading and writing.
	Create(name string) (File, error)
	// Open opens a file that must exist; for writing too if write is true.
	Open(name string, write bool) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	// List returns the regular files.
	List() ([]FileInfo, error)
	// SyncDir makes what Create, Rename and Remove did durable.
	SyncDir() error
	// Space returns the bytes of the volume that we may still use, and all it has.
	Space() (free, total int64, err error)
}

// File is an open file. Reads may run beside writes and syncs.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync makes the content and the length durable, not the name.
	Sync() error
	Truncate(size int64) error
	// Allocate makes the file size bytes long, and takes the blocks for it from the volume if it can.
	Allocate(size int64) error
	io.Closer
}

// FileInfo is one entry of List.
type FileInfo struct {
	Name string
	Size int64 // bytes
}
