package config

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func statVolume(dir string) (volumeFacts, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return volumeFacts{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	v := volumeFacts{
		readOnly: st.Flags&unix.ST_RDONLY != 0,
		writable: unix.Access(dir, unix.W_OK|unix.X_OK) == nil,
	}
	switch uint32(st.Type) { // the type's width and sign differ between architectures
	case unix.TMPFS_MAGIC:
		v.volatile = "tmpfs"
	case unix.RAMFS_MAGIC:
		v.volatile = "ramfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		v.volatile = "overlayfs"
	}
	return v, nil
}
