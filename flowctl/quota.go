package flowctl

import "time"

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

// spend counts n recipients, and gives back when n is negative.
func (q *quota) spend(n int) {
	u := &q.used[q.newest%quotaBuckets]
	was := int64(*u)
	*u = uint32(min(max(was+int64(n), 0), 1<<32-1))
	q.total += int64(*u) - was
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

// settleQuota gives back what a transaction did not use: the upstream took none of its recipients.
func (c *Controller) settleQuota(now time.Time, k *conn, class Class) {
	share := k.rcpts / max(k.sending, 1)
	k.rcpts -= share
	if class == OK || class == Unavailable { // an answer that did not come may have been a yes
		return
	}
	c.quota.roll(now, c.bucket())
	c.quota.spend(-share)
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
