package config

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

var update = flag.Bool("update", false, "write testdata/bad/*/want anew")

// testHost has a name, no cgroup, and disks that keep what they are given.
func testHost() host {
	return host{
		name:   func() (string, error) { return "app-0", nil },
		root:   fstest.MapFS{},
		volume: func(string) (volumeFacts, error) { return volumeFacts{writable: true}, nil },
	}
}

const relay = "MAILWEIR_UPSTREAM=smtp://relay.example.com:587"

func mustLoad(t *testing.T, h host, environ ...string) (Config, *Report) {
	t.Helper()
	cfg, report, err := load(append([]string{relay}, environ...), h)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, report
}

func TestTheUpstreamIsAllThatMustBeSet(t *testing.T) {
	cfg, report := mustLoad(t, testHost(), "PATH=/bin", "HOME=/")
	want := Default()
	want.Upstream.URL = "smtp://relay.example.com:587"
	want.Hostname, want.SMTPD.Hostname, want.Upstream.Hostname = "app-0", "app-0", "app-0"
	want.Admin.Listen = "unix:/var/lib/mailweir/admin.sock"
	want.QueueMaxMessages, want.DeadMaxBytes = 1_000_000, 128<<20
	cfg.AtStart = AtStart{}
	if !reflect.DeepEqual(reflect.ValueOf(cfg).Interface(), reflect.ValueOf(want).Interface()) {
		for i, s := range settings {
			if got, want := format(s.at(&cfg)), format(s.at(&want)); got != want {
				t.Errorf("%s: got %q, want %q", settings[i].key, got, want)
			}
		}
		t.Fatal("the configuration differs")
	}
	if len(report.Warnings) > 0 {
		t.Errorf("warnings: %q", report.Warnings)
	}
}

func TestEverySettingCanBeSetInTheEnvironmentAndInTheFile(t *testing.T) {
	values := map[string]string{
		"hostname": "mail.test", "log.level": "debug", "log.addresses": "plain", "listen": "127.0.0.2:26",
		"max_message_bytes": "1MiB", "max_recipients": "200", "max_connections": "7", "max_hops": "9",
		"accept_any_auth": "true", "qualify_domain": "example.org", "bare_newline": "reject", "idle_timeout": "42s",
		"upstream.url": "smtp://other.example:26", "upstream.username": "u", "upstream.password": "0123",
		"upstream.tls": "require", "upstream.plaintext_auth": "true", "upstream.max_connections": "3",
		"upstream.messages_per_connection": "11", "upstream.connection_max_age": "10m", "rate_per_second": "2.5",
		"journal.dir": "/srv/j", "journal.allow_volatile": "true", "journal.max_bytes": "2GiB",
		"queue.max_messages": "77", "retry.min": "2s", "retry.max": "3m", "recipient_retry.min": "6m",
		"recipient_retry.max": "2h", "expire_after": "50h", "dead.keep": "24h", "dead.max_bytes": "5MiB",
		"drain_timeout": "9s", "accept_after_term": "3s", "probe.listen": "127.0.0.1:9",
		"admin.listen": "unix:/run/a.sock", "time_scale": "0.5", "upstream.profile": "ses",
		"upstream.recipients_per_transaction": "50", "upstream.rules": "[{class: rate, code: 454}]", "quota.recipients_per_day": "12",
		"upstream.auth": "plain", "upstream.server_name": "r.example", "upstream.oauth_algorithm": "RS256",
		"upstream.slowness":  "gain",
		"upstream.patience":  "1.5",
		"upstream.window":    "auto",
		"dkim.keys":          "[{key_file: ../dkim/testdata/ed25519.pem, selector: s}]",
		"routes":             "[{from: a.example, upstream: b, url: 'smtp://b.example'}]",
		"upstream.eight_bit": "reject", "upstream.discard_ehlo": "chunking,DSN",
	}
	elsewhere := []string{fileSetting, "upstream.rules_file", "dkim.keys_file", "routes_file", // need files, or exclude others
		"upstream.oauth_tenant", "upstream.oauth_token_url", "upstream.oauth_client_id", "upstream.oauth_client_secret",
		"upstream.oauth_refresh_token", "upstream.oauth_google_subject", "upstream.oauth_scope"}
	elsewhere = append(elsewhere, fileSettings()...)
	environ, yaml := []string{}, ""
	for _, s := range settings {
		value, ok := values[s.key]
		if ok == slices.Contains(elsewhere, s.key) {
			t.Fatalf("%s: the test sets no value", s.key)
		}
		if !ok {
			continue
		}
		environ = append(environ, s.env+"="+value)
		if _, isText := s.at(&Config{}).(*string); isText {
			value = fmt.Sprintf("%q", value)
		}
		yaml += s.key + ": " + value + "\n"
	}
	byEnv, report, err := load(environ, testHost())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range report.Values {
		if want, ok := values[v.Key]; ok && v.Key != "upstream.password" && (v.Text != want || v.Source != "environment") {
			t.Errorf("%s: got %q from %s, want %q from environment", v.Key, v.Text, v.Source, want)
		}
	}
	byFile, report, err := load([]string{"MAILWEIR_CONFIG=" + writeFile(t, yaml)}, testHost())
	if err != nil {
		t.Fatal(err)
	}
	byFile.File, byEnv.AtStart, byFile.AtStart = "", AtStart{}, AtStart{}
	if !reflect.DeepEqual(byEnv, byFile) {
		t.Error("the file gives another configuration than the environment")
	}
	if v := report.Value("retry.min"); v.Source != "file" {
		t.Errorf("retry.min: from %s, want file", v.Source)
	}
}

func TestTheEnvironmentWinsOverTheFileAndTheFileOverTheDefault(t *testing.T) {
	file := writeFile(t, "upstream:\n  username: anna\n  password: p\nretry:\n  min: 3s\n  max: 5m\nlisten:\n  - 127.0.0.1:2600\n  - '[::1]:2600'\nmax_hops:\n")
	cfg, report := mustLoad(t, testHost(), "MAILWEIR_CONFIG="+file, "MAILWEIR_RETRY_MIN=4s", "MAILWEIR_RETRY_MAX= ")
	for _, c := range []struct{ key, text, source string }{
		{"config", file, "environment"},
		{"retry.min", "4s", "environment"},
		{"retry.max", "5m", "file"}, // an empty value in the environment is none
		{"upstream.url", "smtp://relay.example.com:587", "environment"},
		{"upstream.username", "anna", "file"}, // not shadowed by the upstream of the environment
		{"upstream.password", "********", "file"},
		{"listen", "127.0.0.1:2600,[::1]:2600", "file"},
		{"max_hops", "25", "default"}, // as is a key without a value in the file
		{"hostname", "app-0", "derived from the host"},
		{"admin.listen", "unix:/var/lib/mailweir/admin.sock", "derived from journal.dir"},
		{"queue.max_messages", "1000000", "derived from no memory limit"},
	} {
		if v := report.Value(c.key); v.Text != c.text || v.Source != c.source {
			t.Errorf("%s: got %q from %s, want %q from %s", c.key, v.Text, v.Source, c.text, c.source)
		}
	}
	if cfg.Upstream.Password != "p" || cfg.Queue.RetryMin != 4*time.Second {
		t.Errorf("the values in force are not those reported")
	}
}

// Each directory of testdata/bad has an environment, perhaps a file, and everything that must be said of them.
func TestBrokenConfigurationsSayWhatToDo(t *testing.T) {
	dirs, err := filepath.Glob("testdata/bad/*")
	if err != nil || len(dirs) < 20 {
		t.Fatalf("only %d directories: %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			environ := strings.Split(strings.TrimSpace(readText(t, dir+"/env")), "\n")
			h := testHost()
			h.volume = func(d string) (volumeFacts, error) {
				return volumeFacts{
					volatile: map[string]string{"tmpfs": "tmpfs", "overlay": "overlayfs"}[filepath.Base(dir)],
					readOnly: filepath.Base(dir) == "readonly", writable: true,
				}, nil
			}
			_, report, err := load(environ, h)
			var faults Faults
			if !errors.As(err, &faults) {
				t.Fatalf("got %v, want Faults", err)
			}
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(dir+"/want", []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := readText(t, dir+"/want"); got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
			if s := fmt.Sprint(got, report.Values); strings.Contains(s, "hunter2") {
				t.Errorf("the secret is shown:\n%s", s)
			}
		})
	}
}

func TestServiceVariablesOfKubernetesAreNotOurs(t *testing.T) {
	mustLoad(t, testHost(),
		"MAILWEIR_PORT=tcp://10.0.0.1:2525",
		"MAILWEIR_SERVICE_HOST=10.0.0.1",
		"MAILWEIR_SERVICE_PORT=2525",
		"MAILWEIR_SERVICE_PORT_SMTP=2525",
		"MAILWEIR_PORT_2525_TCP=tcp://10.0.0.1:2525",
		"MAILWEIR_PORT_2525_TCP_PROTO=tcp",
		"MAILWEIR_PORT_2525_TCP_ADDR=10.0.0.1",
		"MAILWEIR_UPSTREAM_PORT=tcp://10.0.0.2:25",
		"MAILWEIR_UPSTREAM_SERVICE_HOST=10.0.0.2",
		"MAILWEIR_UPSTREAM_PORT_25_TCP_PORT=25",
	)
	for _, s := range settings {
		if serviceVariable.MatchString(s.env) {
			t.Errorf("%s could be injected by Kubernetes", s.env)
		}
	}
}

func TestNoSecretIsPrintedByAccident(t *testing.T) {
	cfg, report := mustLoad(t, testHost(), "MAILWEIR_UPSTREAM_USERNAME=u", "MAILWEIR_UPSTREAM_PASSWORD=hunter2")
	if cfg.Upstream.Password != "hunter2" {
		t.Fatal("the test sets no password")
	}
	core, logs := observer.New(zap.DebugLevel)
	zap.New(core).Info("x", zap.Any("cfg", cfg), zap.Any("pointer", &cfg))
	text, err := json.Marshal(map[string]any{"cfg": cfg, "logs": logs.All()[0].ContextMap()})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		fmt.Sprintf("%v %+v %#v %s %q %x", cfg, cfg, cfg, cfg, cfg, cfg), fmt.Sprintf("%+v", &cfg),
		fmt.Sprintf("%+v", struct{ C Config }{cfg}), string(text), fmt.Sprintf("%+v", report),
	} {
		if strings.Contains(s, "hunter2") || strings.Contains(s, "68756e74657232") {
			t.Errorf("shown: %s", s)
		}
	}
}

func TestARelayElsewhereMayHaveOurPort(t *testing.T) {
	mustLoad(t, testHost(), "MAILWEIR_UPSTREAM=smtp://relay.example.com:2525")
	mustLoad(t, testHost(), "MAILWEIR_UPSTREAM=smtp://localhost:25")
}

func TestPasswordsKeepTheirBlanks(t *testing.T) {
	cfg, report := mustLoad(t, testHost(), "MAILWEIR_UPSTREAM_USERNAME= u ", "MAILWEIR_UPSTREAM_PASSWORD= p ")
	if cfg.Upstream.Password != " p " || cfg.Upstream.Username != "u" {
		t.Error("blanks of a password matter, those of other values do not")
	}
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "blank") {
		t.Errorf("warnings: %q", report.Warnings)
	}
}

func TestWarnings(t *testing.T) {
	volatile := testHost()
	volatile.volume = func(string) (volumeFacts, error) { return volumeFacts{volatile: "tmpfs", writable: true}, nil }
	foreign := testHost()
	foreign.volume = func(string) (volumeFacts, error) { return volumeFacts{}, nil }
	nameless := testHost()
	nameless.name = func() (string, error) { return "", errors.New("no name") }
	odd := testHost()
	odd.name = func() (string, error) { return "my host", nil }
	for _, c := range []struct {
		host    host
		environ string
		want    string
	}{
		{volatile, "MAILWEIR_JOURNAL_ALLOW_VOLATILE=true", "the journal is on tmpfs"},
		{foreign, "", "this user may not write to /"},
		{nameless, "", "localhost.localdomain is used"},
		{odd, "", "localhost.localdomain is used"},
		{testHost(), "MAILWEIR_DRAIN_TIMEOUT=31s", "terminationGracePeriodSeconds"},
		{testHost(), "MAILWEIR_PROBE_LISTEN=off", "no metrics"},
		{testHost(), "MAILWEIR_TIME_SCALE=0.1", "for tests"},
		{testHost(), "MAILWEIR_EXPIRE_AFTER=30m", "single retry"},
		{testHost(), "MAILWEIR_DEAD_MAX_BYTES=600MiB", "more than half"},
		{testHost(), "MAILWEIR_UPSTREAM_PLAINTEXT_AUTH=true", "in clear"},
	} {
		_, report := mustLoad(t, c.host, c.environ)
		if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], c.want) {
			t.Errorf("%s: got %q, want %q", c.environ, report.Warnings, c.want)
		}
	}
}

func TestTheJournalIsExaminedWhereItWillBeMade(t *testing.T) {
	dir := t.TempDir()
	h := testHost()
	var asked string
	h.volume = func(d string) (volumeFacts, error) { asked = d; return volumeFacts{writable: true}, nil }
	mustLoad(t, h, "MAILWEIR_JOURNAL_DIR="+dir+"/not/yet")
	if asked != dir {
		t.Errorf("asked of %s, want %s", asked, dir)
	}
}

func TestTheQueueIsSizedByTheMemoryLimit(t *testing.T) {
	v2 := func(max string) fstest.MapFS {
		return fstest.MapFS{"proc/self/cgroup": file("0::/pod\n"), "sys/fs/cgroup/pod/memory.max": file(max + "\n")}
	}
	for _, c := range []struct {
		name    string
		root    fs.FS
		environ string
		want    int
		source  string
	}{
		{"none", fstest.MapFS{}, "", 1_000_000, "derived from no memory limit"},
		{"cgroup", v2("268435456"), "", 262144, "derived from the cgroup's memory limit"},
		{"small", v2("8388608"), "", 10_000, "derived from the cgroup's memory limit"},
		{"huge", v2("64000000000"), "", 1_000_000, "derived from the cgroup's memory limit"},
		{"GOMEMLIMIT", v2("268435456"), "GOMEMLIMIT=128MiB", 131072, "derived from GOMEMLIMIT"},
		{"off", v2("268435456"), "GOMEMLIMIT=off", 262144, "derived from the cgroup's memory limit"},
		{"set", v2("268435456"), "MAILWEIR_QUEUE_MAX_MESSAGES=5", 5, "environment"},
	} {
		h := testHost()
		h.root = c.root
		cfg, report := mustLoad(t, h, c.environ)
		if v := report.Value("queue.max_messages"); cfg.QueueMaxMessages != c.want || v.Source != c.source {
			t.Errorf("%s: got %d %s, want %d %s", c.name, cfg.QueueMaxMessages, v.Source, c.want, c.source)
		}
	}
}

func TestTheMemoryLimitIsTheLeastOfAllLevels(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"no /proc", nil, 0},
		{"v2, no limit", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 0},
		{"v2, parent is tighter", map[string]string{"proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "200\n", "sys/fs/cgroup/a/memory.max": "100\n"}, 100},
		{"v2, namespaced", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "300\n"}, 300},
		{"v2, outside the namespace", map[string]string{"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/memory.max": "300\n"}, 300},
		{"v1", map[string]string{"proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/1\n0::/\n",
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "400\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n"}, 400},
		{"v1, path of the host", map[string]string{"proc/self/cgroup": "4:memory:/docker/1\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "500\n"}, 500},
		{"v1, no limit", map[string]string{"proc/self/cgroup": "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		{"nonsense", map[string]string{"proc/self/cgroup": "hello\n0::/\n", "sys/fs/cgroup/memory.max": "-3\n"}, 0},
	} {
		root := fstest.MapFS{}
		for name, text := range c.files {
			root[name] = file(text)
		}
		if got := cgroupLimit(root); got != c.want {
			t.Errorf("%s: got %d, want %d", c.name, got, c.want)
		}
	}
}

func TestAFileIsReadOnlyUpToItsBound(t *testing.T) {
	comment := "#" + strings.Repeat("x", fileMax-2) + "\n"
	mustLoad(t, testHost(), "MAILWEIR_CONFIG="+writeFile(t, comment))
	_, _, err := load([]string{relay, "MAILWEIR_CONFIG=" + writeFile(t, comment+"#")}, testHost())
	if err == nil || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("got %v", err)
	}
}

// What a component finds is reported under our key where its word makes one, and by its own words where not.
func TestFaultsOfComponentsAreGivenTheirKeys(t *testing.T) {
	l := &loader{cfg: Default(), texts: map[string]string{}, sources: map[string]string{}, bad: map[string]bool{"upstream.tls": true}}
	l.component("upstream", []string{"upstream.", ""}, errors.Join(
		errors.New("upstream: password_file: is odd"), errors.New("upstream: tls: is odd"),
		errors.New("upstream: hostname: is odd"), errors.New("upstream: timeouts: one is negative"), errors.New("upstream")))
	l.component("flowctl", []string{"upstream.", ""}, errors.New("flowctl: validate max_connections: 0 is odd"))
	l.component("flowctl", nil, nil)
	want := []string{
		"upstream.password_file: is odd", "hostname: is odd", "upstream: timeouts: one is negative", "upstream", // tls follows from what is known
		"upstream.max_connections: 0 is odd",
	}
	var got []string
	for _, f := range l.faults {
		got = append(got, f.Problem)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestThisHostCanBeExamined(t *testing.T) {
	v, err := statVolume(t.TempDir())
	if err != nil || !v.writable || v.readOnly {
		t.Errorf("got %+v, %v", v, err)
	}
	if v, err := statVolume("/proc"); err == nil && v.volatile != "" {
		t.Errorf("/proc is %q", v.volatile)
	}
	if _, err := os.Stat("/dev/shm"); err == nil {
		if v, err := statVolume("/dev/shm"); err != nil || v.volatile != "tmpfs" {
			t.Errorf("/dev/shm: got %+v, %v", v, err)
		}
	}
	if _, err := statVolume(t.TempDir() + "/none"); err == nil {
		t.Error("a directory that is not there was examined")
	}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mailweir.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
