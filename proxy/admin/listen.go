package admin

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// dialTimeout bounds the question whether somebody answers on a socket that is there already.
const dialTimeout = time.Second

func listenOperator(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		return listenUnix(path)
	}
	return net.Listen("tcp", addr)
}

// listenUnix makes a socket that only this user can open, at no moment anybody else: it is bound in
// a directory of mode 0700, given its mode, and only then moved to path. The move also replaces what a
// killed process left there. A socket on which somebody answers, and anything that is no socket, stay.
func listenUnix(path string) (net.Listener, error) {
	if err := checkStale(path); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".adm")
	if err != nil {
		return nil, err
	}
	l, err := bindPrivate(filepath.Join(dir, "s"), path)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := os.Remove(dir); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func bindPrivate(private, path string) (*unixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: private, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // it would remove the private name
	err = os.Chmod(private, 0o600)
	if err == nil {
		err = os.Rename(private, path)
	}
	var made os.FileInfo
	if err == nil {
		made, err = os.Lstat(path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &unixListener{UnixListener: l, path: path, made: made}, nil
}

func checkStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something that is no socket is there")
	}
	conn, err := net.DialTimeout("unix", path, dialTimeout)
	if err != nil {
		return nil // nobody answers: it is stale
	}
	return errors.Join(errors.New("another process answers there"), conn.Close())
}

// unixListener removes its socket when it is closed, unless somebody has put another one in its place.
type unixListener struct {
	*net.UnixListener
	path string
	made os.FileInfo
	once sync.Once
}

// Addr returns the path that clients use; the kernel remembers the private one.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close may be called more than once; the later calls return net.ErrClosed.
func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() { err = errors.Join(err, l.remove()) })
	return err
}

func (l *unixListener) remove() error {
	info, err := os.Lstat(l.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, l.made) {
		return nil
	}
	if err == nil {
		err = os.Remove(l.path)
	}
	if err != nil {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}
