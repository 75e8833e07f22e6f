package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

func TestTheStatusSaysWhatTheControllerBelievesAndWhy(t *testing.T) {
	d := newCarrier(t, 3)
	const reply = "421 4.3.2 too many connections"
	now := noon.Add(time.Minute)
	d.flow.DialStart(now, 9, "")
	d.flow.DialDone(now.Add(time.Second), 9, flowctl.Outcome{Class: flowctl.Busy, Stage: flowctl.StageGreeting, Text: reply})
	d.flow.SendStart(now.Add(time.Second), 1, 1, 1)
	d.flow.DialStart(now.Add(time.Second), 10, "")
	now = now.Add(2 * time.Second)
	s, u := d.flow.Snapshot(now), d.upstreamStatus(now)
	if s.Ceiling == 0 || s.LastMove.Reason == "" || s.Reason == "" || s.NextProbe.IsZero() || s.Dialing == 0 || s.Busy == 0 {
		t.Fatalf("the controller tells nothing: %+v", s)
	}
	if u.Width != s.Width || u.Ceiling != s.Ceiling || u.Max != s.Max || u.Connections != s.Established || u.Busy != s.Busy || u.Dialing != s.Dialing {
		t.Errorf("how many: %+v; want %+v", u, s)
	}
	if u.State != s.State.String() || u.Reason != s.Reason || !strings.Contains(u.LastMove, s.LastMove.Reason) || !u.LastMoveAt.Equal(s.LastMove.At) ||
		u.LastReply != s.LastMove.Text {
		t.Errorf("why: %+v; want %+v", u, s)
	}
	if !u.NextProbe.Equal(s.NextProbe) || u.ProbeGap != s.ProbeGap.Seconds() || !u.NoDialBefore.Equal(s.DialAt) || !u.NoSendBefore.Equal(s.SendAt) {
		t.Errorf("when: %+v; want %+v", u, s)
	}
	if u.Rate != s.Rate || u.Linger != s.Linger.Seconds() || u.Addresses != s.Addrs || u.Down != s.OpenAddrs || u.Outcomes["busy"] != 1 {
		t.Errorf("and: %+v; want %+v", u, s)
	}
}
