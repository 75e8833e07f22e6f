package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"time"

	"golang.org/x/oauth2"
)

// grant is what one request asks with.
type grant struct {
	endpoint string
	clientID string
	secret   string
	style    oauth2.AuthStyle
	params   url.Values
	refresh  string   // the refresh token sent; "": none
	given    string   // the one of the settings
	secrets  []string // what must not be shown
	google   bool
}

// The names of RFC 7523.
const (
	jwtGrant     = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	jwtAssertion = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// grant reads the files and puts a request together. The error is an *Error or becomes one by failure; the grant is never nil.
func (s *Source) grant() (*grant, error) {
	c := &s.cfg
	g := &grant{endpoint: c.endpoint(), clientID: c.ClientID, params: url.Values{}, style: oauth2.AuthStyleInParams}
	if scope := c.scope(); scope != "" {
		g.params.Set("scope", scope)
	}
	if c.GoogleFile != "" {
		return g, s.serviceAccount(g)
	}
	if err := s.refreshToken(g); err != nil {
		return g, err
	}
	return g, s.proof(g)
}

// refreshToken adds the user's token. An issuer may replace it with each answer; the replacement lives as long as the one of the
// settings stays what it was.
func (s *Source) refreshToken(g *grant) (err error) {
	g.given = s.cfg.RefreshToken
	if s.cfg.RefreshTokenFile != "" {
		if g.given, err = readSecret("refresh_token_file", s.cfg.RefreshTokenFile); err != nil {
			return err
		}
	}
	if g.given == "" {
		return nil
	}
	g.refresh = g.given
	if s.rotated != "" && s.given == g.given {
		g.refresh = s.rotated
	}
	g.params.Set("grant_type", "refresh_token")
	g.params.Set("refresh_token", g.refresh)
	g.secrets = append(g.secrets, g.given, g.refresh)
	return nil
}

// proof adds what shows who the application is; a public one shows nothing.
func (s *Source) proof(g *grant) (err error) {
	c := &s.cfg
	var assertion string
	switch {
	case c.ClientSecret != "" || c.ClientSecretFile != "":
		g.secret = c.ClientSecret
		if c.ClientSecretFile != "" {
			g.secret, err = readSecret("client_secret_file", c.ClientSecretFile)
		}
		if c.Tenant == "" {
			g.style = oauth2.AuthStyleAutoDetect // some take the secret in the header only, some in the body only
		}
		g.secrets = append(g.secrets, g.secret, url.QueryEscape(g.clientID)+":"+url.QueryEscape(g.secret)) // alone, and in the header
		return err
	case c.CertFile != "":
		assertion, err = s.certificateAssertion(g.endpoint, time.Now())
	case c.AssertionFile != "":
		assertion, err = readSecret("assertion_file", c.AssertionFile)
	default:
		return nil
	}
	g.secrets = append(g.secrets, assertion)
	g.params.Set("client_assertion_type", jwtAssertion)
	g.params.Set("client_assertion", assertion)
	return err
}

// serviceAccount is Google's flow between servers: an assertion signed with the account's key is the grant itself.
func (s *Source) serviceAccount(g *grant) error {
	text, err := readSecret("google_file", s.cfg.GoogleFile)
	if err != nil {
		return err
	}
	var account struct {
		Type     string `json:"type"`
		Email    string `json:"client_email"`
		Key      string `json:"private_key"`
		KeyID    string `json:"private_key_id"`
		TokenURI string `json:"token_uri"`
	}
	if err := json.Unmarshal([]byte(text), &account); err != nil || account.Type != "service_account" || account.Email == "" {
		return broken("google_file", errors.New("is no JSON key of a service account"))
	}
	key, err := parseKey([]byte(account.Key))
	if err != nil {
		return broken("google_file", fmt.Errorf("private_key: %w", err))
	}
	if err := checkEndpoint(account.TokenURI); err != nil {
		return broken("google_file", fmt.Errorf("token_uri: %w", err))
	}
	now := time.Now()
	claims := map[string]any{"iss": account.Email, "scope": s.cfg.scope(), "aud": account.TokenURI,
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix()}
	if s.cfg.GoogleSubject != "" {
		claims["sub"] = s.cfg.GoogleSubject
	}
	assertion, err := sign(RS256, map[string]any{"kid": account.KeyID}, claims, key)
	if err != nil {
		return broken("google_file", err)
	}
	g.endpoint, g.clientID, g.google = account.TokenURI, "", true
	g.params = url.Values{"grant_type": {jwtGrant}, "assertion": {assertion}}
	g.secrets = append(g.secrets, assertion)
	return nil
}

// secretMax bounds a file, in octets.
const secretMax = 64 << 10

// byteOrderMark is what editors of some systems put before what they save.
var byteOrderMark = []byte("\ufeff")

// readSecret reads a file without the line break at its end.
func readSecret(setting, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", broken(setting, pathless(err))
	}
	b, err := io.ReadAll(io.LimitReader(f, secretMax+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return "", broken(setting, pathless(err))
	}
	b = bytes.TrimRight(bytes.TrimPrefix(b, byteOrderMark), "\r\n")
	switch {
	case len(b) == 0:
		return "", broken(setting, errors.New("is empty"))
	case len(b) > secretMax:
		return "", broken(setting, fmt.Errorf("is larger than %d octets", secretMax))
	}
	return string(b), nil
}

func pathless(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// broken is the fault of a file: only another file cures it.
func broken(setting string, err error) error {
	return &Error{text: "oauth: " + setting + ": " + err.Error(), permanent: true}
}
