//go:build crash

package crash

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
)

// Volumes that run out of something while mail comes in, and get it back.

const (
	burstMessages    = 40
	burstConnections = 4
	burstPause       = 50 * time.Millisecond
	sickLimit        = 20 * time.Second // until everything is refused
	sickFor          = 2 * time.Second  // after that
	cureLimit        = 5 * time.Second  // until everything is accepted again
	fullRestarts     = 10

	// connections is MAILWEIR_UPSTREAM_MAX_CONNECTIONS: what was under way on them when a verdict could not be written comes again.
	connections = 8
)

// patient is a mailweir whose volume gets sick, and is cured.
type patient struct {
	w     *weir
	s     *sink
	b     *book
	burst int

	refused int
	codes   map[int]int
	cured   time.Duration // until everything was accepted again
}

func newPatient(t *testing.T, volume string) *patient {
	t.Helper()
	p := &patient{s: newSink(t, relay.Config{RTT: time.Millisecond, ServiceTime: 10 * time.Millisecond}), codes: map[int]int{}}
	p.b = &book{sinks: []*sink{p.s}}
	p.w = newWeir(t, p.s.address, filepath.Join(volume, "journal"), small...)
	p.w.set("MAILWEIR_DRAIN_TIMEOUT=500ms", "MAILWEIR_UPSTREAM_MAX_CONNECTIONS="+strconv.Itoa(connections))
	p.w.start(t)
	return p
}

// send sends a burst and returns how many were acknowledged. Whoever is not must have been refused for now, in words.
func (p *patient) send(t *testing.T, size int) int {
	t.Helper()
	p.burst++
	l := source.Run(t.Context(), source.Config{
		Address: p.w.address, Name: fmt.Sprintf("burst%d", p.burst), Messages: burstMessages, Connections: burstConnections,
		Reuse: p.burst%2 == 0, Size: size, Timeout: sourceLimit,
	})
	p.b.add(l)
	for _, r := range l.Records {
		if r.Acknowledged() {
			continue
		}
		p.refused++
		p.codes[r.Code]++
		if r.Code != 452 && r.Code != 451 {
			t.Fatalf("%s was answered %q, %v, at %s: 452 or 451 is wanted", r.XID, r.Reply, r.Err, r.Stage)
		}
	}
	return l.Count(source.Record.Acknowledged)
}

// sicken makes bursts until nothing is accepted, and some more. worse is called before each.
func (p *patient) sicken(t *testing.T, worse func()) {
	t.Helper()
	await(t, sickLimit, "mail to be refused", func() error {
		worse()
		if n := p.send(t, 3000); n > 0 {
			return fmt.Errorf("%d of %d accepted", n, burstMessages)
		}
		return nil
	})
	for end := time.Now().Add(sickFor); time.Now().Before(end); <-time.After(burstPause) {
		worse()
		p.send(t, 3000)
	}
}

// recover makes bursts until everything is accepted.
func (p *patient) recover(t *testing.T) {
	t.Helper()
	cured := time.Now()
	await(t, cureLimit, "mail to be accepted again", func() error {
		if n := p.send(t, 3000); n < burstMessages {
			return fmt.Errorf("%d of %d accepted", n, burstMessages)
		}
		return nil
	})
	p.cured = max(p.cured, time.Since(cured))
}

// discharge has everything delivered, and judges.
func (p *patient) discharge(t *testing.T, duplicates int) {
	t.Helper()
	p.s.is(takes)
	p.b.settle(t, settleLimit)
	if code := p.w.terminate(t); code != 0 {
		t.Errorf("exit code %d when everything has arrived", code)
	}
	a := p.b.account()
	t.Logf("%d acknowledged, %d refused %v, %d lost, %d twice, accepting again after %v",
		a.Acknowledged, p.refused, p.codes, len(a.Lost)+len(a.Altered), len(a.Duplicated), p.cured.Round(time.Millisecond))
	if n := len(a.Duplicated); n > duplicates {
		t.Errorf("%d arrived twice, %d may have: %s", n, duplicates, a.Duplicated[0])
	}
	if a.Acknowledged == 0 || p.refused == 0 {
		t.Error("nothing was tested")
	}
}

func TestAFullVolumeRefusesAndLosesNothing(t *testing.T) {
	for name, m := range map[string]mood{"relay takes": takes, "relay busy": isBusy, "relay refuses half": refusesHalf} {
		t.Run(name, func(t *testing.T) {
			dir := newMemoryVolume(t, "size=40m")
			p := newPatient(t, dir)
			b := &ballast{dir: dir}
			p.s.is(m)
			p.send(t, 3000)
			p.sicken(t, func() { b.add(t) })
			b.remove(t)
			p.recover(t)
			p.discharge(t, 0)
		})
	}
}

func TestAVolumeWithoutInodesRefusesAndLosesNothing(t *testing.T) {
	dir := newMemoryVolume(t, "size=60m,nr_inodes=200")
	p := newPatient(t, dir)
	b := &ballast{dir: dir, inode: true}
	p.s.is(isBusy)
	p.send(t, 3000)
	p.sicken(t, func() {
		b.add(t)
		p.send(t, 60<<10) // what is there already gets full too
	})
	b.remove(t)
	p.s.is(takes) // a journal that got full meanwhile needs that
	p.recover(t)
	p.discharge(t, 0)
}

// Restarting on a full volume must not send again and again what has been delivered and cannot be noted. The volume stays full
// all the time: whatever the journal gives free is taken at once.
func TestRestartsOnAFullVolumeRepeatLittle(t *testing.T) {
	dir := newMemoryVolume(t, "size=40m")
	p := newPatient(t, dir)
	b := &ballast{dir: dir}
	p.s.is(isBusy)
	for range 40 {
		p.send(t, 3000)
	}
	p.sicken(t, func() { b.add(t) })
	p.s.is(takes)
	full := b.keep(t)
	kills, before := 0, p.s.Counters().Taken
	for i := range fullRestarts {
		<-time.After(sickFor / fullRestarts)
		// Whoever is killed while deliveries go on may repeat those; what is looked for here are those that cannot be noted.
		taken := p.s.Counters().Taken
		if i%2 == 1 && taken == before {
			p.w.freeze(t)
			p.w.kill(t)
			kills++
		} else if code := p.w.terminate(t); code != 0 && code != 1 && code != mailLeft {
			// 1: what it had to note when it stopped could not be noted.
			t.Errorf("exit code %d on a full volume", code)
		}
		before = p.s.Counters().Taken
		p.b.crashed(time.Now(), time.Now())
		p.w.start(t)
	}
	full()
	a := p.b.account()
	t.Logf("%d restarts on the full volume, %d of them kills while nothing could be noted: %d acknowledged, %d delivered, %d twice",
		fullRestarts, kills, a.Acknowledged, a.Arrived, len(a.Duplicated))
	b.remove(t)
	p.recover(t)
	p.discharge(t, connections)
}

// A directory in which nothing may be changed is what a volume that went read-only is to those who have files open: the kernel
// refuses to make a volume read-only below them, but for errors of its own.
func TestADirectoryThatMayNotBeChangedRefusesAndLosesNothing(t *testing.T) {
	v := newVolume(t, volumeBytes)
	p := newPatient(t, v.dir)
	p.s.is(isBusy)
	p.send(t, 3000)
	chattr := func(flag string) {
		if out, err := exec.Command("chattr", "-R", "-f", flag, p.w.journal).CombinedOutput(); err != nil {
			t.Fatalf("chattr %s: %v\n%s", flag, err, out)
		}
	}
	t.Cleanup(func() { chattr("-i") })
	chattr("+i")
	p.sicken(t, func() {})
	chattr("-i")
	p.recover(t)
	p.discharge(t, connections)
}

// The kernel makes a volume read-only for good when it finds an error in it. The process stays and refuses; what it had
// acknowledged is delivered by the next one on the mended volume.
func TestAVolumeThatGoesReadOnlyRefusesAndLosesNothing(t *testing.T) {
	v := newVolume(t, volumeBytes)
	if out, err := exec.Command("mount", "-o", "remount,errors=remount-ro", v.dir).CombinedOutput(); err != nil {
		t.Fatalf("remount: %v\n%s", err, out)
	}
	p := newPatient(t, v.dir)
	for range 3 {
		p.send(t, 3000)
	}
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(v.device.Name()), "trigger_fs_error")
	if err := os.WriteFile(trigger, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	p.sicken(t, func() {})
	p.w.freeze(t)
	down := time.Now()
	p.w.kill(t)
	v.unmount(t)
	if out, err := exec.Command("e2fsck", "-fy", v.image).CombinedOutput(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 { // 1: errors were corrected
			t.Fatalf("e2fsck: %v\n%s", err, out)
		}
	}
	v.mount(t)
	p.b.crashed(down, time.Now())
	p.w.start(t)
	p.recover(t)
	p.discharge(t, connections)
}
