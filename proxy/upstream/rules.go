package upstream

import (
	"regexp"
	"slices"

	"github.com/mailweir/mailweir/flowctl"
)

// A rule fits a reply when all its conditions do; an empty condition always does. Words are matched in the lower-cased
// text. The table is in order: what says more about the cause comes first.
type rule struct {
	word   string
	stages []flowctl.Stage
	digit  int       // first digit of the code
	codes  []int     // these codes
	enh    [3]uint16 // this enhanced code; class 0: any class
	text   *regexp.Regexp
	not    *regexp.Regexp // and none of these
	counts bool           // the text may name a limit of connections or messages
}

func (r *rule) fits(st flowctl.Stage, code int, enh [3]uint16, text string) bool {
	return (r.stages == nil || slices.Contains(r.stages, st)) &&
		(r.digit == 0 || code/100 == r.digit) &&
		(r.codes == nil || slices.Contains(r.codes, code)) &&
		(r.enh == [3]uint16{} || r.enh[1] == enh[1] && r.enh[2] == enh[2] && (r.enh[0] == 0 || r.enh[0] == enh[0])) &&
		(r.text == nil || r.text.MatchString(text)) &&
		(r.not == nil || !r.not.MatchString(text))
}

var (
	atOpening = []flowctl.Stage{flowctl.StageConnect, flowctl.StageGreeting, flowctl.StageEHLO, flowctl.StageTLS}
	atSession = append(slices.Clone(atOpening), flowctl.StageAuth, flowctl.StageIdle)
	atMessage = []flowctl.Stage{flowctl.StageMail, flowctl.StageRcpt, flowctl.StageData, flowctl.StageDot}
	atRcpt    = []flowctl.Stage{flowctl.StageRcpt}
	atAuth    = []flowctl.Stage{flowctl.StageAuth}
	atRest    = []flowctl.Stage{flowctl.StageIdle, flowctl.StageMail} // when we may have been silent for long
)

// re joins alternatives; they are matched anywhere in the text.
func re(alternatives string) *regexp.Regexp { return regexp.MustCompile(alternatives) }

// Words that several rules need.
const (
	aboutOne = `mailbox|inbox|recipient.{0,20}(quota|full|storage)|over ?quota|storage|account that you tried|user you are trying|recipient has exceeded|queue quota|disk|message size`
	aPeriod  = `daily|hourly|weekly|monthly|(per|a|this|an|each) (day|hour|month|week)|24.?h(ou)?rs?\b|24-hour|day'?s`
	aLimit   = `quota|limit|exceed|maximum|\bmax\b|allow(ed|ance)|threshold|credits|reached|too many`
	conns    = `connections?|connexions?|sessions?|concurren\w+|simultaneous\w*`
	tooMany  = `too many|trop de|maximum|\bmax\b|limit\w*|exceed\w*|number of`
)

var rules = []rule{
	// One connection has been used up, by time, by messages, by mistakes.
	{word: "idle", digit: 4, stages: atRest, text: re(`time-?d? ?-?out|inactiv|\bidle\b`), not: re(`try again|temporar|backend|upstream|lookup`)},
	{word: "conn-cap", digit: 4, counts: true, not: re(`\brate\b|concurren`),
		text: re(`(messages?|e?mails?|bytes|size|transactions?|deliver\w+|recipients?|volume|data)\b.{0,40}\b(per|in|for|on|over|during) (this |the |a |an |one |single |same |each |your )*(connection|session|channel)`)},
	{word: "conn-cap", digit: 4, counts: true, not: re(`\brate\b|concurren`),
		text: re(`\b(connection|session)\b.{0,20}\b(message|mail|transaction)s?\b.{0,10}(limit|max|count)`)},
	{word: "conn-cap", codes: []int{421}, text: re(`too many (\w+ ){0,3}(errors|unknown|unrecogni[sz]ed|invalid commands|bad commands|bad recipients|junk|non-?mail|commands)`), not: re(`auth`)},

	// Hours or a day of sending used up, also as a 5yz.
	{word: "quota", text: re(`(` + aPeriod + `).*(` + aLimit + `)|(` + aLimit + `).*(` + aPeriod + `)`), not: re(aboutOne + `|received this hour|minute|second`)},
	{word: "quota", text: re(`quotaexceeded|(submission|sending|send|account|tenant|credits?|relay|message)\b.{0,20}\b(quota|limit|threshold|credits?)\b.{0,30}(exceed|reach|used)|exceed\w*.{0,20}(sending|submission|account|message) (quota|limit)|credits? exceeded|exceeded (its |the |your )?threshold`),
		not: re(aboutOne + `|\brate\b|peak|minute|second|thread|connection|session|concurren`)},

	// Who we are.
	{word: "auth-churn", text: re(`too many (\S+ ){0,3}(auth\w*|log-?ins?|logons?|sign-?ins?|password)`)},
	{word: "auth-temp", digit: 4, text: re(`(auth\w*|log-?on|log-?in|credential\w*)\b.{0,40}\b(fail\w*|unavailable|temporar\w*|error|daemon|server|backend)|temporar\w*.{0,10}auth`), stages: atAuth},
	{word: "misconfigured", codes: []int{530, 534, 535, 538}},
	{word: "misconfigured", text: re(`starttls.{0,20}(required|first|needed)|(must|need to).{0,20}starttls|(encryption|tls) (is )?required`)},
	{word: "misconfigured", digit: 5, text: re(`auth\w* (is )?(required|needed|first)|not (been )?authenticated|invalid credentials|basic authentication|unauthori[sz]ed (ip|host|client)|account.{0,20}(disabled|suspended|not (yet )?activ)`), stages: append(slices.Clone(atAuth), flowctl.StageMail, flowctl.StageData, flowctl.StageDot)},
	{word: "misconfigured", digit: 5, stages: atMessage, text: re(`relay\w* (access )?(is )?(denied|not (permitted|allowed)|prohibited|forbidden)|(unable|not (permitted|allowed)|refus\w+|den(y|ies)|cannot|don'?t|do not) (to )?relay`)},
	{word: "misconfigured", digit: 5, stages: atMessage, text: re(`send ?as ?denied|(allowed|permissions?|permitted|authori[sz]ed) to send (as|from|on behalf)|(address|sender|identity|domain) (is )?not (yet )?verified|verified (sender|identity|domain)|not owned by`)},

	// How many connections.
	{word: "rcpt", digit: 4, stages: atMessage, text: re(`(recipient|mailbox|deliver)\b.{0,20}(thread|concurren\w+) limit`)},
	{word: "conc-server", counts: true, digit: 4, stages: atSession, text: re(`((` + conns + `).{0,20}\brate\b|too frequent|\btls\b.{0,20}\brate\b|tls sessions?|load average|too much load|too busy|(ports|servers|processes|slots|children) (are |is )?(all )?busy)`)},
	{word: "conc-server", counts: true, text: re(`((` + tooMany + `).{0,60}(` + conns + `)|(` + conns + `).{0,60}(` + tooMany + `)).*(forest|this (listener|server|system|host)|in total|overall)|server (connections|sessions)`), not: re(`\brate\b|frequen|recipients? (per|in)`)},
	{word: "conc-source", counts: true, text: re(`(` + tooMany + `)\W.{0,60}(` + conns + `)|(` + conns + `)\W.{0,60}(` + tooMany + `)|sender thread limit`), not: re(`\brate\b|frequen|second|minute|recipient|messages? (per|in|for)|connection (lost|closed|timed)`)},

	// What we send, and how fast.
	{word: "rcpt", digit: 4, stages: atMessage, text: re(`gr[ae]y-?list`)},
	{word: "reputation", digit: 4, text: re(`unsolicited|\bspams?\b|reputation|complaint|suspicious|black-?list|block-?list|\bblocked\b|abus(e|ive)|unusual`), not: re(`spam (check|filter|scan)\w* (is |was )?(fail|unavail|error|time)`)},
	{word: "rcpt", digit: 4, stages: atMessage, text: re(`(recipient|user|mailbox)\b.{0,60}\brate\b`)},
	{word: "rate", text: re(`throttl|too fast|too much mail|slow(ing)? down|\brate\b.{0,40}(limit|exceed|control|too high|reached)|(limit|exceed|maximum|unusual|too high)\w*\b.{0,40}\brate\b|(connection|sending|message)\w* frequen\w+|frequency|(per|a|each) (second|minute)|limit exceeded.{0,40}(second|minute)|peak\b.{0,20}limit`)},
	{word: "rate", text: re(`too many (messages|e?mails|recipients)\b.{0,40}(\bfrom\b|this (hour|minute)|\btry\b|\bretry\b)`)},
	{word: "rate", enh: [3]uint16{4, 7, 500}},

	// This recipient, or this many of them.
	{word: "split", stages: atRcpt, enh: [3]uint16{0, 5, 3}},
	{word: "split", stages: atRcpt, text: re(`too many recipients|recipient limit|maximum (number of )?recipients`)},
	{word: "rcpt", digit: 4, stages: atMessage, text: re(`mailbox|inbox|over ?quota|recipient.{0,30}(full|quota|storage)`)},
	{word: "rcpt", digit: 4, stages: atRcpt, enh: [3]uint16{0, 2, 2}},

	// The server is short of something, or not there.
	{word: "pressure", digit: 4, text: re(`insufficient|not enough|disk (is )?full|disk space|no space|out of (memory|resources|disk|storage)|low on|resources|queue (quota|full|is full)|overload|back ?pressure|congest|too busy|(server|system|service) (is )?(too |currently |very )*busy|load average|too much load`)},
	{word: "pressure", digit: 4, enh: [3]uint16{4, 3, 1}},
	{word: "unavailable", digit: 4, text: re(`shut(ting)? ?down|going down|restart\w*|rebooting|maintenance`), not: re(`mailbox|recipient`)},
	{word: "unavailable", digit: 4, stages: atOpening, text: re(`(service|server|system)\b.{0,30}\b(not (currently )?(available|active|accepting|ready|running)|unavailable|inactive|offline|out of service)`)},
}
