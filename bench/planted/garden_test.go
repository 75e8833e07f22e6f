//go:build planted

package planted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	together   = 2                // bugs at a time
	patience   = 60 * time.Second // for one test, which fails of itself after that
	buildLimit = 4 * time.Minute  // for building a test, with nothing in the cache
	grace      = 10 * time.Second // for a test to say that its time is over
)

// garden builds and runs tests, of the source as it is and with bugs planted. It is safe for concurrent use.
type garden struct {
	root     string // of the module
	scratch  string
	patience time.Duration
	places   chan struct{} // one for each bug that is at work

	mu    sync.Mutex
	built map[string]func() (string, error) // tests of the source as it is, by package
	sound map[command]func() error          // which of them pass
}

// command is what a catch runs.
type command struct{ pkg, run, flags string }

func newGarden(t *testing.T, patience time.Duration) *garden {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return &garden{root: root, scratch: t.TempDir(), patience: patience, places: make(chan struct{}, together),
		built: map[string]func() (string, error){}, sound: map[command]func() error{}}
}

// caught is what came of a planted bug.
type caught struct {
	by   string // the test that failed
	said string // its first complaint
	took time.Duration
}

// plant plants b and wants every one of its tests to catch it.
func (g *garden) plant(b *bug) (all []caught, err error) {
	g.places <- struct{}{}
	defer func() { <-g.places }()
	dir, err := os.MkdirTemp(g.scratch, b.name+"-")
	if err != nil {
		return nil, err
	}
	overlay, err := g.overlay(b, dir)
	if err != nil {
		return nil, err
	}
	programs := map[string]string{}
	for _, c := range b.catches {
		if err := g.passes(c); err != nil {
			return all, fmt.Errorf("without the bug: %w", err)
		}
		if programs[c.pkg] == "" {
			if programs[c.pkg], err = g.build(c.pkg, dir, "-overlay="+overlay); err != nil {
				return all, err
			}
		}
		got, err := g.run(c, programs[c.pkg])
		if err != nil {
			return all, fmt.Errorf("%s %s: %w", c.pkg, c.run, err)
		}
		if got.by == "" {
			return all, fmt.Errorf("not caught by %s %s", c.pkg, c.run)
		}
		all = append(all, got)
	}
	return all, os.RemoveAll(dir) // a dozen MiB each
}

// overlay writes the files that the compiler shall read in place of others, and the list of them.
func (g *garden) overlay(b *bug, dir string) (path string, err error) {
	files, err := b.apply(g.root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for original, text := range files {
		planted := filepath.Join(dir, fmt.Sprintf("%d-%s", len(replace), filepath.Base(original)))
		if err := os.WriteFile(planted, text, 0o600); err != nil {
			return "", err
		}
		replace[original] = planted
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, list, 0o600)
}

// passes wants a test to pass on the source as it is. Each is run once.
func (g *garden) passes(c catch) error {
	key := command{c.pkg, c.run, strings.Join(c.flags, " ")}
	g.mu.Lock()
	if g.built[c.pkg] == nil {
		g.built[c.pkg] = sync.OnceValues(func() (string, error) {
			dir, err := os.MkdirTemp(g.scratch, "sound-")
			if err != nil {
				return "", err
			}
			return g.build(c.pkg, dir)
		})
	}
	build := g.built[c.pkg]
	if g.sound[key] == nil {
		g.sound[key] = sync.OnceValue(func() error {
			program, err := build()
			if err != nil {
				return err
			}
			got, err := g.run(c, program)
			if err == nil && got.by != "" {
				err = fmt.Errorf("%s fails: %s", got.by, got.said)
			}
			return err
		})
	}
	run := g.sound[key]
	g.mu.Unlock()
	return run()
}

// build makes the program that go test would run.
func (g *garden) build(pkg, dir string, flags ...string) (program string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	program = filepath.Join(dir, strings.ReplaceAll(pkg, "/", "_")+".test")
	args := append([]string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-o", program}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = g.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return program, nil
}

// run runs a test where go test would, and returns who failed: nobody is no error.
func (g *garden) run(c catch, program string) (got caught, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), g.patience+grace)
	defer cancel()
	args := append([]string{"-test.failfast", "-test.timeout=" + g.patience.String(), "-test.run=" + c.run}, c.flags...)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = filepath.Join(g.root, c.pkg)
	cmd.WaitDelay = grace
	// In a group of its own, with the processes that it starts: a test that panics leaves them behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return caught{}, err
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 1 {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // an error: it has left nothing
	}
	got, err = verdict(cmd.ProcessState.ExitCode(), string(out))
	got.took = took
	return got, err
}

var (
	failed = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)
	said   = regexp.MustCompile(`(?m)^ +(\w+_test\.go:\d+: .*)`)
	broken = regexp.MustCompile(`(?m)^(panic: .*|fatal error: .*|testing: warning: no tests to run)`)
)

// bubbleEnds follows a Fatal in a bubble of testing/synctest, which ends with what still goes on in it.
const bubbleEnds = "panic: deadlock: main bubble goroutine has exited"

// verdict says which test failed and what it said, and an error where a status and an output show nothing.
func verdict(code int, out string) (got caught, err error) {
	why, at := broken.FindString(out), 0
	for _, n := range failed.FindAllStringSubmatchIndex(out, -1) { // the first, and of those within it the first of the innermost
		if name := out[n[2]:n[3]]; got.by == "" || strings.HasPrefix(name, got.by+"/") {
			got.by, at = name, n[1]
		}
	}
	complaint := said.FindStringSubmatch(out[at:])
	switch {
	case code == 0 && why == "" && got.by == "":
		return caught{}, nil
	case code == 1 && why == "" && got.by != "" && complaint != nil:
	case code == 2 && strings.HasPrefix(why, bubbleEnds) && got.by != "" && complaint != nil:
	default:
		return caught{}, fmt.Errorf("ended with %d, and by no assertion: %s\n%s", code, why, end(out))
	}
	got.said = complaint[1][:min(len(complaint[1]), shownOfOne)]
	return got, nil
}

const (
	shown      = 3000 // octets of an output
	shownOfOne = 300  // octets of a complaint
)

func end(out string) string { return out[max(0, len(out)-shown):] }
