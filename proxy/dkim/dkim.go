// Package dkim signs messages (RFC 6376, RFC 8463) on their way out.
//
// It promises that a signature covers the message as it is going to be sent, that a message whose domain has a key is never let
// through unsigned because the key is out of reach, and that memory does not grow with the message. A key is a file, read at
// each use, so that a new key needs no restart.
package dkim

import (
	"bufio"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/emersion/go-msgauth/dkim"
	"go.uber.org/zap"
)

// ErrKey is a message that must wait: a key that has to sign it is missing or of no use.
var ErrKey = errors.New("dkim: key not usable")

// Reason says why a message goes unsigned.
type Reason string

// The reasons. Each is about the message, which no waiting would change.
const (
	NoFrom    Reason = "from"        // not exactly one From field, or none of its addresses could be understood
	NoKey     Reason = "domain"      // no key is for the domain of From
	BadHeader Reason = "header"      // a line of the header is no field, so that readers differ about where the header ends; or it is too long
	Blank     Reason = "blank_lines" // more than blankMax octets of blank lines in a row, which the library would hold in memory
)

// Reasons are all of them.
var Reasons = []Reason{NoFrom, NoKey, BadHeader, Blank}

const (
	readBytes = 32 << 10 // read at a time
	// blankMax bounds what may be blank in a row, in octets: until something else follows nobody knows whether it counts
	// (RFC 6376 section 3.4.4), and the library keeps it.
	blankMax = 1 << 20
)

// Signer signs with the keys of a configuration. It is safe for concurrent use.
type Signer struct {
	keys     []*ring
	unusable atomic.Int32 // of keys
	log      *zap.Logger
	signed   atomic.Uint64
	unsigned [4]atomic.Uint64 // as Reasons
}

// New returns a signer. It reads no file: keys are read when they are used.
func New(keys []Key, log *zap.Logger) *Signer {
	s := &Signer{log: log}
	for _, k := range keys {
		s.keys = append(s.keys, &ring{Key: k})
	}
	return s
}

// Blocked reports whether there are keys that could not be used when they were last needed.
func (s *Signer) Blocked() bool { return s.unusable.Load() > 0 }

// Stats counts since New.
type Stats struct {
	Keys     int               // configured
	Unusable []string          // those that could not be used when they were last needed, and why
	Signed   uint64            // messages, once for each time they were made ready to be sent
	Unsigned map[Reason]uint64 // likewise; every reason is in it
}

// Stats returns what happened so far.
func (s *Signer) Stats() Stats {
	st := Stats{Keys: len(s.keys), Signed: s.signed.Load(), Unsigned: make(map[Reason]uint64, len(Reasons))}
	for i, r := range Reasons {
		st.Unsigned[r] = s.unsigned[i].Load()
	}
	for _, k := range s.keys {
		if err := k.failure(); err != nil {
			st.Unusable = append(st.Unusable, err.Error())
		}
	}
	return st
}

// Sign reads a message, as it is journaled, to its end and returns the header fields to put before it; none when the message goes unsigned,
// which is counted. Where it is clear from the header that it does, the rest is not read. ErrKey: it must not be sent now. Any
// other error is that of content.
func (s *Signer) Sign(content io.Reader) (fields []byte, err error) {
	r := readers.Get().(*bufio.Reader)
	r.Reset(content)
	defer func() {
		r.Reset(nil)
		readers.Put(r)
	}()
	fields, reason, err := s.sign(r)
	switch {
	case errors.Is(err, ErrKey):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("dkim: read message: %w", err)
	case reason != "":
		s.unsigned[slices.Index(Reasons, reason)].Add(1)
		return nil, nil
	}
	s.signed.Add(1)
	return fields, nil
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readBytes) }}

func (s *Signer) sign(r *bufio.Reader) ([]byte, Reason, error) {
	h, reason, err := readHeader(r)
	if reason != "" || err != nil {
		return nil, reason, err
	}
	domain := h.fromDomain()
	if domain == "" {
		return nil, NoFrom, nil
	}
	names, ok := h.names()
	if !ok {
		return nil, BadHeader, nil
	}
	var b batch
	defer b.end()
	for _, k := range s.keys {
		if !k.signs(domain) {
			continue
		}
		key, err := k.use(s.log, &s.unusable)
		if err != nil {
			return nil, "", err
		}
		if err := b.add(key, k.Selector, k.of(domain), names); err != nil {
			return nil, "", fmt.Errorf("%w: %s: %w", ErrKey, k.name(), err)
		}
	}
	if len(b) == 0 {
		return nil, NoKey, nil
	}
	if err := b.write(h.covered()); err != nil {
		return nil, "", err
	}
	if reason, err := b.writeBody(r); reason != "" || err != nil {
		return nil, reason, err
	}
	fields, err := b.signatures()
	return fields, "", err
}

// batch is the signatures of one message in the making. Each has a goroutine in the library, which end joins.
type batch []*dkim.Signer

func (b *batch) add(key crypto.Signer, selector, domain string, names []string) error {
	one, err := dkim.NewSigner(&dkim.SignOptions{
		Domain: domain, Selector: selector, Signer: key, HeaderKeys: names,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
	})
	if err == nil {
		*b = append(*b, one)
	}
	return err
}

func (b batch) write(p []byte) error {
	for _, one := range b {
		if _, err := one.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// writeBody passes the rest of r on in pieces of readBytes.
func (b batch) writeBody(r *bufio.Reader) (Reason, error) {
	for blank := 0; ; {
		_, err := r.Peek(1)
		if err == io.EOF {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		piece, _ := r.Peek(r.Buffered()) // what is buffered is there
		if blank = blankAfter(blank, piece); blank > blankMax {
			return Blank, nil
		}
		if err := b.write(piece); err != nil {
			return "", err
		}
		_, _ = r.Discard(len(piece)) // likewise
	}
}

// signatures ends the body and returns the fields, the first key's first.
func (b batch) signatures() ([]byte, error) {
	var fields []byte
	for _, one := range b {
		if err := one.Close(); err != nil {
			return nil, fmt.Errorf("%w: sign: %w", ErrKey, err)
		}
		fields = append(fields, one.Signature()...)
	}
	return fields, nil
}

// end joins the goroutines, also of signatures that came to nothing.
func (b *batch) end() {
	for _, one := range *b {
		_ = one.Close() // whoever needs the signature has asked already
	}
}
