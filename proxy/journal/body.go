package journal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	bodyTrailer    = 16
	bodyWriteBytes = 32 << 10 // collected before a write(2) to a body file
	bodyReadBytes  = 32 << 10
)

func bodyFileBytes(content int64) int64 { return headerBytes + content + bodyTrailer }

// bodyWriter streams one body into a file of its own: header, content, trailer.
type bodyWriter struct {
	fs   FS
	id   uint64
	file File
	ref  bodyRef
	salt salt
	crc  uint32 // of the content so far
	buf  []byte // not written yet
	at   int64  // offset of buf
}

func newBodyWriter(fs FS, id uint64) (*bodyWriter, error) {
	f, err := fs.Create(bodyName(id))
	if err != nil {
		return nil, fault("create", bodyName(id), err)
	}
	w := &bodyWriter{fs: fs, id: id, file: f, buf: make([]byte, 0, bodyWriteBytes)}
	rand.Read(w.ref.salt[:]) // never fails: the runtime ends the process instead
	w.salt = newSalt(w.ref.salt[:])
	w.crc = uint32(w.salt)
	w.buf = header{id: id, salt: w.ref.salt}.append(w.buf, bodyMagic)
	return w, nil
}

func (w *bodyWriter) Write(p []byte) (int, error) {
	w.crc = crc32.Update(w.crc, castagnoli, p)
	w.ref.size += int64(len(p))
	return len(p), w.put(p)
}

func (w *bodyWriter) put(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), cap(w.buf)-len(w.buf))
		w.buf, p = append(w.buf, p[:n]...), p[n:]
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *bodyWriter) flush() error {
	n, err := w.file.WriteAt(w.buf, w.at)
	w.at += int64(n)
	w.buf = w.buf[:0]
	if err != nil {
		return fault("write", bodyName(w.id), err)
	}
	return nil
}

// finish writes the trailer and makes content and name durable. A sync that fails is final: the file is of no use.
func (w *bodyWriter) finish() error {
	trailer := binary.LittleEndian.AppendUint64(make([]byte, 0, bodyTrailer), uint64(w.ref.size))
	w.ref.sum = crc32.Update(w.crc, castagnoli, trailer)
	trailer = binary.LittleEndian.AppendUint32(trailer, w.ref.sum)
	trailer = binary.LittleEndian.AppendUint32(trailer, 0)
	if err := w.put(trailer); err != nil {
		return err
	}
	if len(w.buf) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	err := w.file.Sync()
	err = errors.Join(err, w.file.Close())
	w.file = nil
	if err == nil {
		err = w.fs.SyncDir()
	}
	if err != nil {
		return fault("sync", bodyName(w.id), err)
	}
	return nil
}

// close ends a writer that was not finished.
func (w *bodyWriter) close() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	return f.Close()
}

// bodyReader gives the content of a body file, and ErrDamaged in place of io.EOF when it is not what was written.
// The open file stays whole even when the message ends meanwhile and its name is removed.
type bodyReader struct {
	j    *Journal
	id   uint64
	file File
	ref  bodyRef
	left int64 // bytes of content
	crc  uint32
	buf  []byte // read ahead; the unread part is buf[next:]
	next int
	err  error // what Read answers from now on
}

func (j *Journal) openBody(id uint64, ref bodyRef) (*bodyReader, error) {
	f, err := j.fs.Open(bodyName(id), false)
	if err != nil {
		return nil, fault("open", bodyName(id), err)
	}
	b := make([]byte, headerBytes)
	_, err = f.ReadAt(b, 0)
	h, ok, _ := parseHeader(b, bodyMagic)
	if err == nil && (!ok || h.id != id || h.salt != ref.salt) {
		err = ErrDamaged
	}
	if err != nil {
		return nil, errors.Join(fault("read", bodyName(id), err), f.Close())
	}
	return &bodyReader{j: j, id: id, file: f, ref: ref, left: ref.size, crc: uint32(newSalt(h.salt[:]))}, nil
}

func (r *bodyReader) Read(p []byte) (int, error) {
	if r.next == len(r.buf) && r.err == nil {
		r.fill()
	}
	if r.next == len(r.buf) {
		return 0, r.err
	}
	n := copy(p, r.buf[r.next:])
	r.next += n
	return n, nil
}

// fill reads on. The last piece is handed out only after the checksum of the whole was found right.
func (r *bodyReader) fill() {
	if r.buf == nil {
		r.buf = make([]byte, bodyReadBytes)
	}
	r.buf, r.next = r.buf[:min(int64(cap(r.buf)), r.left)], 0
	if _, err := r.file.ReadAt(r.buf, headerBytes+r.ref.size-r.left); err != nil {
		r.fail(err)
		return
	}
	r.crc = crc32.Update(r.crc, castagnoli, r.buf)
	if r.left -= int64(len(r.buf)); r.left > 0 {
		return
	}
	r.err = io.EOF
	if err := r.verify(); err != nil {
		r.fail(err)
	}
}

func (r *bodyReader) verify() error {
	var want, got [bodyTrailer]byte
	binary.LittleEndian.PutUint64(want[:], uint64(r.ref.size))
	binary.LittleEndian.PutUint32(want[8:], crc32.Update(r.crc, castagnoli, want[:8]))
	if _, err := r.file.ReadAt(got[:], headerBytes+r.ref.size); err != nil {
		return err
	}
	if !bytes.Equal(want[:], got[:]) || binary.LittleEndian.Uint32(want[8:]) != r.ref.sum {
		return ErrDamaged
	}
	return nil
}

func (r *bodyReader) fail(err error) {
	r.err = fmt.Errorf("journal: %w", r.j.damage(fault("read", bodyName(r.id), err)))
	r.buf, r.next = r.buf[:0], 0
}

func (r *bodyReader) Close() error {
	r.err = io.ErrClosedPipe
	r.buf, r.next = nil, 0
	return r.file.Close()
}
