package smtpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
	"go.uber.org/zap"
)

// countingConn counts writes.
type countingConn struct {
	net.Conn
	writes int
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes++
	return c.Conn.Write(p)
}

// oneConn is a listener that yields one connection.
type oneConn struct {
	conn net.Conn
	done chan struct{}
}

func newOneConn(c net.Conn) *oneConn { return &oneConn{c, make(chan struct{})} }

func (l *oneConn) Accept() (net.Conn, error) {
	if conn := l.conn; conn != nil {
		l.conn = nil
		return conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	close(l.done)
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// silent says whether the server has written nothing to c by now.
func (c *client) silent() bool {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		c.t.Fatal(err)
	}
	_, err := c.r.Peek(1)
	if err := c.SetReadDeadline(time.Now().Add(clientPatience)); err != nil {
		c.t.Fatal(err)
	}
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func TestAtTheCapConnectionsWaitInTheBacklogAndNobodyHears421(t *testing.T) {
	cfg := testConfig()
	cfg.MaxConnections = 3
	bubble(t, cfg, func(t *testing.T, f *front) {
		other := memconn.Listen()
		served := make(chan error, 1)
		go func() { served <- f.Serve(other) }()
		synctest.Wait() // both listeners wait in Accept now

		lists := []*memconn.Listener{f.lis, other}
		var clients []*client
		for i := range 12 {
			f.lis = lists[i%2]
			clients = append(clients, f.dial(t))
		}
		f.lis = lists[0]
		for served := 0; served < len(clients); served++ {
			var waiting []*client
			for _, c := range clients[served:] {
				if c.silent() {
					waiting = append(waiting, c)
				}
			}
			if got, want := len(clients)-served-len(waiting), min(3, len(clients)-served); got != want {
				t.Fatalf("%d clients are served, want %d", got, want)
			}
			if n := f.Stats().Connections; n > 3 {
				t.Fatalf("%d connections", n)
			}
			// One of those that are served leaves.
			i := slices.IndexFunc(clients[served:], func(c *client) bool { return !c.silent() }) + served
			clients[served], clients[i] = clients[i], clients[served]
			clients[served].want("220")
			clients[served].send("QUIT\r\n")
			clients[served].want("221")
			clients[served].wantEnd()
		}
		if s := f.Stats(); s.Total != 12 || len(s.Refused) != 0 {
			t.Errorf("%d connections served, refused %v", s.Total, s.Refused)
		}
		f.Drain()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// lateListener notes whether anybody waits in Accept.
type lateListener struct {
	*memconn.Listener
	waiting atomic.Int32
}

func (l *lateListener) Accept() (net.Conn, error) {
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	return l.Listener.Accept()
}

func TestAtTheCapAcceptIsNotCalled(t *testing.T) {
	cfg := testConfig()
	cfg.MaxConnections = 1
	bubble(t, cfg, func(t *testing.T, f *front) {
		late := &lateListener{Listener: memconn.Listen()}
		served := make(chan error, 1)
		go func() { served <- f.Serve(late) }()
		synctest.Wait()
		if late.waiting.Load() != 1 {
			t.Error("nobody accepts")
		}
		f.lis = late.Listener
		c := f.greeted(t)
		synctest.Wait()
		if late.waiting.Load() != 0 {
			t.Error("Accept is called at the cap")
		}
		c.send("QUIT\r\n")
		c.want("221")
		synctest.Wait()
		if late.waiting.Load() != 1 {
			t.Error("nobody accepts after the cap")
		}
		f.Drain()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestOneSlotIsEnoughForTwoListeners(t *testing.T) {
	cfg := testConfig()
	cfg.MaxConnections = 1
	bubble(t, cfg, func(t *testing.T, f *front) {
		idle := memconn.Listen()
		served := make(chan error, 1)
		go func() { served <- f.Serve(idle) }()
		for range 3 {
			synctest.Wait()
			c := f.greeted(t)
			c.send("QUIT\r\n")
			c.want("221")
			c.wantEnd()
		}
		f.Drain()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestCloseWaitsForTransactionsThenCuts(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		quick, slow := f.greeted(t), f.greeted(t)
		quick.toData()
		slow.toData()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		closed := make(chan error, 1)
		started := time.Now()
		go func() { closed <- f.Close(ctx) }()
		pass(30 * time.Second)
		quick.send("x\r\n.\r\n")
		quick.want("250 2.0.0 queued", "421 4.3.2")
		err := <-closed
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "cut 1 connections") {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(started); took != time.Minute {
			t.Errorf("Close took %v", took)
		}
		if _, err := slow.reply(); err == nil {
			t.Error("the slow transaction goes on")
		}
		wantBodies(t, f, "x\r\n")
	})
}

func TestCloseWaitsForACommit(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		f.memory.onCommit = func() { pass(time.Hour) }
		c := f.greeted(t)
		c.toData()
		c.send("x\r\n.\r\n")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		started := time.Now()
		if err := f.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(started); took != time.Hour {
			t.Errorf("Close took %v, the commit an hour", took)
		}
		wantBodies(t, f, "x\r\n")
	})
}

func TestServeAfterDrainClosesTheListener(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		f.Drain()
		late := memconn.Listen()
		if err := f.Serve(late); err != nil {
			t.Error(err)
		}
		if _, err := late.Dial(t.Context(), "tcp", ""); err == nil {
			t.Error("the listener is open")
		}
	})
}

type brokenListener struct{ *memconn.Listener }

func (brokenListener) Accept() (net.Conn, error) { return nil, io.ErrUnexpectedEOF }

func TestServeReturnsTheErrorOfAListener(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		if err := f.Serve(brokenListener{memconn.Listen()}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestACommandThatDoesNotComeIsNotWaitedForLonger(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		idle, trickle := f.greeted(t), f.greeted(t)
		started := time.Now()
		for range 5 {
			trickle.send("N")
			pass(59 * time.Second)
		}
		for _, c := range []*client{idle, trickle} {
			c.want("421 4.4.2")
			c.wantEnd()
			if took := time.Since(started); took != f.cfg.IdleTimeout {
				t.Errorf("sent away after %v", took)
			}
		}
	})
}

func TestAClientThatDoesNotReadIsGivenUp(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		written := make(chan error, 1)
		go func() { // until the server has given up; received from below
			for {
				if _, err := c.Write([]byte(strings.Repeat("RCPT TO:<a@b>\r\n", 100))); err != nil {
					written <- err
					return
				}
			}
		}()
		<-written
		synctest.Wait()
		if n := f.Stats().Connections; n != 0 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestACommandLineHasABound(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		c.send("NOOP " + strings.Repeat("x", maxCommandLine-7) + "\r\n")
		c.want("250")
		c.send("NOOP " + strings.Repeat("x", maxCommandLine-6) + "\r\n")
		c.want("500 5.5.2 line too long")
		c.wantEnd()
	})
}

func TestACommandLineBehindContentHasTheSameBound(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		c.toData()
		c.send("x\r\n.\r\nNOOP\r\nNOOP " + strings.Repeat("x", maxCommandLine-6) + "\r\nNOOP\r\n")
		c.want("250 2.0.0 queued", "250 2.0.0 I have", "500 5.5.2 line too long")
		c.wantEnd()
	})
}

func TestADraftIsGivenUpAsSoonAsItsMessageIsRefused(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		c.toData()
		c.send("a\x00")
		synctest.Wait()
		if f.memory.ended != 1 {
			t.Error("the draft is kept while the rest comes in")
		}
		c.send("\r\n.\r\n")
		c.want("550 5.6.0")
	})
}

func TestARefusedMailLeavesTheClientIdle(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		f.memory.beginErr = ErrFull
		c := f.greeted(t)
		c.send("MAIL FROM:<a@b>\r\n")
		c.want("452 4.3.1")
		f.Drain()
		c.want("421 4.3.2")
		c.wantEnd()
	})
}

func TestNoTransactionBeginsWhileDraining(t *testing.T) {
	ours, theirs := memconn.Pipe()
	defer ours.Close()
	defer theirs.Close()
	g := newGuard(theirs, New(testConfig(), (&memory{}).store(), zap.NewNop()))
	if err := g.begin(); err != nil {
		t.Error(err)
	}
	g.drain()
	g.idle()
	if err := g.begin(); !errors.Is(err, ErrClosing) || g.busy {
		t.Errorf("begin: %v", err)
	}
}

func TestPaceIsMeasuredAnewEachMinute(t *testing.T) {
	var p pace
	for i, s := range []struct {
		n    int
		d    time.Duration
		slow bool
	}{
		{1 << 30, 30 * time.Second, false},
		{0, 30 * time.Second, false}, // the first window was fast
		{29999, 30 * time.Second, false},
		{0, 30 * time.Second, true},
		{30000, 59 * time.Second, false},
		{0, time.Second, false},
		{30000, 5 * time.Minute, true}, // one long read
	} {
		if slow := p.tooSlow(s.n, s.d, defaultMinRate); slow != s.slow {
			t.Errorf("read %d: too slow %v", i, slow)
		}
	}
}

func TestFloodsAreBounded(t *testing.T) {
	for _, s := range []struct {
		name, line, reply string
		after             int
	}{
		{"unknown verbs", "XYZZY", "500 5.5.2", maxJunk},
		{"empty lines", "", "500 5.5.2", maxJunk},
		{"binary lines", "\x01\x02", "500 5.5.2", maxJunk},
		{"noops", "NOOP", "250 2.0.0", maxJunk},
		{"errors", "AUTH X", "502 5.5.1", maxErrors},
		{"resets", "RSET", "250 2.0.0", 200},
		{"refused recipients", "RCPT TO:<x>", "503 5.5.1", 200},
		{"refused senders", "MAIL FROM:<x>", "553 5.1.7", 200},
	} {
		t.Run(s.name, func(t *testing.T) {
			cfg := testConfig()
			cfg.MaxRecipients = 10
			bubble(t, cfg, func(t *testing.T, f *front) {
				c := f.greeted(t)
				if s.after == 200 {
					s.after-- // EHLO was a command, too
				}
				for i := range s.after {
					c.send(s.line + "\r\n")
					got, err := c.reply()
					if err != nil || !strings.HasPrefix(got, s.reply) {
						t.Fatalf("line %d: %q, %v", i+1, got, err)
					}
				}
				c.want("421 4.7.0")
				c.wantEnd()
			})
		})
	}
}

func TestAnAcceptedMessageForgivesErrors(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		for range 5 {
			for range maxErrors - 1 {
				c.send("STARTTLS\r\n")
				c.want("502")
			}
			for range maxJunk - 1 {
				c.send("NOOP\r\n")
				c.want("250")
			}
			c.toData()
			c.send(".\r\n")
			c.want("250")
		}
	})
}

// A list with many bad addresses, all in one pipelined transaction, must still reach the good ones.
func TestRefusedRecipientsDoNotCostTheOthersTheirMail(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		c.send("MAIL FROM:<a@b>\r\n" + strings.Repeat("RCPT TO:<bad>\r\n", 900) + "RCPT TO:<good@d>\r\nDATA\r\n")
		c.want("250")
		for range 900 {
			c.want("553")
		}
		c.want("250", "354")
		c.send(".\r\n")
		c.want("250")
		wantBodies(t, f, "")
	})
}

func TestStatsCountRepliesAndAcceptTimes(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		if s := f.Stats(); s.Refused == nil || len(s.AcceptSeconds) != len(AcceptBounds)+1 || s.Total != 0 {
			t.Errorf("at first %+v", s)
		}
		f.memory.onCommit = func() { pass(30 * time.Millisecond) }
		c := f.greeted(t)
		c.send("DATA\r\n")
		c.want("503")
		for range 2 {
			c.send("XYZZY\r\n")
			c.want("500")
		}
		c.toData()
		c.send(".\r\n")
		c.want("250")
		f.memory.onCommit = func() { pass(time.Minute) }
		c.toData()
		c.send(".\r\n")
		c.want("250")
		s := f.Stats()
		if s.Connections != 1 || s.Total != 1 || len(s.Refused) != 2 || s.Refused["503 5.5.1"] != 1 || s.Refused["500 5.5.2"] != 2 {
			t.Errorf("%+v", s)
		}
		i := slices.Index(AcceptBounds, .05)
		if s.AcceptSeconds[i] != 1 || s.AcceptSeconds[len(AcceptBounds)] != 1 || s.AcceptSum < 60.03 || s.AcceptSum > 60.04 {
			t.Errorf("accept times %v, sum %v", s.AcceptSeconds, s.AcceptSum)
		}
		s.Refused["x"], s.AcceptSeconds[0] = 1, 7
		if again := f.Stats(); again.Refused["x"] != 0 || again.AcceptSeconds[0] != 0 {
			t.Error("a snapshot is shared")
		}
	})
	var st stats
	for i := range 2 * maxRefusalKinds {
		st.refused(fmt.Appendf(nil, "5%02d 5.0.0 x\r\n", i))
	}
	if len(st.seen.Refused) != maxRefusalKinds+1 || st.seen.Refused[otherRefusals] != maxRefusalKinds {
		t.Errorf("%d kinds of refusals", len(st.seen.Refused))
	}
}

// Bodies, secrets and addresses never reach the log, and bytes of the client only escaped.
func TestTheLogKeepsSecrets(t *testing.T) {
	cfg := testConfig()
	cfg.AcceptAnyAuth = true
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		f := open(t, cfg, m)
		c := f.greeted(t)
		c.send("AUTH PLAIN c2VjcmV0\r\n")
		c.want("235")
		m.commitErr = errors.New("disk on fire")
		c.send("MAIL FROM:<secret@b>\r\nRCPT TO:<secret@d>\r\nDATA\r\nsecret\nsecret\r\n.\r\n")
		c.want("250", "250", "354", "451")
		c.send("secret secret\r\nPOST /secret HTTP/1.1\r\n")
		c.want("500")
		c.wantEnd()
		f.close(t)
		for _, e := range f.logs.All() {
			if text := fmt.Sprint(e.Message, e.ContextMap()); strings.Contains(text, "secret") || strings.Contains(text, "c2Vj") {
				t.Errorf("logged: %s", text)
			}
		}
		if f.logs.Len() < 4 {
			t.Errorf("%d log lines", f.logs.Len())
		}
	})
}

func TestAPanicInTheStoreClosesOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{onCommit: func() { panic("panic of a test") }}
		f := open(t, testConfig(), m)
		c := f.greeted(t)
		c.toData()
		c.send("x\r\n.\r\n")
		c.want("421 4.0.0")
		c.wantEnd()
		m.onCommit = nil
		other := f.greeted(t)
		other.toData()
		other.send("x\r\n.\r\n")
		other.want("250")
		f.close(t)
		if n := f.logs.FilterLevelExact(zap.ErrorLevel).Len(); n != 1 {
			t.Errorf("%d errors logged", n)
		}
	})
}

func TestSizeIsDeclaredToTheStore(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		for _, mail := range []string{"MAIL FROM:<a@b> SIZE=77", "RSET", "MAIL FROM:<a@b>", "RSET"} {
			c.send(mail + "\r\n")
			c.want("250")
		}
		if !slices.Equal(f.memory.sizes, []int64{77, 0}) || f.memory.ended != 2 {
			t.Errorf("sizes %v, %d drafts aborted", f.memory.sizes, f.memory.ended)
		}
	})
}

func TestRecipientsOfOpenTransactionsHaveOneBudget(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		f.envelopes.Store(maxEnvelopeBytes - 200)
		c := f.greeted(t)
		c.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nRCPT TO:<g@h.example>\r\n")
		c.want("250")
		c.want("250")
		c.want("250")
		c.want("452 4.3.1")
		other := f.greeted(t)
		other.send("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
		other.want("250")
		other.want("452 4.3.1")
		c.send("DATA\r\n")
		c.want("354")
		c.send("x\r\n.\r\n")
		c.want("250")
		other.send("RCPT TO:<c@d.example>\r\n")
		other.want("250")
		other.send("RSET\r\n")
		other.want("250")
		if left := f.envelopes.Load(); left != maxEnvelopeBytes-200 {
			t.Errorf("%d octets were not given back", left-maxEnvelopeBytes+200)
		}
	})
}
