//go:build crash

package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// volume is an ext4 file system in a file, on a loop device. The kernel lets go of the device when this process and the
// mount are gone, however that happens.
type volume struct {
	dir     string   // where it is mounted
	image   string   // path
	device  *os.File // the loop device
	mounted bool
}

const (
	loopTries  = 100 // somebody else may take the same free device first
	mountLimit = 10 * time.Second

	// EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (fs/ext4/ext4.h): from now on nothing reaches the device any more, and
	// what its journal holds in memory is not written either.
	ioctlShutdown = 0x8004587d
	noLogFlush    = 2
)

// newVolume makes and mounts a file system of so many bytes.
func newVolume(t *testing.T, bytes int64) *volume {
	t.Helper()
	dir := scratch(t)
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, bytes); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-m", "0", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	v := &volume{dir: filepath.Join(dir, "mnt"), image: image}
	if err := os.Mkdir(v.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if v.mounted {
			v.unmount(t)
		}
	})
	v.mount(t)
	return v
}

// attach finds a free loop device for an image. The device is given back when it is closed and nothing is mounted from it.
func attach(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	var last error
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("crash: find a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		last = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR},
		})
		if last == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(last, unix.EBUSY) {
			break
		}
	}
	return nil, fmt.Errorf("crash: attach a loop device: %w", last)
}

// mount replays the file system's journal if there is something in it.
func (v *volume) mount(t *testing.T) {
	t.Helper()
	device, err := attach(v.image)
	if err != nil {
		t.Fatal(err)
	}
	v.device = device
	if err := unix.Mount(v.device.Name(), v.dir, "ext4", 0, ""); err != nil {
		t.Fatalf("mount %s: %v", v.device.Name(), err)
	}
	v.mounted = true
}

// unmount waits for the last file to be closed. It gives the device back as well, and so whatever the kernel remembers of its
// content is gone: the next mount sees what was written to the image.
func (v *volume) unmount(t *testing.T) {
	t.Helper()
	await(t, mountLimit, "unmounting "+v.dir, func() error { return unix.Unmount(v.dir, 0) })
	v.mounted = false
	if err := v.device.Close(); err != nil {
		t.Error(err)
	}
}

// sync writes everything.
func (v *volume) sync(t *testing.T) {
	t.Helper()
	dir, err := os.Open(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		t.Fatal(err)
	}
}

// powerOff is the moment from which nothing that is written gets to the disk. Whoever writes has to be stopped before: a sync
// that runs at the same time may report success for what is lost.
func (v *volume) powerOff(t *testing.T) {
	t.Helper()
	dir, err := os.Open(v.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), ioctlShutdown, noLogFlush); err != nil {
		t.Fatalf("shut %s down: %v", v.dir, err)
	}
}

// powerOn mounts what the disk has after powerOff, once nobody holds a file any more.
func (v *volume) powerOn(t *testing.T) {
	t.Helper()
	v.unmount(t)
	v.mount(t)
}

// fsck fails the test when the file system itself is broken, which would explain anything.
func (v *volume) fsck(t *testing.T) {
	t.Helper()
	v.unmount(t)
	out, err := exec.Command("e2fsck", "-fn", v.image).CombinedOutput()
	if err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	v.mount(t)
}

// newMemoryVolume mounts a tmpfs with options, until the test ends.
func newMemoryVolume(t *testing.T, options string) string {
	t.Helper()
	dir := filepath.Join(scratch(t), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("crash", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a tmpfs with %s: %v", options, err)
	}
	t.Cleanup(func() {
		await(t, mountLimit, "unmounting "+dir, func() error { return unix.Unmount(dir, 0) })
	})
	return dir
}
