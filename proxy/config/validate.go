package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// validate finds what is wrong with the meaning of settings and between them; decode has looked at each text
// alone. A check is left out when a setting it needs is at fault already.
func (l *loader) validate() {
	c := &l.cfg
	l.component("smtpd", []string{""}, c.SMTPD.Validate())
	l.component("upstream", []string{"upstream.", ""}, c.Upstream.Validate())
	l.component("oauth", []string{"upstream.oauth_"}, c.OAuth.Validate())
	l.component("flowctl", []string{"upstream.", "quota.", ""}, c.Flow.Validate())
	l.component("journal", []string{"journal."}, c.Journal.Validate())
	l.component("admin", []string{"admin.", ""}, c.Admin.Validate())
	l.checkCollisions()
	l.checkLoop()
	for _, key := range fileSettings() {
		l.checkFile(key, *settingByKey(key).at(c).(*string))
	}
	l.checkTimes()
	l.checkSizes()
	if l.sound("journal.dir") {
		l.checkVolume(c.Journal.Dir)
	}
	l.advise()
}

// component takes in what a component says of its part, "name: setting: problem" for each fault. It knows the setting
// by its own short name, which makes one of our keys with one of the prefixes.
func (l *loader) component(name string, prefixes []string, err error) {
	before := maps.Clone(l.bad)
	for _, err := range splitJoined(err) {
		text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), name+": "), "validate ")
		end := strings.IndexAny(text, ": ,")
		s := l.settingOf(prefixes, text[:max(end, 0)])
		switch {
		case s == nil:
			l.faults = append(l.faults, Fault{Problem: err.Error(), Source: "the settings of " + name})
		case !before[s.key]: // otherwise it follows from what is known already
			l.bad[s.key] = true
			l.faults = append(l.faults, Fault{Key: s.key, Problem: s.key + text[end:], Source: l.origin(s), Try: l.example(s)})
		}
	}
}

// splitJoined undoes errors.Join.
func splitJoined(err error) []error {
	if err == nil {
		return nil
	}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()
	}
	return []error{err}
}

func (l *loader) settingOf(prefixes []string, word string) *setting {
	flat := func(key string) string { return strings.ReplaceAll(key, ".", "_") }
	for _, prefix := range prefixes {
		for i := range settings {
			if flat(settings[i].key) == flat(prefix+word) {
				return &settings[i]
			}
		}
	}
	return nil
}

// example is what to try in place of a value that a component refuses.
func (l *loader) example(s *setting) string {
	text := l.texts[s.key]
	if s.key == "upstream.url" && text != "" && !strings.ContainsAny(text, "/@") { // only the scheme is missing
		return "smtp://" + text
	}
	if s.example != "" && text == "" {
		return s.env + "=" + s.example
	}
	return s.example
}

// checkCollisions finds the address that the kernel would refuse to bind, after the others were open.
func (l *loader) checkCollisions() {
	type listener struct{ key, host, port string }
	var taken []listener
	add := func(key, addr string) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || port == "0" || !l.sound(key) {
			return
		}
		for _, t := range taken {
			if t.port == port && (t.host == host || isWildcard(t.host) || isWildcard(host)) {
				l.fault(key, "wants port "+port+", which "+t.key+" has", "")
				return
			}
		}
		taken = append(taken, listener{key, host, port})
	}
	for _, addr := range l.cfg.SMTPD.Listen {
		add("listen", addr)
	}
	add("probe.listen", l.cfg.Admin.ProbeListen)
	add("admin.listen", l.cfg.Admin.Listen)
}

// checkLoop refuses an upstream that is our own front door: each message would come back for ever. The front door is
// on loopback, so the same port there is enough to be it.
func (l *loader) checkLoop() {
	const key = "upstream.url"
	if !l.sound(key, "listen") {
		return
	}
	if own := l.frontDoor(l.cfg.Upstream); own != "" {
		l.fault(key, "is our own front door, "+own, "the relay's address")
	}
}

// frontDoor returns which of our listeners an upstream is, "" for none.
func (l *loader) frontDoor(u upstream.Config) string {
	hosts, err := u.Hosts()
	if err != nil {
		return "" // a fault already
	}
	for _, h := range hosts {
		for _, addr := range l.cfg.SMTPD.Listen {
			if _, own, err := net.SplitHostPort(addr); err == nil && own == h.Port && isLoopback(h.Name) {
				return addr
			}
		}
	}
	return ""
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// fileSettings are the keys of files with secrets and certificates.
func fileSettings() []string {
	var keys []string
	for _, s := range settings {
		if strings.HasPrefix(s.key, "upstream.") && strings.HasSuffix(s.key, "_file") && s.key != "upstream.rules_file" {
			keys = append(keys, s.key)
		}
	}
	return keys
}

// checkFile wants a file that is there, readable and not empty. Its content is its user's to judge.
func (l *loader) checkFile(key, path string) {
	if path == "" || !l.sound(key) {
		return
	}
	switch text, err := readBounded(path); {
	case err != nil:
		l.fault(key, "cannot be read: "+pathless(err), "")
	case len(text) == 0:
		l.fault(key, "is empty", "")
	}
}

// checkTimes holds pauses against each other.
func (l *loader) checkTimes() {
	q := l.cfg.Queue
	l.ordered("retry.min", q.RetryMin, "retry.max", q.RetryMax)
	l.ordered("recipient_retry.min", q.RecipientRetryMin, "recipient_retry.max", q.RecipientRetryMax)
	if l.sound("expire_after", "recipient_retry.max") && q.ExpireAfter < q.RecipientRetryMax {
		l.warn(fmt.Sprintf("expire_after: %s is shorter than recipient_retry.max (%s), so a deferred recipient may get a single retry",
			formatDuration(q.ExpireAfter), formatDuration(q.RecipientRetryMax)))
	}
}

func (l *loader) ordered(minKey string, least time.Duration, maxKey string, most time.Duration) {
	if l.sound(minKey, maxKey) && least > most {
		l.fault(minKey, fmt.Sprintf("is longer than %s, which is %s", maxKey, formatDuration(most)), formatDuration(most))
	}
}

// checkSizes holds the room on disk against what has to fit.
func (l *loader) checkSizes() {
	size, biggest := l.cfg.Journal.MaxBytes, l.cfg.SMTPD.MaxMessageBytes
	if l.sound("journal.max_bytes", "max_message_bytes") && size <= biggest {
		l.fault("journal.max_bytes", "is no more than max_message_bytes, which is "+formatBytes(biggest), formatBytes(16*biggest))
	}
	if dead := l.cfg.DeadMaxBytes; l.sound("dead.max_bytes", "journal.max_bytes") {
		switch {
		case dead >= size:
			l.fault("dead.max_bytes", "leaves no room in journal.max_bytes, which is "+formatBytes(size), formatBytes(size/8))
		case dead > size/2:
			l.warn("dead.max_bytes: dead messages may take more than half of journal.max_bytes")
		}
	}
}

// checkVolume refuses a place where a 250 would be worth nothing. It looks at the directory, or where it
// would be made.
func (l *loader) checkVolume(dir string) {
	const key = "journal.dir"
	parent := existingParent(dir)
	v, err := l.host.volume(parent)
	switch {
	case err != nil:
		l.fault(key, "cannot be examined: "+err.Error(), "")
	case v.readOnly:
		l.fault(key, "is on a read-only file system", "a volume mounted there")
	case v.volatile != "" && !l.cfg.JournalAllowVolatile:
		l.fault(key, "is on "+v.volatile+", where accepted mail ends with the container",
			"a volume mounted there, or MAILWEIR_JOURNAL_ALLOW_VOLATILE=true if that is meant")
	case v.volatile != "":
		l.warn("journal.allow_volatile: the journal is on " + v.volatile + ", so a 250 outlives a crash of mailweir, but not the container")
	case !v.writable:
		l.warn("journal.dir: this user may not write to " + parent)
	}
}

// advise names what is allowed and may still not be meant.
func (l *loader) advise() {
	c := &l.cfg
	if c.Upstream.PlaintextAuth && c.Upstream.TLS != "require" {
		l.warn("upstream.plaintext_auth: credentials are sent in clear to an upstream without TLS")
	}
	for i := range settings {
		if s := &settings[i]; s.secret {
			if text := *s.at(c).(*string); strings.TrimSpace(text) != text {
				l.warn(s.key + ": it begins or ends with a blank or a line break, which is sent as part of it")
			}
		}
	}
	// Kubernetes kills after terminationGracePeriodSeconds, which is 30 unless somebody raised it.
	const usualGrace = 30 * time.Second
	if stop := c.DrainTimeout + c.AcceptAfterTerm; stop > usualGrace {
		l.warn("drain_timeout: stopping takes up to " + formatDuration(stop) +
			" with accept_after_term; the pod's terminationGracePeriodSeconds must be longer")
	}
	if c.Admin.ProbeListen == admin.Off {
		l.warn("probe.listen: it is off, so nobody can see whether mailweir is alive, and there are no metrics")
	}
	if c.Flow.Scale != 1 {
		l.warn("time_scale: it is for tests; in service the upstream is retried too often or too late")
	}
}
