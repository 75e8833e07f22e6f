package dkim

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime"
	"net/mail"
	"strings"

	"golang.org/x/net/idna"

	"github.com/mailweir/mailweir/proxy/message"
)

// A signature covers a field as often as it is there; and once more, so that nobody can add one, when that is wanted.
type more uint8

const (
	asIs    more = iota
	ifThere      // once more, but only if it is there: relays add it where it lacks (RFC 6409 section 8), which must not break the signature
	always       // once more, also if it is not there
)

// fieldsCovered are those that RFC 6376 section 5.4.1 names, and the one that RFC 8058 section 4 wants to be covered.
var fieldsCovered = []struct {
	name string
	more more
}{
	{"From", always}, {"Reply-To", always}, {"Subject", always}, {"To", always}, {"Cc", always},
	{"Date", ifThere}, {"Message-ID", ifThere}, {"MIME-Version", ifThere}, {"Content-Type", ifThere}, {"Content-Transfer-Encoding", ifThere},
	{"Sender", asIs}, {"In-Reply-To", asIs}, {"References", asIs},
	{"Resent-Date", asIs}, {"Resent-From", asIs}, {"Resent-To", asIs}, {"Resent-Cc", asIs},
	{"List-Id", asIs}, {"List-Help", asIs}, {"List-Unsubscribe", asIs}, {"List-Unsubscribe-Post", asIs}, {"List-Subscribe", asIs},
	{"List-Post", asIs}, {"List-Owner", asIs}, {"List-Archive", asIs},
}

// Bounds of a header that is signed, in octets.
const (
	headerMax = 1 << 20
	namesMax  = 900 // of the names in h=, which stand on one line of at most 998 (RFC 5322 section 2.1.1)
)

// field is one header field that a signature covers, folded as it came, with its CRLF.
type field struct {
	name string // as in fieldsCovered
	raw  []byte
}

type header []field

// readHeader reads up to and with the line that ends the header, which may lack where there is no body. BadHeader: it cannot be told, or not
// held, what the header is.
func readHeader(r *bufio.Reader) (h header, reason Reason, err error) {
	keep := false // the field that goes on is one of h
	for first, left := true, headerMax; ; first = false {
		line, err := readLine(r, left)
		left -= len(line)
		switch {
		case err != nil && err != io.EOF:
			if errors.Is(err, bufio.ErrBufferFull) {
				return nil, BadHeader, nil
			}
			return nil, "", err
		case len(line) == 0: // the end of the header, or of all
			return h, "", nil
		case line[0] == ' ' || line[0] == '\t':
			if first {
				return nil, BadHeader, nil
			}
			if keep {
				h[len(h)-1].raw = append(append(h[len(h)-1].raw, line...), "\r\n"...)
			}
			continue
		}
		name, ok := fieldName(line)
		if !ok {
			return nil, BadHeader, nil
		}
		if name, keep = coveredName(name); keep {
			h = append(h, field{name, append(line, "\r\n"...)})
		}
	}
}

// readLine returns the next line without its end. bufio.ErrBufferFull: it has more than limit octets.
func readLine(r *bufio.Reader, limit int) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit:
			return nil, bufio.ErrBufferFull
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		}
		return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), err
	}
}

// fieldName returns what stands before the colon (RFC 5322 section 3.6.8, with the white space of section 4.5).
func fieldName(line []byte) (string, bool) {
	name, _, found := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	bad := func(r rune) bool { return r <= ' ' || r > '~' }
	return string(name), found && len(name) > 0 && !bytes.ContainsFunc(name, bad)
}

func coveredName(name string) (string, bool) {
	for _, f := range fieldsCovered {
		if strings.EqualFold(f.name, name) {
			return f.name, true
		}
	}
	return "", false
}

// names is h= of the signature. ok is false when there are too many.
func (h header) names() (names []string, ok bool) {
	count := map[string]int{}
	for _, f := range h {
		count[f.name]++
	}
	length := 0
	for _, f := range fieldsCovered {
		n := count[f.name]
		if f.more == always || f.more == ifThere && n > 0 {
			n++
		}
		if length += n * (len(f.name) + 1); length > namesMax {
			return nil, false
		}
		for range n {
			names = append(names, f.name)
		}
	}
	return names, true
}

// covered is a header of those fields only, with the line that ends it. The others make no difference to a signature.
func (h header) covered() []byte {
	var b []byte
	for _, f := range h {
		b = append(b, f.raw...)
	}
	return append(b, "\r\n"...)
}

// fromDomain is the domain of the first author, lower case and in ASCII; "": there is no such thing.
func (h header) fromDomain() string {
	var from []byte
	for _, f := range h {
		if f.name != "From" {
			continue
		}
		if from != nil {
			return "" // readers differ about which one counts
		}
		from = f.raw
	}
	_, value, _ := strings.Cut(string(from), ":")
	domain, ok := dnsName(message.Domain(firstAddress(strings.ReplaceAll(value, "\r\n", ""))))
	if !ok {
		return ""
	}
	return domain
}

// addresses passes encoded words through whatever their charset is: a name is of no interest here.
var addresses = mail.AddressParser{WordDecoder: &mime.WordDecoder{
	CharsetReader: func(_ string, in io.Reader) (io.Reader, error) { return in, nil },
}}

// firstAddress also understands what many applications write against the rules, as in "[App] Alerts <a@b.example>".
func firstAddress(value string) string {
	if list, err := addresses.ParseList(value); err == nil && len(list) > 0 {
		return list[0].Address
	}
	name, rest, found := strings.Cut(value, "<")
	addr, after, closed := strings.Cut(rest, ">")
	if !found || !closed || strings.ContainsAny(name+after, `"<>@`) || strings.TrimSpace(after) != "" {
		return ""
	}
	if _, err := message.ParseAddress(addr, true); err != nil {
		return ""
	}
	return addr
}

// dnsName brings a domain into the form in which DNS has it. It refuses what would need quoting in a signature, and address literals.
func dnsName(s string) (string, bool) {
	s = strings.ToLower(s)
	if strings.ContainsFunc(s, func(r rune) bool { return r > '~' }) {
		ascii, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", false
		}
		s = ascii
	}
	if len(s) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || strings.ContainsFunc(label, notInLabel) {
			return "", false
		}
	}
	return s, true
}

func notInLabel(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_", r)
}

// blankAfter is how many octets in a row are blank at the end of piece, when so many were before it; or more, if there were at its begin.
func blankAfter(before int, piece []byte) int {
	const blank = " \t\r\n"
	text := bytes.TrimLeft(piece, blank)
	if led := before + len(piece) - len(text); len(text) == 0 || led > blankMax {
		return led
	}
	return len(text) - len(bytes.TrimRight(text, blank))
}
