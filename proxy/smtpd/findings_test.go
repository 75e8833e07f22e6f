package smtpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/proxy/message"
	"go.uber.org/zap"
)

// The findings are what go-smtp v0.25.1 does when it stands alone; findings 1 and 7 are also
// TestAChunkIsNeverReadAsCommands and TestAChunkThatBreaksOffIsNeverAccepted, findings 8 to 10, 14 and 17 are dialogs.

func TestFinding1ContentThatBreaksOffIsNeverAccepted(t *testing.T) {
	for _, wire := range []string{"", "line", "line\r\n", "line\r\n.", "line\r\n.\r", "line\n.\n"} {
		for _, half := range []bool{true, false} {
			bubble(t, testConfig(), func(t *testing.T, f *front) {
				c := f.greeted(t)
				c.toData()
				c.send(wire)
				if half {
					if err := c.Conn.(*memconn.Conn).CloseWrite(); err != nil {
						t.Fatal(err)
					}
					c.wantEnd()
				} else if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				wantBodies(t, f)
				if s := f.Stats(); s.Connections != 0 || f.memory.ended != 1 {
					t.Errorf("%q: %d connections left, %d drafts ended", wire, s.Connections, f.memory.ended)
				}
			})
		}
	}
}

func TestFinding2AfterATimeoutInContentTheRestIsNotReadAsCommands(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		c.toData()
		c.send("line\r\n")
		started := time.Now()
		c.want("421 4.4.2")
		if idle := time.Since(started); idle != f.cfg.IdleTimeout {
			t.Errorf("cut after %v", idle)
		}
		c.wantEnd()
		// What the client still had on its way finds nobody; the error says so.
		if _, err := c.Write([]byte(smuggled + "\r\n.\r\n")); err == nil {
			t.Error("the connection still takes commands")
		}
		synctest.Wait()
		wantBodies(t, f)
	})
}

// faultyConn fails one read, the one after trigger, and then goes on.
type faultyConn struct {
	net.Conn
	trigger string
	err     error
	rest    []byte
}

func (c *faultyConn) Read(p []byte) (int, error) {
	switch {
	case c.trigger != "":
		n, err := c.Conn.Read(p)
		if i := strings.Index(string(p[:n]), c.trigger); i >= 0 {
			i += len(c.trigger)
			c.rest = append(c.rest, p[i:n]...)
			n, c.trigger = i, ""
		}
		return n, err
	case c.err != nil:
		err := c.err
		c.err = nil
		return 0, err
	case len(c.rest) > 0:
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func TestFinding2AfterAnyReadErrorInContentTheRestIsNotReadAsCommands(t *testing.T) {
	for _, cause := range []error{os.ErrDeadlineExceeded, syscall.ECONNRESET, io.ErrUnexpectedEOF} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := memconn.Pipe()
			m := &memory{onCommit: func() { t.Errorf("committed after %v", cause) }}
			lis := newOneConn(&faultyConn{Conn: theirs, trigger: "half of a body", err: cause})
			s := New(testConfig(), m.store(), zap.NewNop())
			served := make(chan error, 1)
			go func() { served <- s.Serve(lis) }()
			c := &client{Conn: ours, t: t, r: bufio.NewReader(ours)}
			c.send("EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhalf of a body" +
				"\r\n.\r\n" + smuggled + "\r\n.\r\n") // would be read, if anybody read on
			c.want("220", "250", "250", "250", "354")
			if errors.Is(cause, os.ErrDeadlineExceeded) {
				c.want("421 4.4.2")
			}
			c.wantEnd()
			if err := errors.Join(s.Close(t.Context()), <-served); err != nil {
				t.Error(err)
			}
			if m.begun != 1 || m.ended != 1 {
				t.Errorf("%d drafts begun, %d ended", m.begun, m.ended)
			}
		})
	}
}

func TestFinding3ASteadySlowUploadIsNotCutAndATrickleIs(t *testing.T) {
	for _, s := range []struct {
		octets int // every 10 s
		cut    bool
	}{{5000, false}, {4990, true}, {10, true}} {
		bubble(t, testConfig(), func(t *testing.T, f *front) {
			c := f.greeted(t)
			c.toData()
			body := strings.Repeat("x", s.octets-2) + "\r\n"
			started := time.Now()
			const writes = 100 // three times the idle timeout
			for range writes {
				pass(10 * time.Second)
				if _, err := c.Write([]byte(body)); err != nil {
					break
				}
			}
			if !s.cut {
				c.send(".\r\n")
				c.want("250 2.0.0 queued")
				wantBodies(t, f, strings.Repeat(body, writes))
				return
			}
			c.want("421 4.4.2")
			c.wantEnd()
			if took := time.Since(started); took > 2*paceWindow {
				t.Errorf("%d octets in 10 s: cut after %v", s.octets, took)
			}
			wantBodies(t, f)
		})
	}
}

func TestFinding3ADiskThatIsSlowIsNotTheClientsFault(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		for range 3 {
			f.memory.onCommit = func() { pass(10 * f.cfg.IdleTimeout) }
			c.toData()
			c.send("x\r\n.\r\n")
			c.want("250 2.0.0 queued")
		}
		wantBodies(t, f, "x\r\n", "x\r\n", "x\r\n")
	})
}

func TestFinding4ABodyThatEndsInCRCRLFEnds(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		c.toData()
		c.send("line\r\r\n.\r\n")
		c.want("250 2.0.0 queued")
		wantBodies(t, f, "line \r\n")
	})
}

func TestFinding5OnlyKnownErrorsHaveRepliesOfTheirOwn(t *testing.T) {
	secret := errors.New("open /var/lib/secret: permission denied")
	for _, s := range []struct {
		err          error
		begin, whole string // the replies to MAIL, and to content
		logged       int
	}{
		{ErrFull, "452 4.3.1", "452 4.3.1", 0},
		{fmt.Errorf("journal: append: %w", ErrFull), "452 4.3.1", "452 4.3.1", 0},
		{ErrClosing, "421 4.3.2", "421 4.3.2", 0},
		{fmt.Errorf("proxy: %w", ErrClosing), "421 4.3.2", "421 4.3.2", 0},
		{secret, "451 4.3.0", "451 4.3.0", 1},
		{fmt.Errorf("wrapped: %w", secret), "451 4.3.0", "451 4.3.0", 1},
		{errors.Join(secret, context.Canceled), "451 4.3.0", "451 4.3.0", 1},
	} {
		for _, at := range []string{"begin", "write", "commit"} {
			synctest.Test(t, func(t *testing.T) {
				m := &memory{}
				f := open(t, testConfig(), m)
				defer f.close(t)
				want := s.whole
				switch at {
				case "begin":
					m.beginErr, want = s.err, s.begin
				case "write":
					m.writeErr = s.err
				case "commit":
					m.commitErr = s.err
				}
				c := f.greeted(t)
				for range 2 {
					c.send("MAIL FROM:<a@b>\r\n")
					if at != "begin" {
						c.want("250")
						c.send("RCPT TO:<c@d>\r\nDATA\r\n")
						c.want("250", "354")
						c.send(strings.Repeat("x\r\n", contentBuffer) + ".\r\n")
					}
					got, err := c.reply()
					if err != nil || !strings.HasPrefix(got, want) || strings.Contains(got, "secret") {
						t.Errorf("%v at %s: reply %q, %v; want %s", s.err, at, got, err, want)
					}
					if strings.HasPrefix(want, "421") {
						c.wantEnd()
						break
					}
				}
				if n := f.logs.FilterMessage("message refused by a local error").Len(); n != s.logged {
					t.Errorf("%v at %s: logged %d times, want %d", s.err, at, n, s.logged)
				}
			})
		}
	}
}

func TestFinding6DrainSendsIdleClientsAwayAndLetsTransactionsFinish(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		fresh := f.dial(t) // has not even said EHLO
		fresh.want("220")
		idle := f.greeted(t)
		typing := f.greeted(t)
		typing.send("MAI")
		after := f.greeted(t)
		after.toData()
		after.send("x\r\n.\r\n")
		after.want("250 2.0.0 queued")
		begun := f.greeted(t)
		begun.send("MAIL FROM:<a@b>\r\n")
		begun.want("250")
		given := f.greeted(t)
		given.send("MAIL FROM:<a@b>\r\n")
		given.want("250")
		sending := f.greeted(t)
		sending.toData()
		sending.send("lin")
		synctest.Wait()

		now := time.Now()
		f.Drain()
		f.Drain()
		for _, c := range []*client{fresh, idle, typing, after} {
			c.want("421 4.3.2")
			c.wantEnd()
		}
		if took := time.Since(now); took != 0 {
			t.Errorf("idle clients were sent away after %v", took)
		}
		begun.send("RCPT TO:<c@d>\r\nDATA\r\n")
		begun.want("250", "354")
		begun.send("one\r\n.\r\nMAIL FROM:<a@b>\r\n") // the next one is too late
		begun.want("250 2.0.0 queued", "421 4.3.2")
		begun.wantEnd()
		sending.send("e\r\n.\r\n")
		sending.want("250 2.0.0 queued", "421 4.3.2")
		sending.wantEnd()
		given.send("RSET\r\n")
		given.want("250", "421 4.3.2")
		given.wantEnd()
		wantBodies(t, f, "x\r\n", "one\r\n", "line\r\n")
		if _, err := f.lis.Dial(t.Context(), "tcp", ""); err == nil {
			t.Error("a draining server listens")
		}
		if err := f.Close(t.Context()); err != nil {
			t.Errorf("Close with nobody left: %v", err)
		}
	})
}

func TestFinding11NothingIsCommittedThatTheClientCannotHear(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		f.memory.onCommit = func() { t.Error("committed") }
		c := f.greeted(t)
		// The whole transaction in one write: its replies are still owed when the content ends.
		c.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n")
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantBodies(t, f)
	})
}

func TestFinding12RepliesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := memconn.Pipe()
		counted := &countingConn{Conn: theirs}
		m := &memory{}
		cfg := testConfig()
		s := New(cfg, m.store(), zap.NewNop())
		lis := newOneConn(counted)
		served := make(chan error, 1)
		go func() { served <- s.Serve(lis) }()
		c := &client{Conn: ours, t: t, r: bufio.NewReader(ours)}
		c.want("220")
		c.send("EHLO a\r\n")
		c.want("250")
		c.send("MAIL FROM:<a@b>\r\n" + strings.Repeat("RCPT TO:<c@d>\r\n", 50) + "DATA\r\n")
		c.want("250")
		for range 50 {
			c.want("250 2.1.5")
		}
		c.want("354")
		c.send(".\r\n")
		c.want("250")
		c.send("QUIT\r\n")
		c.want("221")
		c.wantEnd()
		if counted.writes != 5 { // greeting, EHLO, MAIL to DATA, content, QUIT
			t.Errorf("%d writes", counted.writes)
		}
		if err := errors.Join(s.Close(t.Context()), <-served); err != nil {
			t.Error(err)
		}
	})
}

func TestFinding13LineEndsAreRepairedAndCounted(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		for range 2 {
			c.toData()
			c.send("Subject: a\n\nb\rc\r\n.\r\n")
			c.want("250 2.0.0 queued")
		}
		c.send("QUIT\r\n")
		c.want("221")
		c.wantEnd()
		synctest.Wait()
		wantBodies(t, f, "Subject: a\r\n\r\nb c\r\n", "Subject: a\r\n\r\nb c\r\n")
		if s := f.Stats(); s.BareNewlines != 4 || s.BareReturns != 2 {
			t.Errorf("counted %d bare LF, %d stray CR", s.BareNewlines, s.BareReturns)
		}
		got := f.logs.FilterMessage("line ends in content repaired").All()
		if len(got) != 1 || got[0].ContextMap()["bare_lf"] != uint64(4) || got[0].ContextMap()["bare_cr"] != uint64(2) {
			t.Errorf("logged %v", got)
		}
	})
}

func TestFinding15ALongBodyLineIsNotCut(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.greeted(t)
		c.toData()
		line := strings.Repeat("x", 300<<10) + "\r\n"
		c.send(line + ".\r\n")
		c.want("250 2.0.0 queued")
		wantBodies(t, f, line)
	})
}

func TestTheReceivedHeaderIsOursWhateverTheClientCallsItself(t *testing.T) {
	bubble(t, testConfig(), func(t *testing.T, f *front) {
		c := f.dial(t)
		c.want("220")
		c.send("EHLO \xff(x)\";by=evil rest\r\n")
		c.want("250")
		c.toData()
		c.send("Subject: x\r\n\r\n.\r\n")
		c.want("250")
		k := f.memory.kept()[0]
		head := strings.TrimSuffix(k.all, k.body)
		if !strings.HasPrefix(head, "Received: from ??x???by?evil ([127.0.0.1])\r\n\tby weir.example") ||
			strings.Count(head, "\r\n") != 3 || k.env.Helo != "\xff(x)\";by=evil" {
			t.Errorf("header %q, helo %q", head, k.env.Helo)
		}
		if k.env.ID == 0 || k.env.Client != c.LocalAddr().String() || k.env.From != "a@app.example" ||
			len(k.env.To) != 1 || k.env.To[0] != (message.Recipient{Addr: "b@to.example"}) {
			t.Errorf("envelope %+v", k.env)
		}
	})
}
