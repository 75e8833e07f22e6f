package upstream

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// ending says why a connection is over.
type ending struct {
	outcome flowctl.Outcome
	err     error // nil: the server said it, or we are done
	said    bool  // by the server, in a reply
	polite  bool  // with QUIT
	shifted bool  // replies do not belong to the commands we matched them with
}

func retire(class flowctl.Class, why string) *ending {
	return &ending{outcome: flowctl.Outcome{Class: class, Stage: flowctl.StageIdle, Text: why}, polite: true}
}

func endErr(st flowctl.Stage, err error) *ending {
	return &ending{outcome: outcome(st, ClassifyErr(st, err), truncate(clean(err.Error()), replyTextMax)), err: err}
}

func (c *Conn) endReply(st flowctl.Stage, r Reply) *ending {
	return &ending{outcome: outcome(st, c.client.cfg.Rules.Classify(st, r), r.String()), said: true}
}

func outcome(st flowctl.Stage, m Meaning, text string) flowctl.Outcome {
	return flowctl.Outcome{Class: m.Class, Stage: st, RetryAfter: m.RetryAfter, Limit: m.Limit, Text: text}
}

var errSequence = errors.New("upstream: reply fits no command")

// lost ends the connection because the server no longer follows our commands.
func (c *Conn) lost(st flowctl.Stage, r Reply) *ending {
	c.client.ladder.lostCount(time.Now(), c.used.level, fmt.Sprintf("the reply at %s fits no command: %s", st, r))
	return endErr(st, fmt.Errorf("%w: %s", errSequence, r))
}

// shifted is lost, with the suspicion that earlier replies were matched wrongly too.
func (c *Conn) shifted(st flowctl.Stage, r Reply) *ending {
	end := c.lost(st, r)
	end.shifted = true
	return end
}

// unexplained reports whether the server ended the connection, or let it hang, without a word. What we cut ourselves is not, and what lost
// count has been told to the ladder already.
func (e *ending) unexplained() bool {
	return e.err != nil && !errors.Is(e.err, net.ErrClosed) && !errors.Is(e.err, errSequence)
}

// cut tells the ladder of a connection that ended with messages in flight.
func (c *Conn) cut(used rung, end *ending) {
	if end.unexplained() {
		c.client.ladder.cut(time.Now(), c.born, used, "connections end with messages in flight: "+end.outcome.Text)
	}
}
