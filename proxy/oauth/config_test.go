package oauth

import (
	"strings"
	"testing"
)

func TestContradictionsAreNamed(t *testing.T) {
	app := Config{Tenant: "t.example", ClientID: "id", ClientSecret: canary}
	but := func(set func(*Config)) Config { c := app; set(&c); return c }
	for _, tc := range []struct {
		cfg  Config
		want string // "": none
	}{
		{Config{}, ""},
		{app, ""},
		{but(func(c *Config) { c.Algorithm = "RS256" }), ""},
		{but(func(c *Config) { c.ClientSecret, c.ClientSecretFile = "", "f" }), ""},
		{but(func(c *Config) { c.ClientSecret, c.CertFile, c.KeyFile = "", "f", "g" }), ""},
		{but(func(c *Config) { c.ClientSecret, c.AssertionFile = "", "f" }), ""},
		{but(func(c *Config) { c.ClientSecret, c.RefreshToken, c.Tenant = "", canary, "common" }), ""},
		{but(func(c *Config) { c.RefreshTokenFile = "f" }), ""},
		{but(func(c *Config) { c.Tenant, c.TokenURL = "", "https://x.example/token?a=b" }), ""},
		{but(func(c *Config) { c.Tenant, c.TokenURL = "", "http://127.0.0.1:8080/token" }), ""},
		{but(func(c *Config) { c.Tenant, c.TokenURL = "", "http://localhost/token" }), ""},
		{Config{GoogleFile: "f", GoogleSubject: "u@x.example", Scope: "s"}, ""},

		{Config{Scope: "s"}, "scope: is set, but nothing else"},
		{Config{GoogleSubject: "u"}, "google_subject: is set, but not google_file"},
		{but(func(c *Config) { c.GoogleFile = "f" }), "tenant: is set, and google_file too"},
		{but(func(c *Config) { c.Algorithm = "none" }), `algorithm: "none" is neither`},
		{but(func(c *Config) { c.ClientID = "" }), "client_id: is missing"},
		{but(func(c *Config) { c.ClientSecret = "" }), "client_secret: is missing"},
		{but(func(c *Config) { c.ClientSecretFile = "f" }), "client_secret_file: is set, and client_secret too"},
		{but(func(c *Config) { c.CertFile, c.KeyFile = "f", "g" }), "cert_file: is set, and client_secret too"},
		{but(func(c *Config) { c.AssertionFile = "f" }), "assertion_file: is set, and client_secret too"},
		{but(func(c *Config) { c.ClientSecret, c.CertFile = "", "f" }), "cert_file: is set, but not key_file"},
		{but(func(c *Config) { c.ClientSecret, c.KeyFile = "", "f" }), "key_file: is set, but not cert_file"},
		{but(func(c *Config) { c.RefreshToken, c.RefreshTokenFile = canary, "f" }), "refresh_token: is set, and refresh_token_file too"},
		{but(func(c *Config) { c.Tenant = "" }), "tenant: is missing"},
		{but(func(c *Config) { c.TokenURL = "https://x.example" }), "token_url: is set, and tenant too"},
		{but(func(c *Config) { c.Tenant = "a/b" }), "tenant: is neither"},
		{but(func(c *Config) { c.Tenant = "common" }), "tenant: common is for users"},
		{but(func(c *Config) { c.Tenant, c.TokenURL = "", "http://x.example" }), "token_url: is not https"},
		{but(func(c *Config) { c.Tenant, c.TokenURL = "", "x.example" }), "token_url: is no URL"},
		{but(func(c *Config) { c.Tenant, c.TokenURL = "", "https://u:p@x.example" }), "token_url: holds credentials"},
		{but(func(c *Config) { c.Tenant, c.TokenURL = "", "https://x.example#f" }), "token_url: has a fragment"},
	} {
		err := tc.cfg.Validate()
		switch {
		case tc.want == "" && err != nil, tc.want != "" && (err == nil || !strings.Contains(err.Error(), "oauth: "+tc.want)):
			t.Errorf("%q: %v", tc.want, err)
		case err != nil && strings.Contains(err.Error(), canary):
			t.Errorf("a secret is in %q", err)
		}
		if got := tc.cfg.Enabled(); got != (tc.cfg != Config{} && tc.cfg != Config{Scope: "s"}) {
			t.Errorf("%+v: enabled %v", tc.cfg, got)
		}
	}
	all := Config{TokenURL: "x", Algorithm: "y", RefreshToken: "a", RefreshTokenFile: "b", GoogleSubject: "c"}.Validate()
	for _, part := range []string{"token_url", "algorithm", "client_id", "refresh_token", "google_subject"} {
		if !strings.Contains(all.Error(), part) {
			t.Errorf("%q lacks %s", all, part)
		}
	}
}

func TestMicrosoftAndGoogleHaveTheirScope(t *testing.T) {
	for want, c := range map[string]Config{
		MicrosoftScope: {Tenant: "t"},
		GoogleScope:    {GoogleFile: "f"},
		"mine":         {Tenant: "t", Scope: "mine"},
		"":             {TokenURL: "https://x.example/t"},
	} {
		if got := c.scope(); got != want {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
	if got := (Config{TokenURL: "https://login.microsoftonline.com/t/oauth2/v2.0/token"}).scope(); got != MicrosoftScope {
		t.Error(got)
	}
}
