package relay

import (
	"encoding/base64"
	"slices"
	"strings"
)

// authLineMax is how long the AUTH command with an initial response may be, with its CRLF (RFC 4954 section 4, RFC 5321 section
// 4.5.3.1.4); what is asked for may be longer.
const authLineMax = 512

// mechanisms are those that a relay can offer. Each returns whether the credentials are right; an empty initial response is
// none, and is asked for.
var mechanisms = map[string]func(s *session, initial string) (bool, error){
	"PLAIN":         (*session).plainLogin,
	"LOGIN":         (*session).loginLogin,
	"CRAM-MD5":      (*session).cram,
	"SCRAM-SHA-256": (*session).scram,
	"XOAUTH2":       (*session).xoauth2,
	"OAUTHBEARER":   (*session).oauthBearer,
}

// auth leaves the credentials out of what a script sees.
func (s *session) auth(args string) error {
	mechanism, initial, _ := strings.Cut(args, " ")
	mechanism = strings.ToUpper(mechanism)
	line := "AUTH " + mechanism
	login, known := mechanisms[mechanism]
	if !s.r.wantsAuth() || s.authed || !known || !slices.Contains(s.r.mechanisms(), mechanism) {
		s.violated(RuleNotOffered, line)
		_, err := s.answer(StageAuth, line, "503 5.5.1 Not offered")
		return err
	}
	if initial != "" && len("AUTH ")+len(args)+len("\r\n") > authLineMax {
		s.violated(RuleLongLine, line)
	}
	right, err := login(s, initial)
	if err != nil {
		return err
	}
	own := "535 5.7.8 Authentication credentials invalid"
	if right {
		own = "235 2.7.0 Authentication successful"
	}
	code, err := s.answer(StageAuth, line, own)
	s.authed = code == 235
	return err
}

func (r *Relay) wantsAuth() bool { return r.cfg.Username != "" }

func (r *Relay) mechanisms() []string {
	if r.cfg.Mechanisms == nil {
		return []string{"PLAIN", "LOGIN"}
	}
	return r.cfg.Mechanisms
}

// right compares credentials with those of the configuration.
func (s *session) right(user, password string) bool {
	return user == s.r.cfg.Username && password == s.r.cfg.Password
}

func (s *session) plainLogin(initial string) (bool, error) {
	response, err := s.response(initial)
	// RFC 4616: authorization identity, NUL, user, NUL, password.
	part := strings.Split(response, "\x00")
	return err == nil && len(part) == 3 && s.right(part[1], part[2]), err
}

func (s *session) loginLogin(initial string) (bool, error) {
	user := decode(initial)
	if initial == "" {
		var err error
		if user, err = s.ask("Username:"); err != nil {
			return false, err
		}
	}
	password, err := s.ask("Password:")
	return err == nil && s.right(user, password), err
}

// response is the initial one, or what is sent when it is asked for.
func (s *session) response(initial string) (string, error) {
	if initial != "" {
		return decode(initial), nil
	}
	return s.ask("")
}

// decode makes nonsense of what is no base64, which is no valid credential.
func decode(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(b)
}

// ask sends a challenge and returns the response, both without their base64.
func (s *session) ask(challenge string) (string, error) {
	s.say("334 " + base64.StdEncoding.EncodeToString([]byte(challenge)))
	line, err := s.command()
	return decode(strings.TrimSuffix(line, "\r\n")), err
}
