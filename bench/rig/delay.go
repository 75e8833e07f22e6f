//go:build linux

package rig

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

const (
	delayBlock = 32 << 10 // octets
	delayQueue = 1024     // blocks on their way in one direction; a sender waits beyond it
)

// Delay listens on loopback and passes what comes to address and back, oneWay later in each direction, until the test ends. It returns
// where.
func Delay(t testing.TB, address string, oneWay time.Duration) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		running.Wait()
	})
	running.Go(func() {
		for {
			near, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			far, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				_ = near.Close() // it hears that nobody is there
				continue
			}
			running.Go(func() { carry(near, far, oneWay) })
			running.Go(func() { carry(far, near, oneWay) })
		}
	})
	return l.Addr().String()
}

type delayed struct {
	text []byte
	due  time.Time
}

// carry passes what from says on to to, and its end. An error of one direction ends it; the other one ends with the connection.
func carry(from, to net.Conn, oneWay time.Duration) {
	queue := make(chan delayed, delayQueue)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(queue)
		for {
			block := make([]byte, delayBlock)
			n, err := from.Read(block)
			if n > 0 {
				queue <- delayed{block[:n], time.Now().Add(oneWay)}
			}
			if err != nil {
				return
			}
		}
	})
	for b := range queue {
		<-time.After(time.Until(b.due))
		if _, err := to.Write(b.text); err != nil {
			break
		}
	}
	<-time.After(oneWay)
	_ = to.Close() // whoever is still writing there hears of it
	_, _ = io.Copy(io.Discard, from)
	for range queue {
	}
	reading.Wait()
}
