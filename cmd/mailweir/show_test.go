package main

import (
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/proxy/admin"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func before(d time.Duration) time.Time { return noon.Add(-d) }

func TestStatusIsALineForEachQuestion(t *testing.T) {
	s := admin.Status{
		Version: "v1.2.3", Started: before(26 * time.Hour), Ready: "draining", Draining: true,
		Queue: admin.QueueStatus{Accepted: 10, Recovered: 2, Delivered: 6, Dead: 1, Pending: 3, Deliveries: 4, InFlight: 2, Deferred: 1,
			DeadRetained: 1, OldestPending: before(90 * time.Minute), LastDelivered: before(5 * time.Second), NextDue: noon.Add(61 * time.Second),
			DuplicatesPossible: 5, Held: "misconfigured: 535 no\x1b[2J"},
		Upstream: admin.UpstreamStatus{Address: "relay:25", State: "paused", Reason: "rate refused", Width: 2.5, Max: 20,
			Connections: 3, Busy: 2, Dialing: 1, Addresses: 2, Down: 1, Rate: 13.5, NoDialBefore: noon.Add(time.Minute), NoSendBefore: noon.Add(2 * time.Second),
			LastMove: "width 5 to 2.5: busy", LastReply: "421 4.3.2 too\x07 many", LastMoveAt: before(time.Minute), NextProbe: noon.Add(90 * time.Second), Token: "good", TokenExpiry: noon.Add(50 * time.Minute), Outcomes: map[string]uint64{"ok": 7, "busy": 1, "rate": 0}, LastError: "connection refused"},
		Journal: admin.JournalStatus{Dir: "/j", Bytes: 100, MaxBytes: 1 << 30, Segments: 2, Damaged: 1, Error: "no space"},
		Signing: admin.SigningStatus{Keys: 2, Signed: 9, Unsigned: map[string]uint64{"from": 1, "domain": 0},
			Unusable: []string{"dkim: key not usable: s._domainkey.a.example: cannot be read: permission denied"}},
		Front:   admin.FrontStatus{Connections: 2, Total: 8, Refused: map[string]uint64{"452 4.3.1": 3}},
		Restart: admin.RestartStatus{Files: "routes_file /r.yaml", Refused: "config: 1 fault; route 1"},
	}
	want := `version              v1.2.3, up 1d02h
ready                draining
draining             yes
held                 misconfigured: 535 no?[2J
restart needed       changed: routes_file /r.yaml (config: 1 fault; route 1)
pending              3 messages in 4 deliveries, 2 in flight, 1 deferred
oldest               1h30m
next due             in 1m01s
accepted             10, 2 of them found in the journal
delivered            6
last delivered       5s ago
dead                 1, 1 retained
possible duplicates  5
upstream             relay:25, paused (rate refused)
addresses            2, 1 down
width                2.5 of 20, ceiling not known, 3 connections, 2 busy, 1 dialling
rate                 13.5 transactions a second
last move            width 5 to 2.5: busy (421 4.3.2 too? many), 1m00s ago
token                good, expires in 50m00s
next probe           in 1m30s
next dial            in 1m00s
next message         in 2s
outcomes             busy 1, ok 7
last error           connection refused
journal              100 B of 1.0 GiB in 2 segments, /j
journal error        no space
journal damage       1 records, 0 failed syncs
signing              2 keys, 9 signed; unsigned: from 1
signing error        dkim: key not usable: s._domainkey.a.example: cannot be read: permission denied
application          2 connections, 8 so far; refused: 452 4.3.1 3
`
	var b strings.Builder
	if err := writeStatus(&b, s, noon); err != nil || b.String() != want {
		t.Errorf("%v, got:\n%swant:\n%s", err, b.String(), want)
	}
}

func TestWhatTheFlowControlDoesNotLimitIsNotShown(t *testing.T) {
	var b strings.Builder
	u := admin.UpstreamStatus{Address: "relay:25", State: "calm", Width: 1, Max: 20, Ceiling: 4, Addresses: 1, NoDialBefore: before(time.Second)}
	if err := writeStatus(&b, admin.Status{Upstream: u}, noon); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"addresses", "pipelining", "sharing", "session cap", "quota", "rate", "last move", "token", "next dial", "next message"} {
		if strings.Contains(b.String(), "\n"+line) {
			t.Errorf("a line %q in:\n%s", line, b.String())
		}
	}
	if !strings.Contains(b.String(), "relay:25, calm\n") || !strings.Contains(b.String(), "ceiling 4,") {
		t.Errorf("got:\n%s", b.String())
	}
}

func TestStatusExplainsWhatOthersAndQuotasDo(t *testing.T) {
	u := admin.UpstreamStatus{Address: "relay:25", State: "sharing", Width: 1, Max: 20, Addresses: 1}
	for _, tt := range []struct {
		set  func(u *admin.UpstreamStatus)
		want string
	}{
		{func(u *admin.UpstreamStatus) { u.Share, u.Waiting = 0.5, 12 },
			"sharing              about 0.5 of one connection, in turns with others; waiting for a turn for 12s\n"},
		{func(u *admin.UpstreamStatus) { u.Share, u.Connections = 0.25, 1 },
			"sharing              about 0.25 of one connection, in turns with others; it is our turn\n"},
		{func(u *admin.UpstreamStatus) { u.Waiting = 61 },
			"sharing              others hold every connection that there is; waiting for a turn for 1m01s\n"},
		{func(u *admin.UpstreamStatus) { u.Pipelining, u.Window = "L4", 8 }, "pipelining           L4, window 8\n"},
		{func(u *admin.UpstreamStatus) {
			u.Pipelining, u.Window, u.StepReason, u.StepUntil = "L1", 1, "replies fit no command", noon.Add(20*time.Hour)
		}, "pipelining           L1, window 1, as replies fit no command; more is tried in 20h00m\n"},
		{func(u *admin.UpstreamStatus) { u.SessionCap = 350 },
			"session cap          350 messages; then a connection is replaced, as the upstream takes no more over one\n"},
		{func(u *admin.UpstreamStatus) { u.QuotaUsed, u.QuotaLimit = 40, 100 },
			"quota                40 recipients in the last 24 hours, of 100; what is more waits\n"},
		{func(u *admin.UpstreamStatus) { u.QuotaUsed = 40 },
			"quota                40 recipients in the last 24 hours, no limit is configured\n"},
		{func(u *admin.UpstreamStatus) {
			u.State, u.NextProbe, u.ProbeGap = "stopped", noon.Add(20*time.Minute), 1800
		},
			"next probe           in 20m00s, with one message; while it is refused, 30m00s between two\n"},
	} {
		u := u
		tt.set(&u)
		var b strings.Builder
		if err := writeStatus(&b, admin.Status{Upstream: u}, noon); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), "\n"+tt.want) {
			t.Errorf("no %q in:\n%s", tt.want, b.String())
		}
	}
}

func TestEntriesAreAligned(t *testing.T) {
	rows := []admin.Entry{
		{ID: "01J", From: "app@example.com", To: []string{"a@x.org"}, Size: 1536, Received: before(time.Hour), State: "deferred",
			Attempts: 12, Next: noon.Add(30 * time.Second), Upstream: "bulk", Reason: "451 4.7.1 later"},
		{ID: "01JABC", To: []string{"b@x.org", "c@x.org"}, ToMore: 50, Size: 7, Received: before(time.Second), State: "due", Next: before(time.Second),
			Reason: "\x1b]0;owned\x07 \u202e"},
	}
	want := `ID      AGE    SIZE     STATE     UPSTREAM  ATTEMPTS  NEXT    FROM               TO                     REASON
01J     1h00m  1.5 KiB  deferred  bulk      12        in 30s  <app@example.com>  <a@x.org>              451 4.7.1 later
01JABC  1s     7 B      due       -         0         now     <>                 <b@x.org> and 51 more  ?]0;owned? ?
(the oldest 2; --max shows more)
`
	var b strings.Builder
	if err := writeEntries(&b, rows, 2, noon); err != nil || b.String() != want {
		t.Errorf("%v, got:\n%swant:\n%s", err, b.String(), want)
	}
	b.Reset()
	if err := writeEntries(&b, nil, 2, noon); err != nil || b.String() != "none\n" {
		t.Errorf("%v, got %q", err, b.String())
	}
}

func TestSpansAndSizes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 125 * time.Minute: "2h05m", 49 * time.Hour: "2d01h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 50 << 20: "50.0 MiB", 1 << 60: "1.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
