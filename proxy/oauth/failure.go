package oauth

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Error says why there is no token. Nothing in it is secret.
type Error struct {
	text      string
	permanent bool
	wait      time.Duration
}

func (e *Error) Error() string { return e.text }

// Permanent reports whether only somebody who changes a setting, here or at the issuer, can cure it.
func (e *Error) Permanent() bool { return e.permanent }

// RetryAfter is how long the issuer does not want to be asked; 0: it did not say.
func (e *Error) RetryAfter() time.Duration { return e.wait }

const (
	throttleWait = time.Minute // when an issuer has had too many requests and does not say for how long
	throttleMax  = time.Hour
	wordsMax     = 300 // octets of an issuer's own words
)

// lasting are the errors of RFC 6749 section 5.2 that come again until a setting changes. invalid_request is not among them:
// issuers use it for passing trouble as well.
var lasting = []string{"invalid_client", "invalid_grant", "unauthorized_client", "invalid_scope", "unsupported_grant_type",
	"invalid_resource", "interaction_required", "consent_required"} // these three are Microsoft's

// failure gives an error of a request its meaning and an operator something to do.
func (g *grant) failure(err error) error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	host := "the token endpoint"
	if u, err := url.Parse(g.endpoint); err == nil && u.Host != "" {
		host = u.Host
	}
	e := &Error{}
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		var request *url.Error // repeats the URL
		if errors.As(err, &request) {
			err = request.Err
		}
		e.text = "oauth: " + host + ": " + words(g.redact(err.Error()))
		return e
	}
	advice, known := g.advice(refused)
	e.permanent = known || slices.Contains(lasting, refused.ErrorCode)
	e.wait = throttle(refused)
	said := refused.ErrorCode
	if said == "" {
		said = refused.Response.Status
	}
	if refused.ErrorDescription != "" {
		said += ": " + refused.ErrorDescription
	}
	e.text = "oauth: " + host + ": " + words(g.redact(said)) // in this order: else half a secret could stand at the end
	if advice != "" {
		e.text += " (" + advice + ")"
	}
	return e
}

// throttle is how long an issuer wants to be left alone that says it has had too many requests.
func throttle(r *oauth2.RetrieveError) time.Duration {
	status := r.Response.StatusCode
	n := retryAfter(r.Response.Header.Get("Retry-After"))
	switch named := n > 0; {
	case status != http.StatusTooManyRequests && !(status == http.StatusServiceUnavailable && named):
		return 0
	case named:
		return min(n, throttleMax)
	}
	return throttleWait
}

// retryAfter reads seconds or a date (RFC 9110 section 10.2.3); 0: neither.
func retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(n, 1<<20)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return 0
}

// refusedAs returns the code of an issuer's error, and whether it is a refusal and no trouble that passes.
func refusedAs(err error) (code string, refused bool) {
	var r *oauth2.RetrieveError
	if !errors.As(err, &r) {
		return "", false
	}
	status := r.Response.StatusCode
	return r.ErrorCode, status < http.StatusInternalServerError && status != http.StatusTooManyRequests
}

// words are an issuer's, without the numbers for its support that follow.
func words(text string) string {
	text, _, _ = strings.Cut(text, " Trace ID:")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > wordsMax {
		text = strings.ToValidUTF8(text[:wordsMax], "") + "..."
	}
	return text
}

// aadsts is how Microsoft numbers its errors.
var aadsts = regexp.MustCompile(`AADSTS(\d+)`)

// byNumber is what to do about those that an operator meets.
var byNumber = map[string]string{
	"7000215": "the client secret is wrong: set the secret's value, not its ID",
	"7000222": "the client secret has expired: create a new one in the app registration and set it",
	"700016":  "the tenant does not know the application: check client_id and tenant, and have an administrator consent to it",
	"65001":   "nobody has consented: an administrator must grant the application the permission SMTP.SendAsApp",
	"90002":   "there is no such tenant: check tenant",
	"900023":  "there is no such tenant: check tenant",
	"700027":  "the certificate is not registered: upload cert_file to the app registration, or set the key that belongs to it",
	"700082":  "the refresh token has expired: sign in again and set the new one",
	"700213":  "no federated credential of the application matches: compare issuer, subject and audience of assertion_file with it",
}

// byCode is for everybody else.
var byCode = map[string]string{
	"invalid_client":      "client_id, or what proves it, is not accepted: check the secret or the certificate and whether it has expired",
	"unauthorized_client": "the application may not do this: an administrator must consent to its permissions",
	"invalid_scope":       "check scope",
	"invalid_resource":    "the tenant does not know what scope names: check scope and tenant",

	"consent_required":     "nobody has consented: an administrator must consent to the application's permissions",
	"interaction_required": "the issuer wants to see the user: sign in again and set the new refresh token",
}

// advice says what the operator must do; known tells that only that helps.
func (g *grant) advice(r *oauth2.RetrieveError) (say string, known bool) {
	if m := aadsts.FindStringSubmatch(r.ErrorDescription); m != nil {
		if say, known = byNumber[m[1]]; known {
			return say, true
		}
	}
	switch {
	case g.google && (r.ErrorCode == "unauthorized_client" || r.ErrorCode == "invalid_grant"):
		return "give the service account domain-wide delegation for the scope in the Google admin console, and check google_subject and the clock", false
	case r.ErrorCode == "invalid_grant" && g.refresh != "":
		return "the refresh token has expired or was withdrawn: sign in again and set the new one", false
	}
	return byCode[r.ErrorCode], false
}

// redactMin is the shortest text that is looked for; what is shorter gives nothing away.
const redactMin = 4

// redact takes out what an issuer repeats of what it was sent.
func (g *grant) redact(text string) string {
	for _, s := range g.secrets {
		if len(s) < redactMin {
			continue
		}
		for _, form := range []string{s, url.QueryEscape(s), base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s))} {
			text = strings.ReplaceAll(text, form, "[secret]")
		}
	}
	return text
}
