package memconn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var _ net.Conn = (*Conn)(nil)

func mustWrite(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if n, err := io.WriteString(c, s); err != nil || n != len(s) {
		t.Fatalf("write %q: %d, %v", s, n, err)
	}
}

func mustRead(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

func wantReadError(t *testing.T, c net.Conn, want error) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, want) {
		t.Fatalf("read: %d, %v; want %v", n, err, want)
	}
}

func TestBothEndsMayWriteBeforeEitherReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		mustWrite(t, a, "from a")
		mustWrite(t, b, "from b")
		mustRead(t, a, "from b")
		mustRead(t, b, "from a")
		if a.LocalAddr().String() != b.RemoteAddr().String() || a.LocalAddr().String() == b.LocalAddr().String() {
			t.Fatalf("addresses: a %v to %v, b %v to %v", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
		}
	})
}

func TestAWriterWaitsWhenTheBufferIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		sent := bytes.Repeat([]byte("0123456789"), bufferBytes/10+1000)
		finished := make(chan error, 1)
		go func() {
			_, err := a.Write(sent)
			finished <- errors.Join(err, a.Close())
		}()
		synctest.Wait()
		if held := a.(*Conn).out.size; held != bufferBytes {
			t.Fatalf("the buffer holds %d octets; want %d", held, bufferBytes)
		}
		select {
		case err := <-finished:
			t.Fatalf("Write returned (%v) with %d octets unread", err, len(sent))
		default:
		}
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("read %d octets, %v; want the %d that were sent", len(got), err, len(sent))
		}
		if err := <-finished; err != nil {
			t.Fatal(err)
		}
	})
}

func TestACloseLetsThePeerReadWhatWasSentBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		mustWrite(t, a, "last words")
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "last words")
		wantReadError(t, b, io.EOF)
		wantReadError(t, a, net.ErrClosed)
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("write to a closed peer: %v", err)
		}
		if err := a.Close(); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("second close: %v", err)
		}
	})
}

func TestAResetLosesWhatWasSentBefore(t *testing.T) {
	for name, reset := range map[string]func(*Conn) error{
		"CloseWithReset": (*Conn).CloseWithReset,
		"SetLinger": func(c *Conn) error {
			return errors.Join(c.SetLinger(0), c.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := Pipe()
				mustWrite(t, a, "unread")
				if err := reset(a.(*Conn)); err != nil {
					t.Fatal(err)
				}
				wantReadError(t, b, syscall.ECONNRESET)
				if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
					t.Fatalf("write: %v", err)
				}
			})
		})
	}
}

func TestHalfCloseLeavesTheOtherDirectionOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		mustWrite(t, a, "question")
		if err := a.(*Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		mustRead(t, b, "question")
		wantReadError(t, b, io.EOF)
		mustWrite(t, b, "answer")
		mustRead(t, a, "answer")
	})
}

func TestDeadlinesEndWaitsAtTheirInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe()
		start := time.Now()
		set(t, a.SetReadDeadline, start.Add(3*time.Second))
		wantReadError(t, a, os.ErrDeadlineExceeded)
		if took := time.Since(start); took != 3*time.Second {
			t.Fatalf("the read waited %v", took)
		}
		mustWrite(t, b, "late")
		wantReadError(t, a, os.ErrDeadlineExceeded) // as with TCP, a past deadline also holds for what is there
		set(t, a.SetReadDeadline, time.Time{})
		mustRead(t, a, "late")

		set(t, a.SetWriteDeadline, time.Now().Add(time.Second))
		n, err := a.Write(make([]byte, bufferBytes+1))
		if n != bufferBytes || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("write: %d, %v", n, err)
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("%v is no timeout", err)
		}
	})
}

func set(t *testing.T, deadline func(time.Time) error, to time.Time) {
	t.Helper()
	if err := deadline(to); err != nil {
		t.Error(err)
	}
}

func TestADeadlineEndsAReadThatAlreadyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := Pipe()
		got := make(chan error, 1)
		go func() {
			_, err := a.Read(make([]byte, 1))
			got <- err
		}()
		synctest.Wait()
		set(t, a.SetDeadline, time.Now())
		if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

func TestACloseEndsAnOwnReadThatAlreadyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := Pipe()
		got := make(chan error, 1)
		go func() {
			_, err := a.Read(make([]byte, 1))
			got <- err
		}()
		synctest.Wait()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-got; !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
	})
}

func TestLatencyDelaysBytesWithoutQueueingThemBehindOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const oneWay = 10 * time.Millisecond
		a, b := PipeLatency(oneWay)
		start := time.Now()
		at := func(want time.Duration) {
			t.Helper()
			if got := time.Since(start); got != want {
				t.Fatalf("after %v; want %v", got, want)
			}
		}
		mustWrite(t, a, "one")
		<-time.After(4 * time.Millisecond)
		mustWrite(t, a, "two")
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		at(4 * time.Millisecond)
		buf := make([]byte, 100)
		if n, err := b.Read(buf); string(buf[:n]) != "one" || err != nil {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		at(oneWay)
		mustWrite(t, b, "not known to be closed yet")
		mustRead(t, b, "two")
		at(14 * time.Millisecond)
		wantReadError(t, b, io.EOF)
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("write: %v", err)
		}
	})
}

func TestADeadlineBeforeACloseArrivesCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := PipeLatency(time.Second)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		set(t, b.SetReadDeadline, time.Now().Add(time.Millisecond))
		start := time.Now()
		wantReadError(t, b, os.ErrDeadlineExceeded)
		if d := time.Since(start); d != time.Millisecond {
			t.Errorf("after %v", d)
		}
	})
}
