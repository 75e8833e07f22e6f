//go:build postfix

package interop

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/admin"
)

// What happens to the processes and to the disk while mail is on its way.

const (
	// slow has Postfix think about each message for a second before it takes it, so that what is to be interrupted is
	// under way for certain; fast takes it back. early does the same before it wants the content. With early, alone keeps
	// commands out of one packet with the end of the message before: Postfix holds back its 250 until it has done them too.
	slow  = "smtpd_end_of_data_restrictions=sleep 1"
	early = "smtpd_sender_restrictions=sleep 1"
	alone = "smtpd_discard_ehlo_keywords=pipelining"

	exitMailLeft = 75
	settleLimit  = 20 * time.Second
)

// load is a source that runs beside the test.
type load struct {
	reached chan struct{} // closed at so many acknowledgements, or at the end
	ended   chan source.Ledger
}

// sendBeside starts a source and tells when so many of its messages have been acknowledged.
func sendBeside(t *testing.T, cfg source.Config, acknowledged int) *load {
	l := &load{reached: make(chan struct{}), ended: make(chan source.Ledger, 1)}
	var once sync.Once
	reached := func() { once.Do(func() { close(l.reached) }) }
	cfg.Progress = func(p source.Progress) {
		if p.Acknowledged >= acknowledged {
			reached()
		}
	}
	go func() { // received by wait; it ends by its own timeouts
		sent := source.Run(t.Context(), cfg)
		reached()
		l.ended <- sent
	}()
	return l
}

func (l *load) wait() source.Ledger { return <-l.ended }

// together is several ledgers as one.
func together(ledgers ...source.Ledger) source.Ledger {
	var all source.Ledger
	for _, l := range ledgers {
		all.Records = append(all.Records, l.Records...)
	}
	return all
}

// fill sends enough to have every connection that Postfix allows wait for its answer.
func fill(t *testing.T, m mailweir) source.Ledger {
	t.Helper()
	sent := source.Run(t.Context(), source.Config{Name: "fill", Address: m.Address, Messages: 12 * stormLimit, Connections: stormLimit})
	m.AwaitStatus(t, settleLimit, "full width", func(s admin.Status) bool { return s.Upstream.Busy >= stormLimit })
	return sent
}

var fast = []string{"smtpd_end_of_data_restrictions=", "smtpd_sender_restrictions=", "smtpd_discard_ehlo_keywords="}

func TestKilledInAStormItLosesNothing(t *testing.T) {
	p := newPostfix(t, stormLimit)
	p.Configure(t, slow)
	p.Reload(t)
	m := newMailweir(t, p.Address)
	filled := fill(t, m)
	storming := sendBeside(t, source.Config{Name: "storm", Address: m.Address, Messages: 1000, Connections: 50}, 100)
	<-storming.reached
	m.Kill(t)
	stormed := storming.wait()
	if n := stormed.Count(source.Record.Acknowledged); n == 1000 {
		t.Fatal("the kill came too late")
	}
	p.Configure(t, fast...)
	p.Reload(t)
	m.Start(t)
	after := source.Run(t.Context(), source.Config{Name: "after", Address: m.Address, Messages: 50, Connections: 50})
	if n := after.Count(source.Record.Acknowledged); n != 50 {
		t.Errorf("%d of 50 acknowledged after the restart", n)
	}

	s := m.awaitEmpty(t)
	rep := arrived(t, p, together(filled, stormed, after), stormLimit)
	t.Logf("acknowledged %d, recovered %d, arrived without acknowledgement %d, twice %d, counted as possible %d",
		rep.Acknowledged, s.Queue.Recovered, rep.Surplus, len(rep.Duplicated), s.Queue.DuplicatesPossible)
	if s.Queue.Recovered == 0 {
		t.Error("nothing was left to recover, so nothing is shown")
	}
	if n := len(rep.Duplicated); uint64(n) > s.Queue.DuplicatesPossible {
		t.Errorf("%d duplicates, %d counted", n, s.Queue.DuplicatesPossible)
	}
}

func TestARelayThatGoesAndComesIsNoMatterOfTheApplication(t *testing.T) {
	p := newPostfix(t, stormLimit)
	p.Configure(t, early, alone)
	p.Reload(t)
	m := newMailweir(t, p.Address)
	filled := fill(t, m)
	storming := sendBeside(t, source.Config{Name: "storm", Address: m.Address, Messages: storm, Connections: storm}, storm/4)
	<-storming.reached
	// The connections keep step: just after the beginning of a round none has sent its content yet, so no reply gets lost.
	before := m.Status(t).Upstream.Transactions
	m.AwaitStatus(t, settleLimit, "a new round", func(s admin.Status) bool { return s.Upstream.Transactions > before })
	p.Stop(t)
	stormed := storming.wait()
	m.AwaitStatus(t, settleLimit, "notice of the outage", func(s admin.Status) bool { return s.Upstream.LastError != "" })
	during := source.Run(t.Context(), source.Config{Name: "during", Address: m.Address, Messages: storm, Connections: storm})
	p.Configure(t, fast...)
	p.Start(t)

	sent := together(filled, stormed, during)
	if n := sent.Count(source.Record.Acknowledged); n != len(sent.Records) {
		t.Errorf("%d of %d acknowledged", n, len(sent.Records))
	}
	// Should a reply have been lost after all, its message waits for minutes before it is sent again: it is counted, and pending.
	var rep source.Report
	s := m.AwaitStatus(t, arrivalLimit, "delivery", func(s admin.Status) bool {
		rep = source.Check(sent, p.sink.Ledger())
		return s.Queue.Pending <= int(s.Queue.DuplicatesPossible) && len(rep.Lost) <= s.Queue.Pending
	})
	t.Logf("arrived %d, uncertain %d, of those pending %d", rep.Arrived, s.Queue.DuplicatesPossible, s.Queue.Pending)
	if len(rep.Altered) > 0 || s.Queue.Dead > 0 {
		t.Errorf("altered %v; %+v", rep.Altered, s.Queue)
	}
	if n := len(rep.Duplicated); uint64(n) > s.Queue.DuplicatesPossible || s.Queue.DuplicatesPossible > stormLimit {
		t.Errorf("%d duplicates, %d counted, %d connections", n, s.Queue.DuplicatesPossible, stormLimit)
	}
}

func TestTerminatedWithABacklogItSaysSoAndGoesOnLater(t *testing.T) {
	p := newPostfix(t, stormLimit)
	p.Configure(t, slow)
	p.Reload(t)
	m := newMailweir(t, p.Address, "MAILWEIR_DRAIN_TIMEOUT=1s")
	first := source.Run(t.Context(), source.Config{Name: "first", Address: m.Address, Messages: 60, Connections: 20})
	if code := m.Terminate(t); code != exitMailLeft {
		t.Errorf("exit code %d with a backlog; want %d", code, exitMailLeft)
	}
	p.Configure(t, fast...)
	p.Reload(t)
	m.Set("MAILWEIR_DRAIN_TIMEOUT=30s")
	m.Start(t)
	if s := m.Status(t); s.Queue.Recovered == 0 {
		t.Errorf("nothing recovered: %+v", s.Queue)
	}
	// What comes now and what was left is delivered in the drain.
	second := source.Run(t.Context(), source.Config{Name: "second", Address: m.Address, Messages: 100, Connections: 50})
	if code := m.Terminate(t); code != 0 {
		t.Errorf("exit code %d after a drain", code)
	}
	sent := together(first, second)
	if n := sent.Count(source.Record.Acknowledged); n != len(sent.Records) {
		t.Errorf("%d of %d acknowledged", n, len(sent.Records))
	}
	arrived(t, p, sent, 0) // both ends were clean
}

func TestAFullDiskIsA452AndLosesNothing(t *testing.T) {
	const (
		room = 24 << 20 // bytes, less than the journal may take
		size = 64 << 10
	)
	journal := filepath.Join(scratch(t), "journal")
	mountTmpfs(t, journal, "size=24m")
	p := newPostfix(t, 20)
	p.Stop(t)
	m := newMailweir(t, p.Address, "MAILWEIR_JOURNAL_DIR="+journal, "MAILWEIR_JOURNAL_ALLOW_VOLATILE=true",
		"MAILWEIR_JOURNAL_MAX_BYTES=64MiB", "MAILWEIR_MAX_MESSAGE_BYTES=1MiB", "MAILWEIR_DEAD_MAX_BYTES=4MiB")
	full := source.Run(t.Context(), source.Config{Name: "full", Address: m.Address, Messages: 2 * room / size, Connections: 8, Size: size})
	for _, r := range full.Records {
		if !r.Acknowledged() && r.Code != 452 {
			t.Fatalf("neither taken nor refused with 452: %+v", r)
		}
	}
	taken := full.Count(source.Record.Acknowledged)
	t.Logf("%d of %d messages of %d octets taken by a journal on %d MiB", taken, len(full.Records), size, room>>20)
	if taken < len(full.Records)/4 || taken == len(full.Records) {
		t.Errorf("%d of %d acknowledged", taken, len(full.Records))
	}
	if s := m.Status(t); s.Ready != admin.ReadyYes {
		t.Errorf("a full disk takes the pod out of service: %s", s.Ready)
	}

	p.Start(t)
	m.awaitEmpty(t)
	arrived(t, p, full, 0)
	var again source.Ledger
	rig.Await(t, settleLimit, "acceptance", func() error {
		again = source.Run(t.Context(), source.Config{Name: "again", Address: m.Address, Messages: 20, Connections: 4, Size: size})
		if i := slices.IndexFunc(again.Records, func(r source.Record) bool { return !r.Acknowledged() }); i >= 0 {
			return errRefused(again.Records[i])
		}
		return nil
	})
	m.awaitEmpty(t)
	arrived(t, p, again, 0)
}

// mountTmpfs makes a small file system, which the test's end takes away.
func mountTmpfs(t *testing.T, dir, options string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a tmpfs, which needs CAP_SYS_ADMIN: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
