package proxy

import (
	"errors"
	"time"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
	"github.com/mailweir/mailweir/proxy/queue"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// judgement is what the end of one transaction means for its recipients. Each recipient is in exactly
// one of Delivered, Failed and the To of one rest.
type judgement struct {
	Delivered []int
	Failed    []int
	Reply     string // of the first failed
	Rests     []rest
}

// rest is a part of a delivery that has to be tried again, with the same fate.
type rest struct {
	To         []int
	Key        string // whose turn it is in the queue
	How        how
	Hint       time.Duration // the upstream named a pause
	Reply      string
	Unanswered bool // the upstream did not come to the message: this was no attempt
	Suspect    bool // it sounded like the upstream's fault
}

type how uint8

const (
	again       how = iota // at once, and nothing is counted
	byUpstream             // after a pause of the upstream's schedule
	byHost                 // after the least of those, for another host
	byRecipient            // after a pause of the recipient's schedule
	byUncertain            // it may have been delivered
	inDoubt                // refused for good, which stands once the upstream is seen to be sane; see doubt.go
)

// judge decides from one result. It changes nothing but the fuse.
func judge(now time.Time, r *upstream.Result, d queue.Delivery, f *fuse) judgement {
	to := r.Job.To
	if r.HandedBack {
		return judgement{Rests: []rest{handedBack(r, d)}}
	}
	if errors.Is(r.Err, journal.ErrDamaged) {
		return judgement{Failed: to, Reply: "the message is damaged in the journal: " + r.Err.Error()}
	}
	if errors.Is(r.Err, errNotStarted) {
		return judgement{Rests: []rest{{To: to, Key: groupKey(r.Job.Env, to), How: byUpstream, Unanswered: true, Reply: r.Err.Error()}}}
	}
	var j judgement
	took, split := 0, 0
	for _, v := range r.Verdicts {
		if v.Class == flowctl.OK {
			took++
		}
		if v.Split {
			split++
		}
	}
	if took > 0 {
		f.success(now, r.Signal.Started)
	}
	for i, v := range r.Verdicts {
		if split == len(r.Verdicts) {
			v.Split = false // not one was few enough: asking again at once would ask for ever
		}
		j.place(now, to[i], v, r, d, f, took > 0)
	}
	return j
}

// place puts one recipient where its verdict says. sane: the same transaction delivered to somebody.
func (j *judgement) place(now time.Time, to int, v upstream.Verdict, r *upstream.Result, d queue.Delivery, f *fuse, sane bool) {
	text := replyText(v.Reply)
	domain := message.Domain(r.Job.Env.To[to].Addr)
	add := func(x rest) {
		x.Reply = text
		j.add(to, x)
	}
	if v.Unheard {
		text = r.Signal.Text
		add(rest{How: byUncertain, Key: groupKey(r.Job.Env, r.Job.To)})
		return
	}
	switch v.Class {
	case flowctl.OK:
		j.Delivered = append(j.Delivered, to)
	case flowctl.Permanent:
		switch {
		case v.Local:
			j.fail(to, text)
		case !f.permanent(now, r.Job.Env.ID, text), f.spent && d.Tries.Attempts == 0: // while the fuse is spent nobody dies of the first refusal
			add(rest{How: byRecipient, Key: domain})
		case sane, f.spent, d.Tries.Suspects > 0:
			j.fail(to, text)
		default:
			add(rest{How: inDoubt, Key: domain})
		}
	case flowctl.PerMessage:
		if v.Split {
			add(rest{How: again, Key: groupKey(r.Job.Env, r.Job.To)})
			return
		}
		add(rest{How: byRecipient, Key: domain, Hint: r.Signal.RetryAfter})
	case flowctl.Quota, flowctl.Misconfigured:
		if r.Signal.Stage == flowctl.StageMail && authRequired(r) { // everything is held for it; afterwards nobody waits on
			add(rest{How: byUpstream, Unanswered: true, Key: groupKey(r.Job.Env, r.Job.To)})
			return
		}
		f.suspect(now, r.Job.Env.ID, v.Class, r.Job.Env.To[to].Addr, text)
		// A quota comes back: that others got through before it was used up again proves nothing, however often it happens.
		if v.Class == flowctl.Misconfigured && v.Reply.Code >= 500 && f.certain(d.Tries.Suspects, r.Signal.Started.Add(-suspectWindow)) {
			j.fail(to, text)
			return
		}
		add(rest{How: byRecipient, Key: domain, Hint: r.Signal.RetryAfter, Suspect: true})
	case flowctl.Reputation:
		add(rest{How: byRecipient, Key: domain, Hint: r.Signal.RetryAfter})
	case flowctl.Unavailable:
		add(rest{How: byUpstream, Unanswered: true, Key: groupKey(r.Job.Env, r.Job.To), Hint: r.Signal.RetryAfter})
	case flowctl.Overload:
		add(rest{How: byUpstream, Key: groupKey(r.Job.Env, r.Job.To), Hint: r.Signal.RetryAfter})
	case flowctl.RateLimited, flowctl.AuthThrottle: // the controller slows everybody down; this one lets the others go first
		add(rest{How: byUpstream, Unanswered: true, Key: groupKey(r.Job.Env, r.Job.To), Hint: r.Signal.RetryAfter})
	default: // Busy, SessionCap, IdleClose: the controller makes us wait, not the message
		add(rest{How: afterRefusal(r, v.Class), Key: groupKey(r.Job.Env, r.Job.To)})
	}
}

// elsewhere leaves to another host what one of several is too busy for. Were the pauses to grow, they could keep step with those after which
// that one is tried again, and each of its trials would get this message.
func (j *judgement) elsewhere() {
	for i := range j.Rests {
		if j.Rests[i].How == byUpstream {
			j.Rests[i].How = byHost
		}
	}
}

// afterRefusal: at once on another connection, but for a connection that is told it has had its share before it has had
// anything: opening the next one would be told the same.
func afterRefusal(r *upstream.Result, class flowctl.Class) how {
	if class == flowctl.SessionCap && !r.Reused {
		return byUpstream
	}
	return again
}

// suspectWindow is how far back a success of others makes a repeated suspicious refusal the recipient's own.
const suspectWindow = time.Hour

func (j *judgement) fail(to int, text string) {
	if len(j.Failed) == 0 {
		j.Reply = text
	}
	j.Failed = append(j.Failed, to)
}

// add joins a recipient to the rest that shares its fate.
func (j *judgement) add(to int, x rest) {
	for i := range j.Rests {
		if o := &j.Rests[i]; o.How == x.How && o.Key == x.Key && o.Suspect == x.Suspect && o.Unanswered == x.Unanswered {
			o.To = append(o.To, to)
			return
		}
	}
	x.To = []int{to}
	j.Rests = append(j.Rests, x)
}

// handedBack says what becomes of a transaction of which nothing can have been delivered. What ended because
// the upstream allows fewer connections, or because a warm connection was stale, costs the message nothing.
func handedBack(r *upstream.Result, d queue.Delivery) rest {
	x := rest{To: r.Job.To, Key: groupKey(r.Job.Env, r.Job.To), How: byUpstream, Unanswered: true, Reply: r.Signal.Text, Hint: r.Signal.RetryAfter}
	switch r.Signal.Class {
	case flowctl.OK, flowctl.Busy, flowctl.IdleClose, flowctl.SessionCap:
		x.How = afterRefusal(r, r.Signal.Class)
	}
	if r.Reused && d.Tries.Strikes == 0 {
		x.How = again
	}
	return x
}

// mixedKey is the key of deliveries to several domains.
const mixedKey = "*"

// groupKey names the turn under which recipients queue up: their domain, if they share one.
func groupKey(env *message.Envelope, to []int) string {
	return sharedKey(to, func(i int) string { return message.Domain(env.To[i].Addr) })
}

func sharedKey(to []int, domain func(int) string) string {
	key := domain(to[0])
	for _, i := range to[1:] {
		if domain(i) != key {
			return mixedKey
		}
	}
	return key
}

func replyText(r upstream.Reply) string {
	s := r.String()
	return s[:min(len(s), maxReplyText)]
}
