package smtpd

import (
	"bytes"
	"io"
	"sync"
	"time"
)

const (
	maxCommandLine = 4096     // octets with CR LF: RFC 5321's 512 plus what SMTPUTF8, DSN and AUTH add
	contentBuffer  = 32 << 10 // octets; one for each connection within DATA
)

var contentBuffers = sync.Pool{New: func() any { return new([contentBuffer]byte) }}

// input holds what was read from the network and not used yet: in a small buffer between messages, in
// a large one, lent by a pool, from DATA until the rest fits the small one again.
type input struct {
	small [maxCommandLine]byte
	large *[contentBuffer]byte // nil between messages
	r, w  int                  // unread is buf()[r:w]
}

func (in *input) buf() []byte {
	if in.large != nil {
		return in.large[:]
	}
	return in.small[:]
}

func (in *input) unread() []byte { return in.buf()[in.r:in.w] }

func (in *input) skip(n int) { in.r += n }

// fill reads once from r, behind what is unread. There must be room: unread is shorter than maxCommandLine.
func (in *input) fill(r io.Reader) (int, error) {
	if in.r > 0 {
		in.r, in.w = 0, copy(in.buf(), in.unread())
	}
	n, err := r.Read(in.buf()[in.w:])
	in.w += n
	return n, err
}

// line takes the next line off and returns it without its line end, CR LF or a bare LF; false when
// there is no complete one. The line is valid until the next call of a method.
func (in *input) line() ([]byte, bool) {
	unread := in.unread()
	lf := bytes.IndexByte(unread, '\n')
	if lf < 0 || lf >= maxCommandLine {
		return nil, false
	}
	in.skip(lf + 1)
	return bytes.TrimSuffix(unread[:lf], heldCR), true
}

// widen makes room for content.
func (in *input) widen() {
	if in.large != nil {
		return
	}
	large := contentBuffers.Get().(*[contentBuffer]byte)
	in.r, in.w = 0, copy(large[:], in.unread())
	in.large = large
}

// narrow gives the large buffer back once what is unread fits the small one.
func (in *input) narrow() {
	if in.large == nil || in.w-in.r > len(in.small) {
		return
	}
	large := in.large
	in.r, in.w = 0, copy(in.small[:], in.unread())
	in.large = nil
	contentBuffers.Put(large)
}

// drop forgets what is unread.
func (in *input) drop() {
	in.r, in.w = 0, 0
	in.narrow()
}

// pace watches how fast content comes. The zero value is ready.
type pace struct {
	waited time.Duration // in reads, so that a slow disk of ours is not taken for a slow client
	got    int64
}

const (
	paceWindow     = time.Minute
	defaultMinRate = 500 // octets a second, Postfix's smtpd_min_data_rate
)

// tooSlow counts one read of n octets that took d, and says whether the window that it ends was too slow.
func (p *pace) tooSlow(n int, d time.Duration, minRate int64) bool {
	p.waited += d
	p.got += int64(n)
	if p.waited < paceWindow {
		return false
	}
	slow := float64(p.got) < float64(minRate)*p.waited.Seconds()
	*p = pace{}
	return slow
}
