//go:build crash

package crash

import (
	"cmp"
	"fmt"
	"strings"
)

// stage is what a process is doing when a tracer comes.
type stage string

const (
	starting stage = "start"  // it recovers what a killed one has left
	taking   stage = "accept" // the sink is busy: only mail comes in
	giving   stage = "settle" // only mail goes out
	closing  stage = "close"  // it drains and ends
)

var stages = []stage{starting, taking, giving, closing}

// site is a place where the journal calls the kernel.
type site struct {
	phase string // the stage, or "rotate" or "free" for what happens in the middle of one
	call  string
	file  string // kind of file
}

func (s site) String() string { return fmt.Sprintf("%-7s %-10s %s", s.phase, s.call, s.file) }

// siteOf says where a call was made; ok is false for a file that is not the journal's.
func siteOf(st stage, dir string, c call) (s site, ok bool) {
	name, inside := strings.CutPrefix(c.path, dir)
	if !inside {
		return site{}, false
	}
	s = site{phase: string(st), call: c.name, file: "directory"}
	if name = strings.TrimPrefix(name, "/"); name != "" {
		_, s.file, _ = strings.Cut(name, ".")
		s.file = cmp.Or(s.file, name)
	}
	switch {
	case st == starting || st == closing:
	case strings.HasSuffix(s.file, "tmp") || c.name == "ftruncate":
		s.phase = "rotate"
	case c.name == "unlinkat" || c.name == "renameat":
		s.phase = "free"
	}
	return s, true
}

// tells is whether the files of a site are known before its stage: then only calls on those count. The names of messages are not.
func tells(st stage, s site) bool { return st != taking || s.file != "body" }

// sitesOf lists the sites of a trace, in its order, with the aims that would have hit each: a kill comes when the first thread
// gets to n calls of a name, on all files or on those of the same kind.
func sitesOf(st stage, dir string, calls []call) (seen []site, aims map[site][]aim) {
	type counter struct{ name, file, thread string }
	type shadow struct {
		name, file string
		n          int
	}
	aims = map[site][]aim{}
	counts := map[counter]int{}
	first := map[shadow]bool{}
	for _, c := range calls {
		s, ok := siteOf(st, dir, c)
		kinds := []string{""}
		if ok {
			kinds = append(kinds, s.file)
			seen = append(seen, s)
		}
		for _, kind := range kinds {
			key := counter{c.name, kind, c.thread}
			counts[key]++
			late := first[shadow{c.name, kind, counts[key]}]
			first[shadow{c.name, kind, counts[key]}] = true
			if ok && !late && tells(st, s) == (kind != "") {
				aims[s] = append(aims[s], aim{c.name, counts[key]})
			}
		}
	}
	return seen, aims
}

// aim is where the kill is to come: at the n-th call of that name by any one thread.
type aim struct {
	name string
	n    int
}
