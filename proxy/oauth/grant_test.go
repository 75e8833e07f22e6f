package oauth

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// jwtOf checks the signature of a token and returns its header and claims.
func jwtOf(t *testing.T, text string, public *rsa.PublicKey) (header, claims map[string]any) {
	t.Helper()
	part := strings.Split(text, ".")
	if len(part) != 3 {
		t.Fatalf("no JWT: %q", text)
	}
	raw := make([][]byte, 3)
	for i, p := range part {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(json.Unmarshal(raw[0], &header), json.Unmarshal(raw[1], &claims)); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(part[0] + "." + part[1]))
	err := rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], raw[2])
	if header["alg"] == PS256 {
		err = rsa.VerifyPSS(public, crypto.SHA256, sum[:], raw[2], &rsa.PSSOptions{SaltLength: 32})
	}
	if err != nil {
		t.Error(err)
	}
	return header, claims
}

func one(t *testing.T, c Config, i *issuer) url.Values {
	t.Helper()
	c.Transport = i
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if token, err := New(c).Token(t.Context(), ""); err != nil || token == "" {
		t.Fatalf("%q, %v", token, err)
	}
	return i.asked[len(i.asked)-1]
}

func wants(t *testing.T, form url.Values, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if form.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, form.Get(name), value)
		}
	}
	for name := range form {
		if _, ok := want[name]; !ok {
			t.Errorf("%s is sent too", name)
		}
	}
}

func TestASecretIsSentToMicrosoft(t *testing.T) {
	i := &issuer{}
	wants(t, one(t, microsoft(nil), i), map[string]string{"grant_type": "client_credentials", "client_id": "app-id", "client_secret": canary, "scope": MicrosoftScope})
	if i.urls[0] != "https://login.microsoftonline.com/example.onmicrosoft.com/oauth2/v2.0/token" || len(i.urls) != 1 {
		t.Errorf("asked %q", i.urls)
	}
}

func TestAnIssuerMayWantTheSecretInTheBody(t *testing.T) {
	i := &issuer{}
	i.answer = func(w http.ResponseWriter, form url.Values) {
		if form.Get("client_secret") != canary {
			refusal(401, "invalid_client", "")(w, form)
			return
		}
		w.Write([]byte(`{"access_token":"t","expires_in":100}`))
	}
	c := Config{TokenURL: "https://x.example/token", ClientID: "app-id", ClientSecretFile: write(t, "secret", canary+"\r\n"), Transport: i}
	s := New(c)
	if _, err := s.Token(t.Context(), ""); err != nil || i.basic[0] != "app-id" || i.requests() != 2 {
		t.Fatalf("%v, %q", err, i.basic)
	}
	if _, err := s.Token(t.Context(), "t"); err != nil || i.requests() != 3 {
		t.Errorf("it does not remember: %v, %d requests", err, i.requests())
	}
}

func TestACertificateSignsAnAssertion(t *testing.T) {
	for _, algorithm := range []string{"", PS256, RS256} {
		key, cert, certFile, keyFile := rsaPair(t, algorithm == RS256)
		c := Config{Tenant: "t", ClientID: "app-id", CertFile: certFile, KeyFile: keyFile, Algorithm: algorithm}
		i := &issuer{}
		form := one(t, c, i)
		assertion := form.Get("client_assertion")
		wants(t, form, map[string]string{"grant_type": "client_credentials", "client_id": "app-id", "scope": MicrosoftScope,
			"client_assertion_type": jwtAssertion, "client_assertion": assertion})
		header, claims := jwtOf(t, assertion, &key.PublicKey)
		thumb1, thumb256 := sha1.Sum(cert.Raw), sha256.Sum256(cert.Raw)
		if algorithm == RS256 && (header["alg"] != "RS256" || header["x5t"] != encode(thumb1[:])) ||
			algorithm != RS256 && (header["alg"] != "PS256" || header["x5t#S256"] != encode(thumb256[:])) {
			t.Errorf("header %v", header)
		}
		life := claims["exp"].(float64) - float64(time.Now().Unix())
		if claims["aud"] != i.urls[0] || claims["iss"] != "app-id" || claims["sub"] != "app-id" || claims["jti"] == "" || life < 60 || life > 600 {
			t.Errorf("claims %v", claims)
		}
	}
}

func TestAFederatedTokenIsReadAtEachRequest(t *testing.T) {
	file := write(t, "token", "first")
	i := &issuer{}
	s := New(Config{Tenant: "t", ClientID: "app-id", AssertionFile: file, Transport: i})
	for n, want := range []string{"first", "second"} {
		write(t, file, want+"\n")
		if _, err := s.Token(t.Context(), []string{"", "token1"}[n]); err != nil || i.asked[n].Get("client_assertion") != want {
			t.Errorf("%v, %v", err, i.asked)
		}
	}
}

func TestARefreshTokenMayBeReplacedByTheIssuerAndByTheOperator(t *testing.T) {
	file := write(t, "refresh", "one")
	i := &issuer{}
	i.answer = func(w http.ResponseWriter, form url.Values) {
		w.Write([]byte(`{"access_token":"t","expires_in":3600,"refresh_token":"` + form.Get("refresh_token") + `+"}`))
	}
	s := New(Config{TokenURL: "https://x.example/token", ClientID: "app-id", RefreshTokenFile: file, Scope: "offline", Transport: i})
	for n, want := range []string{"one", "one+", "two", "two+"} {
		if n == 2 {
			write(t, file, "two")
		}
		if _, err := s.Token(t.Context(), "t"); err != nil {
			t.Fatal(err)
		}
		wants(t, i.asked[n], map[string]string{"grant_type": "refresh_token", "refresh_token": want, "client_id": "app-id", "scope": "offline"})
	}
}

func TestAServiceAccountActsForAUser(t *testing.T) {
	key, _, _, _ := rsaPair(t, false)
	account, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "weir@project.example", "private_key_id": "k1",
		"private_key": keyText(t, key, false), "token_uri": "https://oauth2.example/token"})
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{}
	form := one(t, Config{GoogleFile: write(t, "key.json", string(account)), GoogleSubject: "app@example.com"}, i)
	wants(t, form, map[string]string{"grant_type": jwtGrant, "assertion": form.Get("assertion")})
	header, claims := jwtOf(t, form.Get("assertion"), &key.PublicKey)
	if header["alg"] != "RS256" || header["kid"] != "k1" || claims["iss"] != "weir@project.example" || claims["sub"] != "app@example.com" ||
		claims["scope"] != GoogleScope || claims["aud"] != i.urls[0] || i.urls[0] != "https://oauth2.example/token" {
		t.Errorf("%v %v %v", header, claims, i.urls)
	}
}

// A file that cannot be used is a fault of settings, and says nothing of what it holds.
func TestBrokenFilesAreFaultsOfSettings(t *testing.T) {
	_, _, certFile, keyFile := rsaPair(t, false)
	_, _, _, otherKey := rsaPair(t, false)
	google := func(text string) Config { return Config{GoogleFile: write(t, "key.json", text)} }
	app := func(set func(*Config)) Config { c := Config{Tenant: "t", ClientID: "id"}; set(&c); return c }
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{app(func(c *Config) { c.ClientSecretFile = "/nonexistent" }), "client_secret_file: no such file or directory"},
		{app(func(c *Config) { c.ClientSecretFile = os.TempDir() }), "client_secret_file: is a directory"},
		{app(func(c *Config) { c.AssertionFile = write(t, "x", "\n") }), "assertion_file: is empty"},
		{app(func(c *Config) { c.RefreshTokenFile = write(t, "x", strings.Repeat(canary, 10_000)) }), "refresh_token_file: is larger"},
		{app(func(c *Config) { c.CertFile, c.KeyFile = write(t, "x", canary), keyFile }), "cert_file: holds no PEM certificate"},
		{app(func(c *Config) { c.CertFile, c.KeyFile = certFile, write(t, "x", canary) }), "key_file: holds no RSA key"},
		{app(func(c *Config) { c.CertFile, c.KeyFile = certFile, write(t, "x", ecKey(t)) }), "key_file: holds no RSA key"},
		{app(func(c *Config) { c.CertFile, c.KeyFile = certFile, otherKey }), "key_file: is not the key of cert_file"},
		{google(canary), "google_file: is no JSON key"},
		{google(`{"type":"authorized_user","client_email":"a"}`), "google_file: is no JSON key"},
		{google(`{"type":"service_account","client_email":"a","private_key":"` + canary + `"}`), "google_file: private_key: holds no RSA key"},
	} {
		tc.cfg.Transport = &issuer{}
		_, err := New(tc.cfg).Token(t.Context(), "")
		var e *Error
		if !errors.As(err, &e) || !e.Permanent() || !strings.Contains(err.Error(), "oauth: "+tc.want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%v, want %q", err, tc.want)
		}
	}
}
