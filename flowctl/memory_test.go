package flowctl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
	"time"
)

// learned returns a flow that has learnt one of everything, at 1000 s.
func learned(t *testing.T) *flow {
	f := newFlow(t, Config{RecipientsPerDay: 1000})
	f.connect(0, 4)
	f.dial(900, 900.1, Busy)
	f.gap = 40 * time.Second
	f.refusedAt, f.lease.lost = at(910), at(990)
	f.idleLimit, f.idleLimitAt = 2*time.Second, at(600)
	f.pace.ceiling, f.pace.gap = 12.5, 40*time.Second
	f.cap = sessionCap{most: 50, at: at(700)}
	f.SendStart(at(1000), 1, 1, 33)
	f.done(1000, 1, OK)
	return f
}

func memoryOf(t *testing.T, f *flow) []byte {
	t.Helper()
	data, err := f.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestARestartForgetsNothingThatIsWorthKnowing(t *testing.T) {
	f := learned(t)
	g := newFlow(t, Config{RecipientsPerDay: 1000})
	if err := g.Restore(at(1000), memoryOf(t, f)); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string][2]any{
		"ceiling": {f.ceiling, g.ceiling}, "gap": {f.gap, g.gap}, "idle limit": {f.idleLimit, g.idleLimit},
		"idle limit since": {f.idleLimitAt.UnixNano(), g.idleLimitAt.UnixNano()}, "refused": {f.refusedAt.UnixNano(), g.refusedAt.UnixNano()},
		"lost": {f.lease.lost.UnixNano(), g.lease.lost.UnixNano()}, "rate": {f.pace.ceiling, g.pace.ceiling}, "rate gap": {f.pace.gap, g.pace.gap},
		"cap": {f.cap.most, g.cap.most}, "cap since": {f.cap.at.UnixNano(), g.cap.at.UnixNano()}, "quota": {f.quota, g.quota},
	} {
		if v[0] != v[1] {
			t.Errorf("%s: %v became %v", name, v[0], v[1])
		}
	}
	if !bytes.Equal(memoryOf(t, f)[1+8:], memoryOf(t, g)[1+8:]) {
		t.Error("what was restored is remembered otherwise")
	}
	if p := g.plan(1000, 0); p.State != SlowStart {
		t.Errorf("state %v: a memory is where slow start ends, not where it is over", p.State)
	}
}

func TestAMemoryAges(t *testing.T) {
	data := memoryOf(t, learned(t))
	for _, s := range []struct {
		after     time.Duration
		ceiling   int
		gap       time.Duration
		rate      float64
		cap       int
		contended bool
		linger    time.Duration
	}{
		{0, 4, 40 * time.Second, 12.5, 50, true, 0},
		{4 * time.Minute, 4, 40 * time.Second, 12.5, 50, true, 0},
		{quietTime, 4, 40 * time.Second, 12.5, 50, false, lingerCost}, // the others may have gone
		{20 * time.Minute, 4, 10 * time.Second, 12.5, 50, false, lingerCost},
		{time.Hour, 4, time.Second, 12.5, 0, false, lingerCost},
		{lingerPriced, 4, time.Second, 12.5, 0, false, 5 * time.Second},
		{ceilingKeep - 1, 4, time.Second, 12.5, 0, false, 5 * time.Second},
		{ceilingKeep, 0, 0, 0, 0, false, 5 * time.Second},
		{30 * 365 * 24 * time.Hour, 0, 0, 0, 0, false, 5 * time.Second},
	} {
		now := at(1000).Add(s.after)
		g := newFlow(t, Config{RecipientsPerDay: 1000})
		if err := g.Restore(now, data); err != nil {
			t.Fatal(err)
		}
		p := g.Plan(now, Demand{})
		if g.ceiling != s.ceiling || g.gap != s.gap || g.pace.ceiling != s.rate || g.Snapshot(now).SessionCap != s.cap ||
			g.lease.contended() != s.contended || p.Linger != s.linger {
			t.Errorf("after %v: ceiling %d gap %v rate %v cap %d contended %v linger %v, want %+v",
				s.after, g.ceiling, g.gap, g.pace.ceiling, g.Snapshot(now).SessionCap, g.lease.contended(), p.Linger, s)
		}
	}
}

// A clock that was ahead when the memory was written must not make its beliefs outlast their time.
func TestAMemoryFromTheFutureEndsInItsTime(t *testing.T) {
	data := memoryOf(t, learned(t))
	past := at(-1e7)
	g := newFlow(t, Config{})
	g.now = past
	if err := g.Restore(past, data); err != nil {
		t.Fatal(err)
	}
	if g.lease.lost.After(past) || g.refusedAt.After(past) || g.cap.at.After(past) || g.idleLimitAt.After(past) {
		t.Errorf("lost %v refused %v cap %v idle %v, later than %v", g.lease.lost, g.refusedAt, g.cap.at, g.idleLimitAt, past)
	}
}

func TestDamagedMemoryChangesNothing(t *testing.T) {
	data := memoryOf(t, learned(t))
	g := newFlow(t, Config{RecipientsPerDay: 1000})
	try := func(what string, b []byte) {
		t.Helper()
		if err := g.Restore(at(5), b); !errors.Is(err, ErrMemory) {
			t.Errorf("%s: error %v", what, err)
		}
		if g.ceiling != 0 || g.quota.total != 0 || g.pace.ceiling != 0 || g.cap.most != 0 {
			t.Fatalf("%s: something was taken over", what)
		}
	}
	for n := range data {
		try(fmt.Sprintf("the first %d bytes", n), data[:n])
	}
	try("one byte more", append(bytes.Clone(data), 0))
	for i := range data {
		for bit := range 8 {
			b := bytes.Clone(data)
			b[i] ^= 1 << bit
			try(fmt.Sprintf("byte %d, bit %d", i, bit), b)
		}
	}
}

// Whoever can write the file can write a checksum: what it says must be possible, or harmless.
func TestAForgedMemoryIsRefusedOrHarmless(t *testing.T) {
	data := memoryOf(t, learned(t))
	refused := 0
	for field := range memoryNumbers {
		for _, v := range []uint64{0, 1, 1 << 20, 1 << 33, 1<<63 - 1, 1 << 63, 1<<64 - 1, 0x7ff0000000000000, 0x7ff8000000000001} {
			b := bytes.Clone(data)
			binary.BigEndian.PutUint64(b[1+8*field:], v)
			b = binary.BigEndian.AppendUint32(b[:len(b)-4], crc32.ChecksumIEEE(b[:len(b)-4]))
			g := newFlow(t, Config{RecipientsPerDay: 1000, MaxConns: 5})
			if err := g.Restore(at(1000), b); err != nil {
				refused++
				continue
			}
			w := &chaos{t: t, c: g.Controller, now: at(1000), trace: func(string, ...any) {}}
			w.ready = 9
			w.look(g.Plan(w.now, Demand{Ready: 9}))
			w.recover()
		}
	}
	if refused < memoryNumbers {
		t.Errorf("%d refused", refused)
	}
}
