// Package message holds what mailweir knows of one message beside its content: the envelope of
// RFC 5321, the queue ID, the syntax of addresses, and the Received header.
//
// It does no I/O and keeps no state but the counter of IDs.
package message

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Envelope is what travels beside the content of a message. It is immutable once accepted.
type Envelope struct {
	ID       ID
	From     string      // reverse-path in wire form without angle brackets; "" is <>
	To       []Recipient // at least one; a recipient is named by its index from here on
	Body8    bool        // BODY=8BITMIME was given (RFC 6152)
	UTF8     bool        // SMTPUTF8 was given (RFC 6531)
	Header8  bool        // the header has octets above 127; false also for what was accepted before this was noted
	Ret      string      // RET of RFC 3461: "", "FULL" or "HDRS"
	EnvID    string      // ENVID of RFC 3461, as xtext; "" is none
	Size     int64       // octets of the content as journaled, our Received header included
	Received time.Time   // when MAIL was answered
	Client   string      // address and port of the application's end
	Helo     string      // what the application called itself
}

// Recipient is one forward-path.
type Recipient struct {
	Addr   string // wire form without angle brackets
	Notify string // NOTIFY of RFC 3461 as given, upper case; "" is none
	ORcpt  string // ORCPT of RFC 3461 as given, with its type; "" is none
}

// Tags of the encoding; a tag is never given a second meaning. A reader passes over unknown ones.
const (
	tagFrom     = 1
	tagTo       = 2 // starts a recipient; tagNotify and tagORcpt that follow belong to it
	tagNotify   = 3
	tagORcpt    = 4
	tagFlags    = 5 // uvarint of flag bits
	tagRet      = 6
	tagEnvID    = 7
	tagSize     = 8 // uvarint
	tagReceived = 9 // uvarint, Unix microseconds
	tagClient   = 10
	tagHelo     = 11
	tagID       = 12 // uvarint

	flagBody8   = 1
	flagUTF8    = 2
	flagHeader8 = 4
)

var errEnvelope = errors.New("message: malformed envelope record")

// AppendBinary appends the envelope as a list of (tag, length, value).
func (e *Envelope) AppendBinary(b []byte) ([]byte, error) {
	b = appendUint(b, tagID, uint64(e.ID))
	b = appendText(b, tagFrom, e.From)
	var flags uint64
	if e.Body8 {
		flags |= flagBody8
	}
	if e.UTF8 {
		flags |= flagUTF8
	}
	if e.Header8 {
		flags |= flagHeader8
	}
	b = appendUint(b, tagFlags, flags)
	b = appendUint(b, tagSize, uint64(e.Size))
	b = appendUint(b, tagReceived, uint64(e.Received.UnixMicro()))
	b = appendOptional(b, tagRet, e.Ret)
	b = appendOptional(b, tagEnvID, e.EnvID)
	b = appendOptional(b, tagClient, e.Client)
	b = appendOptional(b, tagHelo, e.Helo)
	for _, r := range e.To {
		b = appendText(b, tagTo, r.Addr)
		b = appendOptional(b, tagNotify, r.Notify)
		b = appendOptional(b, tagORcpt, r.ORcpt)
	}
	return b, nil
}

// UnmarshalBinary reads what AppendBinary wrote. The envelope keeps no reference to b.
func (e *Envelope) UnmarshalBinary(b []byte) error {
	*e = Envelope{}
	for len(b) > 0 {
		tag, v, rest, err := nextField(b)
		if err != nil {
			return err
		}
		if err := e.set(tag, v); err != nil {
			return err
		}
		b = rest
	}
	if len(e.To) == 0 {
		return fmt.Errorf("%w: no recipient", errEnvelope)
	}
	return nil
}

func (e *Envelope) set(tag uint64, v []byte) error {
	switch tag {
	case tagFrom:
		e.From = string(v)
	case tagTo:
		e.To = append(e.To, Recipient{Addr: string(v)})
	case tagNotify, tagORcpt:
		if len(e.To) == 0 {
			return fmt.Errorf("%w: parameter before its recipient", errEnvelope)
		}
		if r := &e.To[len(e.To)-1]; tag == tagNotify {
			r.Notify = string(v)
		} else {
			r.ORcpt = string(v)
		}
	case tagRet:
		e.Ret = string(v)
	case tagEnvID:
		e.EnvID = string(v)
	case tagClient:
		e.Client = string(v)
	case tagHelo:
		e.Helo = string(v)
	case tagFlags, tagSize, tagReceived, tagID:
		return e.setNumber(tag, v)
	}
	return nil
}

func (e *Envelope) setNumber(tag uint64, v []byte) error {
	n, used := binary.Uvarint(v)
	if used <= 0 || used != len(v) {
		return fmt.Errorf("%w: number in field %d", errEnvelope, tag)
	}
	switch tag {
	case tagFlags:
		e.Body8, e.UTF8, e.Header8 = n&flagBody8 != 0, n&flagUTF8 != 0, n&flagHeader8 != 0
	case tagSize:
		e.Size = int64(n)
	case tagReceived:
		e.Received = time.UnixMicro(int64(n))
	case tagID:
		e.ID = ID(n)
	}
	return nil
}

// Lists of fields are shared with the state records of package proxy.

// AppendField appends one (tag, length, value).
func AppendField(b []byte, tag uint64, v []byte) []byte {
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// NextField splits the first field off b. v and rest alias b.
func NextField(b []byte) (tag uint64, v, rest []byte, err error) { return nextField(b) }

func nextField(b []byte) (tag uint64, v, rest []byte, err error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, nil, fmt.Errorf("%w: tag", errEnvelope)
	}
	b = b[n:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return 0, nil, nil, fmt.Errorf("%w: length of field %d", errEnvelope, tag)
	}
	b = b[n:]
	return tag, b[:size], b[size:], nil
}

func appendText(b []byte, tag uint64, s string) []byte {
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendOptional(b []byte, tag uint64, s string) []byte {
	if s == "" {
		return b
	}
	return appendText(b, tag, s)
}

func appendUint(b []byte, tag, v uint64) []byte {
	var buf [binary.MaxVarintLen64]byte
	return AppendField(b, tag, binary.AppendUvarint(buf[:0], v))
}
