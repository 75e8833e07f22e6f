package upstream

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Level is how much of the protocol may be on the wire unanswered.
type Level uint8

// The levels; each includes the one before. RFC 3030 section 2 has BDAT sent when the replies to MAIL and RCPT are in, so that L3 and L4
// go beyond its letter; servers take it all the same, since large senders do so.
const (
	L0 Level = iota // one command at a time: no PIPELINING, or something between us masks the banner
	L1              // {MAIL, RCPT*, DATA}, then the content
	L2              // {content of n, RSET, MAIL, RCPT*, DATA of n+1} (RFC 2920 section 3.1)
	L3              // {RSET, MAIL, RCPT*, BDAT size LAST and the content}: one message in one flight
	L4              // the same, several messages in flight
)

// String returns "L0" to "L4".
func (l Level) String() string { return fmt.Sprintf("L%d", uint8(l)) }

// WindowMax is the most messages that one connection may have in flight.
const WindowMax = 16

// Constants of the ladder.
const (
	// climbTurns is how many times the window must be taken before a wider one is tried, and paceSample messages at least, so that there is a
	// measure to compare the next rung with.
	climbTurns = 4

	// cutsMax is how many cuts one after the other, each of a connection made after the last, a level is blamed for: a server that restarts
	// cuts once, a server that cannot do it cuts each. A learnt window is halved by the first.
	cutsMax = 3

	// stepKeep is how long a level that did not work is not tried again, narrowKeep how long a learnt window is not widened again.
	stepKeep   = 24 * time.Hour
	narrowKeep = time.Hour

	// paceSample is how many messages make a measure of how fast answers come. Of a connection with more to send, since waiting for mail is
	// not the server's time.
	paceSample = 32
	slowFactor = 1.5                   // so much slower than one rung further down is too slow,
	slowLeast  = 20 * time.Millisecond // and by so much: less is noise
	gainFactor = 0.9                   // a wider window must bring the time of a message below this part of what it was

	stepsKept = 32 // steps that nobody has asked for yet
	wordsKept = 8  // replies to each command: an upstream may have several hosts, and some name the address
)

// rung is a level and its window: how many messages are in flight, 1 below L4.
type rung struct {
	level  Level
	window int
}

func (r rung) String() string {
	if r.level < L4 {
		return r.level.String()
	}
	return fmt.Sprintf("%s, window %d", r.level, r.window)
}

// index numbers the rungs: the levels, then the windows by powers of two.
func (r rung) index() int {
	i := int(r.level)
	for w := r.window; w > 2; w = (w + 1) / 2 {
		i++
	}
	return i
}

const rungs = int(L4) + 4 // windows of 2, 4, 8, 16

// Step is a change of the level or of the window, with its reason.
type Step struct {
	At       time.Time
	From, To string // such as "L2" or "L4, window 8"
	Down     bool
	Reason   string
}

// Standing is where the ladder stands.
type Standing struct {
	Level  Level
	Window int       // messages that one connection may have in flight
	Reason string    // of the last step down; "": there was none, or it is forgotten
	Until  time.Time // when the next rung up may be tried again; zero: nothing is barred
	Downs  uint64    // steps down since the start
}

// ladder is what is known of how much an upstream can be given at once. It is safe for concurrent use: all connections share it.
//
// It begins at L2 and climbs rung by rung as messages are taken. What goes wrong takes it down, once per event, and bars the way up.
type ladder struct {
	mu      sync.Mutex
	highest Level // that the settings allow
	widest  int   // window that they allow
	learns  bool  // widest is approached by doubling
	at      rung
	reason  string
	until   time.Time
	downs   uint64
	told    bool              // the reply to a content can be told from those to commands
	words   [verbData][]Reply // what was said to RSET, MAIL and RCPT where a 354 kept count: no answer to a content; wordsKept each at most
	taken   int               // messages taken in a row at this rung
	cuts    int               // in a row
	cutAt   time.Time         // the last one
	pace    [rungs]sample     // of each rung
	trial   *rung             // the rung that seemed slow, while the one below is measured; nil: none is
	steps   []Step
	changed bool // since the last memory
}

// sample is a mean in the making. The zero value: nothing measured.
type sample struct {
	sum  time.Duration
	n    int
	mean time.Duration // of the last paceSample; 0: none yet
}

// add reports whether a mean is complete.
func (s *sample) add(d time.Duration) bool {
	s.sum, s.n = s.sum+d, s.n+1
	if s.n < paceSample {
		return false
	}
	s.mean, s.sum, s.n = s.sum/paceSample, 0, 0
	return true
}

// newLadder returns one for a window of so many messages, 0: it is learnt, that ends at level highest.
func newLadder(window int, highest Level) *ladder {
	l := &ladder{highest: highest, widest: window, at: rung{min(L2, highest), 1}}
	switch {
	case highest < L4:
		l.widest = 1
	case window == 0:
		l.widest, l.learns = WindowMax, true
	}
	return l
}

func (l *ladder) rung() rung {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

func (l *ladder) standing() Standing {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Standing{Level: l.at.level, Window: l.at.window, Reason: l.reason, Until: l.until, Downs: l.downs}
}

// drain returns the steps since the last call, at most stepsKept.
func (l *ladder) drain() []Step {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.steps
	l.steps = nil
	return s
}

// move goes to another rung. What was counted at the old one says nothing of the new one.
func (l *ladder) move(now time.Time, to rung, reason string) {
	s := Step{At: now, From: l.at.String(), To: to.String(), Down: to.index() < l.at.index(), Reason: reason}
	if s.Down {
		l.downs++
	}
	if len(l.steps) < stepsKept {
		l.steps = append(l.steps, s)
	}
	l.at, l.taken, l.changed = to, 0, true
	l.pace[to.index()].sum, l.pace[to.index()].n = 0, 0
}

// down goes to a lower rung and bars the way up.
func (l *ladder) down(now time.Time, to rung, reason string, keep time.Duration) {
	l.move(now, to, reason)
	l.reason, l.until, l.trial, l.cuts = reason, now.Add(keep), nil, 0
}

// below is one level down from a level, without its window.
func below(level Level) rung { return rung{level - 1, 1} }

// narrower is the rung below one of a learnt window.
func narrower(r rung) rung {
	if w := r.window / 2; w > 1 {
		return rung{L4, w}
	}
	return rung{L3, 1}
}

// lostCount steps down after a reply that fits no command, on a connection that worked at level used. Connections that find the same
// out later do not step down again.
func (l *ladder) lostCount(now time.Time, used Level, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if used > L0 && l.at.level >= used {
		l.down(now, below(used), reason, stepKeep)
	}
}

// cut counts a connection that was made at born and ended without a reason while messages were in flight, at rung used.
func (l *ladder) cut(now, born time.Time, used rung, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if used.level > l.at.level || used.level == l.at.level && used.window > l.at.window || born.Before(l.cutAt) {
		return // the same event, or one of a rung that was left
	}
	l.cutAt = now
	if l.cuts++; l.cuts >= cutsMax {
		l.down(now, below(used.level), reason, stepKeep)
	} else if l.learns && used.level == L4 && l.at == used {
		cuts := l.cuts
		l.down(now, narrower(used), reason, narrowKeep)
		l.cuts = cuts
	}
}

// answered counts a message that was answered at rung used, took so long, and was one of a row: there was more to send. ok says that it
// was taken.
func (l *ladder) answered(now time.Time, used rung, ok, row bool, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if used != l.at {
		return
	}
	l.cuts = 0
	if row && l.pace[used.index()].add(took) && l.judge(now) {
		return
	}
	if ok && (row || used.level < L3) {
		l.taken++
	}
	l.climb(now)
}

// judge compares the rung's fresh mean with what is known of the one below. True: it went elsewhere.
func (l *ladder) judge(now time.Time) bool {
	mean := l.pace[l.at.index()].mean
	if up := l.trial; up != nil {
		l.trial = nil
		if slow := l.pace[up.index()].mean; float64(mean)*slowFactor > float64(slow) {
			l.reason, l.until = "", time.Time{}
			l.move(now, *up, fmt.Sprintf("answers are no faster there: %v a message, and %v", mean.Round(time.Millisecond), slow.Round(time.Millisecond)))
			return true
		}
		return false
	}
	if l.at.level <= L2 {
		return false
	}
	to := below(l.at.level)
	if l.learns && l.at.level == L4 {
		to = narrower(l.at)
	}
	known := l.pace[to.index()].mean
	switch {
	case known == 0:
	case float64(mean) > slowFactor*float64(known) && mean-known > slowLeast:
		from := l.at
		l.down(now, to, fmt.Sprintf("slower answers: %v a message, and %v before", mean.Round(time.Millisecond), known.Round(time.Millisecond)), stepKeep)
		l.trial = &from
		return true
	case l.learns && l.at.level == L4 && float64(mean) > gainFactor*float64(known):
		l.down(now, to, fmt.Sprintf("a window of %d brings nothing", l.at.window), narrowKeep)
		return true
	}
	return false
}

// climb goes one rung up when enough was taken at this one, and nothing bars the way.
func (l *ladder) climb(now time.Time) {
	if !l.until.IsZero() {
		if now.Before(l.until) {
			return
		}
		l.until, l.reason, l.changed = time.Time{}, "", true
	}
	switch {
	case l.taken < max(paceSample, climbTurns*l.at.window):
	case l.at.level < min(L2, l.highest):
		l.move(now, rung{l.at.level + 1, 1}, "it worked for long")
	case l.at.level == L2 && l.highest > L2 && l.told:
		l.move(now, rung{L3, 1}, "its answers can be told apart")
	case l.at.level >= L3 && l.at.window < l.widest:
		w := l.widest
		if l.learns {
			w = min(2*l.at.window, l.widest)
		}
		l.move(now, rung{L4, w}, "all is answered in order")
	}
}

// tell notes that a reply to a content differed from those to the commands before it, which were said. Where none does, a reply too many would
// go unnoticed without the 354 between: nothing beyond L2 then.
func (l *ladder) tell(said [verbData]Reply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = true
	for v, r := range said {
		if known := l.words[v]; !slices.Contains(known, r) {
			l.words[v] = append(known[max(0, len(known)-wordsKept+1):len(known):len(known)], r)
		}
	}
}

// knows tells whether r is what commands are answered with.
func (l *ladder) knows(r Reply) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.words[:], func(known []Reply) bool { return slices.Contains(known, r) })
}

func (l *ladder) canTell() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told
}
