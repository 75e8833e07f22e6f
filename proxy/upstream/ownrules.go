package upstream

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// Rules are an operator's own rules about replies, which come before the built-in ones. ParseRules makes them. The zero value
// has none.
type Rules []Rule

// Rule fits a reply when all its conditions do. It is made by ParseRules only, which leaves no rule without a condition.
type Rule struct {
	stages   []flowctl.Stage // those at which its word makes sense, or fewer
	code     string          // "454", "4xx"; "": any
	enhanced string          // "4.7.0", "4.7.x"; "": any
	text     *regexp.Regexp  // nil: any
	word     string          // a key of classes
	wait     time.Duration   // how long to stay away; 0: what the text names
}

// Classify gives a reply its meaning: that of the first rule which fits, else what Classify says. A rule sees the whole text,
// also what a relay quotes of a remote server. What was taken was taken: no rule is asked about a reply that is no refusal.
func (rs Rules) Classify(st flowctl.Stage, r Reply) Meaning {
	if own := rs.find(st, r); own != nil {
		return own.meaning(r)
	}
	return Classify(st, r.Code, r.Enhanced, r.Text)
}

// find returns the first rule that fits a refusal; nil: none does.
func (rs Rules) find(st flowctl.Stage, r Reply) *Rule {
	if !r.negative() {
		return nil
	}
	for i := range rs {
		if rs[i].fits(st, r) {
			return &rs[i]
		}
	}
	return nil
}

func (own *Rule) fits(st flowctl.Stage, r Reply) bool {
	return slices.Contains(own.stages, st) &&
		(own.code == "" || likes(own.code, digits(r.Code))) &&
		(own.enhanced == "" || r.Enhanced != [3]uint16{} && likesParts(own.enhanced, r.Enhanced)) &&
		(own.text == nil || own.text.MatchString(r.Text))
}

func (own *Rule) meaning(r Reply) Meaning {
	m := mean(own.word)
	m.Split = own.word == "split"
	lower := essence(strings.ToLower(r.Text))
	m.RetryAfter = own.wait
	if m.RetryAfter == 0 {
		m.RetryAfter = retryHint(lower)
	}
	switch m.Class {
	case flowctl.Busy, flowctl.Overload, flowctl.SessionCap:
		m.Limit = namedLimit(lower)
	}
	return m
}

// Stages at which a word makes sense. One about a message needs one; a session that has done nothing cannot have been idle.
func stagesOf(word string) []flowctl.Stage {
	switch word {
	case "rcpt", "split", "temp", "perm":
		return atMessage
	case "idle":
		return atRest
	}
	return allStages
}

var allStages = append(slices.Clone(atSession), atMessage...)

// stageNames are the words of a rule for stages. The greeting is what answers a connection.
var stageNames = map[string]flowctl.Stage{
	"connect": flowctl.StageGreeting, "greeting": flowctl.StageGreeting, "ehlo": flowctl.StageEHLO, "tls": flowctl.StageTLS,
	"auth": flowctl.StageAuth, "mail": flowctl.StageMail, "rcpt": flowctl.StageRcpt, "data": flowctl.StageData,
	"dot": flowctl.StageDot, "idle": flowctl.StageIdle,
}
