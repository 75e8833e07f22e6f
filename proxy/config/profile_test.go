package config

import (
	"strings"
	"testing"
)

func TestAProfileFillsInWhatNobodySet(t *testing.T) {
	file := writeFile(t, "upstream:\n  profile: exchange-online\nquota:\n  recipients_per_day: 500\n")
	cfg, report := mustLoad(t, testHost(), "MAILWEIR_CONFIG="+file, "MAILWEIR_UPSTREAM_MAX_CONNECTIONS=2")
	if cfg.Flow.MaxConns != 2 || cfg.Flow.PerSecond != 0.5 || cfg.Flow.RecipientsPerDay != 500 {
		t.Errorf("%d connections, %v a second, %d recipients a day", cfg.Flow.MaxConns, cfg.Flow.PerSecond, cfg.Flow.RecipientsPerDay)
	}
	for key, source := range map[string]string{
		"upstream.max_connections": "environment", "quota.recipients_per_day": "file", "rate_per_second": "profile exchange-online",
		"upstream.messages_per_connection": "default", "upstream.profile": "file",
	} {
		if v := report.Value(key); v.Source != source {
			t.Errorf("%s = %s from %s, want %s", key, v.Text, v.Source, source)
		}
	}
	_, report = mustLoad(t, testHost())
	for _, v := range report.Values {
		if strings.HasPrefix(v.Source, "profile") {
			t.Errorf("without a profile: %s from %s", v.Key, v.Source)
		}
	}
}

func TestTheFlowControlHearsOfSlownessAndOfTheQuota(t *testing.T) {
	for text, want := range map[string]bool{"gain": true, "ignore": false} {
		cfg, _ := mustLoad(t, testHost(), "MAILWEIR_UPSTREAM_SLOWNESS="+text, "MAILWEIR_QUOTA_RECIPIENTS_PER_DAY=700")
		if cfg.Flow.Gain != want || cfg.Flow.RecipientsPerDay != 700 {
			t.Errorf("%s: gain %v, %d recipients a day", text, cfg.Flow.Gain, cfg.Flow.RecipientsPerDay)
		}
	}
}

// A value that a profile sets to what the default is comes from the profile all the same, and can be overruled like any other.
func TestEveryProfileIsSound(t *testing.T) {
	for _, p := range profiles {
		cfg, report := mustLoad(t, testHost(), "MAILWEIR_UPSTREAM_PROFILE="+p.name)
		if cfg.UpstreamProfile != p.name {
			t.Errorf("%s: %q", p.name, cfg.UpstreamProfile)
		}
		for _, d := range p.defaults {
			if v := report.Value(d.key); v.Text != d.value || v.Source != "profile "+p.name {
				t.Errorf("%s: %+v, want %s", p.name, v, d.value)
			}
			if !strings.Contains(profileDoc(), d.key+" "+d.value) {
				t.Errorf("%s: %s is not documented", p.name, d.key)
			}
		}
	}
}
