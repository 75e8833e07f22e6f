//go:build planted

package planted

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// bug is one file of testdata.
type bug struct {
	name    string // of the file, without its suffix
	what    string // in a sentence
	catches []catch
	changes []change
}

// catch is a test that must fail when the bug is planted, and pass when it is not.
type catch struct {
	layer string   // what kind of test it is
	pkg   string   // relative to the root, as "./proxy"
	run   string   // pattern
	flags []string // of the test's own
}

// change replaces a text that stands in a file exactly once.
type change struct {
	file     string // relative to the root
	old, new []byte // whole lines
}

// layers are the kinds of tests, the cheapest first.
var layers = []string{"unit", "dialog", "scripted relay", "crash states", "real process"}

const becomes = "becomes" // the section with the new text

// readBug reads a file: the sentence, lines with "caught by:", and for each change a section with the old text, named after its
// file, and one with the new.
func readBug(path string) (*bug, error) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		return nil, err
	}
	b := &bug{name: strings.TrimSuffix(filepath.Base(path), ".txt")}
	for line := range strings.Lines(string(a.Comment)) {
		line = strings.TrimSpace(line)
		by, ok := strings.CutPrefix(line, "caught by:")
		if !ok {
			b.what = strings.TrimSpace(b.what + " " + line)
			continue
		}
		c, err := parseCatch(by)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		b.catches = append(b.catches, c)
	}
	for ; len(a.Files) >= 2 && a.Files[1].Name == becomes; a.Files = a.Files[2:] {
		b.changes = append(b.changes, change{a.Files[0].Name, a.Files[0].Data, a.Files[1].Data})
	}
	if b.what == "" || len(b.catches) == 0 || len(b.changes) == 0 || len(a.Files) > 0 {
		return nil, fmt.Errorf("%s: want a sentence, who catches it, and pairs of old and new text", path)
	}
	return b, nil
}

// parseCatch reads "unit: ./proxy -run TestThis -states 100".
func parseCatch(s string) (catch, error) {
	layer, command, _ := strings.Cut(strings.TrimSpace(s), ": ")
	words := strings.Fields(command)
	if !slices.Contains(layers, layer) || len(words) < 3 || words[1] != "-run" {
		return catch{}, fmt.Errorf("caught by %q: want a layer of %q, a package, -run and a pattern", s, layers)
	}
	return catch{layer, words[0], words[2], words[3:]}, nil
}

// apply returns the planted text of each file that is changed.
func (b *bug) apply(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, c := range b.changes {
		path := filepath.Join(root, c.file)
		text, done := files[path]
		if !done {
			var err error
			if text, err = os.ReadFile(path); err != nil {
				return nil, err
			}
		}
		if n := bytes.Count(text, c.old); n != 1 {
			return nil, fmt.Errorf("the plant does not fit any more: its text stands %d times in %s", n, c.file)
		}
		files[path] = bytes.Replace(text, c.old, c.new, 1)
	}
	return files, nil
}

// readBugs reads all files of a directory that match, sorted by name.
func readBugs(t *testing.T, pattern string) (bugs []*bug) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no bugs in %s: %v", pattern, err)
	}
	for _, path := range paths {
		b, err := readBug(path)
		if err != nil {
			t.Fatal(err)
		}
		bugs = append(bugs, b)
	}
	return bugs
}
