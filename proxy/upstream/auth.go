package upstream

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"github.com/mailweir/mailweir/flowctl"
)

const (
	// authStepsMax bounds how many lines a login sends: SCRAM with its first response asked for needs four.
	authStepsMax = 4
	// authLineMax is the longest AUTH command with an initial response, without its CRLF (RFC 4954 section 4, RFC 5321 section
	// 4.5.3.1.4). A longer response, as of a token, waits until it is asked for.
	authLineMax = 510
)

// fetchSecret gets the password or the token before anything is dialled, so that no session waits for it. The password's file is
// read at each login, so that a rotated secret acts at once.
func (s *setup) fetchSecret(ctx context.Context, rejected string) *fault {
	cfg := &s.client.cfg
	var err error
	switch {
	case cfg.Username == "":
	case cfg.OAuth:
		s.secret, err = cfg.Token(ctx, rejected)
	case cfg.PasswordFile != "":
		s.secret, err = readPassword(cfg.PasswordFile)
	default:
		s.secret = cfg.Password
	}
	if err != nil {
		return s.fail(err)
	}
	return nil
}

func readPassword(file string) (string, error) {
	b, err := readFile("password_file", file)
	if err != nil {
		return "", err
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 || bytes.IndexByte(b, 0) >= 0 {
		return "", fmt.Errorf("upstream: read password_file: is empty or contains a NUL: %w", errSettings)
	}
	return string(b), nil
}

// login authenticates (RFC 4954). Credentials are sent over verified TLS only, or with Config.PlaintextAuth; Config.security saw
// to that before anything was dialled.
func (s *setup) login(ctx context.Context) (f *fault) {
	mech, err := s.mechanism()
	if err != nil {
		return s.fail(err)
	}
	alone, f := s.client.logins.enter(ctx, s)
	if f != nil {
		return f
	}
	defer func() { s.client.logins.leave(s, alone, f) }()
	e := exchange{setup: s, mech: mech, said: []string{s.secret}}
	if f = e.run(); f != nil {
		f.text = truncate(redact(f.text, e.said, s.client.cfg.Username), replyTextMax/4)
		if f.meaning.Class == flowctl.Misconfigured {
			f.text += adviceOn(f.text, s.client.cfg.OAuth)
		}
	}
	return f
}

// exchange is one AUTH command and what follows it.
type exchange struct {
	*setup
	mech    sasl.Client
	name    string
	initial []byte   // the first response, until it was sent and understood; nil: none, or done
	said    []string // what must not be shown: the secret, and all that was sent
}

func (e *exchange) run() *fault {
	var err error
	if e.name, e.initial, err = e.mech.Start(); err != nil {
		return e.fail(fmt.Errorf("upstream: log in: %v: %w", err, errSettings))
	}
	line, sent := e.opening()
	for range authStepsMax {
		r, _, f := e.command(line)
		switch {
		case f != nil:
			return f
		case r.positive():
			return e.proven()
		case r.Code != 334:
			f = e.refused(r)
			f.rejected = r.Code/100 == 5 && f.meaning.Class == flowctl.Misconfigured
			return f
		}
		answer, err := e.answer(r.Text, sent)
		if err != nil {
			return e.fail(fmt.Errorf("upstream: log in: %v: %w", err, errSettings))
		}
		sent, line = true, e.encode(answer)
	}
	return e.fail(fmt.Errorf("upstream: log in: more than %d challenges: %w", authStepsMax-1, errSettings))
}

// opening is the AUTH command, and whether the initial response is in it.
func (e *exchange) opening() (line string, sent bool) {
	line = "AUTH " + e.name
	if e.initial == nil {
		return line, false
	}
	if with := line + " " + e.encode(e.initial); len(with) <= authLineMax {
		return with, true
	}
	return line, false
}

// answer is the response to a challenge. A server may pass the initial response over and ask for it again.
func (e *exchange) answer(text string, sent bool) ([]byte, error) {
	challenge, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		challenge = []byte(text) // LOGIN has prompts of any kind
	}
	initial := e.initial
	e.initial = nil
	if initial != nil && (!sent || len(challenge) == 0 || e.name == sasl.Plain) {
		return initial, nil
	}
	return e.mech.Next(challenge)
}

func (e *exchange) encode(response []byte) string {
	text := base64.StdEncoding.EncodeToString(response)
	e.said = append(e.said, string(response), text, strings.TrimRight(text, "="))
	return text
}

// proven wants a mechanism in which the server proves that it knows the password too to have seen that proof.
func (e *exchange) proven() *fault {
	if m, mutual := e.mech.(interface{ proven() bool }); mutual && !m.proven() {
		return e.fail(fmt.Errorf("upstream: log in: %w: %w", errUnproven, errSettings))
	}
	return nil
}

var errUnproven = errors.New("the server did not prove that it knows the password, so it may be another one")

const (
	// redactMin is the shortest text that is looked for: what is shorter gives nothing away, and taking it out could leave no word whole.
	redactMin = 4
	// redactRun is how many octets in a row of a longer text are looked for: a server may repeat a part of it, or break it over lines.
	redactRun = 8
)

// redact takes what was said out of what a server said: some repeat what they were sent. The first of said is the secret; of
// the others, which hold the user name too, what is in shown stays.
func redact(text string, said []string, shown string) string {
	hide := make([]bool, len(text))
	for i, s := range said {
		if len(s) < redactMin {
			continue
		}
		for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s)), base64.RawStdEncoding.EncodeToString([]byte(s))} {
			run := min(len(form), redactRun)
			parts := make(map[string]bool, len(form))
			for at := range len(form) - run + 1 {
				parts[form[at:at+run]] = i == 0 || !strings.Contains(shown, form[at:at+run])
			}
			for at := range max(len(text)-run+1, 0) {
				if parts[text[at:at+run]] {
					copy(hide[at:], slices.Repeat([]bool{true}, run))
				}
			}
		}
	}
	var b strings.Builder
	for at := range len(text) {
		switch {
		case !hide[at]:
			b.WriteByte(text[at])
		case at == 0 || !hide[at-1]:
			b.WriteString("[secret]")
		}
	}
	return b.String()
}
