package upstream

import (
	"regexp"
	"time"
)

// retryHintMax bounds what a text may ask for.
const retryHintMax = 24 * time.Hour

// A hint is a word about waiting, perhaps some more, and a span of time.
const (
	waiting = `\b(?:try|retry|retrying|resend|wait|come back|back off|reset|resets|again|gr[ae]y-?listed|delayed|deferred|blocked)\b[^.;]{0,40}?`
	about   = `(?:about |another |approximately |~ ?)?`
	until   = `(?:` + waiting + `\b(?:in|after|for|at least)[: ]\s*|\bwait\s+)` + about
)

var (
	retryWords = regexp.MustCompile(until + `(\d{1,6}|an?|one)(\.\d{1,3})?(?:\s*(?:-|to)\s*(\d{1,6}))?\s*(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|days?)\b`)
	retryClock = regexp.MustCompile(waiting + `\b(?:in|after|for)\s+(\d{1,2}):(\d\d):(\d\d)\b`)
	retryShort = regexp.MustCompile(until + `((?:\d{1,3}h)?(?:\d{1,4}m)?(?:\d{1,6}(?:\.\d{1,9})?s)?)(?:$|[^\w.]|\.(?:$|\D))`)
	retryBare  = regexp.MustCompile(`\bretry[- ]after[:=]? ?(\d{1,6})(?:$|[^\w.:]|\.(?:$|\D))`)

	// A text without one of these holds no hint.
	hintWords = []string{"try", "wait", "come back", "back off", "reset", "again", "grey", "gray", "resend", "delayed", "deferred", "blocked"}
)

var units = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}

// retryHint reads "try again in 5 minutes" and the like; 0: the text names no pause.
func retryHint(lower string) time.Duration {
	if !holdsOne(lower, hintWords) {
		return 0
	}
	return min(hintOf(lower), retryHintMax)
}

func hintOf(lower string) time.Duration {
	if m := retryWords.FindStringSubmatch(lower); m != nil {
		return spanOf(m)
	}
	if m := retryClock.FindStringSubmatch(lower); m != nil {
		return time.Duration(number(m[1]))*time.Hour + time.Duration(number(m[2]))*time.Minute + time.Duration(number(m[3]))*time.Second
	}
	if m := retryShort.FindStringSubmatch(lower); m != nil {
		if d, err := time.ParseDuration(m[1]); err == nil { // else there is nothing between the words
			return d
		}
	}
	if m := retryBare.FindStringSubmatch(lower); m != nil {
		return time.Duration(number(m[1])) * time.Second // as HTTP's field of that name has it
	}
	return 0
}

// spanOf takes apart what retryWords found. Of "5 to 10 minutes" the longer one is meant.
func spanOf(m []string) time.Duration {
	unit, n := units[m[4][0]], number(m[1])
	if m[1][0] > '9' { // an hour, one hour
		n = 1
	}
	if m[3] != "" {
		return time.Duration(number(m[3])) * unit
	}
	d := time.Duration(n) * unit
	for scale := unit / 10; len(m[2]) > 1; scale /= 10 {
		d += time.Duration(m[2][1]-'0') * scale
		m[2] = "." + m[2][2:]
	}
	return d
}
