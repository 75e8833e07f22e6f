package config

import "strings"

// profile is what is known of a kind of relay: defaults for what nobody set. What the relay really does is found out, and wins.
type profile struct {
	name     string
	defaults []profileDefault
}

type profileDefault struct{ key, value string }

const profileSetting = "upstream.profile"

// profiles, as their makers document them: Exchange Server's MaxInboundConnectionPerSource; Exchange Online's limits of SMTP AUTH
// per mailbox (3 connections, 30 messages a minute, 10,000 recipients a day); Google Workspace's SMTP relay, per user and per
// transaction; what Amazon SES and SendGrid take on one connection.
var profiles = []profile{
	{name: "generic"},
	{"exchange", []profileDefault{{"upstream.max_connections", "20"}}},
	{"exchange-online", []profileDefault{{"upstream.max_connections", "3"}, {"rate_per_second", "0.5"}, {"quota.recipients_per_day", "10000"}}},
	{"gmail", []profileDefault{{"upstream.recipients_per_transaction", "100"}, {"quota.recipients_per_day", "10000"}}},
	{"ses", []profileDefault{{"upstream.messages_per_connection", "350"}}},
	{"sendgrid", []profileDefault{{"upstream.messages_per_connection", "5000"}}},
}

func profileNames() []string {
	names := make([]string, len(profiles))
	for i, p := range profiles {
		names[i] = p.name
	}
	return names
}

// profileDoc says what each profile sets.
func profileDoc() string {
	var parts []string
	for _, p := range profiles {
		var sets []string
		for _, d := range p.defaults {
			sets = append(sets, d.key+" "+d.value)
		}
		if len(sets) > 0 {
			parts = append(parts, p.name+": "+strings.Join(sets, ", "))
		}
	}
	return "Known limits of a kind of relay, for what is not set otherwise (" + strings.Join(parts, "; ") + "); what the relay really does wins."
}

// applyProfile puts the profile's values where nobody set another. A profile that does not exist is decode's to find.
func (l *loader) applyProfile() {
	name := l.values.GetString(profileSetting)
	for _, p := range profiles {
		if p.name != name {
			continue
		}
		for _, d := range p.defaults {
			if l.sources[d.key] == sourceDefault {
				l.values.SetDefault(d.key, d.value)
				l.sources[d.key] = "profile " + p.name
			}
		}
	}
}
