package journal

import "slices"

// The state records of a message are a chain: each leads to the one before it, and the index to the newest. Whoever copies the
// message finds its history that way, wherever the records stand.

// undone is what the index said before a record was linked.
type undone struct {
	id   uint64
	head pos
}

// link gives each request of a batch that begins at offset at its place in the tail, and its records their links. It returns
// the requests that may be written, without moves that came too late, and what unlink needs should the batch not be durable.
func (w *writer) link(batch []*request, at int64) (kept []*request, heads []undone) {
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	moved := w.j.oldestMoved()
	ending := endedBy(batch)
	kept = batch[:0]
	for _, r := range batch {
		if r.kind == moveKind && r.id != 0 && (w.j.index[r.id] != r.expect || slices.Contains(ending, r.id)) {
			r.answer(errMoved)
			continue
		}
		kept = append(kept, r)
		heads = w.linkOne(r, at, moved, heads)
		at += r.size
	}
	return kept, heads
}

// endedBy returns the messages that a batch with moves in it ends: a copy of one would come after its end, and bring it back.
func endedBy(batch []*request) (ids []uint64) {
	if !slices.ContainsFunc(batch, func(r *request) bool { return r.kind == moveKind }) {
		return nil
	}
	for _, r := range batch {
		for _, rec := range r.recs {
			if rec.Type.ends() {
				ids = append(ids, rec.ID)
			}
		}
	}
	return ids
}

func (w *writer) linkOne(r *request, at int64, moved uint64, heads []undone) []undone {
	if r.accepted != nil {
		size := frameSize(lengths(r.accepted))
		r.at = newPos(w.tail.id, at, size)
		at += size
	}
	first := r.spans == nil
	r.links = make([][linkBytes]byte, len(r.recs))
	for i, rec := range r.recs {
		e, live := w.j.index[rec.ID]
		switch {
		case rec.Type.ends():
			if first {
				r.spans = append(r.spans, make([]span, i+1-len(r.spans))...)
				if live {
					r.spans[i] = e.copies(moved)
				}
			}
			w.tail.need(r.spans[i])
			appendSpanLink(r.links[i][:0], r.spans[i])
		case rec.Type.linked() && live:
			if !rec.restates() {
				appendPosLink(r.links[i][:0], e.head)
			}
			if r.accepted == nil { // else they stand together
				w.tail.need(span{e.at.segment(), e.at.segment()})
			}
			heads = append(heads, undone{rec.ID, e.head})
			e.head = newPos(w.tail.id, at, 0)
			w.j.index[rec.ID] = e
		}
		at += rec.frameSize()
	}
	return heads
}

// unlink takes back what link did, for records that will not count where they were written.
func (w *writer) unlink(heads []undone) {
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	for _, u := range slices.Backward(heads) {
		if e, live := w.j.index[u.id]; live {
			e.head = u.head
			w.j.index[u.id] = e
		}
	}
}

// copies returns the segments that may hold an Accepted record of the message: its own, and from the oldest on that
// messages were copied from and that is not gone yet.
func (e entry) copies(moved uint64) span {
	at := span{e.at.segment(), e.at.segment()}
	if moved != 0 {
		at.lo = min(at.lo, moved)
	}
	return at
}

// oldestMoved returns 0 when there is none. It wants Journal.mu held.
func (j *Journal) oldestMoved() uint64 {
	for _, s := range j.segments {
		if s.moved {
			return s.id
		}
	}
	return 0
}
