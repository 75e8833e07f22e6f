//go:build crash

package crash

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

const (
	fewFiles   = 5 // less than it has open
	fileRounds = 5
	fileWait   = 2 * time.Second // for an answer from a process that cannot open a connection
)

// limitFiles changes how many files a process may have open, and returns what it was.
func limitFiles(t *testing.T, pid int, n uint64) uint64 {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: n, Max: max(n, old.Max)}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	return old.Cur
}

func openFiles(t *testing.T, pid int) uint64 {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	if err != nil {
		t.Fatal(err)
	}
	return uint64(len(entries))
}

// TestWithoutFileDescriptorsNothingIsLost: no connection can be accepted, no segment made, no message opened; who is
// connected already hears a temporary refusal or 250, and when the limit is lifted everything goes on by itself.
func TestWithoutFileDescriptorsNothingIsLost(t *testing.T) {
	r := newRig(t, relay.Config{})
	r.w.start(t)
	var refusals, unanswered, good int
	slowest := time.Duration(0)
	for n := range fileRounds {
		r.s.is([]mood{takes, isBusy}[n%2])
		l := r.beside(t, source.Config{Messages: 300, Connections: 10, Reuse: true, Size: 15 << 10})
		<-l.first
		room := uint64(0)
		if n%2 == 0 { // enough for some of what it does
			room = openFiles(t, r.w.pid()) - fewFiles
		}
		before := limitFiles(t, r.w.pid(), max(room, fewFiles))
		large := r.storm(source.Config{Messages: 5, Connections: 5, Size: bodyBytes})
		large.Timeout = fileWait
		sent := source.Run(t.Context(), large)
		sent.Records = append(sent.Records, (<-l.ended).Records...)
		l.cancel()
		for _, rec := range sent.Records {
			switch {
			case rec.Acknowledged():
				good++
			case rec.Err != nil:
				unanswered++
			case rec.Code/100 == 4:
				refusals++
			default:
				t.Errorf("at %s: %s", rec.Stage, rec.Reply)
			}
		}
		r.b.add(sent)
		limitFiles(t, r.w.pid(), before)
		slowest = max(slowest, r.awaitAccepting(t))
		if n == fileRounds-1 {
			r.kill(t, nil)
		}
	}
	a := r.close(t)
	t.Logf("no file descriptors: %d rounds, %d acknowledged, %d refused for now, %d not answered, accepts within %v after; %v",
		fileRounds, good, refusals, unanswered, slowest.Round(time.Millisecond), r.sum(a))
	if refusals == 0 {
		t.Error("nothing was refused: the limit was not felt")
	}
}

// goFiles is what the Go runtime needs for itself; with less it ends before main.
const goFiles = 8

// TestFewFileDescriptorsFromTheStart: it starts and serves, or says why not and loses nothing that an earlier one has.
func TestFewFileDescriptorsFromTheStart(t *testing.T) {
	r := newRig(t, relay.Config{})
	r.s.is(isBusy)
	r.w.start(t)
	r.sendAll(t, source.Config{Messages: 100, Connections: 4, Size: 15 << 10}) // two segments, waiting
	r.sendAll(t, source.Config{Messages: 2, Size: bodyBytes})
	r.kill(t, nil)
	refusing, serving := 0, 0
	for limit := uint64(goFiles); limit <= 40; limit += 1 + limit/10 {
		r.w.launchStopped(t)
		var old unix.Rlimit
		if err := unix.Prlimit(r.w.pid(), unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, &old); err != nil {
			t.Fatal(err)
		}
		r.w.tell(t, unix.SIGCONT)
		alive := r.w.greetsWithin(t, time.Second)
		if alive {
			serving++
			l := r.beside(t, source.Config{Messages: 30, Connections: 3, Reuse: true, Size: 5000})
			<-time.After(killMoment)
			r.kill(t, l)
			continue
		}
		refusing++
		if r.w.ended() {
			code := r.w.wait(t, exitLimit)
			said, err := os.ReadFile(r.w.log)
			if err != nil {
				t.Fatal(err)
			}
			if code != exitFailure || !bytes.Contains(said, []byte("too many open files")) {
				t.Errorf("with %d files: exit code %d\n%s", limit, code, tail(r.w.log))
			}
			r.buried(t, nil)
		} else {
			r.kill(t, nil)
		}
	}
	a := r.close(t)
	t.Logf("few file descriptors from the start: %d starts without service, %d with; %v", refusing, serving, r.sum(a))
}
