package smtpd

import (
	"strings"
	"testing"
)

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	for addr, ok := range map[string]bool{
		"127.0.0.1:2525":          true,
		"127.9.9.9:25":            true,
		"[::1]:2525":              true,
		"[::ffff:127.0.0.1]:2525": true,
		"localhost:2525":          true,
		"LocalHost:0":             true,
		":2525":                   false,
		"0.0.0.0:2525":            false,
		"[::]:2525":               false,
		"192.0.2.1:2525":          false,
		"localhost.example:2525":  false,
		"127.0.0.1.example:2525":  false,
		"127.1:2525":              false,
		"127.0.0.1":               false,
		"127.0.0.1:smtp":          false,
		"127.0.0.1:65536":         false,
		"127.0.0.1:-1":            false,
		"":                        false,
	} {
		if err := CheckListen(addr); (err == nil) != ok {
			t.Errorf("%q: %v", addr, err)
		} else if err != nil && !strings.HasPrefix(err.Error(), "smtpd: listen ") {
			t.Errorf("%q: unclear error %v", addr, err)
		}
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	good := testConfig()
	good.QualifyDomain = "corp.example"
	if err := good.Validate(); err != nil {
		t.Errorf("good: %v", err)
	}
	bad := Config{Listen: []string{":25"}, Hostname: "a b", QualifyDomain: "@", BareNewline: "maybe", MinBytesPerSec: -1}
	err := bad.Validate()
	for _, want := range []string{"anybody", "max_message_bytes", "max_recipients", "max_connections", "max_hops",
		"idle_timeout", "minimum rate", "bare_newline", "hostname", "qualify_domain"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing from %v", want, err)
		}
	}
	if err := (&Config{}).Validate(); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Errorf("zero value: %v", err)
	}
}
