package oauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestAnOperatorIsToldWhatToDo(t *testing.T) {
	user := Config{TokenURL: "https://x.example/token", ClientID: "id", RefreshToken: canary}
	for _, tc := range []struct {
		name      string
		cfg       Config
		answer    func(http.ResponseWriter, url.Values)
		permanent bool
		want      string
	}{
		{"wrong secret", microsoft(nil), refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret value. Trace ID: 1 Correlation ID: 2"), true, "set the secret's value, not its ID"},
		{"old secret", microsoft(nil), refusal(401, "invalid_client", "AADSTS7000222: The provided client secret keys are expired."), true, "has expired: create a new one"},
		{"unknown application", microsoft(nil), refusal(400, "unauthorized_client", "AADSTS700016: Application with identifier was not found in the directory."), true, "does not know the application"},
		{"no consent", microsoft(nil), refusal(400, "invalid_grant", "AADSTS65001: The user or administrator has not consented."), true, "SMTP.SendAsApp"},
		{"no tenant", microsoft(nil), refusal(400, "invalid_request", "AADSTS90002: Tenant 'x' not found."), true, "there is no such tenant"},
		{"not uploaded", microsoft(nil), refusal(401, "invalid_client", "AADSTS700027: The certificate is not registered."), true, "upload cert_file"},
		{"refresh token", user, refusal(400, "invalid_grant", "Token has been expired or revoked."), true, "sign in again"},
		{"invalid_client", microsoft(nil), refusal(401, "invalid_client", ""), true, "not accepted"},
		{"unauthorized_client", microsoft(nil), refusal(400, "unauthorized_client", ""), true, "administrator must consent"},
		{"invalid_scope", microsoft(nil), refusal(400, "invalid_scope", ""), true, "check scope"},
		{"invalid_request", microsoft(nil), refusal(400, "invalid_request", "what?"), false, "invalid_request: what?"},
		{"down", microsoft(nil), refusal(503, "temporarily_unavailable", ""), false, "temporarily_unavailable"},
		{"no JSON", microsoft(nil), func(w http.ResponseWriter, _ url.Values) {
			w.WriteHeader(502)
			w.Write([]byte("<html>" + canary))
		}, false, "502 Bad Gateway"},
	} {
		tc.cfg.Transport = &issuer{answer: tc.answer}
		_, err := New(tc.cfg).Token(t.Context(), "")
		var e *Error
		if !errors.As(err, &e) || e.Permanent() != tc.permanent || e.RetryAfter() != 0 || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "Trace ID") {
			t.Errorf("%s: %v", tc.name, err)
		}
		if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: a secret is in %q", tc.name, err)
		}
	}
}

func TestAnIssuerThatHasHadEnoughIsLeftAlone(t *testing.T) {
	for _, tc := range []struct {
		status int
		after  string
		want   time.Duration
	}{
		{429, "", throttleWait}, {429, "30", 30 * time.Second}, {429, "x", throttleWait}, {429, "-5", throttleWait},
		{429, "99999999999", throttleMax}, {429, "99999", throttleMax}, {503, "20", 20 * time.Second}, {503, "", 0}, {500, "20", 0},
	} {
		i := &issuer{answer: func(w http.ResponseWriter, form url.Values) {
			w.Header().Set("Retry-After", tc.after)
			refusal(tc.status, "slow_down", "")(w, form)
		}}
		_, err := New(microsoft(i)).Token(t.Context(), "")
		var e *Error
		if !errors.As(err, &e) || e.RetryAfter() != tc.want || e.Permanent() {
			t.Errorf("%d %q: %v, %v", tc.status, tc.after, err, e.RetryAfter())
		}
	}
}

// Whatever an issuer repeats of what it was sent, in any form, and at any place.
func TestNoErrorHoldsASecret(t *testing.T) {
	key, _, certFile, keyFile := rsaPair(t, false)
	account, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "weir@project.example",
		"private_key": keyText(t, key, true), "token_uri": "https://oauth2.example/token"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"secret":      microsoft(nil),
		"certificate": {Tenant: "t", ClientID: "id", CertFile: certFile, KeyFile: keyFile},
		"federated":   {Tenant: "t", ClientID: "id", AssertionFile: write(t, "x", canary)},
		"refresh":     {TokenURL: "https://x.example", ClientID: "id", RefreshToken: canary},
		"google":      {GoogleFile: write(t, "x", string(account))},
	} {
		for _, pad := range []int{0, wordsMax - 10, wordsMax - 5} {
			var sent []string
			c.Transport = &issuer{answer: func(w http.ResponseWriter, form url.Values) {
				text := strings.Repeat("x", pad)
				for _, field := range []string{"client_secret", "client_assertion", "refresh_token", "assertion"} {
					if v := form.Get(field); v != "" {
						sent = append(sent, v)
						text += " " + v + " " + url.QueryEscape(v)
					}
				}
				refusal(400, "invalid_client", text)(w, form)
			}}
			_, err := New(c).Token(t.Context(), "")
			if err == nil || len(sent) == 0 {
				t.Fatalf("%s: %v", name, err)
			}
			for _, s := range sent {
				if strings.Contains(err.Error(), s[:min(len(s), 12)]) {
					t.Errorf("%s: %q", name, err)
				}
			}
		}
	}
}
