//go:build linux

package rig

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Main is TestMain of tests of the real program: it builds that, stores its path in binary, and runs the tests. Where one of needs fails, all
// of them do.
func Main(m *testing.M, binary *string, needs ...func() error) {
	flag.Parse()
	code, err := run(m, binary, needs)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M, binary *string, needs []func() error) (code int, err error) {
	for _, need := range needs {
		if err := need(); err != nil {
			return 0, err
		}
	}
	dir, err := os.MkdirTemp("", "rig-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	*binary = filepath.Join(dir, "mailweir")
	if err := Build(*binary); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// NeedsPostfix fails where Postfix is not there, or cannot be started because we are not root.
func NeedsPostfix() error {
	if _, err := exec.LookPath("postfix"); err != nil {
		return errors.New("rig: Postfix is not installed: apt-get install postfix")
	}
	if os.Geteuid() != 0 {
		return errors.New("rig: only root can start Postfix")
	}
	return nil
}
