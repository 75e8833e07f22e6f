package journal

import "errors"

// A request is one atomic group on its way to the tail. Its creator waits for result and touches nothing meanwhile.
type request struct {
	kind   kind
	result chan error // room for one; nil when nobody waits (any more)
	size   int64      // bytes of all its frames

	id       uint64   // of the message, if it is about one
	accepted [][]byte // payload of its Accepted record, in parts; nil: the group has none
	recs     []Record // state records, and what ends messages
	body     int64    // bytes of the body file
	expect   entry    // what a move was made for: when that has changed, it is void
	voided   bool     // set before an error is answered: the writer sees to the body file

	// The writer fills in:
	at    pos               // of the Accepted record
	links [][linkBytes]byte // one for each of recs
	spans []span            // likewise, where recs end messages; the first place it is written to decides
	ended []ended           // messages whose end this records
}

type kind uint8

const (
	stateKind   kind = iota // state records: answered when written, written again when a sync fails
	messageKind             // answered when synced, void when the sync fails
	moveKind                // likewise; what is still needed of an old segment, written again so that it may go
)

// errMoved: what was to be copied has changed or ended meanwhile.
var errMoved = errors.New("message has changed")

// newGroup copies the payloads: they are kept until they are synced, for the case that they must be written again.
func newGroup(recs []Record) *request {
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
	if r.accepted != nil {
		r.size = frameSize(lengths(r.accepted))
	}
	for _, rec := range r.recs {
		r.size += rec.frameSize()
	}
}

func lengths(parts [][]byte) (n int) {
	for _, p := range parts {
		n += len(p)
	}
	return n
}

func (r Record) frameSize() int64 {
	if r.Type.linked() {
		return frameSize(linkBytes + len(r.Payload))
	}
	return frameSize(len(r.Payload))
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
func (r *request) append(b []byte, s salt, at int64) []byte {
	if r.accepted != nil {
		b = appendFrame(b, s, at, Accepted, flagsOf(len(r.recs) > 0, false), r.id, r.accepted...)
		at += frameSize(lengths(r.accepted))
	}
	for i, rec := range r.recs {
		flags := flagsOf(i < len(r.recs)-1, rec.restates())
		if rec.Type.linked() {
			b = appendFrame(b, s, at, rec.Type, flags, rec.ID, r.links[i][:], rec.Payload)
		} else {
			b = appendFrame(b, s, at, rec.Type, flags, rec.ID, rec.Payload)
		}
		at += rec.frameSize()
	}
	return b
}

// restates says whether r begins the history of its message anew.
func (r Record) restates() bool { return r.Whole && r.Type.linked() && !r.Type.ends() }

// generation is what was written to the tail between the start of one sync and the start of the next.
type generation struct {
	commits []*request // answered when synced
	groups  []*request
	bytes   int64    // of groups
	heads   []undone // what chains began with before
}

func (g *generation) add(r *request) {
	if r.kind != stateKind {
		g.commits = append(g.commits, r)
		return
	}
	g.groups = append(g.groups, r)
	g.bytes += r.size
}

// redo returns what must be written again when the sync of g, which went to the segment of that number, has failed: its
// groups, and a note that its messages were refused.
func (g *generation) redo(segment uint64) []*request {
	again := g.groups
	for _, c := range g.commits {
		if c.kind != messageKind {
			continue
		}
		void := newGroup([]Record{{Type: Void, ID: c.id}})
		void.result = nil
		void.spans = []span{{segment, segment}}
		if c.body > 0 {
			void.ended = []ended{{id: c.id, body: c.body}} // it was never live in a segment
		}
		again = append(again, void)
	}
	return again
}
