package upstream

import (
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// What we say for a server that could not.
var (
	replyUnheard    = Reply{Code: 451, Enhanced: [3]uint16{4, 4, 2}, Text: "mailweir: the connection ended after the content and before its reply"}
	replyUnreadable = Reply{Code: 451, Enhanced: [3]uint16{4, 3, 0}, Text: "mailweir: the content could not be read"}
)

// result ends tx; end is why the connection does, nil when it goes on.
func (c *Conn) result(tx *transaction, end *ending) *Result {
	now := time.Now()
	r := &Result{Job: tx.job, Reused: tx.reused, Finished: now}
	if tx.refused {
		c.failures++
	}
	switch open := tx.undecided(); {
	case tx.back != "":
		r.HandedBack, r.Signal = true, nothingSaid(tx.back)
	case open > 0 && tx.err != nil:
		tx.decideOurselves(flowctl.StageData, replyUnreadable, Verdict{Local: true})
		r.Verdicts, r.Err, r.Signal = tx.verdicts, tx.err, nothingSaid(replyUnreadable.Text)
	case open > 0 && tx.dotted:
		tx.decideOurselves(flowctl.StageDot, replyUnheard, Verdict{Unheard: true})
		r.Verdicts, r.Uncertain, r.Err, r.Signal = tx.verdicts, true, end.err, end.outcome
	case open > 0:
		r.HandedBack, r.Err, r.Signal = true, end.err, end.outcome
		if tx.reused && tx.heard == 0 && !timedOut(end.err) {
			r.Signal.Class = flowctl.IdleClose // it was stale before we used it
		}
	case !tx.claimed && !tx.job.claim():
		r.HandedBack, r.Signal = true, nothingSaid("withdrawn")
	default:
		r.Verdicts, r.Signal = tx.verdicts, tx.worst
	}
	// With the next message's MAIL in the group of this one's content, the server comes to it only now.
	from := tx.started
	if c.lastEnd.After(from) {
		from = c.lastEnd
	}
	c.lastEnd = now
	r.Signal.Started, r.Signal.Took = tx.started, now.Sub(from)
	r.Unreported = c.unreported(tx)
	if end == nil && !r.HandedBack && len(tx.commands) > 0 {
		c.client.ladder.answered(now, tx.used, r.Signal.Class == flowctl.OK, tx.row, r.Signal.Took)
	}
	return r
}

// unreported are those who were taken and whose sender wants to hear of it, where the upstream was not told so.
func (c *Conn) unreported(tx *transaction) (to []int) {
	if c.ext.DSN {
		return nil
	}
	for i, n := range tx.job.To {
		if v := tx.verdicts[i]; v.Class == flowctl.OK && v.Reply.Code != 0 && strings.Contains(tx.job.Env.To[n].Notify, "SUCCESS") {
			to = append(to, n)
		}
	}
	return to
}

// handBack ends a transaction that got no reply because of the one before it.
func handBack(tx *transaction) *Result {
	now := time.Now()
	r := &Result{Job: tx.job, Reused: tx.reused, HandedBack: true, Signal: nothingSaid("the message before it ended the connection"), Finished: now}
	r.Signal.Started, r.Signal.Took = tx.started, now.Sub(tx.started)
	return r
}

// nothingSaid is the signal of a transaction that says nothing of the upstream.
func nothingSaid(why string) flowctl.Outcome {
	return flowctl.Outcome{Class: flowctl.IdleClose, Stage: flowctl.StageMail, Text: why}
}

// timedOut: a connection that was closed has ended by now; one that is silent may be at work.
func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF)
}
