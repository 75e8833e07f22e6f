package journal

// request is one atomic group on its way to the tail: a message, or state records. Its creator waits for result
// and touches nothing meanwhile.
type request struct {
	result chan error // room for one; nil when nobody waits (any more)
	size   int64      // bytes of all its frames

	recs []Record // state records; nil for a message

	commit bool // a message: the fields below
	id     uint64
	meta   []byte
	body   []byte   // the body itself, or
	ref    *bodyRef // where it is
	place  place    // the writer fills it in
	voided bool     // set before an error is answered: the writer sees to the body file

	ended []ended // messages whose end this records
}

// newRequest copies the payloads: they are kept until they are synced, for the case that they must be written again.
func newRequest(recs []Record) *request {
	r := &request{recs: recs, result: make(chan error, 1)}
	n := 0
	for _, rec := range recs {
		n += len(rec.Payload)
	}
	own := make([]byte, 0, n)
	for i := range recs {
		start := len(own)
		own = append(own, recs[i].Payload...)
		recs[i].Payload = own[start:len(own):len(own)]
	}
	r.measure()
	return r
}

func (r *request) measure() {
	r.size = 0
	for _, rec := range r.recs {
		r.size += frameSize(len(rec.Payload))
	}
	if r.commit {
		r.size = frameSize(acceptedHead + len(r.meta) + max(len(r.body), r.bodyRefBytes()))
	}
}

func (r *request) bodyRefBytes() int {
	if r.ref == nil {
		return 0
	}
	return bodyRefBytes
}

// answer wakes who waits. It may be called again, to no effect.
func (r *request) answer(err error) {
	result := r.result
	r.result = nil
	if result != nil {
		result <- err
	}
}

// append encodes the request for offset at of a segment.
func (r *request) append(b []byte, s *segment, at int64) []byte {
	if r.commit {
		r.place.segment, r.place.offset, r.place.size = s.id, uint32(at), uint32(r.size)
		if r.ref != nil {
			return appendFrame(b, s.salt, at, Accepted, false, r.id, acceptedHeadFor(len(r.meta), bodyInFile), r.meta, r.ref.append(nil))
		}
		return appendFrame(b, s.salt, at, Accepted, false, r.id, acceptedHeadFor(len(r.meta), bodyInline), r.meta, r.body)
	}
	for i, rec := range r.recs {
		b = appendFrame(b, s.salt, at, rec.Type, i < len(r.recs)-1, rec.ID, rec.Payload)
		at += frameSize(len(rec.Payload))
	}
	return b
}

// generation is what was written to the tail between the start of one sync and the start of the next.
type generation struct {
	commits []*request
	groups  []*request
	bytes   int64 // of groups
}

func (g *generation) add(r *request) {
	if r.commit {
		g.commits = append(g.commits, r)
		return
	}
	g.groups = append(g.groups, r)
	g.bytes += r.size
}

// redo returns what must be written again when the sync of g failed: its groups, and a note that its messages
// were refused.
func (g *generation) redo() []*request {
	again := g.groups
	for _, c := range g.commits {
		void := newRequest([]Record{{Type: Void, ID: c.id}})
		void.result = nil
		if c.place.body > 0 {
			void.ended = []ended{{c.id, place{body: c.place.body}}} // it was never live in a segment
		}
		again = append(again, void)
	}
	return again
}

// ownRecords says whether the segment is needed for the sake of r. The latest blobs are repeated by each new
// segment; that one was removed is not.
func (r *request) ownRecords() bool {
	if r.commit || r.recs[0].Type != Blob {
		return true
	}
	_, data, _ := parseBlob(r.recs[0].Payload)
	return len(data) == 0
}
