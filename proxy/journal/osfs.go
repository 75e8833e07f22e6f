//go:build linux || darwin

package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	lockName = "lock"
	fileMode = 0o600
	dirMode  = 0o700
)

// osFS is a directory of the operating system's file system.
type osFS struct{ dir string }

func (d osFS) Lock() (io.Closer, error) {
	if err := d.make(); err != nil {
		return nil, err
	}
	f, err := d.open(lockName, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	// flock goes away with the process, however that ends; a file with a process number would stay.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// make creates the directory, and those above it, and makes their names durable; nothing in it would be otherwise.
func (d osFS) make() error {
	switch info, err := os.Stat(d.dir); {
	case err == nil && !info.IsDir():
		return unix.ENOTDIR
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	parent := osFS{filepath.Dir(d.dir)}
	if parent != d {
		if err := parent.make(); err != nil {
			return err
		}
	}
	if err := os.Mkdir(d.dir, dirMode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return parent.SyncDir()
}

// open never follows a symbolic link: whoever may write to the directory must not choose our files.
func (d osFS) open(name string, flag int) (osFile, error) {
	f, err := os.OpenFile(filepath.Join(d.dir, name), flag|unix.O_NOFOLLOW, fileMode)
	return osFile{f}, bare(err)
}

func (d osFS) Create(name string) (File, error) {
	f, err := d.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d osFS) Open(name string, write bool) (File, error) {
	flag := os.O_RDONLY
	if write {
		flag = os.O_RDWR
	}
	f, err := d.open(name, flag)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d osFS) Rename(from, to string) error {
	return bare(os.Rename(filepath.Join(d.dir, from), filepath.Join(d.dir, to)))
}

func (d osFS) Remove(name string) error { return bare(os.Remove(filepath.Join(d.dir, name))) }

func (d osFS) List() ([]FileInfo, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, bare(err)
	}
	var files []FileInfo
	for _, e := range entries {
		if !e.Type().IsRegular() || e.Name() == lockName {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed since, by the process whose journal it is
		}
		if err != nil {
			return nil, bare(err)
		}
		files = append(files, FileInfo{e.Name(), info.Size()})
	}
	return files, nil
}

func (d osFS) SyncDir() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return bare(err)
	}
	return errors.Join(bare(f.Sync()), f.Close())
}

func (d osFS) Space() (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.dir, &st); err != nil {
		return 0, 0, fmt.Errorf("statfs: %w", err)
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil
}

// osFile adds to os.File what package os does not have.
type osFile struct{ *os.File }

// bare takes the path out of an error of package os: the caller names the file.
func bare(err error) error {
	var path *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

func (f osFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteAt(p, off)
	return n, bare(err)
}

func (f osFile) Truncate(size int64) error { return bare(f.File.Truncate(size)) }
