//go:build commit && linux

package commit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// load says what a source does.
type load struct {
	Address string // of the server
	Senders int
	Each    bool // a new connection for each message, one command at a time; else pipelined on one connection for ever
	Warm    time.Duration
	Measure time.Duration
}

// yield is what a source saw while it measured.
type yield struct {
	Messages int           // answered 250
	Served   int           // senders that got one
	P50, P99 time.Duration // from the end of the content to the 250
	Envelope time.Duration // median, from the envelope to the 354 where commands are pipelined: a round trip without a journal
	CPU      time.Duration // of the source, warming up included
	Total    int           // messages, warming up included
}

// step is what a sender says, and how many replies it waits for before it goes on.
type step struct {
	text    string
	replies int
	content bool
}

const (
	messageBytes = 2 << 10
	hello        = "EHLO source.example\r\n"
	mail         = "MAIL FROM:<sender@source.example> SIZE=2048\r\n"
	rcpt         = "RCPT TO:<recipient@sink.example>\r\n"
	data         = "DATA\r\n"

	readBytes = 4 << 10 // more than any reply
	maxEvents = 512     // of one epoll_wait
)

var (
	content = makeContent()
	greeted = []step{{"", 1, false}, {hello, 1, false}} // from the connection on
	// What follows, once or again and again.
	pipelined = []step{{mail + rcpt + data, 3, false}, {content, 1, true}}
	oneByOne  = []step{{mail, 1, false}, {rcpt, 1, false}, {data, 1, false}, {content, 1, true}, {"QUIT\r\n", 1, false}}
)

func makeContent() string {
	const header, end = "From: <sender@source.example>\r\nSubject: a message of 2 KiB\r\n\r\n", "\r\n.\r\n"
	line := strings.Repeat("x", 76) + "\r\n"
	body := strings.Repeat(line, messageBytes/len(line)+1)[:messageBytes-len(header)-len(end)]
	return header + body + end
}

// sender is one client at a time.
type sender struct {
	fd      int
	at      int // index in source.script
	missing int // replies
	partial []byte
	said    time.Time // when what it waits for an answer to was sent
	served  bool
}

// source runs all senders in one goroutine, which waits for whichever has an answer.
type source struct {
	load
	to      unix.SockaddrInet4
	script  []step
	restart int // index of script that follows its end; -1: another connection
	epoll   int
	senders []sender
	buf     [readBytes]byte

	begin, end time.Time
	total      int
	latencies  []time.Duration
	envelopes  []time.Duration
}

func newSource(l load) (*source, error) {
	at, err := netip.ParseAddrPort(l.Address)
	if err != nil {
		return nil, err
	}
	s := &source{load: l, senders: make([]sender, l.Senders), latencies: make([]time.Duration, 0, 1<<17)}
	s.to = unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	s.script, s.restart = slices.Concat(greeted, pipelined), len(greeted)
	if l.Each {
		s.script, s.restart = slices.Concat(greeted, oneByOne), -1
	}
	s.epoll, err = unix.EpollCreate1(0)
	return s, err
}

// runSource is the other process: it does what in says and tells out what it saw.
func runSource(in io.Reader, out io.Writer) error {
	var l load
	if err := json.NewDecoder(in).Decode(&l); err != nil {
		return err
	}
	s, err := newSource(l)
	if err != nil {
		return err
	}
	if err := s.run(); err != nil {
		return err
	}
	y, err := s.yield()
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(y)
}

// run returns after Warm and Measure; what is then under way is cut with the process.
func (s *source) run() error {
	s.begin = time.Now().Add(s.Warm)
	s.end = s.begin.Add(s.Measure)
	for i := range s.senders {
		if err := s.connect(i); err != nil {
			return err
		}
	}
	var events [maxEvents]unix.EpollEvent
	for {
		left := time.Until(s.end)
		if left <= 0 {
			return nil
		}
		n, err := unix.EpollWait(s.epoll, events[:], int(left/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if err := s.readable(int(e.Fd)); err != nil {
				return fmt.Errorf("sender %d: %w", e.Fd, err)
			}
		}
	}
}

func (s *source) connect(i int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	c := &s.senders[i]
	c.fd, c.at, c.missing, c.partial = fd, 0, s.script[0].replies, c.partial[:0]
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("no delay: %w", err)
	}
	if err := unix.Connect(fd, &s.to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect: %w", err)
	}
	// Number i stands where the kernel gives back what it was given.
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)})
}

// readable reads once and goes on when the replies are complete.
func (s *source) readable(i int) error {
	c := &s.senders[i]
	n, err := unix.Read(c.fd, s.buf[:])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return fmt.Errorf("read: %w", err)
	case n == 0:
		return fmt.Errorf("server closed before step %d", c.at)
	}
	if err := c.hear(s.buf[:n]); err != nil || c.missing > 0 {
		return err
	}
	switch {
	case s.script[c.at].content:
		s.answered(c, time.Now())
	case c.at == s.restart:
		s.envelopes = append(s.envelopes, time.Since(c.said))
	}
	c.at++
	if c.at == len(s.script) {
		if s.restart < 0 {
			return errors.Join(s.drop(c), s.connect(i))
		}
		c.at = s.restart
	}
	return s.say(c)
}

// hear counts replies: the last line of each has a space behind its code.
func (c *sender) hear(in []byte) error {
	c.partial = append(c.partial, in...)
	rest := c.partial
	for {
		line, after, whole := bytes.Cut(rest, []byte("\r\n"))
		if !whole {
			break
		}
		if len(line) < 4 || line[0] < '2' || line[0] > '3' {
			return fmt.Errorf("reply %q", line)
		}
		if line[3] == ' ' {
			c.missing--
		}
		rest = after
	}
	if c.missing < 0 {
		return fmt.Errorf("a reply nobody waits for: %q", in)
	}
	c.partial = append(c.partial[:0], rest...)
	return nil
}

func (s *source) say(c *sender) error {
	step := &s.script[c.at]
	c.missing = step.replies
	if n, err := unix.SendmsgN(c.fd, []byte(step.text), nil, nil, unix.MSG_NOSIGNAL); err != nil || n < len(step.text) {
		return fmt.Errorf("sent %d of %d bytes: %w", n, len(step.text), err)
	}
	c.said = time.Now()
	return nil
}

func (s *source) answered(c *sender, now time.Time) {
	s.total++
	if now.Before(s.begin) || !now.Before(s.end) {
		return
	}
	c.served = true
	s.latencies = append(s.latencies, now.Sub(c.said))
}

// drop resets the connection, so that thousands of them do not use up the ports.
func (s *source) drop(c *sender) error {
	return errors.Join(unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), unix.Close(c.fd))
}

func (s *source) yield() (yield, error) {
	y := yield{Messages: len(s.latencies), Total: s.total}
	for i := range s.senders {
		if s.senders[i].served {
			y.Served++
		}
	}
	slices.Sort(s.latencies)
	slices.Sort(s.envelopes)
	if n := len(s.latencies); n > 0 {
		y.P50, y.P99 = s.latencies[n/2], s.latencies[n*99/100]
	}
	if n := len(s.envelopes); n > 0 {
		y.Envelope = s.envelopes[n/2]
	}
	var err error
	y.CPU, err = cpuTime()
	return y, err
}

// cpuTime is what this process has used.
func cpuTime() (time.Duration, error) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}
