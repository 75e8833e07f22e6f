package oauth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const canary = "c4nary-S3cret+word/x"

// issuer is a token endpoint in memory: no network, so that it works in a bubble.
type issuer struct {
	mu       sync.Mutex
	lifetime int                                          // seconds; 0: it does not say
	takes    time.Duration                                // before it answers
	answer   func(w http.ResponseWriter, form url.Values) // in place of a token; nil: a token
	asked    []url.Values
	urls     []string
	basic    []string // user names of the header
	busy     atomic.Int32
	overlaps atomic.Int32
}

// RoundTrip implements http.RoundTripper.
func (i *issuer) RoundTrip(req *http.Request) (*http.Response, error) {
	if i.busy.Add(1) > 1 {
		i.overlaps.Add(1)
	}
	defer i.busy.Add(-1)
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	user, _, _ := req.BasicAuth()
	i.mu.Lock()
	i.asked, i.urls, i.basic = append(i.asked, form), append(i.urls, req.URL.String()), append(i.basic, user)
	n, takes, answer, lifetime := len(i.asked), i.takes, i.answer, i.lifetime
	i.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	if answer != nil {
		answer(w, form)
	} else {
		token := map[string]any{"access_token": fmt.Sprintf("token%d", n), "token_type": "Bearer"}
		if lifetime != 0 {
			token["expires_in"] = lifetime
		}
		json.NewEncoder(w).Encode(token)
	}
	return w.Result(), nil
}

func (i *issuer) says(answer func(http.ResponseWriter, url.Values)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = answer
}

func (i *issuer) requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

// refusal is an error of RFC 6749 section 5.2.
func refusal(status int, code, description string) func(http.ResponseWriter, url.Values) {
	return func(w http.ResponseWriter, _ url.Values) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": description})
	}
}

// microsoft is an application with a secret.
func microsoft(i *issuer) Config {
	return Config{Tenant: "example.onmicrosoft.com", ClientID: "app-id", ClientSecret: canary, Transport: i}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	if !strings.Contains(name, "/") {
		name = filepath.Join(t.TempDir(), name)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// rsaPair returns a certificate with an RSA key, in files.
func rsaPair(t *testing.T, pkcs1 bool) (key *rsa.PrivateKey, cert *x509.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return key, cert, write(t, "cert.pem", block("CERTIFICATE", der)), write(t, "key.pem", keyText(t, key, pkcs1))
}

func keyText(t *testing.T, key *rsa.PrivateKey, pkcs1 bool) string {
	t.Helper()
	if pkcs1 {
		return block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func ecKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return block("PRIVATE KEY", der)
}
