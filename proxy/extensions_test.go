package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
)

// What the application asks for with SMTP's extensions, on its way to a relay that offers them, or does not.

// tell sends a dialog through the front door, one command at a time, and wants the code of each reply.
func (w *world) tell(dialog ...string) {
	w.t.Helper()
	conn, err := w.door.Dial(context.Background(), "tcp", "door")
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	replies := bufio.NewReader(conn)
	w.hear(replies, "220")
	for _, exchange := range append([]string{"EHLO app|250"}, dialog...) {
		command, code, _ := strings.Cut(exchange, "|")
		if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
			w.t.Fatal(err)
		}
		w.hear(replies, code)
	}
}

func (w *world) hear(replies *bufio.Reader, code string) {
	w.t.Helper()
	for {
		line, err := replies.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, code) {
			w.t.Fatalf("%q, %v; want %s", line, err, code)
		}
		if line[3] == ' ' {
			return
		}
	}
}

// taken waits for a message at the relay.
func (w *world) taken() relay.Message {
	w.t.Helper()
	w.until(time.Hour, "the relay has a message", func() bool { return len(w.relay.Ledger()) > 0 })
	return w.relay.Ledger()[0]
}

func TestWhatWasAskedForSurvivesARestart(t *testing.T) {
	for _, chunks := range []bool{false, true} {
		in(t, func(t *testing.T) {
			w := newWorld(t, relay.Config{KeepBodies: true})
			w.setDown(errors.New("no route to host"))
			envelope := []string{
				"MAIL FROM:<a@x.example> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=QQ+2B314159|250",
				"RCPT TO:<b@x.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Bc@x.example|250",
				"RCPT TO:<\xc3\xb6@x.example> NOTIFY=NEVER|250",
			}
			if chunks {
				w.tell(append(envelope, "BDAT 13\r\nSubject: \xc3\xa4|250", "BDAT 5 LAST\r\n\r\n.|250")...)
			} else {
				w.tell(append(envelope, "DATA|354", "Subject: \xc3\xa4\r\n\r\n..\r\n.|250")...)
			}
			if left := w.finish(); left != 1 {
				t.Fatalf("%d left", left)
			}
			w.setDown(nil)
			w.start()
			m := w.taken()
			if want := []string{fmt.Sprintf("SIZE=%d", m.Size), "BODY=8BITMIME", "SMTPUTF8", "RET=HDRS", "ENVID=QQ+2B314159"}; !slices.Equal(m.MailParams, want) {
				t.Errorf("MAIL with %q, want %q", m.MailParams, want)
			}
			if want := []string{"NOTIFY=SUCCESS,DELAY ORCPT=rfc822;B+2Bc@x.example", "NOTIFY=NEVER"}; !slices.Equal(m.RcptParams, want) {
				t.Errorf("RCPT with %q, want %q", m.RcptParams, want)
			}
			if want := "\r\nSubject: \xc3\xa4\r\n\r\n.\r\n"; !strings.HasSuffix(string(m.Body), want) {
				t.Errorf("content %q, want it to end in %q", m.Body, want)
			}
			w.settle(time.Minute)
			if v := w.relay.Violations(); len(v) > 0 {
				t.Errorf("%+v", v)
			}
		})
	}
}

// A relay that cannot take a message says nothing of its load, and nothing of other mail.
func TestWhatTheRelayDoesNotOfferStopsNobodyElse(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{Without: []string{"SMTPUTF8", "8BITMIME", "DSN"}, MaxSize: 5000, RTT: 20 * time.Millisecond})
		for range 15 { // more than trip the fuse
			w.tell("MAIL FROM:<a@x.example> SMTPUTF8|250", "RCPT TO:<\xc3\xb6@x.example>|250", "RCPT TO:<b@x.example> NOTIFY=SUCCESS|250", "DATA|354", "Subject: x\r\n.|250")
			w.tell("MAIL FROM:<a@x.example> SMTPUTF8|250", "RCPT TO:<b@x.example>|250", "DATA|354", "Subject: \xc3\xa4\r\n.|250")
			w.tell("MAIL FROM:<a@x.example>|250", "RCPT TO:<b@x.example>|250", "DATA|354", "Subject: x\r\n\r\n"+strings.Repeat("123456\r\n", 700)+".|250")
		}
		ledger := w.send(100, 10)
		w.settle(time.Minute)
		w.arrived(ledger)
		s := w.proxy.Status()
		if s.Queue.Held != "" || s.Queue.Dead != 45 || s.Queue.RecipientsDelivered != 115 || s.Upstream.Ceiling != 0 {
			t.Errorf("%+v, %+v", s.Queue, s.Upstream)
		}
		rows, err := w.proxy.deadRows(100)
		if err != nil {
			t.Fatal(err)
		}
		reasons := map[string]int{}
		for _, r := range rows {
			reasons[r.Reason[:9]]++
		}
		if want := map[string]int{"550 5.6.7": 30, "552 5.3.4": 15}; fmt.Sprint(reasons) != fmt.Sprint(want) {
			t.Errorf("died of %v, want %v", reasons, want)
		}
	})
}

// A relay that names its limits refuses nothing because of them.
func TestNamedLimitsAreNeverMet(t *testing.T) {
	in(t, func(t *testing.T) {
		w := newWorld(t, relay.Config{MaxConnections: 3, MaxRecipients: 7, MessagesPerConnection: 9, Limits: "RCPTMAX=7 MAILMAX=9 WHATEVER=x",
			RTT: 20 * time.Millisecond, Reply: func(e relay.Event) relay.Action {
				if e.Stage == relay.StageRcpt && len(e.To) >= 7 {
					t.Error("one recipient too many")
				}
				return relay.Action{}
			}})
		ledger := w.send(60, 20, rcpts(func(n int) []string {
			to := make([]string, 1+n%30)
			for i := range to {
				to[i] = fmt.Sprintf("u%d.%d@d%d.example", n, i, i%3)
			}
			return to
		}))
		began := time.Now()
		w.settle(10 * time.Minute)
		w.arrived(ledger)
		w.balanced()
		if n := w.relay.Counters().Capped; n > 0 {
			t.Errorf("%d sessions ended by the relay", n)
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("took %s", took)
		}
	})
}
