package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

func TestEnvironmentAndFileUseTheSameNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range settings {
		want := envPrefix + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
		if s.key == "upstream.url" {
			want = "MAILWEIR_UPSTREAM"
		}
		if s.env != want {
			t.Errorf("%s: got %s, want %s", s.key, s.env, want)
		}
		if seen[s.env] || seen[s.key] {
			t.Errorf("%s stands twice", s.key)
		}
		seen[s.env], seen[s.key] = true, true
	}
}

// viper loses the value of a key that is also the prefix of another one.
func TestNoKeyIsLeafAndPrefix(t *testing.T) {
	for _, a := range settings {
		for _, b := range settings {
			if strings.HasPrefix(b.key, a.key+".") {
				t.Errorf("%s is a leaf and a prefix of %s", a.key, b.key)
			}
		}
	}
}

func TestDefaultsAndBoundsAreWrittenAsTheyAreShown(t *testing.T) {
	def := Default()
	for _, s := range settings {
		if got := format(s.at(&def)); s.value != "" && got != s.value {
			t.Errorf("%s: default %q is shown as %q", s.key, s.value, got)
		}
		if m := s.inBounds(&def); m != nil && s.value != "" {
			t.Errorf("%s: default %s", s.key, m.problem)
		}
	}
}

func TestEverySettingLandsInItsOwnPlace(t *testing.T) {
	var c Config
	seen := map[uintptr]string{}
	for _, s := range settings {
		p := reflect.ValueOf(s.at(&c)).Pointer()
		if other := seen[p]; other != "" {
			t.Errorf("%s and %s land in the same place", s.key, other)
		}
		seen[p] = s.key
	}
}

func TestTheExampleFileHoldsEveryKeyAndLoads(t *testing.T) {
	example := ExampleYAML()
	for _, s := range settings {
		if s.key != fileSetting && !strings.Contains(example, s.key[strings.LastIndexByte(s.key, '.')+1:]+":") {
			t.Errorf("%s is missing", s.key)
		}
	}
	var all strings.Builder // uncommented, but for the sentences
	for line := range strings.Lines(example) {
		if text, ok := strings.CutPrefix(strings.TrimLeft(line, " "), "# "); ok {
			if key, _, isKey := strings.Cut(text, ":"); !isKey || strings.Contains(key, " ") {
				continue
			}
			line = strings.Replace(line, "# ", "", 1)
		}
		all.WriteString(line)
	}
	var parsed map[string]any
	if err := yaml.Unmarshal([]byte(all.String()), &parsed); err != nil {
		t.Fatalf("%v\n%s", err, all.String())
	}
	want, _ := mustLoad(t, testHost())
	want.AtStart = AtStart{}
	for name, text := range map[string]string{"as it is": example, "uncommented": all.String()} {
		cfg, _ := mustLoad(t, testHost(), "MAILWEIR_CONFIG="+writeFile(t, text))
		cfg.File, cfg.AtStart = "", want.AtStart
		if !reflect.DeepEqual(cfg, want) {
			t.Errorf("%s: the example changes a default", name)
		}
	}
}

func TestMarkdownHasARowForEachSetting(t *testing.T) {
	rows := strings.Split(strings.TrimSpace(Markdown()), "\n")
	if len(rows) != len(settings)+2 {
		t.Errorf("got %d rows for %d settings", len(rows), len(settings))
	}
	for _, row := range rows {
		if strings.Count(row, "|") != 5 {
			t.Errorf("not four cells: %s", row)
		}
	}
	for _, want := range []string{
		"| `MAILWEIR_UPSTREAM` | `upstream.url` | required |",
		"| `MAILWEIR_RETRY_MIN` | `retry.min` | `1s` |",
		"| `MAILWEIR_CONFIG` |  | no file |",
		"One of `none`, `opportunistic`, `require`.",
	} {
		if !strings.Contains(Markdown(), want) {
			t.Errorf("no %q in\n%s", want, Markdown())
		}
	}
}

func TestTableShowsWhatIsInForce(t *testing.T) {
	_, report := mustLoad(t, testHost(), "MAILWEIR_UPSTREAM_USERNAME=u", "MAILWEIR_UPSTREAM_PASSWORD=hunter2")
	var b strings.Builder
	if err := report.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	fields := map[string][]string{}
	for line := range strings.Lines(b.String()) {
		f := strings.Fields(line)
		fields[f[0]] = f[1:]
	}
	if f := fields["upstream.password"]; len(f) != 3 || f[0] != mask || f[1] != "environment" {
		t.Errorf("password: %q", f)
	}
	if f := fields["upstream.ca_file"]; len(f) != 3 || f[0] != "-" || f[1] != "default" {
		t.Errorf("CA file: %q", f)
	}
}

func TestDurations(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration
		try  string
	}{
		{"30s", 30 * time.Second, ""}, {"1h30m", 90 * time.Minute, ""}, {"0s", 0, ""}, {"500ms", 500 * time.Millisecond, ""},
		{"30", -1, "30s"}, {"0", -1, "0s"}, {"7d", -1, "168h"}, {"-5s", -1, ""}, {"5 m", -1, ""}, {"x", -1, ""}, {"1e9h", -1, ""},
	} {
		d, m := parseDuration(c.text)
		switch {
		case c.want >= 0 && (m != nil || d != c.want):
			t.Errorf("%s: got %v, %+v, want %v", c.text, d, m, c.want)
		case c.want < 0 && (m == nil || m.try != c.try):
			t.Errorf("%s: got %v, %+v, want a fault with %q", c.text, d, m, c.try)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64
		try  string
	}{
		{"50MiB", 50 << 20, ""}, {"50MB", 50e6, ""}, {"1GiB", 1 << 30, ""}, {"1048576", 1 << 20, ""}, {"7 kib", 7 << 10, ""},
		{"3TB", 3e12, ""}, {"0", 0, ""}, {"12B", 12, ""},
		{"50M", -1, "50MiB"}, {"50Mi", -1, "50MiB"}, {"2g", -1, "2GiB"}, {"1.5GiB", -1, ""}, {"MiB", -1, ""}, {"-1", -1, ""},
		{"9999999TiB", -1, ""}, {"5é", -1, ""}, {"", -1, ""}, {"99999999999999999999", -1, ""},
	} {
		n, m := parseBytes(c.text)
		switch {
		case c.want >= 0 && (m != nil || n != c.want):
			t.Errorf("%q: got %v, %+v, want %v", c.text, n, m, c.want)
		case c.want < 0 && (m == nil || m.try != c.try):
			t.Errorf("%q: got %v, %+v, want a fault with %q", c.text, n, m, c.try)
		}
	}
}

func FuzzWhatIsShownIsReadBackTheSame(f *testing.F) {
	f.Add(int64(50<<20), int64(90*time.Minute))
	f.Add(int64(0), int64(0))
	f.Add(int64(1<<62), int64(1))
	f.Fuzz(func(t *testing.T, size, nanoseconds int64) {
		size, nanoseconds = max(size, 0), max(nanoseconds, 0)
		if n, m := parseBytes(formatBytes(size)); m != nil || n != size {
			t.Errorf("%d: %q is read as %d, %+v", size, formatBytes(size), n, m)
		}
		d := time.Duration(nanoseconds)
		if got, m := parseDuration(formatDuration(d)); m != nil || got != d {
			t.Errorf("%v: %q is read as %v, %+v", d, formatDuration(d), got, m)
		}
	})
}

func TestNearest(t *testing.T) {
	names := []string{"MAILWEIR_UPSTREAM", "MAILWEIR_UPSTREAM_TLS", "MAILWEIR_LISTEN"}
	for word, want := range map[string]string{
		"MAILWEIR_UPSTREAM_URL":                "MAILWEIR_UPSTREAM_TLS",
		"MAILWEIR_UPSTRAEM":                    "MAILWEIR_UPSTREAM",
		"mailweir_listen":                      "MAILWEIR_LISTEN",
		"MAILWEIR_" + strings.Repeat("X", 200): "",
		"quite another thing":                  "",
	} {
		if got := nearest(word, names); got != want {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
}
