package upstream

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"

	"github.com/mailweir/mailweir/flowctl"
)

// The mechanisms that go-sasl has no name for.
const (
	scramSHA256 = "SCRAM-SHA-256"
	cramMD5     = "CRAM-MD5"
	xoauth2     = "XOAUTH2"
)

// The strongest first: with SCRAM the password does not cross the wire and the server proves that it knows it.
var (
	byPassword = []string{scramSHA256, cramMD5, sasl.Plain, sasl.Login}
	byToken    = []string{sasl.OAuthBearer, xoauth2}
)

// AuthAuto is the value of Config.Auth that leaves the choice to us, as "" does.
const AuthAuto = "auto"

// AuthNames returns the values that Config.Auth may have: AuthAuto and the mechanisms in lower case.
func AuthNames() []string {
	names := []string{AuthAuto}
	for _, m := range slices.Concat(byPassword, byToken) {
		names = append(names, strings.ToLower(m))
	}
	return names
}

// mechanisms are those that the settings allow, the best first.
func (c Config) mechanisms() []string {
	all := byPassword
	if c.OAuth {
		all = byToken
	}
	if c.Auth == "" || c.Auth == AuthAuto {
		return all
	}
	return []string{strings.ToUpper(c.Auth)}
}

// mechanism chooses among what is offered.
func (s *setup) mechanism() (sasl.Client, error) {
	wanted := s.client.cfg.mechanisms()
	for _, name := range wanted {
		if slices.Contains(s.ext.Auth, name) {
			return s.start(name)
		}
	}
	offer := "no AUTH"
	if len(s.ext.Auth) > 0 {
		offer = fmt.Sprintf("AUTH %q", s.ext.Auth)
	}
	hint := ""
	switch other := slices.ContainsFunc(s.ext.Auth, isToken); {
	case !s.client.cfg.OAuth && other && !slices.ContainsFunc(s.ext.Auth, isPassword):
		hint = "; it wants OAuth tokens in place of a password"
	case s.client.cfg.OAuth && !other && len(s.ext.Auth) > 0:
		hint = "; it takes no OAuth tokens"
	}
	s.stage = flowctl.StageEHLO // nobody has tried to log in, so that asking again locks nobody out
	return nil, fmt.Errorf("upstream: log in: server offers %s, and the settings need %s%s: %w", offer, strings.Join(wanted, " or "), hint, errSettings)
}

func isToken(mechanism string) bool    { return slices.Contains(byToken, mechanism) }
func isPassword(mechanism string) bool { return slices.Contains(byPassword, mechanism) }

func (s *setup) start(name string) (sasl.Client, error) {
	user := s.client.cfg.Username
	switch name {
	case scramSHA256:
		c, err := scram.SHA256.NewClient(user, s.secret, "")
		if err != nil {
			return nil, fmt.Errorf("upstream: log in: user name or password has characters that SCRAM does not allow (RFC 4013): %w", errSettings)
		}
		return &scramClient{conv: c.NewConversation()}, nil
	case cramMD5:
		return &cramClient{user: user, secret: s.secret}, nil
	case sasl.Plain:
		return sasl.NewPlainClient("", user, s.secret), nil
	case sasl.Login:
		return &loginClient{user: user, secret: s.secret}, nil
	case sasl.OAuthBearer:
		return &tokenClient{name: name, initial: s.bearer(), yield: []byte{1}}, nil
	case xoauth2:
		return &tokenClient{name: name, initial: []byte("user=" + user + "\x01auth=Bearer " + s.secret + "\x01\x01"), yield: []byte{}}, nil
	}
	panic("upstream: no such mechanism: " + name)
}

// bearer is the response of OAUTHBEARER; go-sasl leaves it to us to write the user's name as RFC 5801 section 4 wants it.
func (s *setup) bearer() []byte {
	opt := sasl.OAuthBearerOptions{Username: strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.client.cfg.Username), Token: s.secret}
	opt.Host = s.host.Name
	if n, err := strconv.Atoi(s.host.Port); err == nil {
		opt.Port = n
	}
	_, initial, _ := sasl.NewOAuthBearerClient(&opt).Start() // it has no way to fail
	return initial
}

// tokenClient is XOAUTH2 or OAUTHBEARER. A challenge is a refusal with details for machines; the reply comes after we yield
// (RFC 7628 section 3.2.3).
type tokenClient struct {
	name           string
	initial, yield []byte
}

func (t *tokenClient) Start() (mech string, initial []byte, err error) { return t.name, t.initial, nil }

func (t *tokenClient) Next([]byte) ([]byte, error) { return t.yield, nil }

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

// cramClient is CRAM-MD5 (RFC 2195).
type cramClient struct {
	user, secret string
	answered     bool
}

var errChallenged = errors.New("a second challenge")

func (c *cramClient) Start() (mech string, initial []byte, err error) { return cramMD5, nil, nil }

func (c *cramClient) Next(challenge []byte) ([]byte, error) {
	if c.answered {
		return nil, errChallenged
	}
	c.answered = true
	mac := hmac.New(md5.New, []byte(c.secret))
	mac.Write(challenge)
	return []byte(c.user + " " + hex.EncodeToString(mac.Sum(nil))), nil
}

// iterationsMax bounds the work that a server can make us do for a login; servers ask for 4,096 to some 100,000.
const iterationsMax = 1_000_000

// scramClient is SCRAM-SHA-256 (RFC 7677).
type scramClient struct{ conv *scram.ClientConversation }

var errIterations = fmt.Errorf("more than %d iterations wanted", iterationsMax)

func (c *scramClient) Start() (mech string, initial []byte, err error) {
	first, err := c.conv.Step("")
	return scramSHA256, []byte(first), err
}

func (c *scramClient) Next(challenge []byte) ([]byte, error) {
	for field := range bytes.SplitSeq(challenge, []byte(",")) {
		if count, ok := bytes.CutPrefix(field, []byte("i=")); ok {
			if n, err := strconv.Atoi(string(count)); err != nil || n > iterationsMax {
				return nil, errIterations
			}
		}
	}
	if c.conv.Done() {
		return nil, errChallenged
	}
	answer, err := c.conv.Step(string(challenge))
	return []byte(answer), err
}

func (c *scramClient) proven() bool { return c.conv.Valid() }
