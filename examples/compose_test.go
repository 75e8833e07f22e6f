package examples

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
)

// composition is the part of the Compose file format that the example uses; a field that is not here is refused.
type composition struct {
	Services map[string]service
	Volumes  map[string]any
	Secrets  map[string]struct{ File string }
}

type service struct {
	Image     string
	Restart   string
	Network   string `yaml:"network_mode"`
	DependsOn map[string]struct {
		Condition string
		Restart   bool
	} `yaml:"depends_on"`
	Environment map[string]string
	Secrets     []string
	Volumes     []string
	StopGrace   string `yaml:"stop_grace_period"`
	User        string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	MemLimit    string   `yaml:"mem_limit"`
}

// interpolation is ${NAME:?what to set}; the message of ours is an example of the value.
var interpolation = regexp.MustCompile(`\$\{[A-Z_]+:\?([^}]*)\}`)

func TestTheCompositionKeepsTheRules(t *testing.T) {
	text, err := os.ReadFile("compose/docker-compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c composition
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	m := c.Services["mailweir"]
	if m.Network != "service:app" || !m.DependsOn["app"].Restart {
		t.Errorf("network %q, depends on %+v: localhost would not be mailweir", m.Network, m.DependsOn)
	}
	if !slices.Equal(m.Volumes, []string{"journal:" + journalDir}) {
		t.Errorf("volumes: %v", m.Volumes)
	}
	if _, named := c.Volumes["journal"]; !named {
		t.Error("the journal's volume is not a named one")
	}
	if m.User != "65532:65532" || !m.ReadOnly || !slices.Equal(m.CapDrop, []string{"ALL"}) ||
		!slices.Equal(m.SecurityOpt, []string{"no-new-privileges:true"}) {
		t.Errorf("not confined: %+v", m)
	}

	var environ []string
	for name, value := range m.Environment {
		environ = append(environ, name+"="+interpolation.ReplaceAllString(value, "$1"))
	}
	cfg := load(t, environ)
	grace, err := time.ParseDuration(m.StopGrace)
	if err != nil || grace <= cfg.DrainTimeout+cfg.AcceptAfterTerm {
		t.Errorf("%s of grace for %s of stopping (%v)", m.StopGrace, cfg.DrainTimeout+cfg.AcceptAfterTerm, err)
	}
	secret, ok := strings.CutPrefix(m.Environment["MAILWEIR_UPSTREAM_PASSWORD_FILE"], "/run/secrets/")
	if _, defined := c.Secrets[secret]; !ok || !defined || !slices.Contains(m.Secrets, secret) {
		t.Errorf("the password's file is no secret: %+v", c.Secrets)
	}
}
