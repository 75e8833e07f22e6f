package dkim

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
	"go.uber.org/zap"
)

// What the tests here share: keys, the DNS that publishes them, and messages.

const plain = "From: Joe <joe@a.example>\r\nTo: jane@b.example\r\nSubject: hello\r\nDate: Fri, 01 May 2026 12:00:00 +0000\r\n" +
	"Message-ID: <1@a.example>\r\n\r\nHi.\r\n\r\n.a line that begins with a dot\r\n  \r\ntrailing blanks \t \r\n\r\n\r\n"

func testKey(name string) string { return filepath.Join("testdata", name) }

// newSigner signs with keys written as in the configuration.
func newSigner(t testing.TB, keys string) *Signer {
	t.Helper()
	list, err := ParseKeys([]byte(keys))
	if err != nil {
		t.Fatal(err)
	}
	return New(list, zap.NewNop())
}

const bothKinds = `[{domain: a.example, selector: r, key_file: testdata/rsa.pem}, {domain: a.example, selector: e, key_file: testdata/ed25519.pem}]`

// record is the TXT record of a key's public half.
func record(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := parseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	switch pub := key.Public().(type) {
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(pub)
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der)
	}
	t.Fatal("a key of no kind")
	return ""
}

// sign returns the signatures of a message, and wants them to be nothing but themselves before whatever follows.
func sign(t testing.TB, s *Signer, msg string) string {
	t.Helper()
	fields, err := s.Sign(strings.NewReader(msg))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(fields), "\r\n"), "\r\n") {
		if !strings.HasPrefix(line, "DKIM-Signature: ") && !strings.HasPrefix(line, " ") && len(fields) > 0 ||
			len(line) > 998 || strings.TrimSpace(line) == "" && len(fields) > 0 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("a line of the signatures is %q", line)
		}
	}
	if len(fields) > 0 && !bytes.HasSuffix(fields, []byte("\r\n")) {
		t.Errorf("the signatures end in %q", fields[max(0, len(fields)-4):])
	}
	return string(fields)
}

// verify wants so many signatures, and all of them good.
func verify(t testing.TB, msg string, want int, dns map[string]string) []*dkim.Verification {
	t.Helper()
	found, err := dkim.VerifyWithOptions(strings.NewReader(msg), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		if txt, ok := dns[name]; ok {
			return []string{txt}, nil
		}
		return nil, fmt.Errorf("nothing at %s", name)
	}})
	if err != nil || len(found) != want {
		t.Fatalf("%d signatures, want %d; %v", len(found), want, err)
	}
	for _, v := range found {
		if v.Err != nil {
			t.Errorf("signature of %s: %v\n%s", v.Domain, v.Err, msg[:min(len(msg), 2000)])
		}
	}
	return found
}

// zone publishes the keys of bothKinds.
func zone(t testing.TB) map[string]string {
	return map[string]string{
		"r._domainkey.a.example": record(t, testKey("rsa.pem")),
		"e._domainkey.a.example": record(t, testKey("ed25519.pem")),
	}
}
