package oauth

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

const (
	// askTimeout is for one request, its connection and its answer included.
	askTimeout = 30 * time.Second
	// lifetimeDefault is a token's when its issuer does not say.
	lifetimeDefault = 30 * time.Minute
	// lifetimeMax bounds what an issuer says.
	lifetimeMax = 7 * 24 * time.Hour
	// spare is the part of its lifetime that a token must have left for a login: logging in takes time, and clocks differ.
	spare = 0.02
	// A token is replaced when between renewLate and renewEarly of its lifetime is left, by chance, so that many of us do not ask
	// at one time.
	renewLate, renewEarly = 0.10, 0.25
	// renewPause is the wait after a renewal that failed while the old token is still good.
	renewPause = time.Minute
)

// Source gives tokens. It is safe for concurrent use.
type Source struct {
	cfg  Config
	http *http.Client
	turn chan struct{} // whoever has put something in may ask; one at a time

	// Whoever asks alone touches these.
	request clientcredentials.Config
	style   oauth2.AuthStyle // the way of sending the secret that the endpoint has taken; zero: not known
	rotated string           // the refresh token that took the place of
	given   string           // this one of the settings

	mu      sync.Mutex
	token   string
	expiry  time.Time
	spent   time.Time // from when it is no longer given away
	renewAt time.Time
	err     error     // of the last request; nil: it gave a token
	askedAt time.Time // when that ended
}

// New returns a Source that has asked for nothing yet. cfg must be valid and enabled.
func New(cfg Config) *Source {
	s := &Source{cfg: cfg, turn: make(chan struct{}, 1)}
	transport := cfg.Transport
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DisableKeepAlives = true // one request an hour
		transport = t
	}
	s.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errRedirect
	}}
	return s
}

// errRedirect keeps secrets where they were meant to go.
var errRedirect = errors.New("the token endpoint redirects, which is not followed")

// Token returns a token to log in with. One that is about to expire is renewed by the caller who comes first, while others get
// the old one. rejected is a token that was refused, so that another one is asked for; "": none. The error is an *Error, or that of
// ctx.
func (s *Source) Token(ctx context.Context, rejected string) (string, error) {
	began := time.Now()
	token, renew := s.kept(began, rejected)
	if token != "" && !renew {
		return token, nil
	}
	if token != "" {
		select {
		case s.turn <- struct{}{}:
		default: // somebody is at it
			return token, nil
		}
	} else {
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	defer func() { <-s.turn }()
	if now, renew := s.kept(time.Now(), rejected); now != "" && !renew {
		return now, nil // somebody else got it meanwhile
	}
	if err := s.failedSince(began); err != nil && token == "" {
		return "", err // somebody else asked, while we waited, and in vain
	}
	err := s.ask(ctx)
	now, _ := s.kept(time.Now(), "")
	switch {
	case now != "" && (err == nil || token != ""): // err is kept for Status, and the next attempt is near
		return now, nil
	case err == nil:
		return "", &Error{text: "oauth: the token has expired already; is the clock right?"}
	}
	return "", err
}

// kept returns the token if it is good, and whether to look for another one.
func (s *Source) kept(now time.Time, rejected string) (token string, renew bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == "" || rejected == s.token || !now.Before(s.spent) {
		return "", true
	}
	return s.token, !now.Before(s.renewAt)
}

func (s *Source) failedSince(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.askedAt.After(t) {
		return nil
	}
	return s.err
}

// Status returns when the token in use expires, the zero time when there is none, and what became of the last request.
func (s *Source) Status() (expiry time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiry, s.err
}

// ask gets a token and keeps it.
func (s *Source) ask(ctx context.Context) error {
	asking, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, s.http), askTimeout)
	defer cancel()
	g, err := s.grant()
	var t *oauth2.Token
	if err == nil {
		s.request.ClientID, s.request.ClientSecret, s.request.TokenURL = g.clientID, g.secret, g.endpoint
		s.request.EndpointParams = g.params
		t, err = s.fetch(asking, g.style)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx) // we are being stopped: says nothing of the endpoint
	}
	switch {
	case err != nil:
		err = g.failure(err)
	case !sendable(t.AccessToken):
		err = &Error{text: "oauth: the token endpoint gave a token that a login cannot carry"}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.askedAt, s.err = now, err
	if err != nil {
		var e *Error
		s.renewAt = now.Add(renewPause)
		if errors.As(err, &e) {
			s.renewAt = now.Add(max(renewPause, e.wait))
		}
		return err
	}
	s.keep(now, t)
	if t.RefreshToken != "" && t.RefreshToken != g.refresh {
		s.rotated, s.given = t.RefreshToken, g.given
	}
	return nil
}

// fetch makes the request. Which way of sending the secret an endpoint takes is found out: the header, which RFC 6749 section 2.3.1
// wants, then the body, unless the first answer speaks of trouble that passes.
func (s *Source) fetch(ctx context.Context, style oauth2.AuthStyle) (*oauth2.Token, error) {
	if style == oauth2.AuthStyleAutoDetect {
		style = s.style
	}
	if style != oauth2.AuthStyleAutoDetect {
		s.request.AuthStyle = style
		return s.request.Token(ctx)
	}
	s.request.AuthStyle = oauth2.AuthStyleInHeader
	t, err := s.request.Token(ctx)
	if first, refused := refusedAs(err); refused {
		s.request.AuthStyle = oauth2.AuthStyleInParams
		again, secondErr := s.request.Token(ctx)
		second, refused := refusedAs(secondErr)
		// Who takes the header only says of the body that the secret is missing: then the first answer tells more.
		if !refused || slices.Contains(lasting, second) || !slices.Contains(lasting, first) {
			t, err = again, secondErr
		}
	}
	if err == nil {
		s.style = s.request.AuthStyle
	}
	return t, err
}

// keep takes a new token in; s.mu is held.
func (s *Source) keep(now time.Time, t *oauth2.Token) {
	lifetime := lifetimeDefault
	if !t.Expiry.IsZero() {
		lifetime = min(t.Expiry.Sub(now), lifetimeMax)
	}
	part := func(share float64) time.Duration { return time.Duration(share * float64(lifetime)) }
	s.token, s.expiry = t.AccessToken, now.Add(lifetime)
	s.spent = s.expiry.Add(-part(spare))
	s.renewAt = s.expiry.Add(-part(renewLate + (renewEarly-renewLate)*rand.Float64()))
}

// sendable wants visible ASCII (RFC 6750 section 2.1 allows even less).
func sendable(token string) bool {
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return false
		}
	}
	return token != ""
}
