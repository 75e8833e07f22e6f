package relay

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mailweir/mailweir/bench/memconn"
)

const envelope = `
	C: MAIL FROM:<a@example.org>
	C: RCPT TO:<b@example.net>
	C: DATA
	S: 250
	S: 250
	S: 354
`

func TestTheLedgerTellsWhatWasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{KeepBodies: true})
		c := dial(t, l)
		c.talk(greeted + `
			C: MAIL FROM:<> SIZE=99 BODY=8BITMIME
			C: RCPT TO:<b@example.net> NOTIFY=NEVER
			C: RCPT TO:<c@example.net>
			C: DATA
			S: 250
			S: 250
			S: 250
			S: 354`)
		const prefix = "Received: from x\r\n\tby y\r\n"
		const own = "X-Id: 17\r\nMessage-ID: <m@x>\r\n\r\n.dot\r\nX-Id: not a field\r\ncaf\xe9\r\n"
		c.send(strings.ReplaceAll(prefix+own, "\r\n.", "\r\n..") + ".\r\n")
		c.want("250 2.0.0 Taken")
		got := r.Ledger()
		if len(got) != 1 {
			t.Fatalf("%d messages", len(got))
		}
		m := got[0]
		if m.From != "" || !slices.Equal(m.To, []string{"b@example.net", "c@example.net"}) ||
			!slices.Equal(m.MailParams, []string{"SIZE=99", "BODY=8BITMIME"}) ||
			!slices.Equal(m.RcptParams, []string{"NOTIFY=NEVER", ""}) {
			t.Errorf("envelope: %+v", m)
		}
		if string(m.Body) != prefix+own || m.Size != int64(len(prefix+own)) || m.Sum != sha256.Sum256([]byte(prefix+own)) {
			t.Errorf("content: %q, size %d", m.Body, m.Size)
		}
		if m.XID != "17" || m.MessageID != "<m@x>" || m.Prefix != prefix || m.SumFromID != sha256.Sum256([]byte(own)) {
			t.Errorf("ids %q %q, prefix %q", m.XID, m.MessageID, m.Prefix)
		}
		if m.Conn != 1 || m.Transaction != 1 || m.Reply != "250 2.0.0 Taken" || m.When != time.Now() || !m.EightBit {
			t.Errorf("circumstances: %+v", m)
		}
	})
}

// A line longer than the read buffer comes in parts; a CR at the seam is still seen.
func TestOverlongLinesAreTakenWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{KeepBodies: true})
		c := dial(t, l)
		c.talk(greeted + envelope)
		body := strings.Repeat("x", readBuffer-1) + "\r" + "\n" + strings.Repeat("y", readBuffer-1) + "\rz\r\n.x\r\n"
		c.send(strings.ReplaceAll(body, "\n.", "\n..") + ".\r\n")
		c.want("250")
		if m := r.Ledger()[0]; string(m.Body) != body {
			t.Errorf("%d octets; want %d", len(m.Body), len(body))
		}
		wantBroken(t, r, []string{RuleBareCR})
	})
}

func TestOverTheLimitConnectionsAreRefusedAndAQuitFreesAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{MaxConnections: 2})
		one, two := dial(t, l), dial(t, l)
		one.talk(greeted)
		two.talk(greeted)
		three := dial(t, l)
		three.want(ExchangeBusy)
		if _, err := three.in.ReadByte(); err != io.EOF {
			t.Errorf("after the refusal: %v", err)
		}
		one.talk("C: QUIT\nS: 221")
		dial(t, l).talk(greeted) // at once after the 221
		if n := r.Counters(); n.Accepted != 3 || n.Refused != 1 || n.Current != 2 || n.Peak != 2 {
			t.Errorf("%+v", n)
		}
		r.SetMaxConnections(1)
		dial(t, l).want("421 4.3.2")
		two.Close()
		synctest.Wait()
		if n := r.Counters().Current; n != 1 {
			t.Errorf("%d current after a close without QUIT", n)
		}
	})
}

// tapped shows every write of its connections before it happens.
type tapped struct {
	net.Listener
	write func(text string)
}

func (l tapped) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return tappedConn{conn, l.write}, err
}

type tappedConn struct {
	net.Conn
	write func(text string)
}

func (c tappedConn) Write(p []byte) (int, error) {
	c.write(string(p))
	return c.Conn.Write(p)
}

func TestTheRepliesToAGroupLeaveTogetherAndTheLastFreesThePlaceFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := New(Config{}), memconn.Listen()
		var writes []string
		current := -1
		served := make(chan error, 1)
		go func() {
			served <- r.Serve(tapped{l, func(text string) {
				writes = append(writes, text)
				current = r.Counters().Current
			}})
		}()
		dial(t, l).talk(greeted + "C: RSET\nC: RSET\nC: QUIT\nS: 250\nS: 250\nS: 221")
		r.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if last := writes[len(writes)-1]; len(writes) != 3 || last != "250 2.0.0 Reset\r\n250 2.0.0 Reset\r\n221 2.0.0 Bye\r\n" {
			t.Errorf("%q", writes)
		}
		if current != 0 {
			t.Errorf("%d connections counted when 221 left", current)
		}
	})
}

// Three groups sent together are answered together, one round trip later, and not one round trip after another.
func TestTheRoundTripDoesNotSerialisePipelinedGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 20 * time.Millisecond
		_, l := start(t, Config{RTT: rtt})
		c := dial(t, l)
		begin := time.Now()
		elapsed := func(want time.Duration) {
			t.Helper()
			if d := time.Since(begin); d != want {
				t.Fatalf("after %v; want %v", d, want)
			}
			begin = time.Now()
		}
		c.want("220")
		elapsed(2 * rtt)
		c.send("EHLO x\r\n")
		for range 8 {
			c.want("250")
		}
		elapsed(rtt)
		c.send("RSET\r\n")
		<-time.After(rtt / 2)
		c.send("RSET\r\n")
		c.want("250")
		elapsed(rtt)
		c.want("250")
		elapsed(rtt / 2)
		c.talk(envelope)
		elapsed(rtt)
		c.talk("C: \nC: .\nC: RSET\nC: MAIL FROM:<a@example.org>\nC: RCPT TO:<b@example.net>\nC: DATA\nS: 250\nS: 250\nS: 250\nS: 250\nS: 354")
		elapsed(rtt)
	})
}

func TestTheServiceTimeHoldsUpTheCommandsBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{RTT: 20 * time.Millisecond, ServiceTime: 100 * time.Millisecond})
		c := dial(t, l)
		c.talk(greeted + envelope)
		begin := time.Now()
		c.talk("C: x\nC: .\nC: RSET\nS: 250 2.0.0 Taken\nS: 250 2.0.0 Reset")
		if d := time.Since(begin); d != 120*time.Millisecond {
			t.Errorf("after %v", d)
		}
		if d := r.Ledger()[0].When.Sub(begin); d != 100*time.Millisecond {
			t.Errorf("taken after %v", d)
		}
	})
}

// Timing faults are seen by when a reply left, also when nothing is buffered.
func TestWithARoundTripEarlyCommandsAreSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{RTT: time.Second})
		c := dial(t, l)
		c.send("EHLO x\r\n")
		synctest.Wait()
		wantBroken(t, r, []string{RuleBeforeHello})
		<-time.After(5 * time.Second)
		c.send("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
		<-time.After(999 * time.Millisecond)
		c.send("X: y\r\n")
		synctest.Wait()
		wantBroken(t, r, []string{RuleBeforeHello, RuleEarlyContent})
	})
}

func TestScripts(t *testing.T) {
	at := func(stage Stage, a Action) func(Event) Action {
		return func(e Event) Action {
			if e.Stage == stage {
				return a
			}
			return Action{}
		}
	}
	ends := func(want error) func(*testing.T, *client) {
		return func(t *testing.T, c *client) {
			t.Helper()
			if b, err := c.in.ReadByte(); !errors.Is(err, want) {
				t.Errorf("read %q, %v; want %v", b, err, want)
			}
		}
	}
	stalls := func(t *testing.T, c *client) {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if b, err := c.in.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %q, %v; want silence", b, err)
		}
	}
	toDot := greeted + envelope + "C: x\nC: .\n"
	tests := []struct {
		name   string
		script func(Event) Action
		dialog string
		then   func(*testing.T, *client)
		taken  int
	}{
		{"another greeting", at(StageConnect, Action{Reply: "220-a\n220 ***"}), "S: 220-a\nS: 220 ***\nC: NOOP\nS: 250", nil, 0},
		{"a greeting that closes", at(StageConnect, Action{Reply: "554 5.7.1 go away", Close: true}), "S: 554 5.7.1 go away", ends(io.EOF), 0},
		{"no greeting", at(StageConnect, Action{Stall: true}), "", stalls, 0},
		{"EHLO refused, HELO then taken", func(e Event) Action {
			if strings.HasPrefix(e.Line, "EHLO") {
				return Action{Reply: "502 no"}
			}
			return Action{}
		}, "S: 220\nC: EHLO x\nS: 502 no\nC: HELO x\nS: 250", nil, 0},
		{"a recipient refused", func(e Event) Action {
			if strings.Contains(e.Line, "<gone@") {
				return Action{Reply: "550 5.1.1 unknown"}
			}
			return Action{}
		}, greeted + "C: MAIL FROM:<a@example.org>\nS: 250\nC: RCPT TO:<gone@example.net>\nS: 550\nC: RCPT TO:<b@example.net>\nS: 250\nC: DATA\nS: 354\nC: .\nS: 250", nil, 1},
		{"421 closes", at(StageMail, Action{Reply: "421 4.3.2 shutting down"}), greeted + "C: MAIL FROM:<a@example.org>\nS: 421 4.3.2 shutting down", ends(io.EOF), 0},
		{"a reply too many", at(StageMail, Action{Reply: "250 ok\n250 for nothing"}), greeted + "C: MAIL FROM:<a@example.org>\nS: 250 ok\nS: 250 for nothing", nil, 0},
		{"DATA refused", at(StageData, Action{Reply: "451 4.3.0 later"}), greeted + "C: MAIL FROM:<a@example.org>\nS: 250\nC: RCPT TO:<b@example.net>\nS: 250\nC: DATA\nS: 451\nC: NOOP\nS: 250", nil, 0},
		{"closed without a word", at(StageDot, Action{Close: true}), toDot, ends(io.EOF), 0},
		{"reset at the dot", at(StageDot, Action{Reset: true}), toDot, ends(syscall.ECONNRESET), 0},
		{"taken, then reset", at(StageDot, Action{Take: true, Reset: true}), toDot, ends(syscall.ECONNRESET), 1},
		{"taken, then silence", at(StageDot, Action{Take: true, Stall: true}), toDot, stalls, 1},
		{"taken, but answered 451", at(StageDot, Action{Take: true, Reply: "451 4.3.0 oops"}), toDot + "S: 451", nil, 1},
		{"answered 250, then closed", at(StageDot, Action{Reply: "250 ok", Close: true}), toDot + "S: 250 ok", ends(io.EOF), 1},
		{"reset within the content", at(StageContent, Action{Reset: true}), toDot, ends(syscall.ECONNRESET), 0},
		{"closed within the content", at(StageContent, Action{Close: true}), toDot, ends(io.EOF), 0},
		{"silence within the content", at(StageContent, Action{Stall: true}), toDot, stalls, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, l := start(t, Config{Reply: tt.script})
				c := dial(t, l)
				c.talk(tt.dialog)
				if tt.then != nil {
					tt.then(t, c)
				}
				synctest.Wait()
				if n := r.Counters().Taken; n != tt.taken {
					t.Errorf("took %d; want %d", n, tt.taken)
				}
				c.Close()
			})
		})
	}
}

func TestADelayIsWaitedForAfterTheMessageWasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{Reply: func(e Event) Action {
			if e.Stage == StageDot {
				return Action{Delay: time.Hour}
			}
			return Action{}
		}})
		c := dial(t, l)
		begin := time.Now()
		c.talk(greeted + envelope + "C: x\nC: .")
		synctest.Wait()
		if n := r.Counters().Taken; n != 1 {
			t.Errorf("%d taken", n)
		}
		c.want("250")
		if d := time.Since(begin); d != time.Hour {
			t.Errorf("answered after %v", d)
		}
	})
}

func TestAScriptSeesWhereItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []Event // one connection: one caller at a time, and read only after its last reply
		_, l := start(t, Config{Reply: func(e Event) Action {
			seen = append(seen, e)
			return Action{}
		}})
		dial(t, l).talk(greeted + oneMessage + "C: RSET\nS: 250\nC: MAIL FROM:<>\nS: 250")
		want := []Event{
			{1, 0, 0, StageConnect, "", "", nil},
			{1, 0, 0, StageEHLO, "EHLO app.example", "", nil},
			{1, 1, 0, StageMail, "MAIL FROM:<a@example.org>", "", nil},
			{1, 1, 0, StageRcpt, "RCPT TO:<b@example.net>", "a@example.org", nil},
			{1, 1, 0, StageData, "DATA", "a@example.org", []string{"b@example.net"}},
			{1, 1, 0, StageContent, "", "a@example.org", []string{"b@example.net"}},
			{1, 1, 0, StageDot, "", "a@example.org", []string{"b@example.net"}},
			{1, 1, 1, StageRset, "RSET", "", nil},
			{1, 2, 1, StageMail, "MAIL FROM:<>", "", nil},
		}
		same := func(a, b Event) bool {
			to := slices.Equal(a.To, b.To)
			a.To, b.To = nil, nil
			return to && a.Conn == b.Conn && a.Transaction == b.Transaction && a.OnConn == b.OnConn &&
				a.Stage == b.Stage && a.Line == b.Line && a.From == b.From
		}
		if !slices.EqualFunc(seen, want, same) {
			t.Errorf("saw\n%+v\nwant\n%+v", seen, want)
		}
	})
}

func TestCutResetsOneConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{})
		one, two := dial(t, l), dial(t, l)
		one.talk(greeted)
		two.talk(greeted)
		if !r.Cut(1) || r.Cut(7) {
			t.Error("Cut found the wrong connections")
		}
		if _, err := one.in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
		two.talk("C: NOOP\nS: 250")
		synctest.Wait() // until the first is forgotten
		if n := r.CutAll(); n != 1 {
			t.Errorf("CutAll cut %d", n)
		}
	})
}

func TestCloseEndsEverythingThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{ServiceTime: time.Hour, Reply: func(e Event) Action {
			return Action{Stall: e.Stage == StageContent && e.Conn == 1 || e.Stage == StageEHLO && e.Conn == 2}
		}})
		dial(t, l).talk(greeted + envelope + "C: x") // stalls without reading
		dial(t, l).talk("S: 220\nC: EHLO x")         // stalls
		dial(t, l).talk(greeted + envelope + "C: x\nC: .")
		dial(t, l).talk(greeted) // idle
		synctest.Wait()
		begin := time.Now()
		r.Close()
		r.Close()
		if d := time.Since(begin); d != 0 {
			t.Errorf("Close took %v", d)
		}
		if n := r.Counters(); n.Current != 0 || n.Accepted != 4 || n.Taken != 0 {
			t.Errorf("%+v", n)
		}
		if err := r.Serve(l); err != nil {
			t.Errorf("Serve after Close: %v", err)
		}
	})
}

func TestOverTCPManyConnectionsAtOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{MaxConnections: 20})
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	gate, told := make(chan struct{}), make(chan string, 60)
	var clients sync.WaitGroup
	for range 60 {
		clients.Go(func() {
			told <- oneOverTCP(l.Addr().String(), gate)
		})
	}
	count := map[string]int{}
	for range 60 {
		count[<-told]++
	}
	close(gate)
	clients.Wait()
	if count["220"] != 20 || count["421"] != 40 {
		t.Errorf("greetings: %v", count)
	}
	r.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if n := r.Counters(); n.Accepted != 20 || n.Refused != 40 || n.Peak != 20 || n.Current != 0 {
		t.Errorf("%+v", n)
	}
}

// oneOverTCP returns the first three octets heard, and holds its connection until the gate opens.
func oneOverTCP(addr string, gate <-chan struct{}) string {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err.Error()
	}
	go func() {
		<-gate
		_ = conn.Close()
	}()
	code := make([]byte, 3)
	if _, err := io.ReadFull(conn, code); err != nil {
		return err.Error()
	}
	return string(code)
}

func TestTLS(t *testing.T) {
	cert, roots := certificate(t)
	server := &tls.Config{Certificates: []tls.Certificate{cert}}
	trust := &tls.Config{RootCAs: roots, ServerName: "relay.example"}
	upgrade := func(c *client) *client {
		c.t.Helper()
		conn := tls.Client(c.Conn, trust)
		if err := conn.Handshake(); err != nil {
			c.t.Fatal(err)
		}
		over := &client{c.t, conn, nil}
		over.in = bufio.NewReader(conn)
		return over
	}
	const begun = "S: 220\nC: EHLO x\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250-\nS: 250 STARTTLS\n"
	inBubble := func(name string, cfg Config, run func(*testing.T, *Relay, *client)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg.TLS = server
				r, l := start(t, cfg)
				c := dial(t, l)
				run(t, r, c)
				c.Close()
			})
		})
	}
	inBubble("STARTTLS forgets what was before it", Config{RequireTLS: true}, func(t *testing.T, r *Relay, c *client) {
		c.talk(begun + "C: MAIL FROM:<a@example.org>\nS: 530 5.7.0\nC: STARTTLS\nS: 220")
		c = upgrade(c)
		c.talk("C: MAIL FROM:<a@example.org>\nS: 503\nC: STARTTLS\nS: 503\n" + strings.Replace(greeted, "S: 220 relay.example", "", 1) + oneMessage)
		wantBroken(t, r, []string{RuleOrder, RuleNotOffered})
	})
	inBubble("commands injected after STARTTLS are thrown away", Config{}, func(t *testing.T, r *Relay, c *client) {
		c.talk(begun + "C: STARTTLS\nC: NOOP\nS: 220")
		upgrade(c).talk("C: EHLO x\nS: 250-relay.example")
		wantBroken(t, r, []string{RuleStartTLS})
	})
	inBubble("implicit", Config{ImplicitTLS: true}, func(t *testing.T, r *Relay, c *client) {
		upgrade(c).talk(greeted + oneMessage)
	})
	inBubble("a failed handshake is counted", Config{ImplicitTLS: true}, func(t *testing.T, r *Relay, c *client) {
		c.talk("C: EHLO this is no ClientHello")
		synctest.Wait()
		if n := r.Counters(); n.TLSFailed != 1 || n.Current != 0 {
			t.Errorf("%+v", n)
		}
	})
	t.Run("a refusal before the handshake", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, l := start(t, Config{TLS: server, ImplicitTLS: true, BusyInClear: true, MaxConnections: 1})
			first := upgrade(dial(t, l))
			first.want("220")
			second := dial(t, l)
			err := tls.Client(second.Conn, trust).Handshake()
			var plain tls.RecordHeaderError
			if !errors.As(err, &plain) || string(plain.RecordHeader[:4]) != "421 " {
				t.Errorf("%v", err)
			}
		})
	})
}

// certificate is valid in the years around synctest's clock and ours.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"relay.example"},
		NotBefore:    time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}
