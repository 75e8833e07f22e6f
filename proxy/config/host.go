package config

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// host is what Load asks of the machine it runs on; tests answer in its place.
type host struct {
	name   func() (string, error)                // the host's name
	root   fs.FS                                 // the whole file system, for the cgroup's files
	volume func(dir string) (volumeFacts, error) // of a directory that exists
}

var thisHost = host{name: os.Hostname, root: os.DirFS("/"), volume: statVolume}

// volumeFacts is what the file system below a directory means for a journal.
type volumeFacts struct {
	volatile string // "tmpfs", "overlayfs": the name of a kind that does not outlive the container; "": it may
	readOnly bool
	writable bool // for this process
}

// existingParent is dir, or the nearest directory above it that is there: the one whose volume a directory
// made later will be on.
func existingParent(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// MemoryLimit returns the bytes that the cgroup of this process allows it (v1 or v2, the least of
// all levels), 0 when there is no limit or no cgroup.
func MemoryLimit() int64 { return cgroupLimit(thisHost.root) }

func cgroupLimit(root fs.FS) int64 {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0 // no Linux, or no /proc: nobody limits us by cgroup that we could see
	}
	var least int64
	for line := range strings.Lines(string(text)) {
		// hierarchy-ID:controller-list:cgroup-path, see cgroups(7)
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max"
		if fields[0] != "0" {
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
			if fields[1] != "memory" {
				continue
			}
		}
		least = lesserLimit(least, limitOfLevels(root, dir, fields[2], file))
	}
	return least
}

// limitOfLevels walks from the cgroup up to the mount. Inside a container without a cgroup namespace the path is
// the host's and does not exist below the mount; the mount itself then is the container's cgroup.
func limitOfLevels(root fs.FS, mount, cgroup, file string) int64 {
	var least int64
	for level := path.Clean("/" + cgroup); ; level = path.Dir(level) {
		if text, err := fs.ReadFile(root, path.Join(mount, level, file)); err == nil {
			least = lesserLimit(least, readLimit(string(text)))
		}
		if level == "/" {
			return least
		}
	}
}

// noLimit is where numbers stop being limits: cgroup v1 writes "none" as nearly 2^63.
const noLimit = 1 << 60

// readLimit returns 0 for "max", and for what is no number.
func readLimit(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n <= 0 || n >= noLimit {
		return 0
	}
	return n
}

func lesserLimit(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
