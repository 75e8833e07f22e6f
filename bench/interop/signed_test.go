//go:build postfix

package interop

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/mailweir/mailweir/bench/rig"
)

// What mailweir signs is verified by others, after a real Postfix has passed it on.

const (
	verifyLimit = 30 * time.Second
	nameserver  = "127.0.77.53" // of our own; only what runs with our resolv.conf asks it
	txtMax      = 255           // octets of one string of a TXT record
)

// letters are what a signature has to survive, each after the fields that all have.
var letters = map[string]string{
	"dots":         "Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n",
	"blanks":       "Subject:  a\t b \r\n  c\r\n\r\n a  b \t\r\n\r\n\t\r\nx \r\n\r\n \r\n\r\n",
	"no body":      "Subject: none\r\n\r\n",
	"no Subject":   "\r\nx\r\n",
	"eight bits":   "Subject: eight bits\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nna\xc3\xafve\r\n",
	"newsletter":   "To: b@b.example,\r\n c@c.example\r\nCc: d@d.example\r\nReply-To: n@interop.example\r\nList-Unsubscribe: <https://a.example/u>\r\n\r\nx\r\n",
	"long":         "Subject: long\r\n\r\n" + strings.Repeat(strings.Repeat("0123456789", 9)+"\r\n", 20_000),
	"a second one": "DKIM-Signature: v=1; a=rsa-sha256; d=elsewhere.example; s=x; h=from; bh=; b=\r\nSubject: x\r\n\r\nx\r\n",
}

// keyPair makes a private key in dir and returns its file and its TXT record.
func keyPair(t *testing.T, dir, kind string) (file, record string) {
	t.Helper()
	var private, public any
	if kind == "rsa" {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		private, public = key, key.Public()
	} else {
		pub, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		private, public = key, pub
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, kind+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	half, ok := public.(ed25519.PublicKey) // published as it is (RFC 8463 section 4)
	if !ok {
		if half, err = x509.MarshalPKIXPublicKey(public); err != nil {
			t.Fatal(err)
		}
	}
	return file, "v=DKIM1; k=" + kind + "; p=" + base64.StdEncoding.EncodeToString(half)
}

func TestOthersVerifyWhatWasSigned(t *testing.T) {
	dir := scratch(t)
	rsaFile, rsaRecord := keyPair(t, dir, "rsa")
	edFile, edRecord := keyPair(t, dir, "ed25519")
	zone := map[string]string{"r._domainkey.interop.example": rsaRecord, "e._domainkey.interop.example": edRecord}
	p := newPostfix(t, stormLimit)
	m := newMailweir(t, p.Address, fmt.Sprintf("MAILWEIR_DKIM_KEYS=[{domain: interop.example, selector: r, key_file: %s}, "+
		"{domain: interop.example, selector: e, key_file: %s}]", rsaFile, edFile))
	for name, text := range letters {
		message := "From: Client <" + sender + ">\r\nDate: Fri, 01 May 2026 12:00:00 +0000\r\nMessage-ID: <" +
			strings.ReplaceAll(name, " ", ".") + "@interop.example>\r\nX-Letter: " + name + "\r\n" + text
		if err := smtp.SendMail(m.Address, nil, sender, []string{"to@interop.example"}, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
	m.awaitEmpty(t)
	rig.Await(t, arrivalLimit, "arrival", func() error {
		if n := len(p.sink.Ledger()); n < len(letters) {
			return fmt.Errorf("%d of %d", n, len(letters))
		}
		return nil
	})
	arrived := map[string][]byte{}
	for _, taken := range p.sink.Ledger() {
		_, after, _ := strings.Cut(string(taken.Body), "\r\nX-Letter: ")
		name, _, _ := strings.Cut(after, "\r\n")
		arrived[name] = taken.Body
	}
	t.Run("dkimpy", func(t *testing.T) { verifyAll(t, arrived, newDkimpy(t, dir, zone)) })
	t.Run("opendkim", func(t *testing.T) { verifyAll(t, arrived, newOpenDKIM(t, dir, zone)) })
}

// verifyAll wants both our signatures of each message to be good by somebody's judgement, and neither of one after it was changed.
func verifyAll(t *testing.T, arrived map[string][]byte, verify func(message []byte) error) {
	for name := range letters {
		message, ok := arrived[name]
		if !ok {
			t.Fatalf("%s: has not arrived", name)
		}
		for _, selector := range []string{"r", "e"} {
			one := only(message, "s="+selector+";")
			if err := verify(one); err != nil {
				t.Errorf("%s, selector %s: %v\n%.3000s", name, selector, err, one)
			}
			if name != "dots" {
				continue
			}
			if err := verify(bytes.Replace(one, []byte("Date: Fri"), []byte("Date: Sat"), 1)); err == nil {
				t.Errorf("%s, selector %s: a changed header is good too", name, selector)
			}
			if err := verify(append(one[:len(one):len(one)], "x\r\n"...)); err == nil {
				t.Errorf("%s, selector %s: a changed body is good too", name, selector)
			}
		}
	}
}

// only leaves out every signature but the one that has tag, since a verifier may be content with any.
func only(message []byte, tag string) []byte {
	header, body, _ := bytes.Cut(message, []byte("\r\n\r\n"))
	var kept []byte
	for field := range bytes.SplitSeq(unfoldable(header), []byte{0}) {
		if !bytes.HasPrefix(field, []byte("DKIM-Signature:")) || bytes.Contains(field, []byte(" "+tag)) && bytes.Contains(field, []byte("d=interop.example;")) {
			kept = append(append(kept, field...), "\r\n"...)
		}
	}
	return append(append(kept, "\r\n"...), body...)
}

// unfoldable puts a NUL between fields in place of a line end.
func unfoldable(header []byte) []byte {
	header = bytes.ReplaceAll(header, []byte("\r\n"), []byte{0})
	header = bytes.ReplaceAll(header, []byte{0, ' '}, []byte("\r\n "))
	return bytes.ReplaceAll(header, []byte{0, '\t'}, []byte("\r\n\t"))
}

// newDkimpy verifies with dkimpy, from Debian's python3-dkim.
func newDkimpy(t *testing.T, dir string, zone map[string]string) func([]byte) error {
	t.Helper()
	const python = "/usr/bin/python3" // the one that Debian's packages are for
	if out, err := rig.Command(verifyLimit, python, "-c", "import dkim, nacl"); err != nil {
		t.Fatalf("dkimpy is not installed: apt-get install python3-dkim\n%s", out)
	}
	text, err := json.Marshal(zone)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "zone.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return func(message []byte) error {
		out, err := fed(message, python, "testdata/verify.py", file)
		if err == nil && strings.TrimSpace(out) != "1 good" {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	}
}

// newOpenDKIM verifies with libopendkim, from Debian's opendkim-tools. It asks DNS itself: a server of ours, that only it knows of.
func newOpenDKIM(t *testing.T, dir string, zone map[string]string) func([]byte) error {
	t.Helper()
	const tool = "/usr/sbin/opendkim-testmsg"
	if _, err := os.Stat(tool); err != nil {
		t.Fatal("OpenDKIM is not installed: apt-get install opendkim-tools")
	}
	serveDNS(t, zone)
	conf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver "+nameserver+"\noptions timeout:2 attempts:2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return func(message []byte) error {
		out, err := fed(message, "unshare", "--mount", "sh", "-c", `mount --bind "$1" /etc/resolv.conf && exec "$2" -t "$3"`, "sh", conf, tool, dir)
		if err == nil && out != "" {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	}
}

// fed runs a program with input and returns what it writes.
func fed(input []byte, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), verifyLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(name), err, bytes.TrimSpace(out))
	}
	return string(out), err
}

// serveDNS answers for TXT records of zone until the test ends.
func serveDNS(t *testing.T, zone map[string]string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(nameserver, "53"))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	go func() {
		defer close(ended)
		b := make([]byte, 4<<10)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return // closed
			}
			if reply := answer(b[:n], zone); reply != nil {
				_, _ = conn.WriteTo(reply, from) // who does not hear it asks again
			}
		}
	}()
}

// answer returns nil for what is no question.
func answer(question []byte, zone map[string]string) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionDesired: m.RecursionDesired, RecursionAvailable: true}
	m.Answers, m.Authorities, m.Additionals = nil, nil, nil
	text, found := zone[strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))]
	switch {
	case !found:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeTXT:
		var parts []string
		for ; len(text) > txtMax; text = text[txtMax:] {
			parts = append(parts, text[:txtMax])
		}
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
			Body:   &dnsmessage.TXTResource{TXT: append(parts, text)},
		}}
	}
	reply, err := m.Pack()
	if err != nil {
		return nil
	}
	return reply
}
