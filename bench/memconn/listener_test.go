package memconn

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var _ net.Listener = (*Listener)(nil)

func TestDialAndAcceptMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		client, err := l.Dial(t.Context(), "tcp", "relay.example:25")
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, server, "220 hello")
		mustRead(t, client, "220 hello")
		if client.RemoteAddr().String() != l.Addr().String() || server.LocalAddr().String() != l.Addr().String() {
			t.Fatalf("client to %v, server at %v, listener at %v", client.RemoteAddr(), server.LocalAddr(), l.Addr())
		}
		if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			t.Fatalf("%v is no loopback address", l.Addr())
		}
	})
}

func TestDialTakesARoundTripAndAcceptHalfOfOneMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ListenLatency(10 * time.Millisecond)
		start := time.Now()
		accepted := make(chan time.Duration, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			accepted <- time.Since(start)
			mustWrite(t, c, "220")
		}()
		c, err := l.Dial(t.Context(), "tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 20*time.Millisecond {
			t.Errorf("Dial took %v", d)
		}
		mustRead(t, c, "220")
		if d := <-accepted; d != 30*time.Millisecond {
			t.Errorf("Accept after %v", d)
		}
		if d := time.Since(start); d != 40*time.Millisecond {
			t.Errorf("greeting after %v", d)
		}
	})
}

func TestCloseRefusesWhatWasNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		waiting, err := l.Dial(t.Context(), "tcp", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		wantReadError(t, waiting, syscall.ECONNRESET)
		if _, err := l.Dial(t.Context(), "tcp", ""); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("accept: %v", err)
		}
	})
}

func TestAContextEndsADialThatFindsTheBacklogFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		for range backlog {
			if _, err := l.Dial(t.Context(), "tcp", ""); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := l.Dial(ctx, "tcp", ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if d := time.Since(start); d != time.Second {
			t.Fatalf("waited %v", d)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Every connection that Dial returned is either accepted or reset, whenever Close comes: here, at the very instant
// at which the handshakes end.
func TestNoConnectionIsForgottenWhenDialAndCloseRace(t *testing.T) {
	const oneWay = time.Millisecond
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			l := ListenLatency(oneWay)
			time.AfterFunc(2*oneWay, func() {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			})
			var dials sync.WaitGroup
			for range 4 {
				dials.Go(func() {
					c, err := l.Dial(t.Context(), "tcp", "")
					if err != nil {
						return
					}
					set(t, c.SetReadDeadline, time.Now().Add(time.Minute))
					if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("read: %v", err)
					}
				})
			}
			dials.Wait()
		})
	}
}
