package smtpd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/mailweir/mailweir/proxy/message"
	"go.uber.org/zap"
)

// The pairs of benchmarks differ in the server alone: compare guarded with plain in one run.

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error)    { return len(p), nil }
func (nowhere) Commit(*message.Envelope) error { return nil }
func (nowhere) Abort()                         {}

type plainSession struct{}

func (plainSession) Reset()                               {}
func (plainSession) Logout() error                        { return nil }
func (plainSession) Mail(string, *smtp.MailOptions) error { return nil }
func (plainSession) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (plainSession) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}

func serveGuarded(b *testing.B, l net.Listener) {
	cfg := testConfig()
	cfg.MaxMessageBytes = 64 << 20
	store := Store{Begin: func(env *message.Envelope, _ int64) (Draft, error) {
		env.ID = 1
		return nowhere{}, nil
	}}
	s := New(cfg, store, zap.NewNop())
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	b.Cleanup(func() {
		// The client has not said QUIT, and is cut if it is still there.
		if err := s.Close(b.Context()); err != nil && !errors.Is(err, context.Canceled) {
			b.Error(err)
		}
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
}

func servePlain(b *testing.B, l net.Listener) {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return plainSession{}, nil }))
	s.MaxMessageBytes = 64 << 20
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
		<-served
	})
}

func benchmark(b *testing.B, serve func(*testing.B, net.Listener), body []byte) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	serve(b, l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	exchange := func(text []byte, replies int) {
		if _, err := conn.Write(text); err != nil {
			b.Fatal(err)
		}
		for replies > 0 {
			line, err := r.ReadString('\n')
			if err != nil || line[0] > '3' {
				b.Fatalf("%q, %v", line, err)
			}
			if line[3] == ' ' {
				replies--
			}
		}
	}
	exchange([]byte("EHLO a\r\n"), 2)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	commands := []byte("MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
	for b.Loop() {
		exchange(commands, 3)
		exchange(body, 1)
	}
}

func benchBody(size int) []byte {
	lines := strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78)
	return []byte("Subject: x\r\n\r\n" + lines + ".\r\n")
}

var (
	smallBody = benchBody(2 << 10)
	largeBody = benchBody(10 << 20)
)

func BenchmarkGuarded2KiB(b *testing.B)  { benchmark(b, serveGuarded, smallBody) }
func BenchmarkPlain2KiB(b *testing.B)    { benchmark(b, servePlain, smallBody) }
func BenchmarkGuarded10MiB(b *testing.B) { benchmark(b, serveGuarded, largeBody) }
func BenchmarkPlain10MiB(b *testing.B)   { benchmark(b, servePlain, largeBody) }
