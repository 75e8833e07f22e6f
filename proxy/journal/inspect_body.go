package journal

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
)

// readBodies reads the body files of all messages that have not ended. What is wrong with one is believed only when its message
// has not ended meanwhile: see missing.
func (i *inspector) readBodies() error {
	if i.in.SkipBodies {
		return nil
	}
	buf := make([]byte, bodyReadBytes)
	for _, id := range slices.Sorted(maps.Keys(i.bodies)) {
		ref := i.bodies[id]
		wrong := i.readBody(id, ref, buf)
		if wrong != "" {
			i.suspects = append(i.suspects, suspect{id, wrong})
			continue
		}
		i.report.Bodies++
		i.report.BodyBytes += ref.size
	}
	return nil
}

// suspect is a body that is not as it should be.
type suspect struct {
	id    uint64
	wrong Fault
}

// readBody returns "" for a sound body.
func (i *inspector) readBody(id uint64, ref bodyRef, buf []byte) Fault {
	r, err := i.j.openBody(id, ref)
	for err == nil {
		var n int
		n, err = r.Read(buf)
		i.passed += int64(n)
		i.progress(0)
	}
	if errors.Is(err, io.EOF) && !errors.Is(err, ErrDamaged) {
		if n, _ := r.file.ReadAt(buf[:1], bodyFileBytes(ref.size)); n > 0 {
			err = errTooLong
		}
	}
	if r != nil {
		err = errors.Join(err, r.Close())
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return BodyGone
	case errors.Is(err, errTooLong):
		return BodyLength
	case errors.Is(err, ErrDamaged):
		return Checksum
	case !errors.Is(err, io.EOF):
		return Unreadable
	}
	return ""
}

var errTooLong = errors.New("file longer than its bytes")

// settleSuspects reports the bodies of messages that are still there, now that everything was read that was written before
// those bodies were.
func (i *inspector) settleSuspects() error {
	for _, s := range i.suspects {
		m := i.messages[s.id]
		n, found := slices.BinarySearchFunc(i.looks, uint64(m.segment), func(l *look, id uint64) int {
			return cmp.Compare(l.s.id, id)
		})
		if !m.alive() || !found {
			continue
		}
		// What ends a message outlives it: as long as its segment is there, its end would have been read.
		if gone, err := i.vanished(i.looks[n]); gone || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		p := place{Damage: Damage{File: bodyName(s.id), Length: bodyFileBytes(i.bodies[s.id].size), Fault: s.wrong,
			Lost: []Lost{{Type: Accepted, ID: s.id, Certain: true}}}, segment: uint64(m.segment), footer: true}
		i.keep(p)
	}
	return nil
}
