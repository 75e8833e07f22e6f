package relay

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
)

// start serves a relay over memory until the test ends.
func start(t *testing.T, cfg Config) (*Relay, *memconn.Listener) {
	t.Helper()
	r, l := New(cfg), memconn.Listen()
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	t.Cleanup(func() {
		r.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	synctest.Wait()
	return r, l
}

// client is a connection with lines to read.
type client struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func dial(t *testing.T, l *memconn.Listener) *client {
	t.Helper()
	conn, err := l.Dial(t.Context(), "tcp", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // most tests have closed it
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		c.t.Fatalf("send %.60q: %v", s, err)
	}
}

func (c *client) want(prefix string) {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, prefix) || !strings.HasSuffix(line, "\r\n") {
		c.t.Fatalf("heard %q, %v; want %q", line, err, prefix)
	}
}

// talk plays a dialog: lines "C: text" are sent with CRLF, those that follow one another in one write, so as a
// group; "S: prefix" is what the relay must say. In texts \r, \n and \0 stand for octets.
func (c *client) talk(dialog string) {
	c.t.Helper()
	group := ""
	for line := range strings.Lines(dialog) {
		line = strings.Trim(line, "\t\n")
		switch {
		case strings.HasPrefix(line, "C: "):
			group += strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\0`, "\x00").Replace(line[3:]) + "\r\n"
		case strings.HasPrefix(line, "S: "):
			if group != "" {
				c.send(group)
				group = ""
			}
			c.want(line[3:])
		case line != "":
			c.t.Fatalf("dialog line %q", line)
		}
	}
	if group != "" {
		c.send(group)
	}
}

const greeted = `
	S: 220 relay.example
	C: EHLO app.example
	S: 250-relay.example
	S: 250-PIPELINING
	S: 250-8BITMIME
	S: 250-SIZE 67108864
	S: 250-SMTPUTF8
	S: 250-DSN
	S: 250-CHUNKING
	S: 250 ENHANCEDSTATUSCODES
`

const oneMessage = `
	C: MAIL FROM:<a@example.org>
	S: 250 2.1.0
	C: RCPT TO:<b@example.net>
	S: 250 2.1.5
	C: DATA
	S: 354
	C: Subject: x
	C: 
	C: body
	C: .
	S: 250 2.0.0
`

// TestDialogs: what is said on the wire, how many messages that makes, and which rules it broke.
func TestDialogs(t *testing.T) {
	tests := []struct {
		name   string
		cfg    Config
		dialog string
		taken  int
		broken []string
	}{
		{"a message", Config{}, greeted + oneMessage + `
			C: QUIT
			S: 221`, 1, nil},
		{"content and the next envelope in one group, RFC 2920", Config{}, greeted + `
			C: MAIL FROM:<a@example.org>
			C: RCPT TO:<b@example.net>
			C: DATA
			S: 250
			S: 250
			S: 354
			C: one
			C: .
			C: RSET
			C: MAIL FROM:<c@example.org>
			C: RCPT TO:<d@example.net>
			C: DATA
			S: 250 2.0.0 Taken
			S: 250 2.0.0 Reset
			S: 250
			S: 250
			S: 354
			C: two
			C: .
			S: 250 2.0.0 Taken`, 2, nil},
		{"a pipelined group whose recipients are all refused breaks no rule", Config{MaxRecipients: -1}, greeted + `
			C: MAIL FROM:<a@example.org>
			C: RCPT TO:<b@example.net>
			C: DATA
			S: 250
			S: 452 4.5.3
			S: 554 5.5.1`, 0, nil},
		{"a pipelined group whose MAIL is refused breaks no rule", Config{MaxSize: 67108864}, greeted + `
			C: MAIL FROM:<a@example.org> SIZE=67108865
			C: RCPT TO:<b@example.net>
			C: DATA
			S: 552 5.3.4
			S: 503
			S: 503`, 0, nil},
		{"nested MAIL", Config{}, greeted + `
			C: MAIL FROM:<a@example.org>
			S: 250
			C: MAIL FROM:<c@example.org>
			S: 503 5.5.1`, 0, []string{RuleNestedMail}},
		{"commands out of order", Config{}, greeted + `
			C: RCPT TO:<b@example.net>
			S: 503
			C: DATA
			S: 503`, 0, []string{RuleOrder, RuleOrder}},
		{"MAIL before EHLO", Config{}, `
			S: 220
			C: MAIL FROM:<a@example.org>
			S: 503`, 0, []string{RuleOrder}},
		{"a group goes on after DATA", Config{}, greeted + `
			C: NOOP
			C: MAIL FROM:<a@example.org>
			S: 250 2.0.0
			S: 250 2.1.0`, 0, []string{RuleGroup}},
		{"content before the 354", Config{}, greeted + `
			C: MAIL FROM:<a@example.org>
			C: RCPT TO:<b@example.net>
			C: DATA
			C: Subject: early
			C: .
			S: 250
			S: 250
			S: 354
			S: 250`, 1, []string{RuleEarlyContent}},
		{"a group without PIPELINING", Config{Without: []string{"PIPELINING", "8BITMIME", "SIZE", "SMTPUTF8", "DSN", "CHUNKING"}}, `
			S: 220
			C: EHLO x
			S: 250-relay.example
			S: 250 ENHANCEDSTATUSCODES
			C: MAIL FROM:<a@example.org>
			C: RCPT TO:<b@example.net>
			S: 250
			S: 250`, 0, []string{RuleEarly}},
		{"parameters that were not offered", Config{Without: []string{"DSN"}}, `
			S: 220
			C: EHLO x
			S: 250-
			S: 250-
			S: 250-
			S: 250-
			S: 250-SMTPUTF8
			S: 250-CHUNKING
			S: 250 ENHANCEDSTATUSCODES
			C: MAIL FROM:<a@example.org> RET=HDRS
			S: 555 5.5.4
			C: MAIL FROM:<a@example.org> SIZE=10 BODY=8BITMIME SMTPUTF8
			S: 250`, 0, []string{RuleNotOffered}},
		{"parameters of DSN", Config{}, greeted + `
			C: MAIL FROM:<a@example.org> RET=FULL ENVID=a+2Bb
			S: 250
			C: RCPT TO:<b@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@example.net
			S: 250
			C: RCPT TO:<c@example.net> NOTIFY=NEVER,DELAY
			S: 501 5.5.4`, 0, []string{RuleSyntax}},
		{"addresses that would not survive being passed on", Config{}, greeted + `
			C: MAIL FROM: <a@example.org>
			S: 501
			C: MAIL FROM:<a b@example.org>
			S: 501
			C: MAIL FROM:<ä@example.org>
			S: 501
			C: MAIL FROM:<"a> SIZE=1 x"@example.org>
			S: 250
			C: RCPT TO:<>
			S: 501
			C: RCPT TO:<@relay:b@example.net>
			S: 501
			C: RCPT TO:<Postmaster>
			S: 250`, 0, []string{RuleSyntax, RuleSyntax, RuleSyntax, RuleSyntax, RuleSyntax}},
		{"line ends of commands", Config{}, greeted + `
			C: NOOP\nNOOP
			S: 500
			S: 250
			C: NOOP \rx
			S: 500
			C: NOOP \0
			S: 500`, 0, []string{RuleCommandEnd, RuleCommandEnd, RuleCommandEnd}},
		{"bare line ends and NUL in the content", Config{}, greeted + `
			C: MAIL FROM:<a@example.org>
			S: 250
			C: RCPT TO:<b@example.net>
			S: 250
			C: DATA
			S: 354
			C: a\nb\rc\0
			C: .
			S: 250`, 1, []string{RuleBareCR, RuleBareLF, RuleNUL}},
		{"a message of the maximum size and one more", Config{MaxSize: 6, Without: []string{"SIZE"}}, `
			S: 220
			C: HELO x
			S: 250 relay.example
			C: MAIL FROM:<a@example.org>
			S: 250
			C: RCPT TO:<b@example.net>
			S: 250
			C: DATA
			S: 354
			C: 1234
			C: .
			S: 250
			C: MAIL FROM:<a@example.org>
			S: 250
			C: RCPT TO:<b@example.net>
			S: 250
			C: DATA
			S: 354
			C: 12345
			C: .
			S: 552 5.3.4`, 1, nil},
		{"messages per connection", Config{MessagesPerConnection: 1}, greeted + oneMessage + `
			C: MAIL FROM:<a@example.org>
			S: 421 4.7.0`, 1, nil},
		{"pressure at the dot", Config{PressureEvery: 2}, greeted + oneMessage + `
			C: MAIL FROM:<a@example.org>
			S: 250
			C: RCPT TO:<b@example.net>
			S: 250
			C: DATA
			S: 354
			C: .
			S: 452 4.3.1 Insufficient system resources` + oneMessage, 2, nil},
		{"pressure at MAIL", Config{PressureEvery: 1, PressureAtMail: true}, greeted + `
			C: MAIL FROM:<a@example.org>
			S: 452 4.3.1 Insufficient system resources`, 0, nil},
		{"no enhanced status codes", Config{Without: []string{"ENHANCEDSTATUSCODES"}}, `
			S: 220
			C: EHLO x
			S: 250-
			S: 250-
			S: 250-
			S: 250-
			S: 250-
			S: 250-DSN
			S: 250 CHUNKING
			C: MAIL FROM:<a@example.org>
			S: 250 Sender OK`, 0, nil},
		{"a message in a chunk, one behind it", Config{}, greeted + `
			C: MAIL FROM:<a@example.org>
			C: RCPT TO:<b@example.net>
			C: BDAT 3 LAST
			C: .
			C: RSET
			C: MAIL FROM:<a@example.org>
			C: RCPT TO:<b@example.net>
			C: BDAT 6 LAST
			C: x: y
			S: 250
			S: 250
			S: 250 2.0.0 Taken
			S: 250
			S: 250
			S: 250
			S: 250 2.0.0 Taken`, 2, nil},
		{"a message in two chunks", Config{}, greeted + `
			C: MAIL FROM:<a@example.org>
			C: RCPT TO:<b@example.net>
			C: BDAT 3
			C: a
			C: BDAT 3 LAST
			C: b
			S: 250
			S: 250
			S: 250 2.0.0 Chunk taken
			S: 250 2.0.0 Taken`, 1, nil},
		{"chunks that nobody wants", Config{}, greeted + `
			C: MAIL FROM:<no address>
			C: RCPT TO:<b@example.net>
			C: BDAT 6 LAST
			C: QUIT
			C: MAIL FROM:<a@example.org>
			C: BDAT 6 LAST
			C: QUIT
			S: 501
			S: 503
			S: 503
			S: 250
			S: 554`, 0, []string{RuleSyntax}},
		{"DATA after a chunk", Config{}, greeted + `
			C: MAIL FROM:<a@example.org>
			C: RCPT TO:<b@example.net>
			C: BDAT 3
			C: a
			C: DATA
			S: 250
			S: 250
			S: 250
			S: 503`, 0, []string{RuleMixed}},
		{"a chunk of nobody knows how much", Config{}, greeted + `
			C: BDAT x LAST
			S: 501`, 0, []string{RuleSyntax}},
		{"unknown verb", Config{}, greeted + `
			C: XBDAT 3 LAST
			S: 500`, 0, []string{RuleNotOffered}},
		{"AUTH is required", Config{Username: "u", Password: "p"}, `
			S: 220
			C: EHLO x
			S: 250-
			S: 250-
			S: 250-
			S: 250-
			S: 250-
			S: 250-
			S: 250-
			S: 250-ENHANCEDSTATUSCODES
			S: 250 AUTH PLAIN LOGIN
			C: MAIL FROM:<a@example.org>
			S: 530
			C: AUTH PLAIN AHUAeA==
			S: 535 5.7.8
			C: AUTH PLAIN AHgAcA==
			S: 535 5.7.8
			C: AUTH PLAIN
			S: 334
			C: AHUAcA==
			S: 235
			C: MAIL FROM:<a@example.org>
			S: 250`, 0, nil},
		{"AUTH LOGIN", Config{Username: "u", Password: "p"}, `
			S: 220
			C: HELO x
			S: 250
			C: AUTH LOGIN
			S: 334 VXNlcm5hbWU6
			C: dQ==
			S: 334 UGFzc3dvcmQ6
			C: cQ==
			S: 535
			C: AUTH LOGIN dQ==
			S: 334
			C: cA==
			S: 235`, 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, l := start(t, tt.cfg)
				dial(t, l).talk(tt.dialog)
				synctest.Wait()
				if n := r.Counters().Taken; n != tt.taken {
					t.Errorf("took %d messages; want %d", n, tt.taken)
				}
				wantBroken(t, r, tt.broken)
			})
		})
	}
}

// wantBroken compares without order: several faults of one content have none.
func wantBroken(t *testing.T, r *Relay, want []string) {
	t.Helper()
	count := map[string]int{}
	for _, v := range r.Violations() {
		count[v.Rule]++
	}
	for _, rule := range want {
		count[rule]--
	}
	for rule, n := range count {
		if n != 0 {
			t.Errorf("%q: %+d more than expected; all: %+v", rule, n, r.Violations())
		}
	}
}

// Only CRLF.CRLF ends the content. Each of these forms has made some server see a second, forged message.
func TestNothingButCRLFDotCRLFEndsTheContent(t *testing.T) {
	for _, end := range []string{
		"\n.\n", "\r.\r", "\r.\n", "\n.\r", "\n.\r\n", "\r\n.\n", "\r.\r\n", "\r\n.\r",
		"\r\n\x00.\r\n", "\r\n.\x00\r\n", "\r\n.\r\r\n", "\r\r\n.\r\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			r, l := start(t, Config{KeepBodies: true})
			c := dial(t, l)
			c.talk(greeted + `
				C: MAIL FROM:<a@example.org>
				C: RCPT TO:<b@example.net>
				C: DATA
				S: 250
				S: 250
				S: 354`)
			forged := "MAIL FROM:<evil@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\nforged\r\n"
			c.send("x" + end + forged + ".\r\n")
			c.want("250 2.0.0 Taken")
			got := r.Ledger()
			if len(got) != 1 || !strings.HasSuffix(string(got[0].Body), forged) {
				t.Fatalf("%q: %d messages: %+v", end, len(got), got)
			}
		})
	}
}

func TestIdleConnectionsAreToldAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{IdleTimeout: time.Minute})
		c := dial(t, l)
		c.talk(greeted)
		begin := time.Now()
		c.want("421 4.4.2")
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("after %v", d)
		}
		if n := r.Counters(); n.Current != 0 || n.Idled != 1 {
			t.Errorf("%+v", n)
		}
	})
}
