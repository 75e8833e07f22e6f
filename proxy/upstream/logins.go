package upstream

import (
	"context"
	"sync"
	"time"
)

// turnWait is how long a login waits for another one to end. That one may hang; who has waited so long goes ahead.
const turnWait = 30 * time.Second

// provenFor is how long a secret that was taken is good for several logins at once.
const provenFor = time.Minute

// logins keeps a secret that the upstream refuses from being tried by every dial under way, since that locks accounts: the first
// login after a while goes alone, and who waited for one that is refused does not try the same secret. It is safe for concurrent use.
type logins struct {
	turn chan struct{} // whoever has put something in logs in alone

	mu      sync.Mutex
	taken   string // the secret that was taken last
	takenAt time.Time
	refused string // the secret that was refused last, unless it was taken since; "": none
	fault   *fault // with which it was
	at      time.Time
}

func newLogins() *logins { return &logins{turn: make(chan struct{}, 1)} }

// enter waits until s may log in; leave must follow if there is no fault. A fault is what somebody else heard to the same secret
// since s began.
func (l *logins) enter(ctx context.Context, s *setup) (alone bool, f *fault) {
	if f = l.verdict(s); f != nil || l.proven(s.secret) {
		return false, f
	}
	late := time.NewTimer(turnWait)
	defer late.Stop()
	select {
	case l.turn <- struct{}{}:
		alone = true
	case <-late.C:
	case <-ctx.Done():
		return false, s.fail(context.Cause(ctx))
	}
	if f = l.verdict(s); alone && (f != nil || l.proven(s.secret)) {
		<-l.turn
		alone = false
	}
	return alone, f
}

// leave takes what became of the login.
func (l *logins) leave(s *setup, alone bool, f *fault) {
	if alone {
		defer func() { <-l.turn }()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case f == nil:
		l.taken, l.takenAt = s.secret, time.Now()
		if l.refused == s.secret {
			l.refused, l.fault = "", nil
		}
	case f.rejected:
		f.lapsed = l.taken == s.secret
		l.refused, l.fault, l.at = s.secret, f, time.Now()
		l.takenAt = time.Time{}
	}
}

// verdict is the refusal of the same secret since s began; nil: none.
func (l *logins) verdict(s *setup) *fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault == nil || l.refused != s.secret || l.at.Before(s.began) {
		return nil
	}
	same := *l.fault
	return &same
}

func (l *logins) proven(secret string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken == secret && time.Since(l.takenAt) < provenFor && !l.takenAt.IsZero()
}

// rejected is the secret that was refused last; "": none, or it was taken since.
func (l *logins) rejected() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}
