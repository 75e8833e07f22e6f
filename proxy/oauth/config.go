// Package oauth gets access tokens for a login (RFC 6749) and keeps them until they are about to expire.
//
// It promises one request at a time, each with a deadline; a new token before the old one ends; and that no error it returns holds
// a secret. It knows no SMTP, starts no goroutine and writes no log.
package oauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// Config says where tokens come from. The zero value is: no OAuth. There are four ways to get one: an application that shows its
// secret, its certificate or a federated token (client credentials); the same, or one without any of these, with a user's refresh
// token; a service account of Google.
type Config struct {
	Tenant           string // of Microsoft Entra, by ID or domain; names its token endpoint
	TokenURL         string // any other token endpoint; https, or http on loopback
	ClientID         string // of the application
	ClientSecret     string //
	ClientSecretFile string // read at each request; excludes ClientSecret
	Scope            string // "": MicrosoftScope at Microsoft, GoogleScope with GoogleFile, none elsewhere
	CertFile         string // PEM certificate whose key signs an assertion in place of a secret (RFC 7523); read at each request
	KeyFile          string // PEM RSA key of CertFile
	Algorithm        string // PS256 (also "") or RS256, of that signature
	AssertionFile    string // a token of another issuer in place of a secret, as Kubernetes projects one; read at each request
	RefreshToken     string // of a user
	RefreshTokenFile string // read at each request; excludes RefreshToken
	GoogleFile       string // JSON key of a service account; excludes all above but Scope
	GoogleSubject    string // the user that the service account acts for

	Transport http.RoundTripper // nil: the network
}

// What mail needs when nobody asks for another scope.
const (
	MicrosoftScope = "https://outlook.office365.com/.default"
	GoogleScope    = "https://mail.google.com/"
)

// The values of Config.Algorithm.
const (
	PS256 = "PS256" // and x5t#S256, as Microsoft recommends
	RS256 = "RS256" // and x5t, for issuers that know no other
)

const microsoftHost = "login.microsoftonline.com"

// Enabled reports whether tokens are wanted at all.
func (c Config) Enabled() bool {
	return c.GoogleFile != "" || c.GoogleSubject != "" || slices.ContainsFunc(c.application(), func(o option) bool { return o.value != "" })
}

// option is a setting by its short name.
type option struct{ name, value string }

// application is everything that has no place beside a service account.
func (c Config) application() []option {
	return append([]option{{"tenant", c.Tenant}, {"token_url", c.TokenURL}, {"client_id", c.ClientID},
		{"refresh_token", c.RefreshToken}, {"refresh_token_file", c.RefreshTokenFile}}, c.proofs()...)
}

// proofs are how an application can show that it is itself.
func (c Config) proofs() []option {
	return []option{{"client_secret", c.ClientSecret}, {"client_secret_file", c.ClientSecretFile},
		{"cert_file", c.CertFile}, {"key_file", c.KeyFile}, {"assertion_file", c.AssertionFile}}
}

// Files are those that may change while we run.
func (c Config) Files() []string {
	files := []string{c.ClientSecretFile, c.CertFile, c.KeyFile, c.AssertionFile, c.RefreshTokenFile, c.GoogleFile}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// endpoint is the token endpoint's URL; "" for a service account, whose file names it.
func (c Config) endpoint() string {
	if c.Tenant != "" {
		return "https://" + microsoftHost + "/" + c.Tenant + "/oauth2/v2.0/token"
	}
	return c.TokenURL
}

func (c Config) scope() string {
	u, err := url.Parse(c.endpoint())
	switch {
	case c.Scope != "":
		return c.Scope
	case c.GoogleFile != "":
		return GoogleScope
	case err == nil && strings.EqualFold(u.Hostname(), microsoftHost):
		return MicrosoftScope
	}
	return ""
}

var tenantForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.-]*$`)

// Validate joins all faults. It reads nothing but c.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("oauth: "+format, args...))
	}
	if c.Algorithm != "" && c.Algorithm != PS256 && c.Algorithm != RS256 {
		fault("algorithm: %q is neither %s nor %s", c.Algorithm, PS256, RS256)
	}
	switch {
	case !c.Enabled():
		if c.Scope != "" {
			fault("scope: is set, but nothing else of OAuth")
		}
	case c.GoogleFile != "":
		for _, o := range c.application() {
			if o.value != "" {
				fault("%s: is set, and google_file too", o.name)
			}
		}
	default:
		if c.GoogleSubject != "" {
			fault("google_subject: is set, but not google_file")
		}
		c.validateApplication(fault)
		c.validateEndpoint(fault)
	}
	return errors.Join(faults...)
}

func (c Config) validateApplication(fault func(string, ...any)) {
	if c.ClientID == "" {
		fault("client_id: is missing")
	}
	if c.RefreshToken != "" && c.RefreshTokenFile != "" {
		fault("refresh_token: is set, and refresh_token_file too")
	}
	if c.CertFile == "" && c.KeyFile != "" {
		fault("key_file: is set, but not cert_file")
	}
	if c.CertFile != "" && c.KeyFile == "" {
		fault("cert_file: is set, but not key_file")
	}
	var shown []string
	for _, o := range c.proofs() {
		if o.value != "" && o.name != "key_file" {
			shown = append(shown, o.name)
		}
	}
	switch user := c.RefreshToken != "" || c.RefreshTokenFile != ""; {
	case len(shown) > 1:
		for _, name := range shown[1:] {
			fault("%s: is set, and %s too", name, shown[0])
		}
	case len(shown) == 0 && c.KeyFile == "" && !user:
		fault("client_secret: is missing, and so are client_secret_file, cert_file, assertion_file and refresh_token")
	}
}

// manyTenants are Microsoft's names for no tenant in particular; an application by itself belongs to one.
var manyTenants = []string{"common", "organizations", "consumers"}

func (c Config) validateEndpoint(fault func(string, ...any)) {
	switch {
	case c.Tenant == "" && c.TokenURL == "":
		fault("tenant: is missing; without Microsoft it is token_url that says where tokens come from")
	case c.Tenant == "":
	case !tenantForm.MatchString(c.Tenant):
		fault("tenant: is neither an ID nor a domain")
	case slices.Contains(manyTenants, strings.ToLower(c.Tenant)) && c.RefreshToken == "" && c.RefreshTokenFile == "":
		fault("tenant: %s is for users; an application names its own tenant", c.Tenant)
	}
	if c.TokenURL == "" {
		return
	}
	if c.Tenant != "" {
		fault("token_url: is set, and tenant too")
	}
	if err := checkEndpoint(c.TokenURL); err != nil {
		fault("token_url: %v", err)
	}
}

// checkEndpoint wants a URL to which secrets may be sent. Its error does not repeat the URL, since people put passwords into URLs.
func checkEndpoint(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return errors.New("is no URL; write https://host/path")
	case u.User != nil:
		return errors.New("holds credentials; use client_id and client_secret")
	case u.Fragment != "":
		return errors.New("has a fragment")
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return nil
	}
	return errors.New("is not https, so the secret would be sent in clear")
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
