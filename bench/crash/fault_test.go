//go:build crash

package crash

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

// A disk that fails, by way of strace: the system call is not made, and its error is of our choice.

const (
	faultStorm  = 120 // messages
	groupsBelow = 8   // connections of a storm, and so the messages that one failed sync can concern
)

// faultLoad goes over a segment, and has bodies in files of their own.
func (r *rig) faultLoad(t *testing.T) (all source.Ledger) {
	t.Helper()
	for _, cfg := range []source.Config{
		{Messages: faultStorm, Connections: groupsBelow, Reuse: true, Size: 15 << 10},
		{Messages: groupsBelow, Connections: groupsBelow / 2, Size: bodyBytes},
	} {
		all.Records = append(all.Records, r.send(t, cfg).Records...)
	}
	return all
}

// temporary complains about an answer that would have an application give up a message.
func temporary(t *testing.T, sent source.Ledger) (acknowledged, deferred int) {
	t.Helper()
	for _, rec := range sent.Records {
		switch {
		case rec.Acknowledged():
			acknowledged++
		case rec.Code/100 == 4:
			deferred++
		default:
			t.Errorf("at %s: %s %v", rec.Stage, rec.Reply, rec.Err)
		}
	}
	return acknowledged, deferred
}

// TestAFailingDiskAcknowledgesNothingItDoesNotHave: one kind of call fails, always at first and then now and then. What was
// acknowledged arrives, what was refused does not, mail is taken again once the disk is well, and a kill changes none of it.
func TestAFailingDiskAcknowledgesNothingItDoesNotHave(t *testing.T) {
	faults := []struct {
		call, errno string
		mute        bool // nothing can be written, so nothing may be acknowledged
	}{
		{"fdatasync", "EIO", true},
		{"pwrite64", "EIO", true},
		{"pwrite64", "ENOSPC", true},
		{"fsync", "EIO", false},
		{"fallocate", "ENOSPC", false},
		{"renameat", "EIO", false},
		{"ftruncate", "EIO", false},
		{"unlinkat", "EIO", false},
		{"pread64", "EIO", false},
	}
	for _, f := range faults {
		t.Run(f.call+" "+f.errno, func(t *testing.T) { failingDisk(t, f.call, f.errno, f.mute) })
	}
}

func failingDisk(t *testing.T, call, errno string, mute bool) {
	r := newRig(t, relay.Config{})
	r.w.start(t)
	r.s.is(isBusy)
	r.sendAll(t, source.Config{Messages: 20, Connections: 4, Size: 5000})

	tr := trace(t, r.w.pid(), nil, "trace="+call, "inject="+call+":error="+errno)
	good, bad := temporary(t, r.faultLoad(t))
	if mute && good > 0 {
		t.Errorf("%d messages acknowledged though no %s succeeded", good, call)
	}
	tr.detach(t)
	pause := r.awaitAccepting(t)
	r.s.is(takes)
	r.awaitEmpty(t)

	tr = trace(t, r.w.pid(), nil, "trace="+call, "inject="+call+":error="+errno+":when=2+5")
	sometimes, refused := temporary(t, r.faultLoad(t))
	tr.detach(t)
	r.awaitAccepting(t)
	r.awaitEmpty(t)
	r.b.settle(t, settleLimit)
	if n := r.b.account().Surplus; n > 0 {
		t.Errorf("%d messages arrived that were refused", n)
	}

	r.s.is(isBusy)
	tr = trace(t, r.w.pid(), nil, "trace="+call, "inject="+call+":error="+errno+":when=2+3")
	l := r.beside(t, source.Config{Messages: faultStorm, Connections: groupsBelow, Size: 15 << 10})
	<-l.first
	<-time.After(r.moment(killMoment))
	r.kill(t, l)
	tr.detach(t)
	a := r.close(t)
	t.Logf("%s fails with %s: always: %d acknowledged, %d refused, accepts %v after; now and then: %d acknowledged, %d refused; "+
		"after the kill: %v", call, errno, good, bad, pause.Round(time.Millisecond), sometimes, refused, r.sum(a))
}

const (
	readFaults = 8  // starts
	readSpread = 12 // the n-th read of a thread fails, n up to this
	readPage   = 2  // starts after which everything must have arrived
)

// TestADiskThatCannotBeReadAtTheStartLosesNothing: mailweir may go on without what it cannot read, or refuse to start; but the next
// start, with a disk that is well, has everything.
func TestADiskThatCannotBeReadAtTheStartLosesNothing(t *testing.T) {
	for _, f := range []struct{ name, when string }{{"one read fails", "%d"}, {"from some moment on all fail", "%d+"}} {
		t.Run(f.name, func(t *testing.T) { unreadable(t, f.name, f.when) })
	}
}

func unreadable(t *testing.T, name, when string) {
	r := newRig(t, relay.Config{})
	var hit, refusing, starts, acknowledged, lost int
	for starts < readFaults && !t.Failed() {
		starts++
		runs, injected := r.startUnreadable(t, when)
		if injected {
			hit++
		}
		if !runs {
			refusing++
		}
		if starts%readPage == 0 {
			a := r.page(t, relay.Config{})
			acknowledged, lost = acknowledged+a.Acknowledged, lost+len(a.Lost)
		}
	}
	t.Logf("at the start %s: in %d of %d starts, %d of which did not run; %d acknowledged, %d lost, %.1f s", name, hit, starts, refusing,
		acknowledged, lost, time.Since(r.began).Seconds())
	if !t.Failed() && hit < readFaults/3 {
		t.Errorf("only %d of %d starts had a read fail", hit, readFaults)
	}
}

// startUnreadable leaves mail, and starts a process that cannot read all of it. It says whether that came to serve, and whether a
// read has failed.
func (r *rig) startUnreadable(t *testing.T, when string) (runs, injected bool) {
	t.Helper()
	r.w.start(t)
	r.s.is(isBusy)
	r.sendAll(t, source.Config{Messages: 30, Connections: 4, Size: 5000})
	r.sendAll(t, source.Config{Messages: 2, Connections: 2, Size: bodyBytes})
	r.kill(t, nil)
	r.w.launchStopped(t)
	inject := fmt.Sprintf("inject=pread64:error=EIO:when="+when, 1+r.random.IntN(readSpread))
	tr := trace(t, r.w.pid(), r.ownFiles(t, ""), "trace=pread64", inject)
	r.w.tell(t, syscall.SIGCONT)
	runs = r.w.greetsOrEnds(t)
	tr.detach(t)
	if runs {
		r.kill(t, nil)
	} else {
		if code := r.w.wait(t, exitLimit); code != exitFailure {
			t.Errorf("exit code %d\n%s", code, tail(r.w.log))
		}
		r.buried(t, nil)
	}
	return runs, bytes.Contains(tr.text(t), []byte("(INJECTED)"))
}

// residentAnon returns the bytes of memory of a process that are no file's.
func residentAnon(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		if value, ok := strings.CutPrefix(string(line), "RssAnon:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("the kernel does not tell RssAnon")
	return 0
}
