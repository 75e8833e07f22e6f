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
	text   *words
	not    *words // and none of these
	counts bool   // the text may name a limit of connections or messages
}

func (r *rule) fits(st flowctl.Stage, code int, enh [3]uint16, text string) bool {
	return (r.stages == nil || slices.Contains(r.stages, st)) &&
		(r.digit == 0 || code/100 == r.digit) &&
		(r.codes == nil || slices.Contains(r.codes, code)) &&
		(r.enh == [3]uint16{} || r.enh[1] == enh[1] && r.enh[2] == enh[2] && (r.enh[0] == 0 || r.enh[0] == enh[0])) &&
		(r.text == nil || r.text.in(text)) &&
		(r.not == nil || !r.not.in(text))
}

var (
	atOpening = []flowctl.Stage{flowctl.StageConnect, flowctl.StageGreeting, flowctl.StageEHLO, flowctl.StageTLS}
	atSession = append(slices.Clone(atOpening), flowctl.StageAuth, flowctl.StageIdle)
	atMessage = []flowctl.Stage{flowctl.StageMail, flowctl.StageRcpt, flowctl.StageData, flowctl.StageDot}
	atOurs    = []flowctl.Stage{flowctl.StageAuth, flowctl.StageMail, flowctl.StageData, flowctl.StageDot} // no recipient is named there
	atRcpt    = []flowctl.Stage{flowctl.StageRcpt}
	atAuth    = []flowctl.Stage{flowctl.StageAuth}
	atRest    = []flowctl.Stage{flowctl.StageIdle, flowctl.StageMail} // when we may have been silent for long
)

// words are alternatives that are looked for anywhere in a lower-cased text.
type words struct {
	pattern *regexp.Regexp
	needs   []string // the text holds one of these if the pattern matches; nil: unknown
}

func re(alternatives string) *words {
	p := regexp.MustCompile(alternatives)
	return &words{p, needs(p)}
}

func (w *words) in(text string) bool {
	return (w.needs == nil || holdsOne(text, w.needs)) && w.pattern.MatchString(text)
}

// Words that several rules need. In (?:[^.;]|\.\d) a dot within an address does not end the sentence.
const (
	aboutOne = `mailbox|inbox|recipient.{0,20}(quota|full|storage)|over ?quota|storage|account that you tried|user you are trying|recipient has exceeded|to this recipient|queue quota|disk|message size`
	aPeriod  = `daily|hourly|weekly|monthly|(per|a|this|an|each) (day|hour|month|week)|hour limit|24.?h(ou)?rs?\b|24-hour|day'?s`
	aLimit   = `quota|limit|exceed|maximum|\bmax\b|allow(ed|ance)|threshold|credits|reached|too many|only \d+|more than \d+`
	ourLimit = `(send(ing)?|messag(es?|ing)|e?mails?|outgoing|outbound|submission|relay|account|tenant|plan|credits?|recipient)`
	conns    = `connections?|connexions?|sessions?|concurren\w+|simultaneous\w*`
	tooMany  = `too many|trop de|maximum|\bmax\b|limit\w*|exceed\w*|number of`
	near     = `(?:[^.;]|\.\d){0,40}`
	notOK    = `(not|isn't|aren't|never) (yet |currently |been |be )?`
	denied   = `(denied|disallowed|prohibited|forbidden|` + notOK + `(permitted|allowed))`
	toThem   = `\bto (this|the|that|these) (group|recipient|user|mailbox|address|list|distribution)|distribution|sending to\b|recipients? of|\bto (\w+ )?destination`
)

var rules = []rule{
	// One connection has been used up, by time, by messages, by mistakes.
	{word: "idle", digit: 4, stages: atRest, text: re(`time-?d? ?-?out|inactiv|\bidle\b`), not: re(`try again|temporar|backend|upstream|lookup`)},
	{word: "conn-cap", digit: 4, counts: true, not: re(`\brate\b|concurren`),
		text: re(`(messages?|e?mails?|bytes|size|transactions?|deliver\w+|recipients?|volume|data)\b.{0,40}\b(per|in|for|on|over|during) (this |the |a |an |one |single |same |each |your )*(connection|session|channel)`)},
	{word: "conn-cap", digit: 4, counts: true, not: re(`\brate\b|concurren`),
		text: re(`\b(connection|session)\b.{0,20}\b(message|mail|transaction)s?\b.{0,10}(limit|max|count)`)},
	{word: "conn-cap", digit: 4, text: re(`too many (\w+ ){0,3}(errors|unknown|unrecogni[sz]ed|invalid commands|bad commands|bad recipients|invalid recipients|junk|non-?mail|commands)`), not: re(`auth|log-?in|\bip\b|(black|block)-?list|banned`)},

	// Hours or a day of sending used up, also as a 5yz.
	{word: "quota", text: re(`(` + aPeriod + `).*(` + aLimit + `)|(` + aLimit + `).*(` + aPeriod + `)`), not: re(aboutOne + `|received this hour|minute|second`)},
	{word: "quota", text: re(`quotaexceeded|\b` + ourLimit + `\b.{0,30}\b(quota|limits?|threshold|credits?)\b.{0,40}\b(exceed\w*|reach\w*|used)|(exceed|reach)\w*.{0,30}\b` + ourLimit + ` (quota|limits?)|\bover (your .{0,20}|(its |the )?` + ourLimit + ` )(quota|limit)|limit on .{0,40}messages.{0,20}exceed|\byou( have|'ve)? (exceeded|reached|used up) (your |its |the )?(\S+ )?(quota|limit|allowance)|credits? exceeded|exceeded (its |the |your )?threshold`),
		not: re(aboutOne + `|recipients? per (message|e?mail)|\brate|peak|minute|second|thread|connection|session|concurren`)},
	{word: "quota", stages: atMessage, text: re(`\brp:(orq|trc)\b|\bhl:itc\b`)}, // 163 says only letters: recipients or messages of an hour or a day

	// Who we are.
	{word: "auth-churn", text: re(`too (many|much) (\S+ ){0,3}(auth\w*|log-?ins?|logons?|sign-?ins?|password)|(auth\w*|log-?ins?|logons?|sign-?ins?)\b.{0,20}\btoo (many|often|frequent)`)},
	{word: "auth-temp", digit: 4, text: re(`(auth\w*|log-?on|log-?in|credential\w*)\b.{0,40}\b(fail\w*|unavailable|temporar\w*|error|daemon|server|backend)|temporar\w*.{0,10}auth`), stages: atAuth},
	{word: "misconfigured", codes: []int{530, 534, 535, 538}},
	{word: "misconfigured", text: re(`starttls.{0,20}(required|first|needed)|(must|need to).{0,20}starttls|(encryption|tls) (is )?required|requires? (encryption|tls|starttls)`), not: re(`rcpt|recipient`)},
	{word: "misconfigured", stages: atOpening[:3], text: re(`\b(required|client|your|ssl|tls) certificate|certificate (is |was )?(required|missing|needed)`)},
	{word: "misconfigured", digit: 5, stages: atOurs, not: re(toThem),
		text: re(`auth\w* (is )?(required|needed|first)|` + notOK + `authenticated|unauthenticated (sender|user|client)|invalid credentials|basic authentication|unauthori[sz]ed (ip|host|client)|fail\w* to authenticate|requires? authentication`)},
	{word: "misconfigured", stages: atMessage, text: re(`relay\w* (access |operation )?(is |was |has been )?(` + denied + `|rejected|refused)|required (for|to) relay|(unable|not (permitted|allowed)|refus\w+|den(y|ies)|cannot|don'?t|do not) (to )?relay|as a relay|` + notOK + `in (my|our) (list|relay)`)},
	{word: "misconfigured", stages: atMessage, not: re(toThem),
		text: re(`send ?as ?denied|(allowed|permissions?|permitted|authori[sz]ed|rights?) to (send|perform|submit|use)|\b(from|senders?|sending|identity|domain|host(name)?|client|ips?)\b( address\w*| domain| identity| name| network)? (is |are |was )?` + notOK + `(allowed|permitted|verified|trusted|configured|registered|authori[sz]ed|owned)|(unconfigured|unverified|unregistered) (sen|domain|from|identity)|verified (sender|identity|domain)|address is ` + notOK + `verified|not owned by|outbound sender`)},
	{word: "misconfigured", stages: atMessage, text: re(`\b(your|sending|outbounds?|submission)\b.{0,30}\b(suspended|paused|disabled|` + notOK + `activ\w+|under review)|suspended for`), not: re(`recipient|too fast`)},
	{word: "misconfigured", digit: 5, stages: atOurs[:2], text: re(`account.{0,20}(disabled|suspended|` + notOK + `activ)`)},
	{word: "misconfigured", digit: 5, stages: atMessage, not: re(`\burls?\b|\blinks?\b|content|attach`),
		text: re(`\bclient (host|address|ip)? ?(is |was )?rejected|\b(client|hosts?|ips?|server|network|helo)\b` + near + `\b(blocked|banned|(block|black|deny)[- ]?list\w*|listed|spamhaus|rbl|dnsbl)|(banned|blocked|listed) (\w+ )?ips?\b|blocked (using|by) \S+\.\w|(connections?|traffic)\b` + near + `\bnot (be )?accepted|mail from \[?\d[\da-f.:]+\]? (is |was )?` + denied + `|reverse (dns|hostname)|\bptr\b|rdns|senders? (is |was |has been )?(blocked|banned|black-?listed)|(blocked|banned) from (sending|connecting)|\bip reputation|(spam|unsolicited|abus\w+|invalid|unusual)\b.{0,60}\bfrom your (account|address|ip|server|host|network)`)},

	// How many connections.
	{word: "rcpt", digit: 4, stages: atMessage, text: re(`(recipient|mailbox|deliver)\b.{0,20}(thread|concurren\w+) limit`)},
	{word: "conc-server", counts: true, digit: 4, stages: atSession, text: re(`((` + conns + `).{0,20}\brate\b|too frequent|\btls\b.{0,20}\brate\b|tls sessions?|load average|too much load|too busy|(ports|servers|processes|slots|children) (are |is )?(all )?busy)`)},
	{word: "conc-server", counts: true, text: re(`((` + tooMany + `).{0,60}(` + conns + `)|(` + conns + `).{0,60}(` + tooMany + `)).*(forest|this (listener|server|system|host)|in total|overall)|server (connections|sessions)`), not: re(`\brate\b|frequen|recipients? (per|in)`)},
	{word: "conc-source", counts: true, text: re(`(` + tooMany + `)\W.{0,60}(` + conns + `)|(` + conns + `)\W.{0,60}(` + tooMany + `)|(sender|client|submission|outbound|inbound) threads? limit|limit\b.{0,30}\brequests? from (your|this) (host|ip|server|address)`), not: re(`\brate\b|frequen|second|minute|recipient|messages? (per|in|for)|connection (lost|closed|timed)`)},

	// What we send, and how fast.
	{word: "rcpt", digit: 4, stages: atMessage, text: re(`gr[ae]y-?list`)},
	{word: "reputation", digit: 4, text: re(`unsolicited|\bspams?\b|reputation|complaint|suspicious|\b(ip|host|client)\b.{0,30} filtered|black-?list|block-?list|\bblocked\b|banned|abus(e|ive)|unusual|untrusted|open relay|excessive (unknown|invalid|bad)|too many (\w+ )?errors from|unknown recipients|messages? from \S*\d\.\d+\.\d+\S* .{0,20}deferred|permanently deferred`), not: re(`spam (check|filter|scan)\w* (is |was )?(fail|unavail|error|time)`)},
	{word: "reputation", text: re(`unusual (sending )?activity|(domain|sending|account) (is |was |has been )?paused`)},
	{word: "rcpt", digit: 4, stages: atMessage, text: re(`(recipient|user|mailbox)\b.{0,60}\brate\b|(receiv\w+|messages? to <?\S+@).{0,40}\b(too (quickly|fast|much|many)|volume)`)},
	{word: "rate", text: re(`throttl|too fast|too quickly|too much mail|slow(ing)? down|\brate-?limit|\brate\b.{0,40}(limit|exceed|control|too high|reached)|(limit|exceed|maximum|unusual|too high)\w*\b.{0,40}\brate\b|(connection|sending|message)\w* frequen\w+|frequency|(per|a|each) (\d+ )?(second|minute)|limit exceeded.{0,40}(second|minute)|peak\b.{0,20}limit|excessive (volume|number|message)`), not: re(`receiving mail|mail data`)},
	{word: "rate", text: re(`too many (\w+ )?(messages|e?mails|requests)\b|too many recipients\b.{0,40}(\bfrom\b|this (hour|minute)|\btry\b|\bretry\b)`), not: re(`on (the |this )?server|mailbox|inbox|folder`)},
	{word: "rate", enh: [3]uint16{4, 7, 500}},

	// This recipient, or this many of them.
	{word: "split", stages: atRcpt, enh: [3]uint16{0, 5, 3}},
	{word: "split", stages: atRcpt, text: re(`too many recipients|recipient limit|maximum (number of )?recipients|(multiple|different|several) (\w+ )?(domains|recipients)|(separate|another) (transaction|message|session)|per transaction|recipients? per (message|e?mail)|one recipient`)},
	{word: "rcpt", digit: 4, stages: atMessage, text: re(`mailbox|inbox|over ?quota|recipient.{0,30}(full|quota|storage)`)},
	{word: "rcpt", digit: 4, stages: atRcpt, enh: [3]uint16{0, 2, 2}},

	// The server is short of something, or not there.
	{word: "pressure", digit: 4, text: re(`insufficient|not enough|disk (is )?full|disk space|no space|shortage|out of (memory|resources|disk|storage)|low on|resources|(queue|system|spool|storage) (quota|(is )?full|error)|overload|back ?pressure|congest|\bbusy\b|load average|too much load`), not: re(`system error`)},
	{word: "pressure", digit: 4, enh: [3]uint16{4, 3, 1}},
	{word: "pressure", stages: atMessage, enh: [3]uint16{4, 4, 5}},
	{word: "unavailable", digit: 4, text: re(`shut(ting)? ?down|going down|restart\w*|rebooting|reconfigur\w+|maintenance`), not: re(`mailbox|recipient`)},
	{word: "unavailable", digit: 4, stages: atOpening, text: re(`(service|server|system)\b.{0,30}\b(not (currently )?(available|active|accepting|ready|running)|unavailable|inactive|offline|out of service)`)},
	{word: "rcpt", digit: 4, stages: atRcpt, text: re(`recipient (address )?rejected`)},
}
