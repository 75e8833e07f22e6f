package proxy

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"
)

// A login that was refused is not tried again for a long time, since retries lock accounts. Somebody who puts a new secret in place
// need not wait for that.

const (
	// watchEvery is how often the files are looked at while everything is held.
	watchEvery = 2 * time.Second
	// changedProbe is how soon after a change a login is tried, and changedPause the least from one such try to the next: a file may
	// change all the time.
	changedProbe = 2 * time.Second
	changedPause = 30 * time.Second
	// secretMax is how much of a file is looked at, in octets.
	secretMax = 1 << 20
)

// secrets knows the files that a login depends on. Only the dispatcher touches it, and one goroutine at a time touches seen.
type secrets struct {
	files []string
	seen  [sha256.Size]byte // what they held when they were last looked at
	stop  context.CancelFunc
	ended chan struct{} // closed when the goroutine that looked has ended; nil: there was none
}

func newSecrets(files []string) *secrets {
	return &secrets{files: files, seen: fingerprint(files)}
}

// fingerprint is of the files' contents: a Secret in Kubernetes changes without a new size, or a new time that one could trust.
// That a file cannot be read is part of it.
func fingerprint(files []string) [sha256.Size]byte {
	all := sha256.New()
	for _, name := range files {
		n, err := hashFile(all, name)
		fmt.Fprintf(all, "%d %v\n", n, err)
	}
	return [sha256.Size]byte(all.Sum(nil))
}

func hashFile(w io.Writer, name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(w, io.LimitReader(f, secretMax))
	return n, errors.Join(err, f.Close())
}

// watchSecrets has a changed secret tried, until the hold ends.
func (d *lane) watchSecrets() {
	s := d.secrets
	if len(s.files) == 0 || s.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(d.pool.dialing)
	before := s.ended
	s.stop, s.ended = stop, make(chan struct{})
	ended := s.ended
	d.pool.done.Go(func() {
		defer close(ended)
		if before != nil {
			<-before
		}
		s.watch(ctx, func() { d.pool.post(d.secretsChanged) })
	})
}

// rest ends it.
func (s *secrets) rest() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// watch calls changed for each change until ctx is done; at once for one since it was last called.
func (s *secrets) watch(ctx context.Context, changed func()) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if now := fingerprint(s.files); now != s.seen {
			s.seen = now
			changed()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// secretsChanged has a probe go out soon, whatever the wait was for. The mail stays held until it gets through.
func (d *lane) secretsChanged(now time.Time) {
	if d.held.why == "" || !d.held.atDial || d.stopping {
		return
	}
	wait := d.changed.Sub(now)
	if wait <= 0 {
		wait = max(changedProbe, changedPause+wait)
		d.changed = now.Add(wait)
		d.log.Info("a secret or certificate has changed, it is tried", d.reply(d.held.why), zap.Duration("wait", wait))
	}
	d.probeSoon(now, wait)
}
