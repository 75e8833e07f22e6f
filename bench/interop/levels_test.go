//go:build postfix

package interop

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mailweir/mailweir/bench/rig"
	"github.com/mailweir/mailweir/proxy"
	"github.com/mailweir/mailweir/proxy/config"
	"github.com/mailweir/mailweir/proxy/upstream"
)

const (
	lettersEach    = 500
	sendersEach    = 10
	recipientsMost = 5
	largeLetter    = 1 << 20
	levelLimit     = time.Minute
)

// levels are the ways to use a connection, each with the EHLO keywords without which it is another.
var levels = []struct {
	name   string
	most   upstream.Level
	window string
	needs  []string
}{
	{"one command at a time", upstream.L0, "1", nil},
	{"commands in a group", upstream.L1, "1", []string{"PIPELINING"}},
	{"content and commands in a group", upstream.L2, "1", []string{"PIPELINING"}},
	{"whole messages", upstream.L3, "1", []string{"PIPELINING", "CHUNKING"}},
	{"four whole messages", upstream.L4, "4", []string{"PIPELINING", "CHUNKING"}},
	{"sixteen whole messages", upstream.L4, "16", []string{"PIPELINING", "CHUNKING"}},
}

// TestEveryServerGetsEveryMessageOnceAndUnaltered sends the same messages to each server in each way that it allows.
func TestEveryServerGetsEveryMessageOnceAndUnaltered(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			address, taken := s.start(t)
			offered := offers(t, address)
			for i, level := range levels {
				if slices.ContainsFunc(level.needs, func(keyword string) bool { return !slices.Contains(offered, keyword) }) {
					continue
				}
				t.Run(level.name, func(t *testing.T) {
					began := time.Now()
					all := makeLetters(fmt.Sprintf("%s-%d", s.name, i), s.lines)
					core, logs := observer.New(zap.InfoLevel)
					p := inProcess(t, address, level.most, level.window, zap.New(core))
					sendAll(t, p.Addrs()[0].String(), all)
					rig.Await(t, levelLimit, "delivery", func() error {
						if q := p.Status().Queue; q.Pending > 0 || q.Delivered+q.Dead < lettersEach {
							return fmt.Errorf("%+v", q)
						}
						return nil
					})
					if q := p.Status().Queue; q.Dead > 0 || q.DuplicatesPossible > 0 {
						t.Errorf("%+v", q)
					}
					compare(t, s, all, taken)
					if !reached(logs, level.most) {
						t.Errorf("the level was not reached: %+v", p.Status().Upstream)
					}
					t.Logf("%d messages in %.1f s", len(all), time.Since(began).Seconds())
				})
			}
		})
	}
}

// letter is a message and what it is to be like where it arrives.
type letter struct {
	id      string
	to      []string
	params  string // of MAIL
	content string
}

// makeLetters makes messages of the kinds that matter; none has a line of more than limit octets.
func makeLetters(name string, limit int) []letter {
	text := rand.New(rand.NewPCG(1, 2))
	line := func(n int) string { return strings.Repeat(string(rune('a'+text.IntN(26))), n-2) + "\r\n" }
	bodies := []func(n int) string{
		func(n int) string { return line(2+text.IntN(76)) + line(2+text.IntN(76)) },
		func(n int) string { return ".\r\n..\r\n...\r\n.x\r\n\r\n.\r\nQUIT\r\n.\r\n" },
		func(n int) string {
			return line(min(998, limit)) + "." + line(min(997, limit-1)) + line(min(limit, 3000))
		},
		func(n int) string { return "na\xc3\xafve \xff\x80\r\n" },
		func(n int) string { return "" },
		func(n int) string { return "no line end" },
		func(n int) string { return "." },
		func(n int) string { return "\r\n\r\n \t\r\nblanks \r\n\r\n\r\n" },
		func(n int) string { return "From here\r\n>From there\r\nSubject: no header\r\n" },
		func(n int) string { return strings.Repeat(line(78), 30+n) },
	}
	all := make([]letter, lettersEach)
	for n := range all {
		l := letter{id: fmt.Sprintf("%s-%d", name, n)}
		for i := range 1 + n%recipientsMost {
			l.to = append(l.to, fmt.Sprintf("u%d@interop.example", i))
		}
		body := bodies[n%len(bodies)](n)
		if n%(lettersEach/2) == 1 {
			body = strings.Repeat(line(78), largeLetter/78)
		}
		if strings.ContainsRune(body, 'ï') {
			l.params = " BODY=8BITMIME"
		}
		l.content = "X-Id: " + l.id + "\r\nMessage-ID: <" + l.id + "@interop.example>\r\nDate: Sat, 01 Jan 2000 00:00:00 +0000\r\n" +
			"From: <" + sender + ">\r\nSubject: folded\r\n\tonce\r\n\r\n" + body
		all[n] = l
	}
	return all
}

// inProcess runs a proxy in this process, whose use of the upstream's connections can be capped.
func inProcess(t *testing.T, address string, most upstream.Level, window string, log *zap.Logger) *proxy.Proxy {
	t.Helper()
	cfg := config.Default()
	cfg.Hostname, cfg.SMTPD.Hostname, cfg.Upstream.Hostname = "mailweir.example", "mailweir.example", "mailweir.example"
	cfg.SMTPD.Listen, cfg.Journal.Dir = []string{"127.0.0.1:0"}, scratch(t)
	cfg.Upstream.URL, cfg.Upstream.TLS, cfg.Upstream.LevelMax = "smtp://"+address, "none", &most
	cfg.Upstream.Window = window
	cfg.Admin.Listen, cfg.Admin.ProbeListen = "off", "off"
	p, err := proxy.New(cfg, log, "test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := p.Run(ctx)
		ended <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

// reached reports whether the level was ever used. A proxy begins at L2, and leaves a level also because of what is slow by chance.
func reached(logs *observer.ObservedLogs, level upstream.Level) bool {
	return level <= upstream.L2 || slices.ContainsFunc(logs.FilterMessage("pipelining").All(), func(e observer.LoggedEntry) bool {
		return strings.Contains(fmt.Sprint(e.ContextMap()["what"]), "to "+level.String())
	})
}

// sendAll hands all in, in chunks: a message without a line end at its end can be sent in no other way.
func sendAll(t *testing.T, address string, all []letter) {
	t.Helper()
	var senders sync.WaitGroup
	for first := range sendersEach {
		senders.Go(func() {
			c, err := dialSMTP(address)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, _, err := c.cmd(250, "EHLO client.example"); err != nil {
				t.Error(err)
			}
			for n := first; n < len(all); n += sendersEach {
				if err := c.send(all[n]); err != nil {
					t.Errorf("%s: %v", all[n].id, err)
					return
				}
			}
		})
	}
	senders.Wait()
}

// smtpClient is one that sends what it is told to.
type smtpClient struct{ *textproto.Conn }

func dialSMTP(address string) (smtpClient, error) {
	c, err := textproto.Dial("tcp", address)
	if err != nil {
		return smtpClient{}, err
	}
	_, _, err = c.ReadResponse(220)
	return smtpClient{c}, err
}

func (c smtpClient) cmd(code int, line string) (int, string, error) {
	if err := c.PrintfLine("%s", line); err != nil {
		return 0, "", err
	}
	return c.ReadResponse(code)
}

func (c smtpClient) send(l letter) error {
	lines := []string{"MAIL FROM:<" + sender + ">" + l.params}
	for _, to := range l.to {
		lines = append(lines, "RCPT TO:<"+to+">")
	}
	for _, line := range lines {
		if _, _, err := c.cmd(250, line); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(c.W, fmt.Sprintf("BDAT %d LAST\r\n", len(l.content))+l.content); err != nil {
		return err
	}
	if err := c.W.Flush(); err != nil {
		return err
	}
	_, _, err := c.ReadResponse(250)
	return err
}

// compare waits for all letters to arrive, and wants each at each of its recipients, once, as it was sent but for a line end at its end.
func compare(t *testing.T, s server, all []letter, taken func(t *testing.T) []arrival) {
	t.Helper()
	want := map[string]int{} // by recipient and content, how often
	for _, l := range all {
		content := l.content
		if !strings.HasSuffix(content, "\r\n") {
			content += "\r\n"
		}
		if s.lf {
			content = strings.ReplaceAll(content, "\r\n", "\n")
		}
		for _, to := range l.to {
			want[to+"\n"+content]++
		}
	}
	mine := "X-Id: " + all[0].id[:len(all[0].id)-1] // without the number
	rig.Await(t, levelLimit, "arrival", func() error {
		got := map[string]int{}
		n := 0
		for _, a := range taken(t) {
			if strings.HasPrefix(a.content, mine) {
				got[a.to+"\n"+a.content]++
				n++
			}
		}
		if n < len(want) {
			return fmt.Errorf("%d of %d", n, len(want))
		}
		for key, times := range got {
			if want[key] != times {
				t.Fatalf("%d times, want %d: %.300q", times, want[key], key)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d different ones, want %d", len(got), len(want))
		}
		return nil
	})
}
