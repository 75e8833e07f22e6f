package upstream

import (
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

func TestRetryHintsAreObeyed(t *testing.T) {
	for text, want := range map[string]time.Duration{
		// Seen on the wire.
		"Too many messages. Try again in 92 seconds.": 92 * time.Second,
		"try again in 15 seconds.":                    15 * time.Second,
		"<user@example.com>: Recipient address rejected: example.com greylisted for 60 seconds by ZEROSPAM":                                                                time.Minute,
		"<user@example.com>: Recipient address rejected: Greylisted for 5 minutes":                                                                                         5 * time.Minute,
		"Greylisting in action, please come back in 00:05:00":                                                                                                              5 * time.Minute,
		"Sender limit exceeded: 300 messages per 60 minutes. Retry in 12 minutes":                                                                                          12 * time.Minute,
		"User app@example.com has exceeded its 24-hour sending limit. Messages to 251 recipients out of 250 allowed have been sent. Relay quota will reset in 8.12 hours.": 8*time.Hour + 7*time.Minute + 12*time.Second,
		"Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/help/example.net.html":                                                                  0,
		"System currently overloaded, please retry in 5 minutes":                                                                                                           5 * time.Minute,
		"greylisted, try again after 299 seconds":                                                                                                                          299 * time.Second,
		"Your access to this mail system has been blocked for 1 hour":                                                                                                      time.Hour,
		"Too many failed logins, try again after an hour":                                                                                                                  time.Hour,
		"Domain example.com has exceeded the max emails per hour (120/100 (120%)) allowed.":                                                                                0,
		"Message temporarily deferred - 4.16.50":                                                                                                                           0,
		"[TS03] All messages from 192.0.2.1 will be permanently deferred; Retrying will NOT succeed.":                                                                      0,
		"SMTP command timeout after 300 seconds":                                                                                                                           0,
		"Rate limited, retry in 1m30s.":                                                                                                                                    90 * time.Second,
		"rate limit reached, please retry after 2h":                                                                                                                        2 * time.Hour,

		"Too many messages, please retry after 5 minutes": 5 * time.Minute,
		"retry in 1 hour":                         time.Hour,
		"Please try again later, in about 3 mins": 3 * time.Minute,
		"wait for 10s":                            10 * time.Second,
		"wait 1 hour":                             time.Hour,
		"please wait at least 90 seconds before sending": 90 * time.Second,
		"try again in 5-10 minutes":                      10 * time.Minute,
		"try again in 5 to 10 minutes":                   10 * time.Minute,
		"try again in one day":                           24 * time.Hour,
		"please come back in 01:00:05":                   time.Hour + 5*time.Second,
		"try again in 500 hours":                         retryHintMax,
		"retry after 60":                                 time.Minute,
		"Retry-After: 120":                               2 * time.Minute,
		"retry after 60.":                                time.Minute,
		"Please try again later":                         0,
		"retry time not reached for any host after 5 x":  0,
		"entry 5 in 3 seconds":                           0,
		"try again in 5 parsecs":                         0,
		"retry after 10.0.0.1 answers":                   0,
		"try again in 0 seconds":                         0,
		"try again":                                      0,
		"":                                               0,
	} {
		for st, code := range map[flowctl.Stage]int{flowctl.StageMail: 450, flowctl.StageDot: 554, flowctl.StageGreeting: 421} {
			if got := Classify(st, code, [3]uint16{}, text).RetryAfter; got != want {
				t.Errorf("%d %q: %v, want %v", code, text, got, want)
			}
		}
	}
}

// What a relay quotes is not meant for us.
func TestAQuotedHintIsNotObeyed(t *testing.T) {
	if m := Classify(flowctl.StageDot, 451, [3]uint16{}, "host mx.example.com said: 451 try again in 5 hours"); m.RetryAfter != 0 {
		t.Errorf("%+v", m)
	}
}
