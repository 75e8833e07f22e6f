package model

// kind says what an event does.
type kind uint8

const (
	atServer kind = iota // a dial arrives at the server; arg: connection
	dialEnd              // the client learns what became of its dial; arg: connection
	sendEnd              // a message has been answered; arg: connection
	release              // the server learns of a close; arg: backend
	wake                 // a pod asks for a plan; arg: pod
	join                 // a pod starts; arg: pod
	leave                // a pod ends; arg: pod
	arrival              // a message arrives somewhere in a group; arg: group
	change               // the upstream changes; arg: index of the change
	drained              // the first of the messages that share the server's time is done; gen: validity
)

// event is what happens at one moment. Those of one moment happen in the order in which they were planned.
type event struct {
	at   int64 // nanoseconds since the start
	seq  uint64
	arg  uint32
	gen  uint32 // of the connection, so that an event of one that is gone concerns nobody
	kind kind
}

func (a *event) before(b *event) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

// heap is a queue of events, the earliest first. Four children a node: fewer cache misses than two. It allocates only
// while it grows.
type heap struct {
	list []event
	seq  uint64
}

const arity = 4

func (h *heap) push(e event) {
	h.seq++
	e.seq = h.seq
	h.list = append(h.list, e)
	i := len(h.list) - 1
	for i > 0 {
		up := (i - 1) / arity
		if !e.before(&h.list[up]) {
			break
		}
		h.list[i] = h.list[up]
		i = up
	}
	h.list[i] = e
}

func (h *heap) pop() event {
	first := h.list[0]
	n := len(h.list) - 1
	last := h.list[n]
	h.list = h.list[:n]
	if n > 0 {
		h.sink(last)
	}
	return first
}

// sink puts e in the place of the first.
func (h *heap) sink(e event) {
	i := 0
	for {
		child := i*arity + 1
		if child >= len(h.list) {
			break
		}
		for j := child + 1; j < min(child+arity, len(h.list)); j++ {
			if h.list[j].before(&h.list[child]) {
				child = j
			}
		}
		if !h.list[child].before(&e) {
			break
		}
		h.list[i] = h.list[child]
		i = child
	}
	h.list[i] = e
}
