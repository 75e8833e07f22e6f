package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mailweir/mailweir/proxy/admin"
)

func TestARouteHasItsUpstreamsSettings(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, report := mustLoad(t, testHost(), `MAILWEIR_ROUTES=
- {from: [news.example.com, "*.news.example.com"], upstream: bulk, url: ["smtp://b1.example:587", "smtps://b2.example?priority=5"],
   username: app, password_file: `+secret+`, profile: ses, max_connections: 7, rate_per_second: 2.5, recipients_per_day: 100}
- {to: "*.Partner.example", upstream: partner, url: "smtp://partner.example", tls: require, slowness: gain}
- {to: lab.example, upstream: bulk}
- {from: lab.example, upstream: default}`, "MAILWEIR_HOSTNAME=weir.example", "MAILWEIR_UPSTREAM_MAX_CONNECTIONS=3", "MAILWEIR_UPSTREAM_RULES=[{code: 454, class: rate}]")
	ups := cfg.Upstreams()
	if len(ups) != 3 || ups[0].Name != admin.DefaultUpstream || ups[1].Name != "bulk" || ups[2].Name != "partner" {
		t.Fatalf("%d upstreams", len(ups))
	}
	bulk, partner := ups[1], ups[2]
	if hosts, err := bulk.Relay.Hosts(); err != nil || len(hosts) != 2 || hosts[1].Priority != 5 || !hosts[1].Implicit {
		t.Errorf("%+v, %v", hosts, err)
	}
	if f := bulk.Flow; f.MaxConns != 7 || f.PerSecond != 2.5 || f.RecipientsPerDay != 100 || bulk.Relay.MessagesMax != 350 || bulk.Relay.Username != "app" {
		t.Errorf("%+v, %d messages a connection", f, bulk.Relay.MessagesMax)
	}
	if partner.Flow.MaxConns != 20 || !partner.Flow.Gain || partner.Relay.TLS != "require" || partner.Relay.Username != "" || partner.Relay.Hostname != "weir.example" {
		t.Errorf("%+v, tls %s", partner.Flow, partner.Relay.TLS)
	}
	for _, c := range []struct {
		from, to string
		want     int
	}{
		{"news.example.com", "x.example", 1}, {"a.news.example.com", "lab.example", 1}, {"app.example", "a.partner.example", 2},
		{"lab.example", "lab.example", 1}, {"lab.example", "x.example", 0}, {"app.example", "partner.example", 0},
	} {
		if got := cfg.Table.Lane(c.from, c.to); got != c.want {
			t.Errorf("%+v goes to %d", c, got)
		}
	}
	if strings.Contains(report.Value("routes").Text, "s3cret") {
		t.Error("the password is shown")
	}
}

func TestEveryFaultOfARouteIsNamed(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for routes, want := range map[string]string{
		"[":    "is not YAML",
		"a: b": "is no YAML list of routes",
		"text": "is no YAML list of routes",
		"---\n---\n- {to: a.example, upstream: x, url: \"smtp://x\"}": "has several YAML documents",
		"[{to: a.example, upstream: x, url: \"smtp://x\"}]\n---\n[]":  "has several YAML documents",
		`[{from: , to: a.example, upstream: x, url: "smtp://x"}]`:     "route 1: from: is empty",
		"[text]":              "is no YAML list of routes",
		"[{from: a.example}]": "route 1: upstream: is missing",
		"[{from: a.example, from: b.example, upstream: x}]":                                                     "is no YAML list of routes",
		`[{from: a.example, upstream: "A b", url: "smtp://x"}]`:                                                 "route 1: upstream: a name has up to 32",
		`[{from: a.example, upstream: 7, url: "smtp://x"}]`:                                                     "route 1: upstream: a name has up to 32",
		`[{upstream: x, url: "smtp://x"}]`:                                                                      "route 1: has neither from nor to",
		`[{from: [], upstream: x, url: "smtp://x"}]`:                                                            "route 1: from: is neither a domain nor a list",
		`[{from: {a: b}, upstream: x, url: "smtp://x"}]`:                                                        "route 1: from: is neither a domain nor a list",
		`[{from: [1], upstream: x, url: "smtp://x"}]`:                                                           "route 1: from: 1 is no text in YAML",
		`[{to: me@a.example, upstream: x, url: "smtp://x"}]`:                                                    `route 1: to: "me@a.example" is an address`,
		`[{to: "a.*.example", upstream: x, url: "smtp://x"}]`:                                                   `route 1: to: "a.*.example" has a * elsewhere`,
		`[{to: "a b", upstream: x, url: "smtp://x"}]`:                                                           `route 1: to: "a b" is no domain`,
		`[{to: a.example, upstream: x}]`:                                                                        "route 1: url: is missing",
		`[{to: a.example, upstream: x, url: "smtp://u:p@x"}]`:                                                   "route 1: url: holds credentials",
		`[{to: a.example, upstream: x, url: "smtp://x?weight=0"}]`:                                              "route 1: url: wants one weight",
		`[{to: a.example, upstream: x, url: "smtp://127.0.0.1:2525"}]`:                                          "route 1: url: is our own front door",
		`[{to: a.example, upstream: x, url: "smtp://x", user: app}]`:                                            "route 1: user: is no setting of an upstream",
		`[{to: a.example, upstream: x, url: "smtp://x", max_connection: 3}]`:                                    "try max_connections",
		`[{to: a.example, upstream: x, url: "smtp://x", rules: []}]`:                                            "route 1: rules: is no setting of an upstream",
		`[{to: a.example, upstream: x, url: "smtp://x", password: hunter2}]`:                                    "put it into a file and name that in password_file",
		`[{to: a.example, upstream: x, url: "smtp://x", username: app}]`:                                        "route 1: username: is set, but neither password",
		`[{to: a.example, upstream: x, url: "smtp://x", username: app, password_file: /not/it}]`:                `route 1: password_file: "/not/it" cannot be read`,
		`[{to: a.example, upstream: x, url: "smtp://x", ca_file: ` + empty + `}]`:                               "is empty",
		`[{to: a.example, upstream: x, url: "smtp://x", max_connections: 0}]`:                                   "route 1: max_connections: \"0\" is less than 1",
		`[{to: a.example, upstream: x, url: "smtp://x", max_connections: many}]`:                                "is not a whole number",
		`[{to: a.example, upstream: x, url: "smtp://x", tls: on}]`:                                              "1 fault\n  routes: route 1: tls: \"on\" is not one of none",
		`[{to: a.example, upstream: x, url: "smtp://x", profile: exchnge}]`:                                     "try exchange",
		`[{to: a.example, upstream: x, url: "smtp://x", connection_max_age: 5}]`:                                "is a duration without a unit; try 5s",
		`[{to: a.example, upstream: x, url: "smtp://x", oauth_tenant: t}]`:                                      "route 1: ",
		`[{to: a.example, upstream: default, url: "smtp://x"}]`:                                                 "the settings of the default upstream are those outside of routes; here is url",
		`[{to: a.example, upstream: x, url: "smtp://x"}, {to: b.example, upstream: x, tls: require}]`:           "route 2: the settings of x stand in the first route",
		`[{to: a.example, upstream: x, url: "smtp://x", tls: none, username: a, password_file: ` + empty + `}]`: "tls: none, but there are credentials",
	} {
		_, report, err := load([]string{"MAILWEIR_UPSTREAM=smtp://relay.example.com:587", "MAILWEIR_ROUTES=" + routes}, testHost())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "from MAILWEIR_ROUTES") {
			t.Errorf("%s\n  %v\n  wants: %s", routes, err, want)
		}
		if err != nil && strings.Contains(err.Error()+report.Value("routes").Text, "hunter2") && !strings.Contains(report.Value("routes").Text, "hunter2") {
			t.Errorf("a password is in %v", err)
		}
	}
}

func TestAllFaultsOfRoutesAreNamedTogether(t *testing.T) {
	_, _, err := load([]string{"MAILWEIR_UPSTREAM=smtp://relay.example.com", `MAILWEIR_ROUTES=[{to: "a b", upstream: x}, {upstream: "!"}, {to: b.example, upstream: y, url: x}]`}, testHost())
	for _, want := range []string{"route 1: to", "route 1: url", "route 2: has neither", "route 2: upstream", "route 3: url"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\n  lacks %s", err, want)
		}
	}
}

func TestRoutesMayBeInAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "routes.yaml")
	if err := os.WriteFile(file, []byte("# ours\n- to: a.example\n  upstream: x\n  url: smtp://x.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _ := mustLoad(t, testHost(), "MAILWEIR_ROUTES_FILE="+file)
	if len(cfg.Others) != 1 || cfg.Table.Lane("", "a.example") != 1 {
		t.Errorf("%+v", cfg.Table)
	}
	_, _, err := load([]string{"MAILWEIR_UPSTREAM=smtp://relay.example.com", "MAILWEIR_ROUTES_FILE=/not/there"}, testHost())
	if err == nil || !strings.Contains(err.Error(), `routes_file "/not/there" cannot be read`) {
		t.Error(err)
	}
}

func TestAChangeOfAFileThatOnlyAStartReadsIsSeen(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const routes, rules, all = "- {to: a.example, upstream: x, url: smtp://x.example}", "- {code: 454, class: rate}", "log: {level: debug}"
	routesFile, rulesFile, file := write("routes", routes), write("rules", rules), write("all", all)
	cfg, _ := mustLoad(t, testHost(), "MAILWEIR_CONFIG="+file, "MAILWEIR_ROUTES_FILE="+routesFile, "MAILWEIR_UPSTREAM_RULES_FILE="+rulesFile)
	s := cfg.AtStart
	same := Look{}
	if now := s.Look(); now != same || !s.Any() || s.Check() != nil {
		t.Fatalf("%+v, %v", now, s.Check())
	}
	for _, c := range []struct{ name, text, changed, fault string }{
		{"routes", routes + "\n" + `- {to: b.example, upstream: x}`, "routes_file " + routesFile, ""},
		{"routes", "", "routes_file " + routesFile, ""},
		{"routes", routes + "\n" + `- {to: b.example, upstream: y}`, "routes_file " + routesFile, "route 2: url: is missing"},
		{"rules", "- {code: 454, class: nonsense}", "upstream.rules_file " + rulesFile, "class"},
		{"all", "log: {levl: debug}", "MAILWEIR_CONFIG " + file, "levl"},
	} {
		before := map[string]string{"routes": routes, "rules": rules, "all": all}[c.name]
		write(c.name, c.text)
		changed := s.Look()
		err := s.Check()
		if changed.Changed == "" || !strings.HasSuffix(changed.Changed, strings.Fields(c.changed)[1]) || changed != s.Look() ||
			(err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%+v, %v, want %+v", changed, err, c)
		}
		write(c.name, c.text+"\n")
		if s.Look() == changed {
			t.Errorf("%s: a further change is not seen", c.name)
		}
		write(c.name, before)
		if now := s.Look(); now != same {
			t.Errorf("%s: changed back: %+v", c.name, now)
		}
	}
	if err := os.Remove(routesFile); err != nil {
		t.Fatal(err)
	}
	if now := s.Look(); now.Changed != "routes_file "+routesFile || s.Check() == nil {
		t.Errorf("%+v, %v", now, s.Check())
	}
	if (AtStart{}).Any() || (AtStart{}).Check() != nil || (AtStart{}).Look() != same {
		t.Error("no files have changed")
	}
}
