//go:build planted

package planted

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// known is how many bugs there are at least.
const known = 39

func TestEveryPlantedBugIsCaught(t *testing.T) {
	bugs := readBugs(t, "testdata/*.txt")
	if len(bugs) < known {
		t.Errorf("%d bugs, there were %d", len(bugs), known)
	}
	g := newGarden(t, patience)
	began := time.Now()
	var mu sync.Mutex
	results := map[*bug][]caught{}
	t.Run("bug", func(t *testing.T) {
		for i, b := range bugs {
			t.Run(b.name, func(t *testing.T) {
				t.Parallel()
				if want := fmt.Sprintf("%02d-", i+1); !strings.HasPrefix(b.name, want) {
					t.Errorf("its number is not %s", want)
				}
				all, err := g.plant(b)
				if err != nil {
					t.Errorf("%s\n%v", b.what, err)
				}
				for _, c := range all {
					t.Logf("%s: %s", c.by, c.said)
				}
				mu.Lock()
				results[b] = all
				mu.Unlock()
			})
		}
	})
	n := 0
	for _, b := range bugs {
		if len(results[b]) == len(b.catches) {
			n++
		}
	}
	t.Logf("%d of %d caught, in %.0f s\n%s", n, len(bugs), time.Since(began).Seconds(), table(bugs, results))
}

func table(bugs []*bug, results map[*bug][]caught) string {
	var s strings.Builder
	w := tabwriter.NewWriter(&s, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "bug\tlayer\tcaught by\tseconds")
	for _, b := range bugs {
		name := b.name
		for i, c := range b.catches {
			by, took := "NOT CAUGHT", ""
			if _, tried := results[b]; !tried {
				by = "not tried"
			} else if i < len(results[b]) {
				by, took = results[b][i].by, fmt.Sprintf("%.2f", results[b][i].took.Seconds())
			}
			fmt.Fprintf(w, "%s\t%s\t%s %s\t%s\n", name, c.layer, strings.TrimPrefix(c.pkg, "./"), by, took)
			name = ""
		}
	}
	_ = w.Flush() // to memory
	return s.String()
}

// What is no bug, does not compile, does not fit, hangs or panics is not taken for a bug that was caught.
func TestWhatShowsNothingIsNotTakenForACatch(t *testing.T) {
	g := newGarden(t, 2*time.Second)
	for name, want := range map[string]string{
		"harmless": "not caught by",
		"broken":   "build ./proxy/message",
		"unfit":    "stands 0 times",
		"twice":    "times in proxy/message/address.go",
		"hangs":    "by no assertion",
		"panics":   "by no assertion",
		"no-test":  "without the bug",
	} {
		t.Run(name, func(t *testing.T) {
			all, err := g.plant(readBugs(t, "testdata/harness/"+name+".txt")[0])
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("caught: %+v; %v, want %q", all, err, want)
			}
		})
	}
	all, err := g.plant(readBugs(t, "testdata/harness/bug.txt")[0])
	if err != nil || len(all) != 1 || all[0].by != "TestDomainIsLowerCased" {
		t.Errorf("a real one: %+v, %v", all, err)
	}
}
