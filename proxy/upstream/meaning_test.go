package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/mailweir/mailweir/flowctl"
)

var phases = map[string]flowctl.Stage{
	"connect": flowctl.StageGreeting,
	"ehlo":    flowctl.StageEHLO,
	"tls":     flowctl.StageTLS,
	"auth":    flowctl.StageAuth,
	"idle":    flowctl.StageIdle,
	"any":     flowctl.StageMail,
	"mail":    flowctl.StageMail,
	"rcpt":    flowctl.StageRcpt,
	"data":    flowctl.StageDot,
	"dot":     flowctl.StageDot,
}

type knownReply struct {
	stage flowctl.Stage
	reply Reply
	words []string
}

// readReplies reads a table of provider, phase, reply, word.
func readReplies(t *testing.T, name string) []knownReply {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var rows []knownReply
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") || len(f) < 4 {
			continue
		}
		st, ok := phases[f[1]]
		if !ok {
			t.Fatalf("%s: unknown phase in %q", name, line)
		}
		r, _, err := readReply(bufio.NewReaderSize(strings.NewReader(asSent(f[2])), replyLineMax))
		if err != nil {
			t.Fatalf("%s: %q: %v", name, f[2], err)
		}
		rows = append(rows, knownReply{st, r, strings.Split(f[3], "|")})
	}
	return rows
}

// asSent gives a reply of several lines, which a table has in one, its line ends back. What comes after the part that a table
// holds, it may leave out.
func asSent(reply string) string {
	code := reply[:3]
	if reply[3] != '-' {
		return reply + "\r\n"
	}
	wire := strings.NewReplacer(" "+code+"-", "\r\n"+code+"-", " "+code+" ", "\r\n"+code+" ").Replace(reply) + "\r\n"
	if !strings.Contains(wire, "\n"+code+" ") {
		wire += code + " \r\n"
	}
	return wire
}

// fits tells whether a word is one of the right ones. conc-source and conc-server can often not be told apart by words.
func (k knownReply) fits(word string) bool {
	for _, w := range k.words {
		if w == word || strings.HasPrefix(w, "conc-") && strings.HasPrefix(word, "conc-") {
			return true
		}
	}
	return false
}

// corpora are the tables of real replies.
var corpora = []string{
	"testdata/replies.tsv", "testdata/further.tsv", "testdata/found.tsv",
	"testdata/replies_tuned.tsv", "testdata/replies_fresh.tsv", "testdata/replies_later.tsv", "testdata/replies_heldout.tsv",
}

func TestEveryKnownReplyHasItsMeaning(t *testing.T) {
	for _, name := range corpora[:4] {
		rows, right := readReplies(t, name), 0
		for _, k := range rows {
			m := Classify(k.stage, k.reply.Code, k.reply.Enhanced, k.reply.Text)
			if k.fits(m.Word) && m.Class == classes[m.Word] {
				right++
				continue
			}
			t.Errorf("stage %d: %s: got %q, want %q", k.stage, k.reply, m.Word, k.words)
		}
		t.Logf("%s: %d of %d", name, right, len(rows))
		if len(rows) < 30 {
			t.Errorf("%s: only %d rows", name, len(rows))
		}
	}
}

// The words of a rule are not those of one server: a change of case, of host or of digits changes nothing.
func TestMeaningIgnoresCaseAndNames(t *testing.T) {
	for _, k := range readReplies(t, "testdata/replies.tsv") {
		want := Classify(k.stage, k.reply.Code, k.reply.Enhanced, k.reply.Text)
		for _, text := range []string{strings.ToUpper(k.reply.Text), "mx7.example.net " + k.reply.Text, k.reply.Text + " [id 5f3a]"} {
			if got := Classify(k.stage, k.reply.Code, k.reply.Enhanced, text); got != want {
				t.Errorf("%q: %+v, want %+v", text, got, want)
			}
		}
	}
}

// Whatever a server says, what it took was taken, and what it refused was not.
func TestEveryCodeHasAClassAtEveryStage(t *testing.T) {
	for st := flowctl.StageConnect; st <= flowctl.StageIdle; st++ {
		for code := 200; code < 600; code += 1 + code%7 {
			for _, text := range []string{"", "too many connections", "quota exceeded", "time out", "spam", "said: x"} {
				m := Classify(st, code, [3]uint16{}, text)
				if (m.Class == flowctl.OK) != (code < 400) || classes[m.Word] != m.Class {
					t.Fatalf("stage %d, %d %q: %+v", st, code, text, m)
				}
				if m.Class == flowctl.Permanent && (code < 500 || st < flowctl.StageMail || st > flowctl.StageDot) {
					t.Fatalf("stage %d, %d %q is permanent", st, code, text)
				}
			}
		}
	}
	if m := Classify(flowctl.StageDot, 0, [3]uint16{}, ""); m.Class != flowctl.PerMessage {
		t.Errorf("what is unknown is %+v", m)
	}
}

func TestLimitsAreRead(t *testing.T) {
	for text, want := range map[string]int{
		"too many connections, limit is 20":                   20,
		"Too many connections from your IP (max 10)":          10,
		"Maximum number of connections: 5 reached":            5,
		"exceeded the maximum of 100 messages per connection": 100,
		"too many connections from 192.0.2.1":                 0,
		"too many connections from host, limit 192.0.2.1":     0,
	} {
		if got := Classify(flowctl.StageGreeting, 421, [3]uint16{}, text).Limit; got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// What a relay quotes is about somebody else, and moves nothing; but a reply whose own words come before it may.
func TestQuotedRepliesMoveNothing(t *testing.T) {
	for _, quoted := range []string{"421 4.7.0 too many connections", "550 5.4.5 Daily sending quota exceeded", "535 authentication failed", "454 rate exceeded", "421 timeout"} {
		for _, st := range []flowctl.Stage{flowctl.StageRcpt, flowctl.StageData, flowctl.StageDot} {
			for _, code := range []int{421, 450, 535, 550} {
				for _, before := range []string{
					"host mx.example.com[192.0.2.1] said: ", "Remote Server returned '", "<<< ",
					"SMTP error from remote mail server after RCPT TO:<u@example.com>: host mx.example.com [192.0.2.1]: ",
				} {
					m := Classify(st, code, [3]uint16{uint16(code / 100), 7, 500}, before+quoted)
					if m.Class != flowctl.PerMessage && m.Class != flowctl.Permanent {
						t.Errorf("%d, %s%s: %+v", code, before, quoted, m)
					}
				}
			}
		}
	}
}

func TestErrorsHaveTheirMeaning(t *testing.T) {
	timeout := &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
	for _, tc := range []struct {
		stage flowctl.Stage
		err   error
		class flowctl.Class
	}{
		{flowctl.StageDot, nil, flowctl.OK},
		{flowctl.StageConnect, timeout, flowctl.Unavailable},
		{flowctl.StageGreeting, timeout, flowctl.Unavailable},
		{flowctl.StageTLS, timeout, flowctl.Unavailable},
		{flowctl.StageMail, timeout, flowctl.Overload},
		{flowctl.StageDot, fmt.Errorf("x: %w", os.ErrDeadlineExceeded), flowctl.Overload},
		{flowctl.StageMail, io.EOF, flowctl.Unavailable},
		{flowctl.StageDot, syscall.ECONNRESET, flowctl.Unavailable},
		{flowctl.StageIdle, io.EOF, flowctl.IdleClose},
		{flowctl.StageIdle, syscall.ECONNRESET, flowctl.IdleClose},
		{flowctl.StageIdle, errReplyMalformed, flowctl.Unavailable},
		{flowctl.StageDot, net.ErrClosed, flowctl.IdleClose},
		{flowctl.StageConnect, context.Canceled, flowctl.IdleClose},
		{flowctl.StageConnect, &net.DNSError{IsNotFound: true}, flowctl.Unavailable},
		{flowctl.StageConnect, &net.DNSError{IsTimeout: true}, flowctl.Unavailable},
		{flowctl.StageTLS, x509.UnknownAuthorityError{}, flowctl.Misconfigured},
		{flowctl.StageTLS, fmt.Errorf("x: %w", &tls.CertificateVerificationError{Err: errors.New("x")}), flowctl.Misconfigured},
		{flowctl.StageTLS, tls.AlertError(40), flowctl.Unavailable},
		{flowctl.StageAuth, errSettings, flowctl.Misconfigured},
	} {
		if m := ClassifyErr(tc.stage, tc.err); m.Class != tc.class || classes[m.Word] != m.Class {
			t.Errorf("stage %d, %v: %+v, want class %v", tc.stage, tc.err, m, tc.class)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	for name, text := range map[string]string{
		"short": "<user@example.com>: Recipient address rejected: User unknown",
		"long":  strings.Repeat("too many messages limit x ", replyTextMax/26),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if Classify(flowctl.StageRcpt, 550, [3]uint16{5, 1, 1}, text).Class == flowctl.OK {
					b.Fatal("taken")
				}
			}
		})
	}
}
