package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestATokenIsKeptUntilShortlyBeforeItsEnd(t *testing.T) {
	var renewed []time.Duration
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			i := &issuer{lifetime: 3600}
			s := New(microsoft(i))
			began := time.Now()
			for i.requests() < 2 {
				if _, err := s.Token(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
			}
			renewed = append(renewed, time.Since(began))
		})
	}
	least, most := renewed[0], renewed[0]
	for _, d := range renewed {
		least, most = min(least, d), max(most, d)
	}
	if least < 45*time.Minute || most > 54*time.Minute+20*time.Second || most-least < time.Minute {
		t.Errorf("renewed between %v and %v", least, most)
	}
}

func TestOneAsksForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: 3600, takes: 2 * time.Second}
		s := New(microsoft(i))
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if token, err := s.Token(t.Context(), ""); token != "token1" || err != nil {
					t.Errorf("%q, %v", token, err)
				}
			})
		}
		wg.Wait()
		if i.requests() != 1 {
			t.Errorf("%d requests", i.requests())
		}
		// All find the same token refused, and one asks.
		for range 20 {
			wg.Go(func() {
				if token, err := s.Token(t.Context(), "token1"); token != "token2" || err != nil {
					t.Errorf("%q, %v", token, err)
				}
			})
		}
		wg.Wait()
		if i.requests() != 2 || i.overlaps.Load() > 0 {
			t.Errorf("%d requests, %d at the same time", i.requests(), i.overlaps.Load())
		}
	})
}

func TestNobodyWaitsForARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: 3600}
		s := New(microsoft(i))
		if _, err := s.Token(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		i.takes = 10 * time.Second
		time.Sleep(55 * time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = s.Token(t.Context(), "") })
		synctest.Wait()
		began := time.Now()
		if token, err := s.Token(t.Context(), ""); token != "token1" || err != nil || time.Since(began) > 0 {
			t.Errorf("%q, %v after %v", token, err, time.Since(began))
		}
		wg.Wait()
		if token, _ := s.Token(t.Context(), ""); token != "token2" {
			t.Errorf("%q", token)
		}
	})
}

func TestAGoodTokenOutlivesAnIssuerThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{lifetime: 3600}
		s := New(microsoft(i))
		first, _ := s.Token(t.Context(), "")
		i.says(refusal(500, "server_error", "not now"))
		for range 57 * 6 {
			time.Sleep(10 * time.Second)
			if token, err := s.Token(t.Context(), ""); token != first || err != nil {
				t.Fatalf("%q, %v", token, err)
			}
		}
		if n := i.requests(); n > 16 {
			t.Errorf("%d requests", n)
		}
		if expiry, err := s.Status(); expiry.IsZero() || err == nil {
			t.Errorf("status: %v, %v", expiry, err)
		}
		time.Sleep(3 * time.Minute)
		var e *Error
		if token, err := s.Token(t.Context(), ""); token != "" || !errors.As(err, &e) || e.Permanent() {
			t.Errorf("%q, %v", token, err)
		}
		i.says(nil)
		if token, err := s.Token(t.Context(), ""); token == first || err != nil {
			t.Errorf("%q, %v", token, err)
		}
	})
}

func TestAnIssuerThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{takes: time.Hour}
		s := New(microsoft(i))
		began := time.Now()
		var wg sync.WaitGroup
		for range 5 { // those who wait share the failure
			wg.Go(func() {
				var e *Error
				if _, err := s.Token(t.Context(), ""); !errors.As(err, &e) || e.Permanent() || !strings.Contains(err.Error(), "login.microsoftonline.com: context deadline exceeded") {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if time.Since(began) != askTimeout || i.requests() != 1 {
			t.Errorf("after %v and %d requests", time.Since(began), i.requests())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Token(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestAnIssuerNeedNotSayHowLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(microsoft(&issuer{}))
		if _, err := s.Token(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if expiry, _ := s.Status(); time.Until(expiry) != lifetimeDefault {
			t.Errorf("%v", time.Until(expiry))
		}
	})
}

func TestAnswersThatAreNoTokens(t *testing.T) {
	for _, tc := range []struct{ body, want string }{
		{`{"access_token":"a b"}`, "cannot carry"},
		{`{"access_token":"a\r\nQUIT"}`, "cannot carry"},
		{`{}`, "missing access_token"},
		{`<html>`, "cannot parse json"},
		{`{"access_token":"x","expires_in":-5}`, "is the clock right"},
	} {
		i := &issuer{answer: func(w http.ResponseWriter, _ url.Values) { fmt.Fprint(w, tc.body) }}
		var e *Error
		if _, err := New(microsoft(i)).Token(t.Context(), ""); !errors.As(err, &e) || e.Permanent() || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.body, err)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	i := &issuer{answer: func(w http.ResponseWriter, _ url.Values) {
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(307)
	}}
	if _, err := New(microsoft(i)).Token(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "redirects") || i.requests() != 1 {
		t.Errorf("%v, %q", err, i.urls)
	}
}
