package oauth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// byHeader is an issuer that takes a secret in the header only. What it says without one is not what is wrong.
func byHeader(i *issuer, says func(http.ResponseWriter, url.Values)) Config {
	i.answer = func(w http.ResponseWriter, form url.Values) {
		if form.Get("client_secret") != "" {
			refusal(400, "invalid_request", "no client authentication")(w, form)
			return
		}
		says(w, form)
	}
	return Config{TokenURL: "https://x.example/token", ClientID: "app-id", ClientSecret: canary, Transport: i}
}

func TestWhatAnIssuerSaysOfTheSecretIsNotLostByTryingTheOtherWay(t *testing.T) {
	i := &issuer{}
	_, err := New(byHeader(i, refusal(401, "invalid_client", "the secret has expired"))).Token(t.Context(), "")
	var e *Error
	if !errors.As(err, &e) || !e.Permanent() || !strings.Contains(err.Error(), "the secret has expired") {
		t.Errorf("%v", err)
	}
}

// Trouble that passes says nothing of where the secret is wanted.
func TestAnIssuerInTroubleIsAskedOnce(t *testing.T) {
	for _, status := range []int{429, 500, 503} {
		i := &issuer{}
		_, err := New(byHeader(i, refusal(status, "slow_down", "not now"))).Token(t.Context(), "")
		var e *Error
		if !errors.As(err, &e) || e.Permanent() || !strings.Contains(err.Error(), "not now") || i.requests() != 1 {
			t.Errorf("%d: %v after %d requests", status, err, i.requests())
		}
	}
}

func TestARenewalHeedsHowLongTheIssuerWantsToBeLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: 3600}
		s := New(microsoft(i))
		first, _ := s.Token(t.Context(), "")
		i.says(func(w http.ResponseWriter, form url.Values) {
			w.Header().Set("Retry-After", "1800")
			refusal(429, "slow_down", "")(w, form)
		})
		for range 57 * 6 {
			time.Sleep(10 * time.Second)
			if token, err := s.Token(t.Context(), ""); token != first || err != nil {
				t.Fatalf("%q, %v", token, err)
			}
		}
		if n := i.requests(); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestRetryAfterMayBeADate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{answer: func(w http.ResponseWriter, form url.Values) {
			w.Header().Set("Retry-After", time.Now().Add(20*time.Minute).UTC().Format(http.TimeFormat))
			refusal(429, "slow_down", "")(w, form)
		}}
		_, err := New(microsoft(i)).Token(t.Context(), "")
		var e *Error
		if !errors.As(err, &e) || e.RetryAfter() != 20*time.Minute {
			t.Errorf("%v, %v", err, e.RetryAfter())
		}
	})
}

func TestAHeaderThatAnIssuerRepeatsIsNotShown(t *testing.T) {
	said := base64.StdEncoding.EncodeToString([]byte("app-id:" + url.QueryEscape(canary)))
	_, err := New(byHeader(&issuer{}, refusal(401, "invalid_client", "not with Basic "+said))).Token(t.Context(), "")
	if err == nil || strings.Contains(err.Error(), said[8:20]) {
		t.Errorf("%v", err)
	}
}

// What Microsoft says in these cases comes again until somebody does something.
func TestWhatOnlyAnOperatorCuresIsTold(t *testing.T) {
	for _, tc := range []struct{ code, description, want string }{
		{"invalid_resource", "AADSTS500011: The resource principal named https://outlook.example was not found in the tenant.", "check scope"},
		{"interaction_required", "AADSTS50076: Due to a configuration change you must use multi-factor authentication.", "sign in again"},
		{"consent_required", "", "must consent"},
		{"invalid_request", "AADSTS900023: Specified tenant identifier 'contoso' is neither a valid DNS name, nor a valid external domain.", "check tenant"},
	} {
		_, err := New(microsoft(&issuer{answer: refusal(400, tc.code, tc.description)})).Token(t.Context(), "")
		var e *Error
		if !errors.As(err, &e) || !e.Permanent() || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.code, err)
		}
	}
}

// Editors of some systems put a byte order mark before what they save.
func TestAByteOrderMarkIsNoPartOfASecret(t *testing.T) {
	const mark = "\ufeff"
	i := &issuer{}
	form := one(t, Config{Tenant: "t", ClientID: "id", ClientSecretFile: write(t, "s", mark+canary+"\r\n")}, i)
	if form.Get("client_secret") != canary {
		t.Errorf("%q", form.Get("client_secret"))
	}
	key, _, _, _ := rsaPair(t, false)
	account, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "weir@project.example",
		"private_key": keyText(t, key, false), "token_uri": "https://oauth2.example/token"})
	if err != nil {
		t.Fatal(err)
	}
	one(t, Config{GoogleFile: write(t, "key.json", mark+string(account))}, &issuer{})
}
