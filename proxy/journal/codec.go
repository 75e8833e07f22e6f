package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
)

// FORMAT.md draws what this file writes and reads.

const (
	formatVersion = 2
	segmentMagic  = "mwseg\r\n\x00"
	bodyMagic     = "mwbody\r\n"
	headerBytes   = 48  // of a file header that counts
	headerCopyAt  = 512 // a second copy, on another sector
	segmentStart  = 1024
	saltBytes     = 16

	frameAlign  = 8
	frameHeader = 24
	flagMore    = 1 // the atomic group goes on in the next frame
	flagRestate = 2 // all that was noted of the message before is superseded by this frame and those that follow in its group
	linkBytes   = 8 // begin the payload of a record about a message, but for Accepted: see frame.link

	batchPayload = 16 // length of the batch, offset up to which all was synced
	batchHeader  = frameHeader + batchPayload

	acceptedHead = 8 // length of meta, place of the body
	bodyInline   = 0
	bodyInFile   = 1
	bodyRefBytes = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A salt is the CRC register after the salt of a file. It starts every checksum in that file, so that neither
// bytes of an earlier life of the blocks nor a frame hidden in somebody's mail can validate.
type salt uint32

func newSalt(random []byte) salt { return salt(crc32.Update(0, castagnoli, random)) }

func (s salt) sum(b []byte) uint32 { return crc32.Update(uint32(s), castagnoli, b) }

// header begins each file.
type header struct {
	id   uint64 // of the segment, or of the message
	salt [saltBytes]byte
}

func (h header) append(b []byte, magic string) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, formatVersion)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, h.id)
	b = append(b, h.salt[:]...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	return binary.LittleEndian.AppendUint32(b, 0)
}

// parseHeader reads one copy of a header. later is true when it claims another version.
func parseHeader(b []byte, magic string) (h header, ok, later bool) {
	if len(b) < headerBytes || string(b[:8]) != magic {
		return h, false, false
	}
	version := binary.LittleEndian.Uint32(b[8:])
	h.id = binary.LittleEndian.Uint64(b[16:])
	copy(h.salt[:], b[24:])
	ok = version == formatVersion && crc32.Checksum(b[:40], castagnoli) == binary.LittleEndian.Uint32(b[40:])
	return h, ok, version != formatVersion
}

// appendSegmentHeader appends the segmentStart bytes before the first frame.
func appendSegmentHeader(b []byte, h header) []byte {
	start := len(b)
	b = h.append(b, segmentMagic)
	b = append(b, make([]byte, headerCopyAt-headerBytes)...)
	b = h.append(b, segmentMagic)
	return append(b, make([]byte, start+segmentStart-len(b))...)
}

// parseSegmentHeader takes whichever copy is sound. Another version is believed only if both copies claim
// it: a flipped bit must not make a journal unusable.
func parseSegmentHeader(b []byte) (header, error) {
	if len(b) < segmentStart {
		return header{}, errShort
	}
	first, ok1, later1 := parseHeader(b, segmentMagic)
	second, ok2, later2 := parseHeader(b[headerCopyAt:], segmentMagic)
	switch {
	case ok1:
		return first, nil
	case ok2:
		return second, nil
	case later1 && later2:
		return header{}, fmt.Errorf("%w %d", ErrVersion, binary.LittleEndian.Uint32(b[8:]))
	}
	return header{}, ErrDamaged
}

// frame is one record, or one of the journal's own, as found in a segment.
type frame struct {
	at      int64 // offset in its segment
	typ     Type
	flags   byte
	id      uint64
	payload []byte // borrowed from the scanner
}

// flagsOf says how the frame belongs to its group.
func flagsOf(more, restate bool) (f byte) {
	if more {
		f |= flagMore
	}
	if restate {
		f |= flagRestate
	}
	return f
}

func frameSize(payload int) int64 {
	return (int64(frameHeader+payload) + frameAlign - 1) &^ (frameAlign - 1)
}

func (f frame) end() int64 { return f.at + frameSize(len(f.payload)) }

// appendFrame appends a frame that will stand at offset at. The payload is given in parts, so that
// a body is copied once.
func appendFrame(b []byte, s salt, at int64, typ Type, flags byte, id uint64, parts ...[]byte) []byte {
	start := len(b)
	b = append(b, make([]byte, frameHeader)...)
	for _, p := range parts {
		b = append(b, p...)
	}
	h, payload := b[start:start+frameHeader], b[start+frameHeader:]
	binary.LittleEndian.PutUint32(h[4:], s.sum(payload))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(payload)))
	h[12], h[13] = byte(typ), flags
	binary.LittleEndian.PutUint64(h[16:], id)
	binary.LittleEndian.PutUint32(h, s.headerSum(h, at))
	var zeros [frameAlign]byte
	return append(b, zeros[:frameSize(len(payload))-int64(frameHeader+len(payload))]...)
}

// headerSum covers the offset too: a frame counts only where it was written.
func (s salt) headerSum(h []byte, at int64) uint32 {
	var place [8]byte
	binary.LittleEndian.PutUint64(place[:], uint64(at))
	return crc32.Update(s.sum(place[:]), castagnoli, h[4:frameHeader])
}

// parseFrameHeader returns the frame without its payload, the length of that and its checksum.
// Cheap tests come first: recovery asks this at every eighth byte.
func (s salt) parseFrameHeader(h []byte, at int64) (f frame, length int, sum uint32, ok bool) {
	typ, n := Type(h[12]), binary.LittleEndian.Uint32(h[8:])
	if typ == 0 || n > maxPayloadBytes || h[13]&^(flagMore|flagRestate) != 0 || h[14] != 0 || h[15] != 0 {
		return frame{}, 0, 0, false
	}
	if s.headerSum(h, at) != binary.LittleEndian.Uint32(h) {
		return frame{}, 0, 0, false
	}
	f = frame{at: at, typ: typ, flags: h[13], id: binary.LittleEndian.Uint64(h[16:])}
	return f, int(n), binary.LittleEndian.Uint32(h[4:]), true
}

// batch is the payload of typeBatch.
type batch struct {
	length int64 // bytes, this frame included
	synced int64 // everything in this segment before this offset had been synced
}

func (p batch) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(p.length))
	return binary.LittleEndian.AppendUint64(b, uint64(p.synced))
}

func parseBatch(p []byte) (batch, bool) {
	if len(p) != batchPayload {
		return batch{}, false
	}
	b := batch{int64(binary.LittleEndian.Uint64(p)), int64(binary.LittleEndian.Uint64(p[8:]))}
	sound := batchHeader <= b.length && b.length <= maxSegmentBytes && segmentStart <= b.synced && b.synced <= maxSegmentBytes
	return b, sound
}

// bodyRef ties a record to the file that holds its body.
type bodyRef struct {
	size int64 // bytes of content
	salt [saltBytes]byte
	sum  uint32 // of content and length, as in the file's trailer
}

// acceptedHeadFor begins the payload of an Accepted record; meta follows, then the body or a bodyRef.
func acceptedHeadFor(meta int, place uint32) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, acceptedHead), uint32(meta))
	return binary.LittleEndian.AppendUint32(b, place)
}

func (r bodyRef) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(r.size))
	b = append(b, r.salt[:]...)
	b = binary.LittleEndian.AppendUint32(b, r.sum)
	return binary.LittleEndian.AppendUint32(b, 0)
}

// parseAccepted splits the payload of an Accepted record. ref is nil for an inline body.
func parseAccepted(p []byte) (meta, body []byte, ref *bodyRef, ok bool) {
	if len(p) < acceptedHead {
		return nil, nil, nil, false
	}
	n, place := binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:])
	p = p[acceptedHead:]
	if uint64(n) > uint64(len(p)) {
		return nil, nil, nil, false
	}
	meta, body = p[:n:n], p[n:]
	switch {
	case place == bodyInline:
		return meta, body, nil, true
	case place == bodyInFile && len(body) == bodyRefBytes:
		ref = &bodyRef{size: int64(binary.LittleEndian.Uint64(body)), sum: binary.LittleEndian.Uint32(body[24:])}
		copy(ref.salt[:], body[8:])
		return meta, nil, ref, ref.size >= 0
	}
	return nil, nil, nil, false
}

// appendBlob appends the payload of a Blob record.
func appendBlob(b []byte, name string, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(b, name...)
	return append(b, data...)
}

func parseBlob(p []byte) (name string, data []byte, ok bool) {
	n, used := binary.Uvarint(p)
	if used <= 0 || n == 0 || n > maxBlobName || n > uint64(len(p)-used) || len(p)-used-int(n) > maxBlobBytes {
		return "", nil, false
	}
	p = p[used:]
	return string(p[:n]), p[n:], true
}

// seal says where an earlier segment ends: what stands at or after that offset never counted.
type seal struct{ id, end uint64 }

const sealBytes = 16

func appendSeals(b []byte, seals []seal) []byte {
	b = slices.Grow(b, len(seals)*sealBytes)
	for _, s := range seals {
		b = binary.LittleEndian.AppendUint64(b, s.id)
		b = binary.LittleEndian.AppendUint64(b, s.end)
	}
	return b
}

func parseSeals(p []byte) (seals []seal) {
	for ; len(p) >= sealBytes; p = p[sealBytes:] {
		seals = append(seals, seal{binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])})
	}
	return seals
}

// A link ties a record about a message to what stands elsewhere. In one that ends the message it is the span of segments that
// may hold copies of it: the record must outlive them. In any other it is the place of the state record before it, 0 for
// the first.

func appendSpanLink(b []byte, at span) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(at.lo))
	return binary.LittleEndian.AppendUint32(b, uint32(at.hi))
}

func appendPosLink(b []byte, p pos) []byte { return binary.LittleEndian.AppendUint64(b, uint64(p)) }

func spanLink(link [linkBytes]byte) span {
	return span{uint64(binary.LittleEndian.Uint32(link[:])), uint64(binary.LittleEndian.Uint32(link[4:]))}
}

func posLink(link [linkBytes]byte) pos { return pos(binary.LittleEndian.Uint64(link[:])) }

// withoutBody returns the payload of an Accepted record without an inline body. It shares memory with p.
func withoutBody(p []byte) ([]byte, bool) {
	meta, body, ref, ok := parseAccepted(p)
	if !ok || ref != nil {
		return p, ok
	}
	return p[: acceptedHead+len(meta) : len(p)-len(body)], true
}
