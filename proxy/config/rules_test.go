package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/upstream"
)

func TestOwnRulesCanBeWrittenInThreePlaces(t *testing.T) {
	const list = "# for our relay\n- stage: [rcpt, dot]\n  text: 'RP:ORQ'\n  class: quota # resets at midnight\n"
	indented := "upstream:\n  rules:\n    " + strings.ReplaceAll(strings.TrimSpace(list), "\n", "\n    ")
	for name, environ := range map[string][]string{
		"environment": {"MAILWEIR_UPSTREAM_RULES=" + list},
		"file":        {"MAILWEIR_CONFIG=" + writeFile(t, indented)},
		"rules file":  {"MAILWEIR_UPSTREAM_RULES_FILE=" + writeFile(t, list)},
	} {
		cfg, report := mustLoad(t, testHost(), environ...)
		m := cfg.Upstream.Rules.Classify(flowctl.StageDot, upstream.Reply{Code: 550, Text: "RP:ORQ"})
		if len(cfg.Upstream.Rules) != 1 || m.Class != flowctl.Quota {
			t.Errorf("%s: %d rules, %+v", name, len(cfg.Upstream.Rules), m)
		}
		if v := report.Value("upstream.rules"); strings.Contains(v.Text, "\n") || strings.Contains(v.Text, "#") {
			t.Errorf("%s: shown as %q", name, v.Text)
		}
	}
}

func TestSigningKeysCanBeWrittenInThreePlaces(t *testing.T) {
	const list = "- domain: a.example # ours\n  selector: s\n  key_file: ../dkim/testdata/rsa.pem\n"
	indented := "dkim:\n  keys:\n    " + strings.ReplaceAll(strings.TrimSpace(list), "\n", "\n    ")
	for name, environ := range map[string][]string{
		"environment": {"MAILWEIR_DKIM_KEYS=" + list},
		"file":        {"MAILWEIR_CONFIG=" + writeFile(t, indented)},
		"keys file":   {"MAILWEIR_DKIM_KEYS_FILE=" + writeFile(t, list)},
	} {
		cfg, _ := mustLoad(t, testHost(), environ...)
		if len(cfg.DKIM) != 1 || cfg.DKIM[0].Selector != "s" || cfg.DKIM[0].File != "../dkim/testdata/rsa.pem" {
			t.Errorf("%s: %+v", name, cfg.DKIM)
		}
	}
}

func FuzzYAMLOnOneLineIsTheSameYAML(f *testing.F) {
	for _, s := range []string{"- {code: 454}", "- text: |\n    a\n    b\n", "# c\n- a # d\n", "a: &x [1, *x]", "- 'it''s'\n- \"\\t\"", "null", "[]", "- >-\n  x\n  y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		line, m := parseYAML(text)
		if m != nil {
			return
		}
		if strings.Contains(string(line), "\n") {
			t.Fatalf("%q became %q", text, line)
		}
		again, m := parseYAML(string(line))
		if m != nil || again != line {
			t.Fatalf("%q, then %q, %+v", line, again, m)
		}
		var before, after any
		if yaml.Unmarshal([]byte(text), &before) == nil && line != "" {
			if err := yaml.Unmarshal([]byte(line), &after); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			a, err := yaml.Marshal(before)
			b, err2 := yaml.Marshal(after)
			if err != nil || err2 != nil || string(a) != string(b) {
				t.Fatalf("%q became %q: %q, %q", text, line, a, b)
			}
		}
	})
}

// The YAML parser reads the first document and leaves out the others.
func TestASecondDocumentIsAFault(t *testing.T) {
	for env, first := range map[string]string{
		"MAILWEIR_CONFIG": "log: {level: debug}", "MAILWEIR_ROUTES_FILE": `- {to: a.example, upstream: x, url: "smtp://x"}`,
		"MAILWEIR_UPSTREAM_RULES_FILE": "- {code: 550, class: perm}",
	} {
		for _, text := range []string{first, "---\n" + first + "\n", first + "\n---\n# nothing\n", first + "\n---\n" + first, "---\n---\n" + first + "\n---\n" + first} {
			file := filepath.Join(t.TempDir(), "list.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := load([]string{"MAILWEIR_UPSTREAM=smtp://relay.example.com", env + "=" + file}, testHost())
			if several := strings.Count(text, first) > 1; (err != nil) != several || several && !strings.Contains(err.Error(), severalDocuments) {
				t.Errorf("%s %q: %v", env, text, err)
			}
		}
	}
}
