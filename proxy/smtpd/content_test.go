package smtpd

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// readContent runs wire through a content in pieces of the lengths that cuts gives, over and over.
func readContent(cfg Config, wire string, cuts []byte) (body string, c *content, used int, end bool) {
	var sink strings.Builder
	c = newContent(&cfg, &sink)
	defer c.release()
	for i := 0; used < len(wire) && !end; i++ {
		size := len(wire)
		if len(cuts) > 0 {
			size = int(cuts[i%len(cuts)])%97 + 1
		}
		piece := []byte(wire[used:min(used+size, len(wire))])
		var n int
		n, end = c.feed(piece)
		used += n
		clear(piece) // nobody may have kept it
	}
	if err := c.finish(); err != nil {
		return "", c, used, end
	}
	return sink.String(), c, used, end
}

func TestContentEndsOnlyAtCRLFDotCRLFAndIsNormalisedAfterwards(t *testing.T) {
	for _, s := range []struct {
		wire, body, rest string
		err              error
	}{
		{".\r\nQUIT", "", "QUIT", nil},
		{"\r\n.\r\nx", "\r\n", "x", nil},
		{"a\r\n.\r\n.\r\n", "a\r\n", ".\r\n", nil},
		{"..\r\n...\r\n.a\r\n.\r\n", ".\r\n..\r\na\r\n", "", nil},
		{".\r.\r\n.\r\n", "\r\n .\r\n", "", nil}, // what begins with a space is no header
		{".\r\r\n.\r\n", "\r\n \r\n", "", nil},
		{"a\r\r\n.\r\n", "a \r\n", "", nil}, // go-smtp never ends here
		{"a\r\r\r\n\r\n.\r\n", "a  \r\n\r\n", "", nil},
		{"a\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", "", nil},
		{"a\n.\r\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", "", nil},
		{"\n\n\r\n.\r\n", "\r\n\r\n\r\n", "", nil},
		{"\r\r\r\n.\r\n", "\r\n  \r\n", "", nil},
		{"a\rb\n\rc\r\n.\r\n", "a b\r\n c\r\n", "", nil},
		{"a\x00b\r\n.\r\nx", "", "x", errNUL},
		{"\x00\r\n.\r\n", "", "", errNUL},
	} {
		for _, cuts := range [][]byte{nil, {0}, {1}, {2}, {0, 1}} {
			body, c, used, end := readContent(testConfig(), s.wire, cuts)
			if body != s.body || s.wire[used:] != s.rest || !end || !errors.Is(c.err, s.err) {
				t.Errorf("%q in pieces of %v: body %q, rest %q, end %v, error %v; want %q, %q, error %v",
					s.wire, cuts, body, s.wire[used:], end, c.err, s.body, s.rest, s.err)
			}
		}
	}
}

func TestRepairsAreCountedAndCanBeRefused(t *testing.T) {
	const wire = "a\nb\rc\r\r\n\n.\r\r\nd\r\n.\r\n"
	_, c, _, _ := readContent(testConfig(), wire, nil)
	if c.bareLF != 2 || c.bareCR != 3 || c.err != nil {
		t.Errorf("%d bare LF, %d bare CR, %v", c.bareLF, c.bareCR, c.err)
	}
	strict := testConfig()
	strict.BareNewline = rejectNewline
	for _, wire := range []string{"a\nb\r\n.\r\n", "a\rb\r\n.\r\n", "a\r\r\n.\r\n"} {
		if _, c, _, end := readContent(strict, wire, []byte{0}); !errors.Is(c.err, errBareNewline) || !end {
			t.Errorf("%q: %v, end %v", wire, c.err, end)
		}
	}
	if body, c, _, _ := readContent(strict, "a\r\n.\r\n", nil); c.err != nil || body != "a\r\n" {
		t.Errorf("clean content: %q, %v", body, c.err)
	}
}

func TestMaximumSizeIsExactAndCountsNoStuffedDots(t *testing.T) {
	cfg := testConfig()
	cfg.MaxMessageBytes = 10
	for wire, want := range map[string]error{
		"12345678\r\n.\r\n":         nil,
		"123456789\r\n.\r\n":        errTooBig,
		"..345678\r\n.\r\n":         nil, // nine octets
		"..3456789\r\n.\r\n":        nil,
		"..34567890\r\n.\r\n":       errTooBig,
		"\n\n\n\n\n\n\n\n\r\n.\r\n": nil, // counted before it is normalised
	} {
		if _, c, _, _ := readContent(cfg, wire, []byte{2}); !errors.Is(c.err, want) {
			t.Errorf("%q: %v, want %v", wire, c.err, want)
		}
	}
}

func TestReceivedFieldsAreCountedInTheHeaderOnly(t *testing.T) {
	for _, s := range []struct {
		wire string
		want int
	}{
		{"Received: a\r\nreceived:b\r\nRECEIVED : c\r\n\r\nReceived: d\r\n", 3},
		{"X-Received: a\r\nReceivedx: a\r\nReceive: a\r\n Received: folded\r\n", 0},
		{"Received: a\r\n\tby b\r\n\r\n\r\nReceived: c\r\n", 1},
		{"Received: a\nReceived: b\n\nReceived: c\r\n", 2}, // normalised line ends count
		{"\r\nReceived: c\r\n", 0},
		{"Received\r\n: c\r\n", 0},
		{"Subject: x\r\nReceived: 1\r\n", 1},
		{"..Received: 1\r\n", 0},
		{".Received: 1\r\n", 1}, // a stuffed dot
	} {
		for _, cuts := range [][]byte{nil, {0}, {1}, {6}} {
			_, c, _, _ := readContent(testConfig(), s.wire+".\r\n", cuts)
			if c.trace.fields != s.want {
				t.Errorf("%q in pieces of %v: %d Received fields, want %d", s.wire, cuts, c.trace.fields, s.want)
			}
		}
	}
	cfg := testConfig()
	for n, want := range map[int]error{cfg.MaxHops: nil, cfg.MaxHops + 1: errHops} {
		if _, c, _, _ := readContent(cfg, strings.Repeat("Received: x\r\n", n)+"\r\n.\r\n", nil); !errors.Is(c.err, want) {
			t.Errorf("%d hops: %v, want %v", n, c.err, want)
		}
	}
}

type failingWriter struct{ after int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		return 0, ErrFull
	}
	return len(p), nil
}

func TestADraftThatFailsIsNotWrittenToAgainAndTheEndIsStillFound(t *testing.T) {
	wire := []byte(strings.Repeat("0123456789abcdef\r\n", 1<<10) + ".\r\nNOOP")
	for _, room := range []int{0, 1, 5000, 18 << 10} {
		cfg := testConfig()
		c := newContent(&cfg, &failingWriter{room})
		used, end := c.feed(wire)
		err := c.finish()
		if !end || string(wire[used:]) != "NOOP" || errors.Is(err, ErrFull) != (room < 18<<10) {
			t.Errorf("room for %d: end %v, rest %q, %v", room, end, wire[used:], err)
		}
		c.release()
	}
}

// reference does the same as content, without hurry: on the whole wire, with the standard library's tools.
func reference(wire string) (body, rest string, end bool) {
	at := strings.Index("\r\n"+wire, "\r\n.\r\n")
	if at < 0 {
		return "", "", false
	}
	raw, rest := ("\r\n" + wire)[:at+2], wire[at+3:]
	raw = strings.ReplaceAll(raw, "\r\n.", "\r\n")[2:]
	raw = strings.ReplaceAll(raw, "\r\n", "\n\x00") // NUL marks a good line end; content with NUL is refused
	raw = strings.ReplaceAll(raw, "\r", " ")
	raw = strings.ReplaceAll(raw, "\n\x00", "\x00")
	raw = strings.ReplaceAll(raw, "\n", "\r\n")
	return strings.ReplaceAll(raw, "\x00", "\r\n"), rest, true
}

func FuzzContentIsCleanWhateverTheReadBoundaries(f *testing.F) {
	for _, seed := range []string{".\r\n", "a\r\n.\r\n", "\n.\n\r.\r\r\n.\r\r\n\r\r\n.\r\n.\r\n", "..\r\n.\r\n", "a\x00\r\n.\r\n", "\r\n.\r"} {
		f.Add(seed, []byte{0, 1, 5})
	}
	f.Fuzz(func(t *testing.T, wire string, cuts []byte) {
		whole, c1, used1, end1 := readContent(testConfig(), wire, nil)
		parts, c2, used2, end2 := readContent(testConfig(), wire, cuts)
		if whole != parts || used1 != used2 || end1 != end2 || (c1.err == nil) != (c2.err == nil) ||
			c1.written != c2.written && c1.err == nil || c1.trace.fields != c2.trace.fields && c1.err == nil {
			t.Fatalf("%q: %q in one piece, %q in pieces of %v", wire, whole, parts, cuts)
		}
		if bytes.ContainsAny([]byte(strings.ReplaceAll(whole, "\r\n", "")), "\r\n\x00") {
			t.Fatalf("%q: bare CR, LF or NUL in %q", wire, whole)
		}
		body, rest, end := reference(wire)
		if end != end1 || end && wire[used1:] != rest {
			t.Fatalf("%q: end %v, rest %q; want %v, %q", wire, end1, wire[used1:], end, rest)
		}
		switch {
		case !end:
		case errors.Is(c1.err, errNUL):
			if !strings.Contains(strings.TrimSuffix(wire, rest), "\x00") {
				t.Fatalf("%q refused for NUL", wire)
			}
		case c1.err == nil && whole != body:
			t.Fatalf("%q: body %q, want %q", wire, whole, body)
		}
	})
}

func BenchmarkContent(b *testing.B) {
	cfg := testConfig()
	cfg.MaxMessageBytes = 1 << 40
	wire := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", contentBuffer/78))
	c := newContent(&cfg, io.Discard)
	defer c.release()
	b.SetBytes(int64(len(wire)))
	c.feed([]byte("Subject: x\r\n\r\n"))
	for b.Loop() {
		c.feed(wire)
	}
}
