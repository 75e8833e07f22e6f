package smtpd

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mailweir/mailweir/bench/memconn"
	"github.com/mailweir/mailweir/proxy/message"
)

// Whatever a client says, replies are whole lines of printable ASCII, and what is accepted can be sent on
// as it is.
func FuzzConversation(f *testing.F) {
	for _, seed := range []string{
		"EHLO a\r\nMAIL FROM:<a@b> SIZE=3\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
		"HELO a\nMAIL FROM:<> ENVID=a+20b\nRCPT TO:<@a:\"x y\"@d> ORCPT=rfc822;a NOTIFY=NEVER\nDATA\n.\r\n",
		"EHLO a\r\nAUTH LOGIN\r\n\r\n\r\nMAIL FROM:<\xc3\xa4@b> SMTPUTF8\r\nRCPT TO:<root>\r\nDATA\r\n\n.\n\r\n.\r\n",
		"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3\r\nab\rBDAT 2 LAST\r\n\n\rRSET\r\nBDAT 1 LAST\r\nxQUIT\r\n",
		"BDAT 3\r\n", "\x16\x03", "GET / HTTP/1.1\r\n", "\r\n\r\n", "MAIL\r\nRCPT\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, wire string) {
		cfg := testConfig()
		cfg.AcceptAnyAuth = true
		cfg.QualifyDomain = "corp.example"
		bubble(t, cfg, func(t *testing.T, f *front) {
			c := f.dial(t)
			if _, err := io.WriteString(c, wire); err != nil {
				return // hung up on already
			}
			if err := c.Conn.(*memconn.Conn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			said, err := io.ReadAll(c.r)
			if err != nil || !strings.HasSuffix(string(said), "\r\n") || !strings.HasPrefix(string(said), "220 ") {
				t.Fatalf("%q: %q, %v", wire, said, err)
			}
			if strings.ContainsFunc(strings.ReplaceAll(string(said), "\r\n", ""), func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("%q: %q", wire, said)
			}
			synctest.Wait()
			for _, k := range f.memory.kept() {
				checkKept(t, k)
			}
		})
	})
}

func checkKept(t *testing.T, k kept) {
	t.Helper()
	errs := make([]error, 0, 1+len(k.env.To))
	if k.env.From != "" {
		_, err := message.ParseAddress(k.env.From, k.env.UTF8)
		errs = append(errs, err)
	}
	words := k.env.Ret + k.env.EnvID
	for _, to := range k.env.To {
		_, err := message.ParseAddress(to.Addr, k.env.UTF8)
		errs = append(errs, err)
		words += to.Notify + to.ORcpt
	}
	if err := errors.Join(errs...); err != nil || len(k.env.To) == 0 {
		t.Fatalf("accepted %+v: %v", k.env, err)
	}
	if strings.ContainsFunc(words, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		t.Fatalf("accepted %+v", k.env)
	}
	if rest := strings.ReplaceAll(k.body, "\r\n", ""); strings.ContainsAny(rest, "\r\n\x00") {
		t.Fatalf("accepted %q", k.body)
	}
}
