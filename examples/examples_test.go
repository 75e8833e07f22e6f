// Package examples holds manifests to start from. Its tests promise that they, and what the chart renders, are what
// Kubernetes and Compose know, that every setting in them exists, and that they keep the rules a sidecar lives by.
package examples

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mailweir/mailweir/proxy/config"
)

const journalDir = "/var/lib/mailweir"

// manifests are decoded strictly and held against the rules below.
var manifests = []string{
	"kubernetes/pod.yaml",
	"kubernetes/statefulset.yaml",
	"../charts/mailweir/testdata/emptydir.golden.yaml",
	"../charts/mailweir/testdata/pvc.golden.yaml",
}

func TestEverySettingThatIsNamedExists(t *testing.T) {
	known := knownSettings(t)
	name := regexp.MustCompile(`MAILWEIR_[A-Z0-9]+(?:_[A-Z0-9]+)*`)
	found := 0
	for _, root := range []string{".", "../charts"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, ".go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, n := range name.FindAllString(string(text), -1) {
				found++
				if !known[n] {
					t.Errorf("%s names %s, which does not exist", path, n)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 50 {
		t.Errorf("only %d names found: is the search still right?", found)
	}
}

// knownSettings asks package config. Its error is that there is no upstream, which is right for no environment at all.
func knownSettings(t *testing.T) map[string]bool {
	t.Helper()
	_, report, err := config.Load(nil)
	if err == nil || report == nil {
		t.Fatalf("an empty environment: %v, %v", report, err)
	}
	known := map[string]bool{}
	for _, v := range report.Values {
		known[v.Env] = true
	}
	return known
}

func TestASidecarKeepsTheRules(t *testing.T) {
	for _, path := range manifests {
		t.Run(strings.ReplaceAll(path, "../", ""), func(t *testing.T) {
			pod, claims := podOf(t, path)
			c := sidecarOf(t, pod)
			cfg := load(t, c.environ(t))

			// The kubelet kills when the grace period is over; what the application leaves of it must do for the drain.
			if stop := cfg.DrainTimeout + cfg.AcceptAfterTerm; time.Duration(pod.Grace)*time.Second <= stop || pod.Grace < 30 {
				t.Errorf("%d s of grace for %s of stopping", pod.Grace, stop)
			}
			if pod.Token == nil || *pod.Token {
				t.Error("the pod has a service account token")
			}
			if room := volumeBytes(t, pod, claims, c); room < cfg.Journal.MaxBytes*5/4 {
				t.Errorf("%d bytes of volume for %d of journal", room, cfg.Journal.MaxBytes)
			}
			c.checkProbes(t)
			c.checkConfined(t, pod)
		})
	}
}

func (c *container) checkProbes(t *testing.T) {
	t.Helper()
	for name, p := range map[string]struct {
		got  *probe
		path string
	}{"startup": {c.Startup, "/readyz"}, "liveness": {c.Liveness, "/healthz"}, "readiness": {c.Readiness, "/readyz"}} {
		if p.got == nil || p.got.HTTP.Path != p.path || p.got.HTTP.Port != "mailweir-probe" {
			t.Errorf("%s probe: %+v", name, p.got)
		}
	}
	if !slices.Contains(c.Ports, port{"mailweir-probe", 9025}) {
		t.Errorf("ports: %+v", c.Ports)
	}
	if s := c.Startup; s != nil && s.Period*s.Failures < 60 {
		t.Errorf("a journal has only %d s to be read back", s.Period*s.Failures)
	}
}

func (c *container) checkConfined(t *testing.T, pod podSpec) {
	t.Helper()
	s := c.Security
	if !s.NonRoot || s.User != 65532 || s.Group != 65532 || !s.ReadOnly || s.Escalation == nil || *s.Escalation ||
		!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || s.Seccomp.Type != "RuntimeDefault" {
		t.Errorf("security context: %+v", s)
	}
	if pod.Security.FSGroup != 65532 {
		t.Errorf("fsGroup %d: a volume would belong to root", pod.Security.FSGroup)
	}
	if c.Resources.Limits["memory"] == "" || c.Resources.Requests["memory"] == "" || c.Resources.Requests["cpu"] == "" {
		t.Errorf("resources: %+v", c.Resources)
	}
}

// podOf returns the pod of the manifest's one workload, and its claims.
func podOf(t *testing.T, path string) (podSpec, []claim) {
	t.Helper()
	var pod *podSpec
	var claims []claim
	for _, o := range decodeAll(t, path) {
		switch o.Kind {
		case "Pod":
			pod = &o.Spec.podSpec
		case "Deployment", "StatefulSet":
			pod, claims = &o.Spec.Template.Spec, o.Spec.Claims
			for k, v := range o.Spec.Selector.(map[string]any)["matchLabels"].(map[string]any) {
				if o.Spec.Template.Metadata.Labels[k] != v {
					t.Errorf("the selector wants %s: %v", k, v)
				}
			}
		}
	}
	if pod == nil {
		t.Fatalf("%s has no workload", path)
	}
	return *pod, claims
}

func decodeAll(t *testing.T, path string) []object {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []object
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	for {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, o)
	}
}

func sidecarOf(t *testing.T, pod podSpec) *container {
	t.Helper()
	for i := range pod.Init {
		if c := &pod.Init[i]; c.Name == "mailweir" {
			if c.RestartPolicy != "Always" {
				t.Error("without restartPolicy Always it is no sidecar, and the application never starts")
			}
			return c
		}
	}
	t.Fatal("no sidecar")
	return nil
}

func (c *container) environ(t *testing.T) []string {
	t.Helper()
	var environ []string
	for _, e := range c.Env {
		environ = append(environ, e.Name+"="+e.Value)
		if strings.HasSuffix(e.Name, "_FILE") && !slices.ContainsFunc(c.Mounts, func(m mount) bool { return strings.HasPrefix(e.Value, m.Path+"/") }) {
			t.Errorf("nothing is mounted at %s", e.Value)
		}
	}
	return environ
}

// load has package config judge an example's environment. What exists on the target only is put in place.
func load(t *testing.T, environ []string) config.Config {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, e := range environ {
		if strings.HasPrefix(e, "MAILWEIR_UPSTREAM_PASSWORD_FILE=") {
			environ[i] = "MAILWEIR_UPSTREAM_PASSWORD_FILE=" + secret
		}
	}
	cfg, _, err := config.Load(append(environ, "MAILWEIR_JOURNAL_ALLOW_VOLATILE=true"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Journal.Dir != journalDir {
		t.Errorf("the journal is in %s, the volume is not", cfg.Journal.Dir)
	}
	return cfg
}

// volumeBytes is the size of the volume below the journal, be it an emptyDir or a claim.
func volumeBytes(t *testing.T, pod podSpec, claims []claim, c *container) int64 {
	t.Helper()
	i := slices.IndexFunc(c.Mounts, func(m mount) bool { return m.Path == journalDir })
	if i < 0 {
		t.Fatal("no volume for the journal: the root file system is read-only")
	}
	name := c.Mounts[i].Name
	for _, v := range pod.Volumes {
		if v.Name == name && v.EmptyDir != nil {
			return mebibytes(t, v.EmptyDir.SizeLimit)
		}
	}
	for _, v := range claims {
		if v.Metadata.Name == name {
			return mebibytes(t, v.Spec.Resources.Requests["storage"])
		}
	}
	t.Fatalf("no volume %s", name)
	return 0
}
