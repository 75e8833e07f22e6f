package smtpd

import (
	"github.com/emersion/go-sasl"
)

// AuthMechanisms is asked by go-smtp for the reply to EHLO. Credentials would travel in the clear, but only within
// this machine, and are thrown away: some applications refuse to send without AUTH.
func (s *session) AuthMechanisms() []string {
	if !s.guard.server.cfg.AcceptAnyAuth {
		return nil
	}
	return []string{sasl.Plain, sasl.Login}
}

// Auth begins an exchange that succeeds whatever the client says.
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	switch mechanism {
	case sasl.Plain:
		return &anyAuth{[]string{""}}, nil
	case sasl.Login:
		return &anyAuth{[]string{"Username:", "Password:"}}, nil
	}
	return nil, errorReply(errMechanism)
}

// anyAuth asks its prompts and forgets the answers.
type anyAuth struct{ prompts []string }

// Next takes the answer to the first prompt, nil when it was not asked yet.
func (a *anyAuth) Next(response []byte) (challenge []byte, done bool, err error) {
	if response != nil {
		a.prompts = a.prompts[1:]
	}
	if len(a.prompts) == 0 {
		return nil, true, nil
	}
	return []byte(a.prompts[0]), false, nil
}
