package upstream

import (
	"fmt"
	"strings"
	"time"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/message"
)

// transaction is a job on its way: which commands are on the wire, which are answered, and what was said so far.
type transaction struct {
	job      *Job
	rules    Rules
	reused   bool // the connection had served before, or waited so long that it may be stale
	used     rung
	row      bool      // it was one of several that were waiting
	started  time.Time // when MAIL was written
	commands []command
	wrote    int   // commands given to the wire
	heard    int   // and answered
	mailed   bool  // MAIL was taken
	taken    []int // positions in job.To whose RCPT was taken
	later    []int // and those that are not named: the upstream's limits leave no room
	verdicts []Verdict
	worst    flowctl.Outcome // of the verdicts
	refused  bool            // a reply refused something
	content  bool            // the server waits for the content
	claimed  bool
	dotted   bool   // the dot may have reached the server
	ahead    bool   // its commands went with the content before it
	back     string // why it is handed back; "": it is not
	err      error  // our own failure to read the content

	// L3 and L4.
	chunk   []byte          // the content, until it is written
	endsAt  int64           // where in all that was written the content ends
	firstAt time.Time       // when the first reply came
	endedAt time.Time       // and the last
	said    [verbData]Reply // the last positive reply to each verb but that of the content
}

type command struct {
	verb verb
	to   int // RCPT: position in job.To
}

type verb uint8

const (
	verbRset verb = iota
	verbMail
	verbRcpt
	verbData
	verbBdat // with the content behind it
)

var verbStages = [...]flowctl.Stage{flowctl.StageMail, flowctl.StageMail, flowctl.StageRcpt, flowctl.StageData, flowctl.StageDot}

// begin takes a job over: who of its recipients can be named to this upstream at all, and with which commands. content is the verb that
// its content is sent with.
func (c *Conn) begin(job *Job, content verb) *transaction {
	tx := &transaction{
		job:      job,
		rules:    c.client.cfg.Rules,
		reused:   c.begun > 0 || time.Since(c.born) >= freshFor,
		used:     c.pipelining(),
		started:  time.Now(),
		verdicts: make([]Verdict, len(job.To)),
	}
	if content == verbData && tx.used.level > L2 { // too large, or the connection may be stale
		tx.used = rung{L2, 1}
	}
	if job.withdrawn() {
		tx.back = "withdrawn"
		return tx
	}
	c.refuseLocally(tx)
	if tx.undecided() == 0 {
		return tx
	}
	to := c.within(tx)
	if len(to) == 0 {
		tx.back, c.outgrown = "recipient domains over the upstream's limit", true
		return tx
	}
	if c.begun > 0 && (tx.used.level > L0 || c.dirty) || c.level > L2 && tx.used.level >= L2 {
		// Without it servers were seen to answer "503 nested MAIL" and to deliver the next message under the sender
		// of the one before. Alone on the wire it costs a round trip, hence at L0 only where something is left over. Where messages go
		// whole its reply is one more to tell that to the content from.
		tx.commands = append(tx.commands, command{verb: verbRset})
	}
	tx.commands = append(tx.commands, command{verb: verbMail})
	for _, i := range to {
		tx.commands = append(tx.commands, command{verb: verbRcpt, to: i})
	}
	tx.commands = append(tx.commands, command{verb: content})
	c.begun++
	c.used = tx.used
	return tx
}

// refuseLocally gives the verdicts that an upstream without an extension would come to, or should.
func (c *Conn) refuseLocally(tx *transaction) {
	env := tx.job.Env
	all := func(r Reply) {
		for i := range tx.job.To {
			tx.refuseLocal(i, flowctl.StageMail, r)
		}
	}
	noUTF8 := func(what string) Reply {
		return Reply{Code: 550, Enhanced: [3]uint16{5, 6, 7}, Text: "mailweir: the upstream does not offer SMTPUTF8, which the " + what + " needs"}
	}
	switch limit := c.ext.SizeMax; {
	case limit > 0 && tx.job.size() > limit:
		all(Reply{Code: 552, Enhanced: [3]uint16{5, 3, 4}, Text: fmt.Sprintf("mailweir: the message has %d octets, the upstream takes %d", tx.job.size(), limit)})
		return
	case env.From != "" && !safePath(env.From), !safeParam(env.Ret), !safeParam(env.EnvID):
		all(Reply{Code: 553, Enhanced: [3]uint16{5, 1, 7}, Text: "mailweir: the sender cannot be written as a command"})
		return
	case !c.ext.UTF8 && !ascii(env.From):
		all(noUTF8("sender"))
		return
	case !c.ext.UTF8 && env.UTF8 && env.Header8:
		all(noUTF8("header"))
		return
	case !c.ext.EightBit && env.Body8 && c.client.cfg.EightBit == EightBitReject:
		all(Reply{Code: 554, Enhanced: [3]uint16{5, 6, 3}, Text: "mailweir: the upstream does not offer 8BITMIME, which the message needs"})
		return
	}
	for i, n := range tx.job.To {
		to := env.To[n]
		switch {
		case !safePath(to.Addr), !safeParam(to.Notify), !safeParam(to.ORcpt):
			tx.refuseLocal(i, flowctl.StageRcpt, Reply{Code: 553, Enhanced: [3]uint16{5, 1, 3}, Text: "mailweir: the recipient cannot be written as a command"})
		case !c.ext.UTF8 && !ascii(to.Addr):
			tx.refuseLocal(i, flowctl.StageRcpt, noUTF8("address"))
		}
	}
}

// safePath checks once more what was checked on receipt: here a mistake becomes somebody else's command.
func safePath(addr string) bool {
	_, err := message.ParseAddress(addr, true)
	return err == nil
}

func safeParam(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || 0x7f <= r && r < 0xa0 || r == '\ufffd' })
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}

// line is the command as it goes on the wire (RFC 5321 section 4.1.1, RFC 1870, RFC 6152, RFC 6531, RFC 3461).
func (c *Conn) line(tx *transaction, cmd command) string {
	env := tx.job.Env
	switch cmd.verb {
	case verbRset:
		return "RSET\r\n"
	case verbData:
		return "DATA\r\n"
	case verbBdat:
		return fmt.Sprintf("BDAT %d LAST\r\n", len(tx.chunk))
	case verbRcpt:
		to := env.To[tx.job.To[cmd.to]]
		if !c.ext.UTF8 {
			to.ORcpt = asciiORcpt(to.ORcpt)
		}
		s := "RCPT TO:<" + to.Addr + ">"
		s += param(c.ext.DSN, "NOTIFY=", to.Notify) + param(c.ext.DSN, "ORCPT=", to.ORcpt)
		return s + "\r\n"
	}
	s := "MAIL FROM:<" + env.From + ">"
	if c.ext.Size && env.Size > 0 {
		s += fmt.Sprintf(" SIZE=%d", tx.job.size())
	}
	if c.ext.EightBit && env.Body8 {
		s += " BODY=8BITMIME" // to an upstream without it the content goes as it is, as most relays do, unless Config.EightBit says otherwise
	}
	if c.ext.UTF8 && env.UTF8 {
		s += " SMTPUTF8"
	}
	s += param(c.ext.DSN, "RET=", env.Ret) + param(c.ext.DSN, "ENVID=", env.EnvID)
	return s + "\r\n"
}

func param(offered bool, name, value string) string {
	if !offered || value == "" {
		return ""
	}
	return " " + name + value
}

// offer buffers the next group of tx's commands. False: there are none left, or none that could still lead to content.
func (c *Conn) offer(tx *transaction) bool {
	if tx.wrote == len(tx.commands) {
		return false
	}
	if next := tx.commands[tx.wrote].verb; next > verbMail && !tx.mailed || next == verbData && len(tx.taken) == 0 {
		return false
	}
	n := 1
	if tx.used.level > L0 {
		n = groupMax - 1 // and the dot before them
	}
	group := tx.commands[tx.wrote:min(tx.wrote+n, len(tx.commands))]
	if tx.wrote == 0 {
		tx.started = time.Now()
	}
	c.owed.Add(int32(len(group)))
	for _, cmd := range group {
		c.put(c.line(tx, cmd))
	}
	tx.wrote += len(group)
	c.dirty = true
	return true
}

// envelope sends what is left of tx's commands and hears all replies. tx.content says whether the server waits
// for content.
func (c *Conn) envelope(tx *transaction) *ending {
	for {
		if end := c.hear(tx, tx.wrote); end != nil {
			return end
		}
		if !c.offer(tx) {
			return nil
		}
		c.flush()
	}
}

// hear takes the replies to tx's commands until n of them are answered.
func (c *Conn) hear(tx *transaction, n int) *ending {
	for tx.heard < n {
		cmd := tx.commands[tx.heard]
		st, limit := verbStages[cmd.verb], c.client.cfg.Timeouts.Command
		if cmd.verb == verbData {
			limit = c.client.cfg.Timeouts.Data
		}
		if cmd.verb == verbRset && tx.ahead {
			limit = min(limit, aheadMax)
		}
		r, end := c.await(st, limit)
		if end != nil && cmd.verb == verbRset && tx.ahead && timedOut(end.err) {
			return c.unread(st)
		}
		if end != nil {
			tx.closing(st, r, end)
			return end
		}
		tx.heard++
		if end := c.answer(tx, cmd, r); end != nil {
			return end
		}
	}
	return nil
}

// unread ends a connection whose server took the content and not the commands behind it: some forget what they had read ahead
// (seen with chasquid 1.11). Nothing of the transaction has reached it.
func (c *Conn) unread(st flowctl.Stage) *ending {
	c.client.ladder.lostCount(time.Now(), L2, "what was sent with a content was not read")
	return giveUp(st, "no reply to what was sent together with the content before it")
}

// closing gives the reply with which a server closes to all who have none yet. But a reused connection that had
// timed out is as stale as one that was closed without a word: nothing was said of this transaction. A fresh one
// cannot have been idle; taken for that it would be replaced at once, and so would be the next.
func (tx *transaction) closing(st flowctl.Stage, r Reply, end *ending) {
	if !end.said {
		return
	}
	m := tx.rules.Classify(st, r)
	if m.Class == flowctl.IdleClose {
		if tx.reused {
			return
		}
		m = mean("unavailable")
		end.outcome.Class = m.Class
	}
	tx.decideRest(st, r, m)
}

// answer takes the reply to one command. An ending: the connection cannot be used further.
func (c *Conn) answer(tx *transaction, cmd command, r Reply) *ending {
	st := verbStages[cmd.verb]
	if r.negative() && cmd.verb != verbRset && c.outOfStep(tx, cmd, r) {
		return c.lost(st, r)
	}
	if cmd.verb < verbData && r.positive() {
		tx.said[cmd.verb] = r
	}
	switch {
	case cmd.verb == verbRset && r.positive():
	case cmd.verb == verbMail && r.positive():
		tx.mailed = true
		tx.postpone()
	case cmd.verb == verbMail && r.negative():
		tx.refuseAll(st, r)
	case cmd.verb == verbRcpt && !tx.mailed && r.Code/100 != 3:
	case cmd.verb == verbRcpt && r.positive():
		tx.taken = append(tx.taken, cmd.to)
	case cmd.verb == verbRcpt && r.negative():
		tx.refuse(cmd.to, st, r)
	case cmd.verb == verbBdat && r.positive() && c.believable(tx, r):
		tx.decideRest(st, r, Meaning{})
	case cmd.verb >= verbData && r.negative():
		tx.refuseAll(st, r)
	case cmd.verb == verbData && r.Code/100 == 3 && len(tx.taken) > 0:
		tx.content = true
	case cmd.verb == verbData && r.Code/100 == 3:
		// It waits for content though it took nobody: a dot could deliver something to somebody.
		return giveUp(st, "354 without a recipient")
	default:
		// A refused RSET is more likely to be the verdict on the content before it: no server has a reason to
		// refuse one.
		return c.shifted(st, r)
	}
	return nil
}

// outOfStep tells a 503 that comes of pipelining from one that says something of the message. After a refused
// MAIL, or without a recipient, a 503 is what the commands behind it have to get.
func (c *Conn) outOfStep(tx *transaction, cmd command, r Reply) bool {
	if r.Code != 503 || tx.used.level == L0 || cmd.verb > verbMail && !tx.mailed || cmd.verb >= verbData && len(tx.taken) == 0 {
		return false
	}
	st := verbStages[cmd.verb]
	return tx.rules.find(st, r) == nil && Classify(st, r.Code, r.Enhanced, r.Text).Word == "temp"
}

// giveUp ends a connection on which a server waits for content that must not come. It says nothing of the
// upstream's load.
func giveUp(st flowctl.Stage, why string) *ending {
	return &ending{outcome: flowctl.Outcome{Class: flowctl.IdleClose, Stage: st, Text: why}}
}

func (tx *transaction) decided(i int) bool { return tx.verdicts[i].Reply.Code != 0 }

func (tx *transaction) undecided() (n int) {
	for i := range tx.verdicts {
		if !tx.decided(i) {
			n++
		}
	}
	return n
}

func (tx *transaction) decide(i int, st flowctl.Stage, r Reply, m Meaning) {
	tx.verdicts[i] = Verdict{Reply: r, Class: m.Class, Split: m.Split && len(tx.taken) > 0}
	if m.Class >= tx.worst.Class {
		tx.worst = outcome(st, m, r.String())
	}
}

func (tx *transaction) refuseLocal(i int, st flowctl.Stage, r Reply) {
	tx.decide(i, st, r, mean("perm"))
	tx.verdicts[i].Local = true
}

func (tx *transaction) refuse(i int, st flowctl.Stage, r Reply) {
	tx.refused = true
	tx.decide(i, st, r, tx.rules.Classify(st, r))
}

// doubt takes back what was decided by the reply to the content.
func (tx *transaction) doubt() {
	for _, i := range tx.taken {
		tx.verdicts[i] = Verdict{}
	}
}

// refuseAll refuses whoever has no verdict yet.
func (tx *transaction) refuseAll(st flowctl.Stage, r Reply) {
	tx.decideRest(st, r, tx.rules.Classify(st, r))
}

// decideOurselves gives a temporary verdict to whoever has none, marked as mark is.
func (tx *transaction) decideOurselves(st flowctl.Stage, r Reply, mark Verdict) {
	for i := range tx.verdicts {
		if !tx.decided(i) {
			tx.decide(i, st, r, mean("temp"))
			tx.verdicts[i].Local, tx.verdicts[i].Unheard = mark.Local, mark.Unheard
		}
	}
	tx.refused = true
}

func (tx *transaction) decideRest(st flowctl.Stage, r Reply, m Meaning) {
	tx.refused = tx.refused || r.negative()
	for i := range tx.verdicts {
		if !tx.decided(i) {
			tx.decide(i, st, r, m)
		}
	}
}
