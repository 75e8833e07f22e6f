package upstream

import "regexp"

// An advice is what the operator must do about a refused login, where the words of the server leave that open. The table is in
// order, the first that fits counts.
type advice struct {
	reply *regexp.Regexp // of the whole reply
	token bool           // only for a login with a token
	say   string
}

// What Exchange and Google mean, by their makers' documentation of SMTP AUTH.
var advices = []advice{
	{regexp.MustCompile(`5\.7\.30\b|(?i)basic auth\w* is (disabled|not supported|not allowed|retired)`), false,
		"it no longer takes passwords: use OAuth"},
	{regexp.MustCompile(`(?i)SmtpClientAuthentication is disabled`), false,
		"allow SMTP AUTH for the mailbox: Set-CASMailbox -SmtpClientAuthenticationDisabled $false"},
	{regexp.MustCompile(`(?i)application-specific password|5\.7\.9\b`), false,
		"it wants an application password, or OAuth"},
	{regexp.MustCompile(`5\.7\.139\b`), false,
		"a policy of the tenant forbids it: look at the sign-in log, security defaults and conditional access, and use OAuth"},
	{regexp.MustCompile(`5\.7\.3\b`), true,
		"the token is sound but may not send as this mailbox: the application needs the permission SMTP.SendAsApp with admin consent, a service principal in Exchange (New-ServicePrincipal) and rights on the mailbox (Add-MailboxPermission)"},
	{regexp.MustCompile(`5\.7\.3\b`), false,
		"user name or password is wrong, or it no longer takes passwords: then use OAuth"},
}

// adviceOn returns what to add to a reply; "": nothing.
func adviceOn(reply string, token bool) string {
	for _, a := range advices {
		if (token || !a.token) && a.reply.MatchString(reply) {
			return " (" + a.say + ")"
		}
	}
	return ""
}
