//go:build crash

package crash

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

// group is a cgroup with a limit on memory, of version 1 or 2 as mounted.
type group struct {
	dir   string
	limit string // file with the limit in bytes
	kills string // file in which a line says how many processes the kernel has killed for it
}

const (
	groupPrefix = "mailweir-crash-"
	killWord    = "oom_kill " // begins that line, in both versions
	groupLimit  = 10 * time.Second
)

// memoryRoot returns where memory is controlled, and whether by version 2.
func memoryRoot() (root string, second bool, err error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", false, err
	}
	for line := range bytes.Lines(mounts) {
		f := strings.Fields(string(line)) // device, directory, type, options, see fstab(5)
		if len(f) < 4 {
			continue
		}
		switch {
		case f[2] == "cgroup" && strings.Contains(","+f[3]+",", ",memory,"):
			return f[1], false, nil
		case f[2] == "cgroup2":
			has, err := os.ReadFile(filepath.Join(f[1], "cgroup.controllers"))
			if err == nil && strings.Contains(" "+strings.TrimSpace(string(has))+" ", " memory ") {
				return f[1], true, os.WriteFile(filepath.Join(f[1], "cgroup.subtree_control"), []byte("+memory"), 0)
			}
		}
	}
	return "", false, errors.New("crash: no cgroup controls memory here")
}

// newGroup makes one that is removed when the test ends, after processes of later clean-ups.
func newGroup(t *testing.T) *group {
	t.Helper()
	root, second, err := memoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	// Those of runs that did not come to their end. One in use cannot be removed.
	old, err := filepath.Glob(filepath.Join(root, groupPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range old {
		if err := os.Remove(dir); err == nil {
			t.Logf("removed %s", dir)
		}
	}
	g := &group{}
	g.dir = filepath.Join(root, groupPrefix+strconv.Itoa(os.Getpid()))
	g.limit, g.kills = "memory.limit_in_bytes", "memory.oom_control"
	if second {
		g.limit, g.kills = "memory.max", "memory.events"
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		await(t, groupLimit, "removing "+g.dir, func() error { return os.Remove(g.dir) })
	})
	return g
}

func (g *group) limitTo(t *testing.T, bytes int64) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, g.limit), []byte(strconv.FormatInt(bytes, 10)), 0); err != nil {
		t.Fatal(err)
	}
}

// killed counts the processes that the kernel has killed in it.
func (g *group) killed(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, g.kills))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, killWord); ok {
			count, err := strconv.Atoi(strings.TrimSpace(n))
			if err != nil {
				t.Fatal(err)
			}
			return count
		}
	}
	t.Fatalf("%s has no %s", g.kills, killWord)
	return 0
}

// join has a process begin in the group, so that it sees the limit when it starts.
func (g *group) join(c *exec.Cmd) {
	join := `echo $$ > "` + filepath.Join(g.dir, "cgroup.procs") + `" && exec "$0" "$@"`
	c.Path, c.Args = "/bin/sh", append([]string{"sh", "-c", join}, c.Args...)
}

var memoryKills = flag.Int("memorykills", 10, "processes that the kernel kills for want of memory")

const (
	memoryEnough = 64 << 20 // bytes, for the storm below: the limit is known to the garbage collector, and bodies spill to files
	memoryLeast  = 10 << 20 // for a start and little more
	memorySpread = 14 << 20
	memoryTries  = 3 // storms that a kill may take, on average
	memoryCrowd  = 300
)

func memoryStorm(messages int) source.Config {
	return source.Config{Messages: messages, Connections: memoryCrowd, Size: 100 << 10}
}

// TestALimitOnMemoryIsKeptTo: a storm of as many bytes as the limit is taken, and nobody is killed.
func TestALimitOnMemoryIsKeptTo(t *testing.T) {
	g := newGroup(t)
	g.limitTo(t, memoryEnough)
	r := newRig(t, relay.Config{}, "MAILWEIR_JOURNAL_MAX_BYTES=200MiB")
	r.w.prepare = g.join
	r.w.start(t)
	r.s.is(isBusy)
	r.sendAll(t, memoryStorm(2*memoryCrowd))
	anon := residentAnon(t, r.w.pid())
	a := r.close(t)
	if n := g.killed(t); n > 0 {
		t.Errorf("the kernel killed %d processes", n)
	}
	t.Logf("%d MiB of memory: %d messages at once, none killed, RssAnon %d MiB; %d acknowledged, %d lost, %d twice, %.1f s", memoryEnough>>20,
		memoryCrowd, anon>>20, a.Acknowledged, len(a.Lost), len(a.Duplicated), time.Since(r.began).Seconds())
}

// TestAKillForWantOfMemoryLosesNothing: the same storm in much less. It is the kernel that kills, at a moment that is the worst for
// whoever allocates.
func TestAKillForWantOfMemoryLosesNothing(t *testing.T) {
	g := newGroup(t)
	r := newRig(t, relay.Config{}, "MAILWEIR_JOURNAL_MAX_BYTES=200MiB")
	var lost, twice, acknowledged, kills, storms int
	for storms = 0; kills < *memoryKills && storms < memoryTries**memoryKills; storms++ {
		r.s.is([]mood{takes, isBusy}[storms%2])
		limit := memoryLeast + r.random.Int64N(memorySpread)
		g.limitTo(t, limit)
		r.w.prepare = g.join
		r.w.launch(t)
		var l *load
		if r.w.greetsOrEnds(t) {
			l = r.beside(t, memoryStorm(memoryCrowd))
			r.w.endsWithin(memoryLimit)
		}
		r.w.tell(t, syscall.SIGKILL) // if the kernel has not
		if code := r.w.wait(t, exitLimit); code != killed {
			t.Errorf("with %d bytes it ended with %d\n%s", limit, code, tail(r.w.log))
		}
		r.buried(t, l)
		kills = g.killed(t)
		r.w.prepare = nil
		if storms%4 == 3 {
			a := r.page(t, relay.Config{})
			lost, twice, acknowledged = lost+len(a.Lost), twice+len(a.Duplicated), acknowledged+a.Acknowledged
		}
	}
	a := r.close(t)
	lost, twice, acknowledged = lost+len(a.Lost), twice+len(a.Duplicated), acknowledged+a.Acknowledged
	t.Logf("killed for want of memory: %d times in %d storms, by the kernel's count; %d acknowledged, %d lost, %d twice, %.1f s",
		kills, storms, acknowledged, lost, twice, time.Since(r.began).Seconds())
	if kills < *memoryKills {
		t.Errorf("the kernel killed %d times, %d wanted", kills, *memoryKills)
	}
}

// memoryLimit is how long a storm may go on until the kernel has had enough.
const memoryLimit = 5 * time.Second
