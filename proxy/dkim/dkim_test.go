package dkim

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/emersion/go-msgauth/dkim"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestEveryKeyOfTheDomainSigns(t *testing.T) {
	for name, msg := range map[string]string{
		"plain":                  plain,
		"Received first":         "Received: from app ([127.0.0.1])\r\n\tby weir.example (mailweir) with ESMTP id 1;\r\n\tFri, 01 May 2026 12:00:00 +0000\r\n" + plain,
		"no body":                "From: joe@a.example\r\nSubject: x\r\n\r\n",
		"no end of the header":   "From: joe@a.example\r\nSubject: x\r\n",
		"no line end at the end": "From: joe@a.example\r\n\r\nbody",
		"blank lines only":       "From: joe@a.example\r\n\r\n\r\n \r\n\t\r\n\r\n",
		"folded":                 "Subject: a\r\n \r\n\tb  c \r\nFrom: \"Joe\"\r\n <joe@A.Example>\r\n\r\nx\r\n",
		"blank before the colon": "From : joe@a.example\r\nSUBJECT\t: x\r\n\r\nx\r\n",
		"eight bits":             "From: =?x-unknown?q?J=F6?= <joe@a.example>\r\nSubject: caf\xc3\xa9 \xe9\r\n\r\nna\xc3\xafve \xff\r\n",
		"two of many":            "From: joe@a.example\r\nTo: a@b.example\r\nTo: c@d.example\r\nSubject: 1\r\nSubject: 2\r\nCc: e@f.example\r\n\r\nx\r\n",
		"long line":              "From: joe@a.example\r\nSubject: " + strings.Repeat("y", 100_000) + "\r\n\r\n" + strings.Repeat("z", 100_000) + "\r\n",
		"long body":              "From: joe@a.example\r\n\r\n" + strings.Repeat("0123456789 \t \r\n\r\n", 20_000),
		"careless From":          "From: [App] Alerts <joe@a.example> \r\n\r\nx\r\n",
		"two authors":            "From: joe@a.example, ann@b.example\r\nSender: ann@b.example\r\n\r\nx\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigner(t, bothKinds)
			signed := sign(t, s, msg) + msg
			// What a relay is given has a line end at its end, and a reader wants one after the header.
			if !strings.HasSuffix(signed, "\r\n") {
				signed += "\r\n"
			}
			if !strings.Contains(signed, "\r\n\r\n") {
				signed += "\r\n"
			}
			verify(t, signed, 2, zone(t))
			verify(t, "Received: by relay.example\r\nX-Spam: no\r\n"+signed, 2, zone(t))
			if st := s.Stats(); st.Signed != 1 || st.Unusable != nil {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestTheVectorOfRFC8463(t *testing.T) {
	const published = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
	const msg = "From: Joe SixPack <joe@football.example.com>\r\n" +
		"To: Suzie Q <suzie@shopping.example.net>\r\n" +
		"Subject: Is dinner ready?\r\n" +
		"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n" +
		"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\n" +
		"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"
	const theirs = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n" +
		" d=football.example.com; i=@football.example.com;\r\n" +
		" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n" +
		" subject : date : message-id : from : subject : date;\r\n" +
		" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n" +
		" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
	dns := map[string]string{"brisbane._domainkey.football.example.com": published}
	if got := record(t, testKey("ed25519.pem")); got != published {
		t.Errorf("the public half is %q", got)
	}
	s := newSigner(t, `[{domain: football.example.com, selector: brisbane, key_file: testdata/ed25519.pem}]`)
	ours := sign(t, s, msg)
	if !strings.Contains(ours, " bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;") {
		t.Errorf("another hash of the body: %s", ours)
	}
	verify(t, ours+theirs+msg, 2, dns)
}

func TestAKeySignsForItsDomains(t *testing.T) {
	for _, c := range []struct{ keys, from, want string }{
		{`[{domain: a.example, selector: s, key_file: testdata/rsa.pem}]`, "joe@a.example", "a.example"},
		{`[{domain: a.example, selector: s, key_file: testdata/rsa.pem}]`, "joe@A.EXAMPLE", "a.example"},
		{`[{domain: a.example, selector: s, key_file: testdata/rsa.pem}]`, "joe@sub.a.example", ""},
		{`[{domain: a.example, selector: s, key_file: testdata/rsa.pem}]`, "joe@nota.example", ""},
		{`[{domain: a.example, from: [b.example, c.example], selector: s, key_file: testdata/rsa.pem}]`, "joe@c.example", "a.example"},
		{`[{domain: a.example, from: [b.example, c.example], selector: s, key_file: testdata/rsa.pem}]`, "joe@a.example", ""},
		{`[{domain: a.example, from: "*", selector: s, key_file: testdata/rsa.pem}]`, "joe@z.example", "a.example"},
		{`[{domain: "*", selector: s, key_file: testdata/rsa.pem}]`, "joe@z.example", "z.example"},
		{`[{selector: s, key_file: testdata/rsa.pem}]`, "joe@z.example", "z.example"},
		{`[{from: b.example, selector: s, key_file: testdata/rsa.pem}]`, "joe@z.example", ""},
		{`[{from: b.example, selector: s, key_file: testdata/rsa.pem}]`, "joe@b.example", "b.example"},
		{`[{domain: müller.example, selector: s, key_file: testdata/rsa.pem}]`, "joe@MÜLLER.example", "xn--mller-kva.example"},
		{`[{selector: s, key_file: testdata/rsa.pem}]`, "joe@[192.0.2.1]", ""},
		{`[{selector: s, key_file: testdata/rsa.pem}, {domain: p.example, from: "*", selector: s, key_file: testdata/ed25519.pem}]`, "joe@z.example", "z.example p.example"},
	} {
		var got []string
		for _, m := range regexp.MustCompile(` d=([^;]*);`).FindAllStringSubmatch(sign(t, newSigner(t, c.keys), "From: "+c.from+"\r\n\r\nx\r\n"), -1) {
			got = append(got, m[1])
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s, From %s: signed by %q, want %q", c.keys, c.from, got, c.want)
		}
	}
}

// Nobody can add a field of a name that is covered, but for those that relays add where they lack.
func TestAFieldThatIsAddedBreaksTheSignature(t *testing.T) {
	dns := zone(t)
	signed := sign(t, newSigner(t, bothKinds), plain) + plain
	for _, c := range []struct {
		added string
		good  bool
	}{
		{"From: x@evil.example", false}, {"Subject: buy", false}, {"To: x@y.example", false}, {"Cc: x@y.example", false}, {"Reply-To: x@evil.example", false},
		{"Date: Sat, 02 May 2026 12:00:00 +0000", false}, {"Message-ID: <2@a.example>", false},
		{"MIME-Version: 1.0", true}, {"Content-Type: text/plain", true}, // were not there
		{"List-Id: <l.example>", true}, {"Received: by x.example", true}, {"DKIM-Signature-X: 1", true},
	} {
		found, err := dkim.VerifyWithOptions(strings.NewReader(c.added+"\r\n"+signed), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
			return []string{dns[name]}, nil
		}})
		if err != nil || len(found) != 2 {
			t.Fatal(found, err)
		}
		for _, v := range found {
			if (v.Err == nil) != c.good {
				t.Errorf("%s: %v", c.added, v.Err)
			}
		}
	}
}

func TestWhatCannotBeSignedIsCountedByItsReason(t *testing.T) {
	for _, c := range []struct {
		msg  string
		want Reason
	}{
		{"To: x@b.example\r\n\r\nx\r\n", NoFrom},
		{"", NoFrom},
		{"\r\nbody only: x\r\n", NoFrom},
		{"From: \r\n\r\n", NoFrom},
		{"From: joe\r\n\r\n", NoFrom},
		{"From: undisclosed:;\r\n\r\n", NoFrom},
		{"From: joe@a.example\r\nFrom: ann@a.example\r\n\r\n", NoFrom},
		{"From: <joe@a.example> <ann@b.example>\r\n\r\n", NoFrom},
		{"From: joe@a.example; d=b.example\r\n\r\n", NoFrom},
		{"From: joe@b.example\r\n\r\nx\r\n", NoKey},
		{" x\r\nFrom: joe@a.example\r\n\r\n", BadHeader},
		{"no colon\r\nFrom: joe@a.example\r\n\r\n", BadHeader},
		{"From: joe@a.example\r\n.\r\n\r\n", BadHeader},
		{"From joe@a.example Sat Jan  1 00:00:00 2026\r\nFrom: joe@a.example\r\n\r\n", BadHeader},
		{": x\r\nFrom: joe@a.example\r\n\r\n", BadHeader},
		{"From: joe@a.example\r\n" + strings.Repeat("To: a@b.example\r\n", 1000) + "\r\n", BadHeader},
		{"From: joe@a.example\r\nX: " + strings.Repeat("y", headerMax) + "\r\n\r\n", BadHeader},
		{"From: joe@a.example\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", headerMax/1000) + "\r\n", BadHeader},
		{"From: joe@a.example\r\n\r\nx\r\n" + strings.Repeat("\r\n", blankMax/2+readBytes) + "x\r\n", Blank},
	} {
		s := newSigner(t, bothKinds)
		fields, err := s.Sign(strings.NewReader(c.msg))
		st := s.Stats()
		if err != nil || fields != nil || st.Signed != 0 || st.Unsigned[c.want] != 1 || len(st.Unsigned) != len(Reasons) {
			t.Errorf("%.60q: want reason %q, got %q, %v, %+v", c.msg, c.want, fields, err, st)
		}
	}
}

func TestAMessageThatCannotBeReadIsNotSigned(t *testing.T) {
	cut := errors.New("disk on fire")
	for _, n := range []int{0, 10, len(plain) - 5} {
		s := newSigner(t, bothKinds)
		fields, err := s.Sign(io.MultiReader(strings.NewReader(plain[:n]), iotest.ErrReader(cut)))
		if !errors.Is(err, cut) || fields != nil || errors.Is(err, ErrKey) {
			t.Errorf("after %d octets: %q, %v", n, fields, err)
		}
		if st := s.Stats(); st.Signed != 0 {
			t.Errorf("%+v", st)
		}
	}
}

func TestAKeyIsReadAgainWhenItsFileChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key.pem")
	put := func(from string) {
		t.Helper()
		text, err := os.ReadFile(testKey(from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	core, logs := observer.New(zap.InfoLevel)
	keys, err := ParseKeys([]byte("[{domain: a.example, selector: s, key_file: " + file + "}]"))
	if err != nil {
		t.Fatal(err)
	}
	s := New(keys, zap.New(core))
	good := func(from string) {
		t.Helper()
		verify(t, sign(t, s, plain)+plain, 1, map[string]string{"s._domainkey.a.example": record(t, testKey(from))})
		if st := s.Stats(); st.Unusable != nil || s.Blocked() {
			t.Errorf("%+v", st)
		}
	}
	bad := func(why string) {
		t.Helper()
		for range 3 {
			if fields, err := s.Sign(strings.NewReader(plain)); !errors.Is(err, ErrKey) || fields != nil {
				t.Fatalf("%q, %v", fields, err)
			}
		}
		if st := s.Stats(); len(st.Unusable) != 1 || !s.Blocked() || !strings.Contains(st.Unusable[0], "s._domainkey.a.example: "+why) {
			t.Errorf("%q", st.Unusable)
		}
	}
	put("rsa.pem")
	good("rsa.pem")
	good("rsa.pem")
	put("other.pem")
	good("other.pem")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	bad("cannot be read: no such file")
	put("other.pem")
	good("other.pem")
	put("rsa1024.pem")
	bad("is RSA of 1024 bits")
	put("ed25519.pem")
	good("ed25519.pem")
	var said []string
	for _, e := range logs.All() {
		said = append(said, e.Level.String()+" "+e.Message)
	}
	want := "info signing key has changed, error signing key not usable, mail that needs it waits, info signing key usable again, " +
		"error signing key not usable, mail that needs it waits, info signing key usable again"
	if got := strings.Join(said, ", "); got != want {
		t.Errorf("said %s\nwant %s", got, want)
	}
}

// One key of several that is missing keeps the message, whatever the others could do.
func TestAllKeysOrNone(t *testing.T) {
	s := newSigner(t, `[{domain: a.example, selector: r, key_file: testdata/rsa.pem}, {domain: a.example, selector: e, key_file: testdata/nothing.pem}, `+
		`{domain: b.example, selector: e, key_file: testdata/ed25519.pem}]`)
	if fields, err := s.Sign(strings.NewReader(plain)); !errors.Is(err, ErrKey) || fields != nil {
		t.Errorf("%q, %v", fields, err)
	}
	if fields, err := s.Sign(strings.NewReader("From: joe@b.example\r\n\r\n")); err != nil || fields == nil {
		t.Errorf("the other domain: %q, %v", fields, err)
	}
}

// endless is a body that nobody could hold: text with as many blank lines between as may be.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(len(p), e.left)]
	for i := range p {
		p[i] = "x\r\n\r\n\r\n\r\n "[(e.left-i)%10]
	}
	e.left -= len(p)
	return len(p), nil
}

func TestMemoryDoesNotGrowWithTheBody(t *testing.T) {
	s := newSigner(t, bothKinds)
	var before, after runtime.MemStats
	most := uint64(0)
	runtime.GC()
	runtime.ReadMemStats(&before)
	watch := func(p []byte) {
		runtime.ReadMemStats(&after)
		most = max(most, after.HeapAlloc)
	}
	const size = 16 << 20
	fields, err := s.Sign(io.MultiReader(strings.NewReader("From: joe@a.example\r\n\r\n"), &watched{r: &endless{size}, every: 64, look: watch}))
	if err != nil || fields == nil {
		t.Fatal(err)
	}
	if grown := int64(most) - int64(before.HeapAlloc); grown > size/2 {
		t.Errorf("%d octets of heap for a body of %d", grown, size)
	}
}

type watched struct {
	r     io.Reader
	every int
	n     int
	look  func([]byte)
}

func (w *watched) Read(p []byte) (int, error) {
	if w.n++; w.n%w.every == 0 {
		w.look(p)
	}
	return w.r.Read(p)
}

func FuzzASignatureHoldsWhateverTheMessage(f *testing.F) {
	f.Add("Subject: x", "body")
	f.Add("Subject: x\r\n y\r\nX : z", " \r\n\r\n.\r\n")
	f.Add(" x", "\t")
	f.Add("Sender: \xff", "\r\n\r\n")
	dns := zone(f)
	s := newSigner(f, bothKinds)
	f.Fuzz(func(t *testing.T, head, body string) {
		clean := func(s string) string { // as the front door leaves it
			s = strings.NewReplacer("\r\n", "\n", "\r", " ", "\x00", "").Replace(s)
			return strings.ReplaceAll(s, "\n", "\r\n")
		}
		msg := "From: joe@a.example\r\n" + clean(head) + "\r\n\r\n" + clean(body) + "\r\n"
		if fields := sign(t, s, msg); fields != "" {
			verify(t, fields+msg, 2, dns)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	for _, kind := range []struct{ name, keys string }{
		{"rsa2048", `[{domain: a.example, selector: r, key_file: testdata/rsa.pem}]`},
		{"ed25519", `[{domain: a.example, selector: e, key_file: testdata/ed25519.pem}]`},
		{"both", bothKinds},
		{"none", `[{domain: b.example, selector: e, key_file: testdata/ed25519.pem}]`},
	} {
		for _, size := range []int{2 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("%s/%dKiB", kind.name, size>>10), func(b *testing.B) {
				msg := plain + strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78)
				s := newSigner(b, kind.keys)
				b.SetBytes(int64(len(msg)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Sign(strings.NewReader(msg)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
