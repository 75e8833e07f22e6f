package relay

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
)

// The mechanisms that need more than a comparison.

// cram is CRAM-MD5 (RFC 2195).
func (s *session) cram(string) (bool, error) {
	challenge := "<" + rand.Text() + "@" + s.r.cfg.Hostname + ">"
	response, err := s.ask(challenge)
	user, digest, _ := strings.Cut(response, " ")
	mac := hmac.New(md5.New, []byte(s.r.cfg.Password))
	mac.Write([]byte(challenge))
	return err == nil && user == s.r.cfg.Username && digest == hex.EncodeToString(mac.Sum(nil)), err
}

const scramIterations = 4096

// scram is SCRAM-SHA-256 without channel binding (RFC 5802 section 5, RFC 7677).
func (s *session) scram(initial string) (bool, error) {
	first, err := s.response(initial)
	bare, ok := strings.CutPrefix(first, "n,,")
	if err != nil || !ok {
		return false, err
	}
	salt, nonce := []byte("salt of "+s.r.cfg.Hostname), field(bare, "r")+rand.Text()
	challenge := "r=" + nonce + ",s=" + base64.StdEncoding.EncodeToString(salt) + ",i=" + strconv.Itoa(scramIterations)
	final, err := s.ask(challenge)
	if err != nil {
		return false, err
	}
	without, _, _ := strings.Cut(final, ",p=")
	salted, err := pbkdf2.Key(sha256.New, s.r.cfg.Password, salt, scramIterations, sha256.Size)
	if err != nil {
		return false, err
	}
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	signed := bare + "," + challenge + "," + without
	proof, want := decode(field(final, "p")), mac(stored[:], signed)
	for i := range want {
		want[i] ^= clientKey[i]
	}
	user := strings.NewReplacer("=2C", ",", "=3D", "=").Replace(field(bare, "n"))
	if user != s.r.cfg.Username || field(final, "r") != nonce || field(final, "c") != "biws" || !bytes.Equal([]byte(proof), want) {
		return false, nil
	}
	verifier := mac(mac(salted, "Server Key"), signed)
	if s.r.cfg.Impostor { // one that does not know the password
		verifier = mac([]byte("another"), signed)
	}
	_, err = s.ask("v=" + base64.StdEncoding.EncodeToString(verifier))
	return true, err
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// field returns the value of name in "a=x,b=y".
func field(text, name string) string {
	for f := range strings.SplitSeq(text, ",") {
		if value, ok := strings.CutPrefix(f, name+"="); ok {
			return value
		}
	}
	return ""
}

// xoauth2 is Google's and Microsoft's.
func (s *session) xoauth2(initial string) (bool, error) {
	response, err := s.response(initial)
	if err != nil {
		return false, err
	}
	rest, ok := strings.CutPrefix(response, "user=")
	user, rest, _ := strings.Cut(rest, "\x01auth=Bearer ")
	token, ok2 := strings.CutSuffix(rest, "\x01\x01")
	if ok && ok2 && user == s.r.cfg.Username && s.takesToken(token) {
		return true, nil
	}
	return false, s.details("")
}

// oauthBearer is that of RFC 7628.
func (s *session) oauthBearer(initial string) (bool, error) {
	response, err := s.response(initial)
	if err != nil {
		return false, err
	}
	head, rest, _ := strings.Cut(response, "\x01")
	_, token, ok := strings.Cut(rest, "auth=Bearer ")
	token, ok2 := strings.CutSuffix(token, "\x01\x01")
	user := strings.NewReplacer("=2C", ",", "=3D", "=").Replace(field(head, "a"))
	if strings.HasPrefix(head, "n,") && ok && ok2 && user == s.r.cfg.Username && s.takesToken(token) {
		return true, nil
	}
	return false, s.details("\x01")
}

func (s *session) takesToken(token string) bool {
	return s.r.cfg.TakesToken != nil && s.r.cfg.TakesToken(token)
}

// details tells the client why, which has to yield before it hears the reply.
func (s *session) details(yield string) error {
	response, err := s.ask(`{"status":"401","schemes":"bearer","scope":"mail"}`)
	if err == nil && response != yield {
		s.violated(RuleSyntax, "AUTH goes on after a refusal")
	}
	return err
}
