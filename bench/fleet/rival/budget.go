package rival

import (
	"time"

	"github.com/mailweir/mailweir/bench/fleet/model"
	"github.com/mailweir/mailweir/flowctl"
)

// desk is a coordinator that nobody can have: it knows the limit, and everybody hears it at once. Who wants a slot queues,
// once; who gets one has it for a connection's life.
type desk struct {
	free  int
	queue []int // pods, first come first served
	poke  func(pod int) bool
}

func deskOf(t *model.Team) *desk {
	d, ok := t.Shared["desk"].(*desk)
	if !ok {
		d = &desk{free: t.Limit, poke: t.Poke}
		t.Shared["desk"] = d
	}
	return d
}

// client is one pod's view of it.
type client struct {
	*pool
	widthOnly
	desk    *desk
	pod     int
	queuing bool
	granted int
}

// Budget makes the law of a pod with a perfect fleet-wide budget: what could be reached at most.
func Budget(t *model.Team, pod int, seed uint64, _ time.Time) (model.Law, error) {
	c := &client{desk: deskOf(t), pod: pod}
	c.pool = newPool(c, seed)
	c.pool.linger = 0
	return c, nil
}

func (c *client) width() int                        { return c.granted }
func (c *client) dialed(time.Time, flowctl.Outcome) {}
func (c *client) sent(time.Time, flowctl.Outcome)   {}

// Plan asks the desk for what the demand needs, one slot at a time.
func (c *client) Plan(now time.Time, d flowctl.Demand) flowctl.Plan {
	want := c.busy + d.Ready
	for c.granted < want && c.acquire() {
		c.granted++
	}
	if c.queuing && c.granted >= want && c.desk.queue[0] == c.pod { // called, and wants nothing any more
		c.desk.queue = c.desk.queue[1:]
		c.queuing = false
		c.desk.next()
	}
	if c.granted > max(want, len(c.links)) {
		c.giveBack(c.granted - max(want, len(c.links)))
	}
	return c.pool.Plan(now, d)
}

// acquire takes a free slot if it is this pod's turn, and queues otherwise.
func (c *client) acquire() bool {
	d := c.desk
	if !c.queuing {
		d.queue = append(d.queue, c.pod)
		c.queuing = true
	}
	if d.free == 0 || d.queue[0] != c.pod {
		return false
	}
	d.free--
	d.queue = d.queue[1:]
	c.queuing = false
	d.next()
	return true
}

// next calls the first in the queue who is still there, if there is something for it.
func (d *desk) next() {
	for d.free > 0 && len(d.queue) > 0 && !d.poke(d.queue[0]) {
		d.queue = d.queue[1:]
	}
}

func (c *client) giveBack(n int) {
	c.granted -= n
	c.desk.free += n
	c.desk.next()
}

func (c *client) Closed(now time.Time, id flowctl.ConnID, o flowctl.Outcome) {
	c.pool.Closed(now, id, o)
	c.giveBack(1)
}

func (c *client) DialDone(now time.Time, id flowctl.ConnID, o flowctl.Outcome) {
	c.pool.DialDone(now, id, o)
	if o.Class != flowctl.OK {
		c.giveBack(1)
	}
}
