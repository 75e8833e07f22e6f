package admin

import (
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetricsAreWellNamed(t *testing.T) {
	problems, err := testutil.CollectAndLint(&collector{status: someStatus})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestMetricsShowTheStatus(t *testing.T) {
	s := serve(t, Config{ProbeListen: "127.0.0.1:0", Listen: Off}, someSource())
	code, text := get(t, "http://"+s.ProbeAddr().String()+"/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	lines := map[string]bool{}
	for line := range strings.Lines(text) {
		lines[strings.TrimSuffix(line, "\n")] = true
	}
	for _, want := range []string{
		`mailweir_messages_accepted_total 10`,
		`mailweir_messages_delivered_total 6`,
		`mailweir_messages_dead_total 1`,
		`mailweir_messages_pending 3`,
		`mailweir_deliveries_pending 4`,
		`mailweir_deliveries_in_flight 2`,
		`mailweir_last_delivered_timestamp_seconds 1.7776368e+09`,
		`mailweir_upstream_width{upstream="default"} 2.5`,
		`mailweir_upstream_ceiling{upstream="default"} 4`,
		`mailweir_upstream_connections{upstream="default"} 3`,
		`mailweir_upstream_connections_dialing{upstream="default"} 1`,
		`mailweir_upstream_rate_limit{upstream="default"} 13.5`,
		`mailweir_upstream_share{upstream="default"} 0.5`,
		`mailweir_upstream_waiting_seconds{upstream="default"} 12`,
		`mailweir_upstream_pipelining_level{upstream="default"} 4`,
		`mailweir_upstream_window{upstream="default"} 8`,
		`mailweir_upstream_pipelining_steps_down_total{upstream="default"} 3`,
		`mailweir_upstream_session_cap{upstream="default"} 350`,
		`mailweir_upstream_quota_used{upstream="default"} 40`,
		`mailweir_upstream_quota_limit{upstream="default"} 100`,
		`mailweir_upstream_addresses{upstream="default"} 2`,
		`mailweir_upstream_addresses_down{upstream="default"} 1`,
		`mailweir_upstream_last_move_timestamp_seconds{upstream="default"} 1.7776368e+09`,
		`mailweir_upstream_next_probe_timestamp_seconds{upstream="default"} 1.777636801e+09`,
		`mailweir_upstream_token_expiry_timestamp_seconds{upstream="default"} 1.77763686e+09`,
		`mailweir_upstream_state{state="calm",upstream="default"} 1`,
		`mailweir_upstream_state{state="open",upstream="default"} 0`,
		`mailweir_upstream_outcomes_total{class="busy",upstream="default"} 1`,
		`mailweir_upstream_outcomes_total{class="ok",upstream="default"} 7`,
		`mailweir_upstream_held{upstream="default"} 1`,
		`mailweir_upstream_width{upstream="bulk"} 7`,
		`mailweir_upstream_held{upstream="bulk"} 0`,
		`mailweir_upstream_address_up{address="a.example[192.0.2.1]:25",upstream="default"} 1`,
		`mailweir_upstream_address_connections{address="a.example[192.0.2.1]:25",upstream="default"} 3`,
		`mailweir_upstream_address_up{address="b.example[192.0.2.2]:25",upstream="default"} 0`,
		`mailweir_journal_bytes 100`,
		`mailweir_journal_max_bytes 1000`,
		`mailweir_journal_segments 2`,
		`mailweir_journal_syncs_total 9`,
		`mailweir_journal_sync_seconds_total 0.5`,
		`mailweir_journal_sync_failures_total 1`,
		`mailweir_journal_damaged_records_total 1`,
		`mailweir_smtpd_connections 2`,
		`mailweir_smtpd_connections_total 8`,
		`mailweir_smtpd_refused_total{reply="452 4.3.1"} 3`,
		`mailweir_smtpd_accept_seconds_bucket{le="0.001"} 1`,
		`mailweir_smtpd_accept_seconds_bucket{le="0.01"} 3`,
		`mailweir_smtpd_accept_seconds_bucket{le="30"} 3`,
		`mailweir_smtpd_accept_seconds_bucket{le="+Inf"} 7`,
		`mailweir_smtpd_accept_seconds_sum 130`,
		`mailweir_smtpd_accept_seconds_count 7`,
		`mailweir_duplicates_possible_total 5`,
		`mailweir_dkim_keys_unusable 1`,
		`mailweir_dkim_signed_total 4`,
		`mailweir_dkim_unsigned_total{reason="from"} 2`,
		`mailweir_dkim_unsigned_total{reason="domain"} 0`,
		`mailweir_ready 1`,
		`mailweir_draining 0`,
	} {
		if !lines[want] {
			t.Errorf("no line %q", want)
		}
	}
	for _, want := range []string{`mailweir_build_info\{go_version="go[^"]+",version="v1.2.3"\} 1`, `go_goroutines \d+`, `process_open_fds \d+`} {
		if !regexp.MustCompile(`(?m)^` + want + `$`).MatchString(text) {
			t.Errorf("nothing like %s", want)
		}
	}
}

func TestAnEmptyStatusIsShownToo(t *testing.T) {
	if n := testutil.CollectAndCount(&collector{status: func() Status { return Status{} }}); n < 30 {
		t.Errorf("only %d metrics", n)
	}
}

// The state table grows with the controller; a state that nobody listed must still be seen.
func TestAStateThatIsNotListedIsShown(t *testing.T) {
	status := func() Status { return Status{Upstreams: []UpstreamStatus{{Name: "x", State: "new"}}} }
	want := "# HELP mailweir_upstream_state 1 for the state that the flow control is in.\n" +
		"# TYPE mailweir_upstream_state gauge\nmailweir_upstream_state{state=\"new\",upstream=\"x\"} 1\n"
	if err := testutil.CollectAndCompare(&collector{status: status}, strings.NewReader(want), "mailweir_upstream_state"); err != nil {
		t.Error(err)
	}
}

func TestAgesAndTimes(t *testing.T) {
	var s Status
	if oldestAge(&s) != 0 || timestamp(time.Time{}) != 0 {
		t.Error("what never happened has no age")
	}
	s.Queue.OldestPending = time.Now().Add(-time.Minute)
	if age := oldestAge(&s); math.Abs(age-60) > 5 {
		t.Errorf("age %v, want 60", age)
	}
	s.Queue.OldestPending = time.Now().Add(time.Hour) // the clock was set back
	if age := oldestAge(&s); age != 0 {
		t.Errorf("age %v, want 0", age)
	}
}
