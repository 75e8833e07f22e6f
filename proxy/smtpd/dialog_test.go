package smtpd

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestDialogs plays testdata/dialog/*.txt. Lines of a dialog:
//
//	# a comment: why it must be so
//	set key value     of the configuration, before anything else
//	C: text           the client sends text and CR LF
//	c: text           the client sends text alone
//	S: text           the server sends exactly this line; * at its end stands for anything
//	S. end            the server closes
//	M: text           what was accepted, in order, as describe writes it
//
// Text has Go's escapes without quotes. Without an M line nothing may have been accepted.
func TestDialogs(t *testing.T) {
	files, err := filepath.Glob("testdata/dialog/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogs: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := parseDialog(t, string(text))
			bubble(t, d.cfg, d.play)
		})
	}
}

type dialog struct {
	cfg      Config
	steps    []step
	accepted []string
}

type step struct {
	line       int
	who, words string
}

func parseDialog(t *testing.T, text string) dialog {
	t.Helper()
	d := dialog{cfg: testConfig()}
	for i, line := range strings.Split(text, "\n") {
		key, rest, _ := strings.Cut(line, " ")
		switch key {
		case "", "#":
		case "set":
			d.set(t, rest)
		case "C:", "c:", "S:", "S.":
			d.steps = append(d.steps, step{i + 1, key, unescape(t, i+1, rest)})
		case "M:":
			d.accepted = append(d.accepted, rest)
		default:
			t.Fatalf("line %d: %q", i+1, line)
		}
	}
	return d
}

func unescape(t *testing.T, line int, s string) string {
	t.Helper()
	var out []byte
	for s != "" {
		r, multibyte, rest, err := strconv.UnquoteChar(s, 0)
		if err != nil {
			t.Fatalf("line %d: %v in %q", line, err, s)
		}
		if multibyte {
			out = append(out, string(r)...)
		} else {
			out = append(out, byte(r))
		}
		s = rest
	}
	return string(out)
}

func (d *dialog) set(t *testing.T, setting string) {
	t.Helper()
	key, value, _ := strings.Cut(setting, " ")
	n, _ := strconv.Atoi(value)
	switch key {
	case "max_message_bytes":
		d.cfg.MaxMessageBytes = int64(n)
	case "max_recipients":
		d.cfg.MaxRecipients = n
	case "max_hops":
		d.cfg.MaxHops = n
	case "qualify_domain":
		d.cfg.QualifyDomain = value
	case "accept_any_auth":
		d.cfg.AcceptAnyAuth = value == "true"
	case "bare_newline":
		d.cfg.BareNewline = value
	default:
		t.Fatalf("unknown setting %q", setting)
	}
}

func (d *dialog) play(t *testing.T, f *front) {
	c := f.dial(t)
	for _, s := range d.steps {
		switch s.who {
		case "C:":
			c.send(s.words + "\r\n")
		case "c:":
			c.send(s.words)
		case "S.":
			if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
				t.Fatalf("line %d: the server says %q (%v) and should close", s.line, rest, err)
			}
		case "S:":
			got, err := c.r.ReadString('\n')
			got = strings.TrimSuffix(got, "\r\n")
			prefix, open := strings.CutSuffix(s.words, "*")
			if err != nil || got != s.words && !(open && strings.HasPrefix(got, prefix)) {
				t.Fatalf("line %d: the server says %q (%v), want %q", s.line, got, err, s.words)
			}
		}
	}
	var got []string
	for _, k := range f.memory.kept() {
		got = append(got, describe(k))
	}
	if have, want := strings.Join(got, "\n"), strings.Join(d.accepted, "\n"); have != want {
		t.Errorf("accepted\n%s\nwant\n%s", have, want)
	}
}

// describe shows a message on one line: sender, parameters, recipients with theirs, and the quoted body.
func describe(k kept) string {
	var b strings.Builder
	e := k.env
	fmt.Fprintf(&b, "<%s>", e.From)
	for _, p := range []struct {
		name string
		set  bool
	}{{" 8BITMIME", e.Body8}, {" SMTPUTF8", e.UTF8}, {" header8", e.Header8}, {" RET=" + e.Ret, e.Ret != ""}, {" ENVID=" + e.EnvID, e.EnvID != ""}} {
		if p.set {
			b.WriteString(p.name)
		}
	}
	b.WriteString(" ->")
	for _, to := range e.To {
		fmt.Fprintf(&b, " <%s>", to.Addr)
		if to.Notify != "" {
			b.WriteString(" NOTIFY=" + to.Notify)
		}
		if to.ORcpt != "" {
			b.WriteString(" ORCPT=" + to.ORcpt)
		}
	}
	fmt.Fprintf(&b, " %q", k.body)
	return b.String()
}
