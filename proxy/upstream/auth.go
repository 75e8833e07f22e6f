package upstream

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
)

// authStepsMax bounds how many challenges a login answers.
const authStepsMax = 4

// login authenticates (RFC 4954) with PLAIN, or LOGIN where the server knows no better. Credentials are sent
// over verified TLS only, or with Config.PlaintextAuth; Config.security saw to that before anything was dialled.
func (s *setup) login() *fault {
	secret, err := s.client.password()
	if err != nil {
		return s.fail(err)
	}
	user := s.client.cfg.Username
	var mech sasl.Client
	switch {
	case slices.Contains(s.ext.Auth, sasl.Plain):
		mech = sasl.NewPlainClient("", user, secret)
	case slices.Contains(s.ext.Auth, sasl.Login):
		mech = &loginClient{user: user, secret: secret}
	default:
		return s.fail(fmt.Errorf("upstream: log in: server offers %q, neither PLAIN nor LOGIN: %w", s.ext.Auth, errSettings))
	}
	f := s.exchange(mech)
	if f != nil {
		// Cut only afterwards, and well inside what Reply.Text keeps: else half a secret could stand at its end.
		f.text = truncate(redact(f.text, user, secret), replyTextMax/4)
	}
	return f
}

func (s *setup) exchange(mech sasl.Client) *fault {
	name, initial, err := mech.Start()
	if err != nil {
		return s.fail(fmt.Errorf("upstream: log in: %w", err))
	}
	line := "AUTH " + name
	if initial != nil {
		line += " " + base64.StdEncoding.EncodeToString(initial)
	}
	for range authStepsMax {
		r, _, f := s.command(line)
		if f != nil {
			return f
		}
		if r.positive() {
			return nil
		}
		if r.Code != 334 {
			return s.refused(r)
		}
		var answer []byte
		if initial != nil {
			answer, initial = initial, nil // the server passed the initial response over and asks again
		} else if answer, err = mech.Next([]byte(r.Text)); err != nil {
			return s.fail(fmt.Errorf("upstream: log in: %v: %w", err, errSettings))
		}
		line = base64.StdEncoding.EncodeToString(answer)
	}
	return s.fail(fmt.Errorf("upstream: log in: more than %d challenges: %w", authStepsMax, errSettings))
}

// password reads the file at each login, so that a rotated secret acts at once.
func (c *Client) password() (string, error) {
	if c.cfg.PasswordFile == "" {
		return c.cfg.Password, nil
	}
	b, err := os.ReadFile(c.cfg.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("upstream: read password_file: %v: %w", err, errSettings)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 || bytes.IndexByte(b, 0) >= 0 {
		return "", fmt.Errorf("upstream: read password_file: is empty or contains a NUL: %w", errSettings)
	}
	return string(b), nil
}

// redact takes the secret out of what a server said: some repeat what they were sent.
func redact(text, user, secret string) string {
	for _, s := range []string{secret, "\x00" + user + "\x00" + secret} {
		enc := base64.StdEncoding.EncodeToString([]byte(s))
		text = strings.ReplaceAll(text, enc, "[secret]")
		text = strings.ReplaceAll(text, strings.TrimRight(enc, "="), "[secret]")
	}
	return strings.ReplaceAll(text, secret, "[secret]")
}

// loginClient is the LOGIN mechanism. Servers word its two prompts as they please, so only their order counts.
type loginClient struct {
	user, secret string
	step         int
}

var errPrompts = errors.New("a third prompt after user name and password")

func (l *loginClient) Start() (mech string, initial []byte, err error) { return sasl.Login, nil, nil }

func (l *loginClient) Next([]byte) ([]byte, error) {
	l.step++
	switch l.step {
	case 1:
		return []byte(l.user), nil
	case 2:
		return []byte(l.secret), nil
	}
	return nil, errPrompts
}
