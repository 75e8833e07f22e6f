//go:build postfix

package interop

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mailweir/mailweir/bench/rig"
)

// unpacked returns a directory with the files of Debian packages, which are not installed: mail servers exclude each other, and none is to
// run with a configuration of this machine's. They are fetched once.
func unpacked(t *testing.T, packages ...string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	// Servers give up root before they read their own files, so these are not below a home directory.
	dir := filepath.Join(scratch(t), "unpacked")
	debs := filepath.Join(cache, "mailweir-interop", "debs")
	for _, d := range []string{dir, debs} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range packages {
		pattern := filepath.Join(debs, name+"_*.deb")
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 0 {
			fetch := "cd " + debs + " && apt-get -q download -o APT::Sandbox::User=root " + name
			if out, err := rig.Command(fetchLimit, "sh", "-c", fetch); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if found, err = filepath.Glob(pattern); err != nil || len(found) == 0 {
				t.Fatalf("apt-get brought no %s: %v", pattern, err)
			}
		}
		if _, err := rig.Command(fetchLimit, "dpkg", "-x", found[len(found)-1], dir); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
