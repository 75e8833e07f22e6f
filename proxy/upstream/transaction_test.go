package upstream

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
)

var everything = []string{"PIPELINING", "SIZE 1000", "8bitmime", "SMTPUTF8", "dsn"}

// What the upstream offers is passed on; what it does not is left out or refused by us, and never held against its load.
func TestParametersFollowTheOffer(t *testing.T) {
	dsn := message.Envelope{From: "a@example.org", Ret: "HDRS", EnvID: "x+2Ey", To: []message.Recipient{{Addr: "b@example.com", Notify: "FAILURE,DELAY", ORcpt: "rfc822;b@example.com"}}}
	plain := message.Envelope{From: "a@example.org", Size: 17, Body8: true, To: []message.Recipient{{Addr: "b@example.com"}}}
	null := message.Envelope{To: []message.Recipient{{Addr: "Postmaster"}, {Addr: `"a>b c"@example.com`}}}
	utf8 := message.Envelope{From: "a@example.org", UTF8: true, To: []message.Recipient{{Addr: "b@example.com"}, {Addr: "ü@example.com"}}}
	utf8Header := message.Envelope{From: "a@example.org", UTF8: true, Header8: true, To: []message.Recipient{{Addr: "b@example.com"}}}
	utf8ORcpt := message.Envelope{From: "a@example.org", UTF8: true, To: []message.Recipient{{Addr: "b@example.com", ORcpt: `utf-8;ü\x{20}😀@example.com`}}}
	utf8From := message.Envelope{From: "ü@example.org", UTF8: true, To: []message.Recipient{{Addr: "b@example.com"}}}
	big := message.Envelope{From: "a@example.org", Size: 1001, To: []message.Recipient{{Addr: "b@example.com"}, {Addr: "c@example.com"}}}
	exact := message.Envelope{From: "a@example.org", Size: 1000, To: []message.Recipient{{Addr: "b@example.com"}}}
	inject := message.Envelope{From: "a@example.org", To: []message.Recipient{{Addr: "b@example.com>\r\nRCPT TO:<c@example.com"}, {Addr: "b@example.com> SIZE=1"}, {Addr: "ok@example.com"}, {Addr: "x@example.com", Notify: "NEVER\r\nDATA"}, {Addr: ""}}}
	injectFrom := message.Envelope{From: "a@example.org>\r\nRSET", To: []message.Recipient{{Addr: "b@example.com"}}}
	injectEnv := message.Envelope{From: "a@example.org", EnvID: "x y", To: []message.Recipient{{Addr: "b@example.com"}}}
	for _, tc := range []struct {
		name   string
		env    message.Envelope
		offers []string
		lines  []string // MAIL and RCPT
		codes  []string // one a recipient
	}{
		{"all", plain, everything, []string{"MAIL FROM:<a@example.org> SIZE=17 BODY=8BITMIME", "RCPT TO:<b@example.com>"}, []string{"250"}},
		{"nothing", plain, []string{"PIPELINING"}, []string{"MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"}, []string{"250"}},
		{"dsn", dsn, everything, []string{"MAIL FROM:<a@example.org> RET=HDRS ENVID=x+2Ey", "RCPT TO:<b@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b@example.com"}, []string{"250"}},
		{"no dsn", dsn, []string{"SIZE"}, []string{"MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"}, []string{"250"}},
		{"null sender", null, everything, []string{"MAIL FROM:<>", "RCPT TO:<Postmaster>", `RCPT TO:<"a>b c"@example.com>`}, []string{"250", "250"}},
		{"utf8", utf8, everything, []string{"MAIL FROM:<a@example.org> SMTPUTF8", "RCPT TO:<b@example.com>", "RCPT TO:<ü@example.com>"}, []string{"250", "250"}},
		{"no utf8", utf8, []string{"SIZE"}, []string{"MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"}, []string{"250", "550 5.6.7"}},
		{"no utf8, sender", utf8From, []string{"SIZE"}, nil, []string{"550 5.6.7"}},
		{"utf8, header", utf8Header, everything, []string{"MAIL FROM:<a@example.org> SMTPUTF8", "RCPT TO:<b@example.com>"}, []string{"250"}},
		{"no utf8, header", utf8Header, []string{"SIZE"}, nil, []string{"550 5.6.7"}},
		{"utf8, ORCPT", utf8ORcpt, everything, []string{"MAIL FROM:<a@example.org> SMTPUTF8", `RCPT TO:<b@example.com> ORCPT=utf-8;ü\x{20}😀@example.com`}, []string{"250"}},
		{"no utf8, ORCPT", utf8ORcpt, []string{"DSN"}, []string{"MAIL FROM:<a@example.org>", `RCPT TO:<b@example.com> ORCPT=utf-8;\x{FC}\x{20}\x{1F600}@example.com`}, []string{"250"}},
		{"too big", big, everything, nil, []string{"552 5.3.4", "552 5.3.4"}},
		{"just not too big", exact, everything, []string{"MAIL FROM:<a@example.org> SIZE=1000", "RCPT TO:<b@example.com>"}, []string{"250"}},
		{"size without a number", big, []string{"SIZE"}, []string{"MAIL FROM:<a@example.org> SIZE=1001", "RCPT TO:<b@example.com>", "RCPT TO:<c@example.com>"}, []string{"250", "250"}},
		{"injection", inject, everything, []string{"MAIL FROM:<a@example.org>", "RCPT TO:<ok@example.com>"}, []string{"553 5.1.3", "553 5.1.3", "250", "553 5.1.3", "553 5.1.3"}},
		{"injection, sender", injectFrom, everything, nil, []string{"553 5.1.7"}},
		{"injection, ENVID", injectEnv, everything, nil, []string{"553 5.1.7"}},
	} {
		r := &relay{offers: tc.offers}
		inBubble(t, r, func(t *testing.T) {
			first, last := letter(1, 1), letter(3, 1)
			j := letter(2, 1)
			j.Env, j.To = &tc.env, nil
			for i := range tc.env.To {
				j.To = append(j.To, i)
			}
			results, out := send(r.connect(t, r.client(t, Config{})), first, j, last)
			if len(results) != 3 || results[1].Verdicts == nil || out.Class != flowctl.OK {
				t.Fatalf("%s: %d results, %+v", tc.name, len(results), out)
			}
			var lines []string
			for _, l := range r.lines {
				if (strings.HasPrefix(l, "MAIL") || strings.HasPrefix(l, "RCPT")) && !strings.Contains(l, "s1@") && !strings.Contains(l, "s3@") && !strings.Contains(l, "r1.") {
					lines = append(lines, l)
				}
			}
			if !slices.Equal(lines, tc.lines) {
				t.Errorf("%s: %q", tc.name, lines)
			}
			worst := flowctl.OK
			for i, v := range results[1].Verdicts {
				if !strings.HasPrefix(v.Reply.String(), tc.codes[i]) {
					t.Errorf("%s: recipient %d: %v", tc.name, i, v.Reply)
				}
				want := flowctl.OK
				if tc.codes[i] != "250" {
					want = flowctl.Permanent
				}
				worst = max(worst, want)
				if v.Class != want {
					t.Errorf("%s: recipient %d: class %v", tc.name, i, v.Class)
				}
			}
			if results[1].Signal.Class != worst {
				t.Errorf("%s: signal %+v", tc.name, results[1].Signal)
			}
		})
	}
}

// Some recipients of a message may be a transaction, in any order.
func TestTransactionOfSomeRecipients(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{"RCPT 2": {reply: "550 5.1.1 unknown"}}}
	inBubble(t, r, func(t *testing.T) {
		j := letter(1, 5)
		j.To = []int{4, 0, 2}
		results, _ := send(r.connect(t, r.client(t, Config{})), j)
		v := results[0].Verdicts
		if len(v) != 3 || v[0].Class != flowctl.OK || v[1].Class != flowctl.Permanent || v[2].Class != flowctl.OK {
			t.Errorf("%+v", v)
		}
		if to := r.accepted[0].to; !slices.Equal(to, []string{"r5.1@example.com", "r3.1@example.com"}) {
			t.Errorf("%q", to)
		}
	})
}

// The worst class of a transaction is its signal, with the reply it came from.
func TestOneSignalPerTransaction(t *testing.T) {
	r := &relay{offers: pipelining, script: map[string]act{
		"RCPT 1": {reply: "450 4.2.1 later"},
		"RCPT 2": {reply: "450 4.7.1 Error: too much mail from 192.0.2.1, retry in 30 seconds"},
		"RCPT 3": {reply: "550 5.1.1 unknown"},
	}}
	inBubble(t, r, func(t *testing.T) {
		results, _ := send(r.connect(t, r.client(t, Config{})), letter(1, 4))
		s := results[0].Signal
		if s.Class != flowctl.RateLimited || s.Stage != flowctl.StageRcpt || s.RetryAfter.Seconds() != 30 || !strings.Contains(s.Text, "too much mail") || s.Started.IsZero() {
			t.Errorf("%+v", s)
		}
	})
}

// Fields that go before the content are part of what is sent, stuffed like it, and of its size.
func TestTheHeadGoesBeforeTheContent(t *testing.T) {
	r := &relay{offers: everything}
	inBubble(t, r, func(t *testing.T) {
		with, without, big := letter(1, 1), letter(2, 1), letter(3, 1)
		with.Head = []byte("DKIM-Signature: b=x\r\n\ty\r\n.dot: 1\r\n")
		big.Head = make([]byte, 1000)
		results, _ := send(r.connect(t, r.client(t, Config{})), with, without, big)
		body := "Subject: 1\r\n\r\n.dot 1\r\n"
		if got, want := r.accepted[0].body, string(with.Head)+body; got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
		if want := fmt.Sprintf("MAIL FROM:<s1@example.org> SIZE=%d", len(with.Head)+len(body)); !slices.Contains(r.lines, want) {
			t.Errorf("no %s in %q", want, r.lines)
		}
		if got := r.accepted[1].body; !strings.HasPrefix(got, "Subject: 2\r\n") {
			t.Errorf("the next one is %q", got)
		}
		if v := results[2].Verdicts[0]; v.Reply.Code != 552 || !v.Local || len(r.accepted) != 2 {
			t.Errorf("over the limit with its head: %+v", v)
		}
	})
}
