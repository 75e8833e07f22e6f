package proxy

import (
	"github.com/mailweir/mailweir/proxy/config"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/route"
)

// router cuts a message into deliveries by the configuration in force: no record of the journal says where a message goes, so that a
// start with other routes sends what waits by those. It does not change.
type router struct {
	table route.Table
	most  []int // recipients of one delivery, by lane; never empty
}

func newRouter(cfg config.Config) *router {
	r := &router{table: cfg.Table}
	for _, up := range cfg.Upstreams() {
		r.most = append(r.most, queue.Config{GroupMax: up.GroupMax}.Group())
	}
	return r
}

// groups cuts a new message into deliveries: one lane each, and not too many recipients. Those of one lane keep their order.
func (r *router) groups(env *message.Envelope) []queue.Group {
	var groups []queue.Group
	for lane, to := range r.lanes(env) {
		for len(to) > 0 {
			n := min(len(to), r.most[lane])
			groups = append(groups, queue.Group{Lane: lane, Key: groupKey(env, to[:n]), To: to[:n:n]})
			to = to[n:]
		}
	}
	if len(groups) == 1 {
		groups[0].To = nil
	}
	return groups
}

// lanes returns the recipients of each lane.
func (r *router) lanes(env *message.Envelope) [][]int {
	lanes := make([][]int, len(r.most))
	if len(r.table) == 0 {
		lanes[0] = indices(len(env.To))
		return lanes
	}
	from := message.Domain(env.From)
	for i, to := range env.To {
		n := r.table.Lane(from, message.Domain(to.Addr))
		lanes[n] = append(lanes[n], i)
	}
	return lanes
}
