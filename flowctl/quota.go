package flowctl

import (
	"math"
	"time"
)

// Many providers count recipients over the last 24 hours, at every moment anew. A token bucket would let twice as many through; so they
// are counted here as the provider does, to five minutes.

// Constants of the quota. Times scale with Config.Scale.
const (
	quotaDay     = 24 * time.Hour
	quotaBuckets = 288
)

// quota counts recipients over the last day. The zero value has counted none.
type quota struct {
	used   [quotaBuckets]uint32
	newest int64 // number of the latest bucket since 1970
	total  int64
}

// bucket is the time that one counts.
func (c *Controller) bucket() int64 { return max(int64(c.cfg.scaled(quotaDay))/quotaBuckets, 1) }

// roll forgets what is more than a day ago.
func (q *quota) roll(now time.Time, bucket int64) {
	n := now.UnixNano() / bucket
	for ; q.newest < n && q.total > 0; q.newest++ {
		i := (q.newest + 1) % quotaBuckets
		q.total -= int64(q.used[i])
		q.used[i] = 0
	}
	q.newest = max(q.newest, n)
}

// spend counts n recipients.
func (q *quota) spend(n int) {
	u := &q.used[q.newest%quotaBuckets]
	was := int64(*u)
	*u = uint32(min(was+int64(n), math.MaxUint32))
	q.total += int64(*u) - was
}

// giveBack takes back n recipients that spend counted of late: the newest first.
func (q *quota) giveBack(n int) {
	for i := int64(0); i < quotaBuckets && n > 0; i++ {
		u := &q.used[(q.newest+quotaBuckets-i)%quotaBuckets]
		back := min(*u, uint32(n))
		*u -= back
		q.total -= int64(back)
		n -= int(back)
	}
}

// countedMost is how many transactions in flight on one connection are counted each by itself; no plan allows more.
const countedMost = 16

// counted has the recipients of the transactions in flight on a connection, oldest first.
type counted [countedMost]int32

// push adds a transaction, the nth. Beyond the most they are counted with the last.
func (r *counted) push(n, rcpts int) {
	u := &r[min(n, countedMost)-1]
	*u = int32(min(int64(*u)+int64(rcpts), math.MaxInt32))
}

// pop removes the oldest.
func (r *counted) pop() int {
	n := r[0]
	copy(r[:], r[1:])
	r[countedMost-1] = 0
	return int(n)
}

// quotaLeft returns how many recipients may still be sent to now; when there is none, at is when there will be.
func (c *Controller) quotaLeft(now time.Time) (left int, at time.Time) {
	limit := int64(c.cfg.RecipientsPerDay)
	if limit == 0 {
		return demandMax, time.Time{}
	}
	q, bucket := &c.quota, c.bucket()
	q.roll(now, bucket)
	if q.total < limit {
		return int(limit - q.total), time.Time{}
	}
	left64 := limit - q.total
	for i := int64(1); i <= quotaBuckets; i++ { // the oldest first
		left64 += int64(q.used[(q.newest+i)%quotaBuckets])
		if left64 > 0 {
			return 0, time.Unix(0, (q.newest+i)*bucket)
		}
	}
	return 0, now.Add(c.cfg.scaled(quotaDay))
}

// settleQuota gives back what the oldest transaction of a connection did not use: the recipients that the upstream did not take.
func (c *Controller) settleQuota(now time.Time, k *conn, o Outcome) {
	unused := k.rcpts.pop() - max(o.Taken, 0)
	if o.Class == OK || o.Class == Unavailable { // an answer that did not come may have been a yes
		return
	}
	c.quota.roll(now, c.bucket())
	c.quota.giveBack(unused)
}

// quotaSpent makes the plan wait for the quota, if there is none left.
func (c *Controller) quotaSpent(now time.Time, p *Plan) bool {
	left, at := c.quotaLeft(now)
	if left > 0 {
		return false
	}
	p.SendAt = at
	p.wakeAt(now, at)
	return true
}

func (c *Controller) overQuota(now time.Time) bool {
	left, _ := c.quotaLeft(now)
	return left <= 0
}
