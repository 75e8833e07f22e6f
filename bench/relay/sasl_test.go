package relay

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/xdg-go/scram"
)

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// challenge reads a 334.
func (c *client) challenge() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "334 ") {
		c.t.Fatalf("heard %q, %v; want a challenge", line, err)
	}
	return decode(strings.TrimSpace(line[4:]))
}

func authRelay(t *testing.T, do func(r *Relay, c *client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r, l := start(t, Config{Username: "u,=", Password: "p", TakesToken: func(token string) bool { return token == "good" },
			Mechanisms: []string{"CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "GSSAPI"}})
		c := dial(t, l)
		c.want("220 ")
		c.send("EHLO me\r\n")
		for !c.heard("250 AUTH CRAM-MD5 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER GSSAPI") {
		}
		do(r, c)
		_ = c.Close()
		time.Sleep(time.Second)
	})
}

// heard reads a line and tells whether it is the one.
func (c *client) heard(want string) bool {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("never heard %q: %v", want, err)
	}
	return strings.TrimSpace(line) == want
}

func TestTokensAreJudgedByTheScript(t *testing.T) {
	for _, tc := range []struct{ mechanism, user, token, yield, want string }{
		{"XOAUTH2", "u,=", "good", "", "235 "},
		{"XOAUTH2", "u,=", "bad", "", "535 "},
		{"XOAUTH2", "x", "good", "", "535 "},
		{"OAUTHBEARER", "u=2C=3D", "good", "\x01", "235 "},
		{"OAUTHBEARER", "u=2C=3D", "bad", "\x01", "535 "},
		{"OAUTHBEARER", "u,=", "good", "\x01", "535 "},
	} {
		authRelay(t, func(r *Relay, c *client) {
			initial := "user=" + tc.user + "\x01auth=Bearer " + tc.token + "\x01\x01"
			if tc.mechanism == "OAUTHBEARER" {
				initial = "n,a=" + tc.user + ",\x01host=h\x01auth=Bearer " + tc.token + "\x01\x01"
			}
			c.send("AUTH " + tc.mechanism + "\r\n")
			if got := c.challenge(); got != "" {
				t.Errorf("asks with %q", got)
			}
			c.send(b64(initial) + "\r\n")
			if tc.want == "535 " {
				c.challenge()
				c.send(b64(tc.yield) + "\r\n")
			}
			c.want(tc.want)
			if v := r.Violations(); len(v) > 0 {
				t.Errorf("%+v: %v", tc, v)
			}
		})
	}
}

func TestAProofIsWanted(t *testing.T) {
	for password, want := range map[string]string{"p": "235 ", "x": "535 "} {
		authRelay(t, func(_ *Relay, c *client) {
			c.send("AUTH CRAM-MD5\r\n")
			mac := hmac.New(md5.New, []byte(password))
			mac.Write([]byte(c.challenge()))
			c.send(b64("u,= "+hex.EncodeToString(mac.Sum(nil))) + "\r\n")
			c.want(want)
		})
		authRelay(t, func(_ *Relay, c *client) {
			client, err := scram.SHA256.NewClient("u,=", password, "")
			if err != nil {
				t.Fatal(err)
			}
			conv := client.NewConversation()
			step := func(challenge string) string {
				answer, err := conv.Step(challenge)
				if err != nil {
					t.Fatal(err)
				}
				return b64(answer) + "\r\n"
			}
			c.send("AUTH SCRAM-SHA-256 " + step(""))
			c.send(step(c.challenge()))
			if want == "235 " {
				c.send(step(c.challenge()))
			}
			c.want(want)
			if conv.Valid() != (want == "235 ") {
				t.Error("the relay's own proof is wrong")
			}
		})
	}
}

func TestALongInitialResponseIsAViolation(t *testing.T) {
	authRelay(t, func(r *Relay, c *client) {
		c.send("AUTH XOAUTH2 " + strings.Repeat("QUFB", 130) + "\r\n")
		c.challenge()
		c.send("\r\n")
		c.want("535 ")
		c.send("AUTH GSSAPI\r\n")
		c.want("503 ")
		if v := r.Violations(); len(v) != 2 || v[0].Rule != RuleLongLine || v[1].Rule != RuleNotOffered {
			t.Errorf("%v", v)
		}
	})
}
