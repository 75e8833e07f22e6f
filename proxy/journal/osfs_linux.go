package journal

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Sync leaves out the times of the file, which nothing here depends on; length and blocks are
// covered (fdatasync(2)).
func (f osFile) Sync() error {
	return uninterrupted(func() error { return unix.Fdatasync(int(f.Fd())) })
}

// Allocate falls back to a sparse file where blocks cannot be reserved: then a full volume shows
// when a batch is written, which is survived too.
func (f osFile) Allocate(size int64) error {
	err := uninterrupted(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}

// maxInterrupts bounds the repetition of a call that signals interrupt; the runtime sends one to itself every 10 ms.
const maxInterrupts = 1000

func uninterrupted(call func() error) error {
	err := call()
	for n := 0; errors.Is(err, unix.EINTR) && n < maxInterrupts; n++ {
		err = call()
	}
	return err
}
