package message

import (
	"encoding/binary"
	"fmt"
)

// Outline is what a queue has to know of an envelope. It is read without making a copy of anything, since a start
// may read a million.
type Outline struct {
	Received   int64 // Unix microseconds
	Size       int64 // octets of the content
	Recipients int
}

// ReadOutline reads what Envelope.AppendBinary wrote, refuses what UnmarshalBinary refuses, and calls recipient with the sender and each address in
// its order; both alias b.
func ReadOutline(b []byte, recipient func(from, addr []byte)) (Outline, error) {
	var o Outline
	var from []byte // stands before the recipients
	for len(b) > 0 {
		tag, v, rest, err := nextField(b)
		if err != nil {
			return Outline{}, err
		}
		switch tag {
		case tagFrom:
			from = v
		case tagTo:
			o.Recipients++
			recipient(from, v)
		case tagNotify, tagORcpt:
			if o.Recipients == 0 {
				return Outline{}, fmt.Errorf("%w: parameter before its recipient", errEnvelope)
			}
		case tagFlags, tagSize, tagReceived, tagID:
			n, used := binary.Uvarint(v)
			if used <= 0 || used != len(v) {
				return Outline{}, fmt.Errorf("%w: number in field %d", errEnvelope, tag)
			}
			if tag == tagSize {
				o.Size = int64(n)
			} else if tag == tagReceived {
				o.Received = int64(n)
			}
		}
		b = rest
	}
	if o.Recipients == 0 {
		return Outline{}, fmt.Errorf("%w: no recipient", errEnvelope)
	}
	return o, nil
}
