//go:build postfix

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/mailweir/mailweir/bench/rig"
)

// binary is the path of the mailweir under test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "interop: these tests must run as root: Postfix starts as root only, and a test mounts a tmpfs")
		return 1
	}
	if _, err := exec.LookPath("postfix"); err != nil {
		fmt.Fprintln(os.Stderr, "interop: Postfix is not installed: apt-get install postfix")
		return 1
	}
	dir, err := os.MkdirTemp("", "interop-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "interop:", err)
			code = 1
		}
	}()
	binary = filepath.Join(dir, "mailweir")
	if err := rig.Build(binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func scratch(t *testing.T) string { return rig.Scratch(t, "") }
