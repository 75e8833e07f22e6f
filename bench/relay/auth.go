package relay

import (
	"encoding/base64"
	"strings"
)

// auth leaves the credentials out of what a script sees.
func (s *session) auth(args string) error {
	mechanism, initial, hasInitial := strings.Cut(args, " ")
	mechanism = strings.ToUpper(mechanism)
	line := "AUTH " + mechanism
	if s.r.cfg.Username == "" || s.authed || mechanism != "PLAIN" && mechanism != "LOGIN" {
		s.violated(RuleNotOffered, line)
		_, err := s.answer(StageAuth, line, "503 5.5.1 Not offered")
		return err
	}
	user, password, err := s.credentials(mechanism, initial, hasInitial)
	if err != nil {
		return err
	}
	own := "535 5.7.8 Authentication credentials invalid"
	if user == s.r.cfg.Username && password == s.r.cfg.Password {
		own = "235 2.7.0 Authentication successful"
	}
	code, err := s.answer(StageAuth, line, own)
	s.authed = code == 235
	return err
}

func (s *session) credentials(mechanism, initial string, hasInitial bool) (user, password string, err error) {
	if mechanism == "PLAIN" {
		if !hasInitial {
			if initial, err = s.ask("334 "); err != nil {
				return "", "", err
			}
		}
		// RFC 4616: authorization identity, NUL, user, NUL, password.
		part := strings.Split(decode(initial), "\x00")
		if len(part) != 3 {
			return "", "", nil
		}
		return part[1], part[2], nil
	}
	if !hasInitial {
		if initial, err = s.ask("334 VXNlcm5hbWU6"); err != nil { // "Username:"
			return "", "", err
		}
	}
	password, err = s.ask("334 UGFzc3dvcmQ6") // "Password:"
	return decode(initial), decode(password), err
}

// decode makes nonsense of what is no base64, which is no valid credential.
func decode(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(b)
}

func (s *session) ask(prompt string) (string, error) {
	s.say(prompt)
	line, err := s.command()
	return strings.TrimSuffix(line, "\r\n"), err
}
