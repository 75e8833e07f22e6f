package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Read opens a message that was accepted and has not ended (a dead one has not). Any number may be open at a
// time, and stay readable when the message ends meanwhile; the caller closes body.
//
// A body in the record itself was verified before Read returns. One in a file of its own is verified while it is read:
// the reader returns ErrDamaged in place of io.EOF when the bytes were not those accepted. ErrNotFound: there is no such message.
func (j *Journal) Read(id uint64) (meta []byte, body io.ReadCloser, err error) {
	if meta, body, err = j.read(id); err != nil {
		return nil, nil, fmt.Errorf("journal: read %016x: %w", id, err)
	}
	return meta, body, nil
}

func (j *Journal) read(id uint64) ([]byte, io.ReadCloser, error) {
	p, s, ok := j.find(id)
	if !ok {
		return nil, nil, ErrNotFound
	}
	payload, err := j.readFrame(id, p, s)
	if err != nil {
		return nil, nil, j.vanished(id, err)
	}
	meta, inline, ref, ok := parseAccepted(payload)
	switch {
	case !ok:
		return nil, nil, j.damage(ErrDamaged)
	case ref == nil:
		return meta, io.NopCloser(bytes.NewReader(inline)), nil
	}
	r, err := j.openBody(id, *ref)
	if err != nil {
		return nil, nil, j.vanished(id, err)
	}
	return meta, r, nil
}

func (j *Journal) find(id uint64) (place, *segment, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p, ok := j.index[id]
	return p, j.segmentAt(p.segment), ok
}

// readFrame returns the payload of an Accepted record. The file is opened for each message: a segment may be
// removed under a reader, and nobody has to wait for anybody.
func (j *Journal) readFrame(id uint64, p place, s *segment) ([]byte, error) {
	f, err := j.fs.Open(s.name, false)
	if err != nil {
		return nil, fault("open", s.name, err)
	}
	b := make([]byte, p.size)
	_, err = f.ReadAt(b, int64(p.offset))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, j.damage(fault("read", s.name, err))
	}
	got, length, sum, ok := s.salt.parseFrameHeader(b, int64(p.offset))
	if !ok || got.typ != Accepted || got.id != id || frameSize(length) != int64(p.size) {
		return nil, j.damage(fault("read", s.name, ErrDamaged))
	}
	payload := b[frameHeader:][:length]
	if s.salt.sum(payload) != sum {
		return nil, j.damage(fault("read", s.name, ErrDamaged))
	}
	return payload, nil
}

// vanished tells a message that ended while it was being opened from one whose file is missing.
func (j *Journal) vanished(id uint64, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, _, live := j.find(id); !live {
		return ErrNotFound
	}
	return j.damage(err)
}

// damage counts what cannot be read any more. A file that is missing or too short is damage; a disk that does
// not answer is not, yet.
func (j *Journal) damage(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %v", ErrDamaged, err)
	}
	if errors.Is(err, ErrDamaged) {
		j.count(func(s *Stats) { s.Damaged++ })
	}
	return err
}
