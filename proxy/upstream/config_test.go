package upstream

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestConfigFaultsAreNamed(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string // "": none
	}{
		{Config{URL: "smtp://relay.example"}, ""},
		{Config{URL: "smtps://relay.example:465/"}, ""},
		{Config{}, "url: is missing"},
		{Config{URL: "relay.example:25"}, "begins neither"},
		{Config{URL: "http://relay.example"}, "begins neither"},
		{Config{URL: "smtp://"}, "names no host"},
		{Config{URL: "smtp://relay.example:0"}, "no port"},
		{Config{URL: "smtp://relay.example:65536"}, "no port"},
		{Config{URL: "smtp://relay.example/path"}, "more than host and port"},
		{Config{URL: "smtp://relay.example?x=y"}, "an option that is neither priority nor weight"},
		{Config{URL: "smtp://relay.example?priority=-1"}, "wants one priority from 0 to 1000"},
		{Config{URL: "smtp://relay.example?priority=1&priority=2"}, "wants one priority from 0 to 1000"},
		{Config{URL: "smtp://relay.example?weight=0"}, "wants one weight from 1 to 1000"},
		{Config{URL: "smtp://relay.example?weight=much"}, "wants one weight from 1 to 1000"},
		{Config{URL: "smtp://relay.example?weight=%zz"}, "a query that is none"},
		{Config{URL: "smtp://a.example,"}, "host 2 of the list is empty"},
		{Config{URL: "smtp://a.example,b.example"}, "host 2 of the list begins neither"},
		{Config{URL: "smtp://a.example,smtp://u:password@b.example"}, "host 2 of the list holds credentials"},
		{Config{URL: "smtp://a.example,smtp://u:" + canary + "@b.example"}, "host 2 of the list is no URL"},
		{Config{URL: "smtp://a.example, smtps://b.example:587?priority=10&weight=2"}, ""},
		{Config{URL: "smtp://a.example,smtps://a.example:25"}, "host 2 of the list names the same host and port"},
		{Config{URL: "smtp://a.example,smtp://A.Example"}, "host 2 of the list names the same host and port"},
		{Config{URL: strings.Repeat("smtp://a.example,", 17)}, "more than 16 hosts"},
		{Config{URL: "smtp://a.example,smtps://b.example", TLS: "none"}, "says smtps"},
		{Config{URL: "smtp://app:" + canary + "@relay.example"}, "url: "},
		{Config{URL: "smtp://app:password@relay.example"}, "holds credentials"},
		{Config{URL: "smtp://app:" + canary + "@relay.example:x"}, "is no URL"},
		{Config{URL: "smtp://relay.example", TLS: "on"}, `"on" is not one of`},
		{Config{URL: "smtp://relay.example", TLS: "none", CAFile: "x"}, "ca_file is set"},
		{Config{URL: "smtps://relay.example", TLS: "none"}, "says smtps"},
		{Config{URL: "smtps://relay.example", TLS: "opportunistic"}, ""},
		{Config{URL: "smtp://relay.example", TLS: "none", Username: "app", Password: canary}, "plaintext_auth would allow it"},
		{Config{URL: "smtp://relay.example", TLS: "none", Username: "app", Password: canary, PlaintextAuth: true}, ""},
		{Config{URL: "smtp://relay.example", Username: "app"}, "neither password nor"},
		{Config{URL: "smtp://relay.example", Password: canary}, "no username"},
		{Config{URL: "smtp://relay.example", PasswordFile: "x"}, "no username"},
		{Config{URL: "smtp://relay.example", Username: "app", Password: canary, PasswordFile: "x"}, "password_file too"},
		{Config{URL: "smtp://relay.example", Username: "app", Password: canary + "\x00"}, "NUL"},
		{Config{URL: "smtp://relay.example", TLS: "none", CertFile: "x", KeyFile: "x"}, "tls: none, but cert_file is set"},
		{Config{URL: "smtp://relay.example", TLS: "none", ServerName: "x"}, "tls: none, but server_name is set"},
		{Config{URL: "smtp://relay.example", CertFile: "x"}, "cert_file: is set, but not key_file"},
		{Config{URL: "smtp://relay.example", KeyFile: "x"}, "key_file: is set, but not cert_file"},
		{Config{URL: "smtp://relay.example", ServerName: "relay.example:25"}, "server_name: is no host name"},
		{Config{URL: "smtp://relay.example", Username: "app", OAuth: true}, ""},
		{Config{URL: "smtp://relay.example", OAuth: true}, "username: is missing"},
		{Config{URL: "smtp://relay.example", Username: "app", OAuth: true, Password: canary}, "password: is set, and OAuth too"},
		{Config{URL: "smtp://relay.example", Username: "app", OAuth: true, PasswordFile: "x"}, "password_file: is set, and OAuth too"},
		{Config{URL: "smtp://relay.example", Username: "app", Password: canary, Auth: "scram-sha-256"}, ""},
		{Config{URL: "smtp://relay.example", Auth: "plain"}, "auth: plain, but there are no credentials"},
		{Config{URL: "smtp://relay.example", Username: "app", Password: canary, Auth: "gssapi"}, "is not one of auto, scram-sha-256, cram-md5, plain, login, oauthbearer, xoauth2"},
		{Config{URL: "smtp://relay.example", Username: "app", Password: canary, Auth: "xoauth2"}, "auth: xoauth2 needs OAuth"},
		{Config{URL: "smtp://relay.example", Username: "app", OAuth: true, Auth: "plain"}, "auth: plain needs a password"},
		{Config{URL: "smtp://relay.example", Username: "app\x01", Password: canary}, "control character"},
		{Config{URL: "smtp://relay.example", Hostname: "a\r\nQUIT"}, "hostname"},
		{Config{URL: "smtp://relay.example", MessagesMax: -1}, "messages_per_connection"},
		{Config{URL: "smtp://relay.example", EightBit: "x"}, "eight_bit"},
		{Config{URL: "smtp://relay.example", AgeMax: -1}, "connection_max_age"},
		{Config{URL: "smtp://relay.example", Timeouts: Timeouts{Dot: -1}}, "timeouts"},
	} {
		err := tc.cfg.Validate()
		switch {
		case tc.want == "" && err != nil, tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%q: %v", tc.want, err)
		case err != nil && strings.Contains(err.Error(), canary):
			t.Errorf("the secret is in %q", err)
		}
	}
	all := Config{TLS: "x", MessagesMax: -1, AgeMax: -1}.Validate()
	for _, part := range []string{"url", "tls", "messages_per_connection", "connection_max_age"} {
		if !strings.Contains(all.Error(), part) {
			t.Errorf("%q lacks %s", all, part)
		}
	}
}

func TestAddressHasItsPort(t *testing.T) {
	for url, want := range map[string]string{
		"smtp://relay.example":      "relay.example:25 false",
		"smtp://relay.example:587":  "relay.example:587 false",
		"smtps://relay.example":     "relay.example:465 true",
		"smtps://relay.example:10/": "relay.example:10 true",
		"smtp://[2001:db8::1]":      "[2001:db8::1]:25 false",
		"smtp://192.0.2.1:2525":     "192.0.2.1:2525 false",
	} {
		hosts, err := Config{URL: url}.Hosts()
		if err != nil || len(hosts) != 1 || fmt.Sprint(hosts[0].Address(), " ", hosts[0].Implicit) != want {
			t.Errorf("%s: %+v, %v", url, hosts, err)
		}
	}
}

// Credentials and smtps imply verified, required TLS.
func TestSecurityIsImplied(t *testing.T) {
	login := Config{Username: "app", Password: "x"}
	for _, tc := range []struct {
		cfg      Config
		implicit bool
		mode     string
		verify   bool
	}{
		{Config{}, false, tlsOpportunistic, false},
		{Config{CAFile: "x"}, false, tlsOpportunistic, true},
		{Config{ServerName: "x"}, false, tlsOpportunistic, true},
		{Config{TLS: tlsRequire}, false, tlsRequire, true},
		{Config{TLS: tlsNone}, false, tlsNone, false},
		{Config{TLS: tlsOpportunistic}, true, tlsRequire, true},
		{login, false, tlsRequire, true},
		{Config{Username: "app", TLS: tlsOpportunistic}, false, tlsRequire, true},
		{Config{Username: "app", TLS: tlsOpportunistic, PlaintextAuth: true}, false, tlsOpportunistic, true},
		{Config{Username: "app", TLS: tlsNone, PlaintextAuth: true}, false, tlsNone, true},
	} {
		if mode, verify := tc.cfg.security(tc.implicit); mode != tc.mode || verify != tc.verify {
			t.Errorf("%+v: %s, %v", tc.cfg, mode, verify)
		}
	}
}

func TestTimeoutsAreThoseOfTheRFC(t *testing.T) {
	got := Timeouts{Dot: time.Second}.orDefaults()
	want := Timeouts{30 * time.Second, 5 * time.Minute, 5 * time.Minute, 2 * time.Minute, 3 * time.Minute, time.Second}
	if got != want {
		t.Errorf("%+v", got)
	}
}
