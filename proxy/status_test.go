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
	if u.QuotaUsed != s.QuotaUsed || u.QuotaLimit != s.QuotaLimit || u.QuotaUsed != 1 || u.QuotaLimit != 500 {
		t.Errorf("quota: %+v; want %+v", u, s)
	}
}

func TestTheStatusTellsOfTurnsAndOfTheSessionsCap(t *testing.T) {
	d := newCarrier(t, 1)
	now := noon.Add(2 * time.Second)
	d.flow.SendStart(now, 1, 1, 1)
	d.flow.SendDone(now, 1, flowctl.Outcome{})
	d.flow.SendStart(now, 1, 1, 1)
	d.flow.SendDone(now, 1, flowctl.Outcome{})
	d.flow.Closed(now, 1, flowctl.Outcome{Class: flowctl.SessionCap, Stage: flowctl.StageIdle})
	d.flow.Plan(now, flowctl.Demand{Ready: 5})
	d.flow.DialStart(now, 2, "")
	d.flow.DialDone(now, 2, flowctl.Outcome{Class: flowctl.Busy, Stage: flowctl.StageGreeting})
	now = now.Add(30 * time.Second)
	d.flow.Plan(now, flowctl.Demand{Ready: 5})
	if u := d.upstreamStatus(now); u.SessionCap != 2 || u.Waiting != 30 || u.Share != 0 {
		t.Errorf("cap %d, waiting %v, share %v", u.SessionCap, u.Waiting, u.Share)
	}
	d.flow.DialStart(now, 3, "")
	d.flow.DialDone(now, 3, flowctl.Outcome{})
	if s, u := d.flow.Snapshot(now), d.upstreamStatus(now); u.Share == 0 || u.Share != s.Share || u.Waiting != 0 {
		t.Errorf("waiting %v, share %v; want %v", u.Waiting, u.Share, s.Share)
	}
}
