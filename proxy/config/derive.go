package config

import (
	"path/filepath"
	"strings"

	"github.com/mailweir/mailweir/proxy/message"
)

// derive fills in what depends on the host or on other settings, where nobody set it.
func (l *loader) derive() {
	if l.cfg.Hostname == "" && l.sound("hostname") {
		l.deriveHostname()
	}
	if l.cfg.QueueMaxMessages == 0 && l.sound("queue.max_messages") {
		l.deriveQueueMax()
	}
	if l.cfg.DeadMaxBytes == 0 && l.sound("dead.max_bytes", "journal.max_bytes") {
		l.cfg.DeadMaxBytes = l.cfg.Journal.MaxBytes / deadShare
		l.sources["dead.max_bytes"] = "derived from journal.max_bytes"
	}
	if dir := l.cfg.Journal.Dir; !filepath.IsAbs(dir) && l.sound("journal.dir") {
		l.fault("journal.dir", "is not an absolute path", "/var/lib/mailweir")
	}
	if l.cfg.Admin.Listen == "" {
		l.cfg.Admin.Listen = "unix:" + filepath.Join(l.cfg.Journal.Dir, "admin.sock")
		l.sources["admin.listen"] = "derived from journal.dir"
		l.bad["admin.listen"] = !l.sound("journal.dir")
	}
	l.cfg.Flow.Gain = l.cfg.UpstreamSlowness == slownessGain
	// What two components need is set once.
	l.cfg.SMTPD.Hostname = l.cfg.Hostname
	l.cfg.Upstream.Hostname = l.cfg.Hostname
	l.cfg.Upstream.OAuth = l.cfg.OAuth.Enabled()
	if l.cfg.OAuth.GoogleFile != "" && l.cfg.OAuth.GoogleSubject == "" {
		l.cfg.OAuth.GoogleSubject = l.cfg.Upstream.Username
		l.sources["upstream.oauth_google_subject"] = "derived from upstream.username"
	}
}

// deadShare is the part of the journal that dead messages may fill, one in so many: they must not keep living ones out.
const deadShare = 8

// fallbackHostname is used on a host whose own name no SMTP server would take.
const fallbackHostname = "localhost.localdomain"

func (l *loader) deriveHostname() {
	name, err := l.host.name()
	switch {
	case err != nil:
		l.warn("hostname: the host does not tell its name (" + err.Error() + "), so " + fallbackHostname + " is used; set MAILWEIR_HOSTNAME")
		name = fallbackHostname
	case !isHostname(name):
		l.warn("hostname: the host's name is none for SMTP, so " + fallbackHostname + " is used; set MAILWEIR_HOSTNAME")
		name = fallbackHostname
	}
	l.cfg.Hostname = name
	l.sources["hostname"] = "derived from the host"
}

// isHostname accepts a domain or an address literal (RFC 5321 section 4.1.3), by asking for a mailbox there.
func isHostname(name string) bool {
	_, err := message.ParseAddress("postmaster@"+name, false)
	return err == nil
}

// Bounds of a queue whose size nobody set, in messages.
const (
	queueMaxFloor   = 10_000
	queueMaxCeiling = 1_000_000
	queueShare      = 4 // of the memory limit

	// queueEntryBytes is a pending message's part of memory; its body is on disk. Some 105 were measured, in the queue and in the
	// journal's index, and half as much again while a start reads them; recipients that differ in what they have been through
	// cost more (see the benchmark of a backlog).
	queueEntryBytes = 256
)

func (l *loader) deriveQueueMax() {
	limit, from := l.goMemoryLimit(), "GOMEMLIMIT"
	if limit == 0 {
		limit, from = cgroupLimit(l.host.root), "the cgroup's memory limit"
	}
	if limit == 0 {
		limit, from = queueMaxCeiling*queueShare*queueEntryBytes, "no memory limit"
	}
	n := min(max(limit/queueShare/queueEntryBytes, queueMaxFloor), queueMaxCeiling)
	l.cfg.QueueMaxMessages = int(n)
	l.sources["queue.max_messages"] = "derived from " + from
}

// goMemoryLimit returns the bytes of GOMEMLIMIT, 0 when it is not set or "off". The runtime has refused to start
// on a malformed one, so what cannot be read here was not meant as a limit.
func (l *loader) goMemoryLimit() int64 {
	var limit int64
	for _, entry := range l.environ {
		if text, ok := strings.CutPrefix(entry, "GOMEMLIMIT="); ok {
			if n, m := parseBytes(text); m == nil && n < noLimit {
				limit = n
			}
		}
	}
	return limit
}

func (l *loader) warn(text string) { l.warnings = append(l.warnings, text) }
