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
	payload, err := j.accepted(id)
	if err != nil {
		return nil, nil, err
	}
	meta, inline, ref, ok := parseAccepted(payload)
	switch {
	case !ok:
		return nil, nil, j.damage(ErrDamaged)
	case ref == nil:
		return meta, io.NopCloser(bytes.NewReader(inline)), nil
	}
	r, err := j.openBody(id, *ref)
	if errors.Is(err, fs.ErrNotExist) && !j.live(id) {
		return nil, nil, ErrNotFound
	}
	if err != nil {
		return nil, nil, j.damage(err)
	}
	return meta, r, nil
}

// maxMoves is how often a message may be found to have moved while it was being opened. A move takes a sync at least.
const maxMoves = 100

// accepted returns the payload of a message's Accepted record. Nobody holds the segment meanwhile: what is not found in it
// is damage only if the message still stands there afterwards.
func (j *Journal) accepted(id uint64) ([]byte, error) {
	e, ok := j.find(id)
	for range maxMoves {
		if !ok {
			return nil, ErrNotFound
		}
		f, err := j.readFrame(e.at)
		if err == nil && (f.typ != Accepted || f.id != id) {
			err = fault("read", segmentName(e.at.segment()), ErrDamaged)
		}
		if err == nil {
			return f.payload, nil
		}
		before := e
		if e, ok = j.find(id); ok && e.at == before.at {
			return nil, j.damage(err)
		}
	}
	return nil, fmt.Errorf("%w: it moved %d times while it was read", ErrUnavailable, maxMoves)
}

func (j *Journal) find(id uint64) (entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, ok := j.index[id]
	return e, ok
}

func (j *Journal) live(id uint64) bool {
	_, ok := j.find(id)
	return ok
}

// over says whether a message has ended for good: not even a power cut brings it back.
func (j *Journal) over(id uint64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, live := j.index[id]
	_, ending := j.ending[id]
	return !live && !ending
}

// minRead is how much is read at least for a frame whose length is not quite known yet, in bytes: all of it, mostly.
const minRead = 512

// readFrame returns the frame that stands at p. The file is opened each time: a segment may be removed under a
// reader, and nobody has to wait for anybody.
func (j *Journal) readFrame(p pos) (frame, error) {
	j.mu.Lock()
	s := j.segmentAt(p.segment())
	j.mu.Unlock()
	name := segmentName(p.segment())
	if s == nil {
		return frame{}, fault("open", name, fs.ErrNotExist)
	}
	file, err := j.fs.Open(name, false)
	if err != nil {
		return frame{}, fault("open", name, err)
	}
	f, err := frameAt(file, s.salt, p.offset(), max(minRead, p.weight()*5/4))
	if err = errors.Join(err, file.Close()); err != nil {
		return frame{}, fault("read", name, err)
	}
	return f, nil
}

func frameAt(src io.ReaderAt, s salt, at, guess int64) (frame, error) {
	b := make([]byte, guess)
	n, err := src.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return frame{}, err
	}
	if n < frameHeader {
		return frame{}, ErrDamaged
	}
	f, length, sum, ok := s.parseFrameHeader(b, at)
	if !ok {
		return frame{}, ErrDamaged
	}
	if whole := frameHeader + length; whole > n {
		b = append(make([]byte, 0, whole), b[:n]...)[:whole]
		if _, err := src.ReadAt(b[n:], at+int64(n)); err != nil {
			return frame{}, err
		}
	}
	f.payload = b[frameHeader:][:length]
	if s.sum(f.payload) != sum {
		return frame{}, ErrDamaged
	}
	return f, nil
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
