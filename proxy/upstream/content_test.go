package upstream

import (
	"bytes"
	"io"
	"net/textproto"
	"strings"
	"testing"
	"testing/iotest"

	"bufio"

	"pgregory.net/rapid"
)

func stuffed(body string, block int) string {
	var b bytes.Buffer
	s := stuffer{fresh: true}
	for len(body) > 0 {
		n := min(block, len(body))
		for p := range s.stuff([]byte(body[:n])) {
			b.Write(p)
		}
		body = body[n:]
	}
	b.WriteString(s.ending())
	return b.String()
}

func TestContentIsStuffedAndEnded(t *testing.T) {
	for body, want := range map[string]string{
		"":                   ".\r\n",
		"a\r\n":              "a\r\n.\r\n",
		"a":                  "a\r\n.\r\n",
		"a\r":                "a\r\n.\r\n",
		".":                  "..\r\n.\r\n",
		".\r\n":              "..\r\n.\r\n",
		"..\r\n":             "...\r\n.\r\n",
		"a\r\n.b\r\n":        "a\r\n..b\r\n.\r\n",
		"a\r\n.\r\nQUIT\r\n": "a\r\n..\r\nQUIT\r\n.\r\n",
		"a.b\r\n":            "a.b\r\n.\r\n",
		"a\n.\nb\r\n":        "a\n..\nb\r\n.\r\n", // for servers that are lax about line ends
		"\r\n.\r\n.\r\n":     "\r\n..\r\n..\r\n.\r\n",
	} {
		for block := 1; block < 10; block++ {
			if got := stuffed(body, block); got != want {
				t.Errorf("%q in blocks of %d: %q, want %q", body, block, got, want)
			}
		}
	}
}

// What a server reads is the content, whatever it is and however it is cut.
func TestContentArrivesUnchanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"\r\n", ".", "a", "..", "\r\n.\r\n", "bc"})).Draw(t, "parts")
		body := strings.Join(parts, "") + "\r\n"
		wire := stuffed(body, rapid.IntRange(1, 8).Draw(t, "block"))
		if strings.Count(wire, "\r\n.\r\n") != 1 && body != "\r\n" && !strings.HasPrefix(wire, ".\r\n") {
			t.Fatalf("%q ends more than once", wire)
		}
		got, err := io.ReadAll(textproto.NewReader(bufio.NewReader(strings.NewReader(wire))).DotReader())
		if want := strings.ReplaceAll(body, "\r\n", "\n"); err != nil || string(got) != want {
			t.Fatalf("%q: %q, %v", body, got, err)
		}
	})
}

// Content that comes in odd reads goes out as if it came in one.
func TestContentInOddReads(t *testing.T) {
	r := &relay{offers: pipelining}
	inBubble(t, r, func(t *testing.T) {
		jobs := letters(3, 1)
		for i, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader, iotest.HalfReader} {
			open := jobs[i].Open
			jobs[i].Open = func() (io.ReadCloser, error) {
				rc, err := open()
				return io.NopCloser(wrap(rc)), err
			}
		}
		results, _ := send(r.connect(t, r.client(t, Config{})), jobs...)
		r.checkTruth(t, jobs, results)
		if len(r.accepted) != 3 {
			t.Errorf("%d taken", len(r.accepted))
		}
	})
}

func BenchmarkStuff(b *testing.B) {
	body := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", 400))
	s := stuffer{fresh: true}
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		for p := range s.stuff(body) {
			if len(p) == 0 {
				b.Fatal("empty part")
			}
		}
	}
}
