package upstream

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
)

// Job is one transaction to carry out: some recipients of one message. The connection that it is fed to
// owns it until it reports a Result; only Withdraw may be called meanwhile, by anybody. It is fed once: another try is a
// new Job.
type Job struct {
	Env  *message.Envelope
	To   []int                         // indices into Env.To: the recipients of this transaction
	Head []byte                        // header fields that are sent before the content, such as signatures; nil: none
	Open func() (io.ReadCloser, error) // the content, CRLF line ends, not dot-stuffed; called at most once, after 354
	Tag  any                           // the caller's; untouched

	state atomic.Uint32
}

// Withdraw takes a job back that was fed to a connection but of which neither content nor verdict has been
// claimed. True: the connection will not send it and its Result says HandedBack. False: its Result will come as
// usual. A job whose commands are already on the wire costs the connection when the upstream answers 354: no
// content must follow.
func (j *Job) Withdraw() bool { return j.state.CompareAndSwap(jobOffered, jobWithdrawn) }

// claim is called once per job, before its content is opened or, when it comes to no content, before its
// verdicts count.
func (j *Job) claim() bool { return j.state.CompareAndSwap(jobOffered, jobClaimed) }

func (j *Job) withdrawn() bool { return j.state.Load() == jobWithdrawn }

// size is how many octets the upstream is given, dots not stuffed.
func (j *Job) size() int64 { return j.Env.Size + int64(len(j.Head)) }

const (
	jobOffered uint32 = iota
	jobClaimed
	jobWithdrawn
)

// Verdict is what the upstream said of one recipient. A verdict of our own (SIZE, SMTPUTF8, an unreadable
// content) is Local; it has the reply an upstream would have given, and a text that begins with "mailweir: ".
type Verdict struct {
	Reply Reply
	Class flowctl.Class
	Split bool // too many recipients in one transaction (452 4.5.3), and others were taken: try the rest again at once

	Local   bool // we decided, the upstream was not asked
	Unheard bool // the content was sent for this recipient and no reply heard; Result.Uncertain is true then
}

// Result is the end of a Job.
//
// Exactly one of three holds: the upstream or we decided (Verdicts only), nothing can have been delivered
// (HandedBack), or nobody knows (Uncertain, with temporary verdicts for the recipients it concerns).
type Result struct {
	Job        *Job
	Verdicts   []Verdict       // one for each of Job.To, in its order; nil when HandedBack
	Signal     flowctl.Outcome // the most upstream-wide of its classes; IdleClose where the transaction says nothing of the upstream
	HandedBack bool            // nothing was decided and nothing can have been delivered: give it to another connection, uncharged
	Uncertain  bool            // content was sent and no reply heard
	Unreported []int           // indices into Job.Env.To: taken, and the sender's wish for a report (NOTIFY=SUCCESS) was not passed on, since the upstream offers no DSN
	Reused     bool            // the connection had served before, or waited for a while (a stale one costs nothing)
	Err        error           // the I/O error that ended it; nil when the server answered
	Finished   time.Time
}
