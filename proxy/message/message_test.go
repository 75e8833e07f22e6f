package message

import (
	"bytes"
	"encoding/hex"
	"net/mail"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestAddressesAreTakenAsTheyAreOrRefused(t *testing.T) {
	for _, c := range []struct {
		wire string
		utf8 bool
		good bool
	}{
		{"user@example.com", false, true},
		{"a.b+c!#$%&'*/=?^_`{|}~-@sub.example.com", false, true},
		{`"a b"@example.com`, false, true},
		{`"a@b"@example.com`, false, true},
		{`"a\"b"@example.com`, false, true},
		{"user@[192.0.2.1]", false, true},
		{"user@[IPv6:2001:db8::1]", false, true},
		{"user@localhost", false, true},
		{"user@under_score.example", false, true},
		{"PostMaster", false, true},
		{"jörg@example.com", true, true},
		{"user@müller.example", true, true},

		{"", false, false},
		{"root", false, false},
		{"@example.com", false, false},
		{"user@", false, false},
		{"user@@example.com", false, false},
		{"a..b@example.com", false, false},
		{".a@example.com", false, false},
		{"a.@example.com", false, false},
		{"a b@example.com", false, false},
		{"a>b@example.com", false, false},
		{"<a@example.com", false, false},
		{"a@example.com> SIZE=1", false, false},
		{`"a> SIZE=1 x"@b`, false, true}, // inside quotes nothing ends the path
		{`"a@example.com`, false, false},
		{`"a"b@example.com`, false, false},
		{"\"a\r\nRCPT TO:<x@y>\"@b", false, false},
		{"\"a\\\r\"@b", false, false},
		{"a\x00b@example.com", false, false},
		{"a\rb@example.com", false, false},
		{"user@exa mple.com", false, false},
		{"user@example..com", false, false},
		{"user@-example.com", false, false},
		{"user@[192.0.2.1", false, false},
		{"user@[fe80::1%eth0]", false, false},
		{"user@[IPv6:fe80::1%a>b]", false, false},
		{"jörg@example.com", false, false},
		{"\xff@example.com", true, false},
		{"@a,@b:user@example.com", false, false},
		{strings.Repeat("a", 65) + "@example.com", false, false},
		{"a@" + strings.Repeat("a.", 130) + "com", false, false},
	} {
		got, err := ParseAddress(c.wire, c.utf8)
		if (err == nil) != c.good {
			t.Errorf("%q (SMTPUTF8 %v): %v", c.wire, c.utf8, err)
		}
		if err == nil && got != c.wire {
			t.Errorf("%q became %q", c.wire, got)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add(`"a> SIZE=1 x"@b`, true)
	f.Add("user@[IPv6:2001:db8::1]", false)
	f.Fuzz(func(t *testing.T, wire string, utf8 bool) {
		addr, err := ParseAddress(wire, utf8)
		if err != nil {
			return
		}
		if addr != wire || strings.ContainsAny(addr, "\r\n\x00") {
			t.Fatalf("%q accepted as %q", wire, addr)
		}
		if !strings.HasPrefix(addr, `"`) && strings.ContainsAny(addr, "<> ") {
			t.Fatalf("%q could end its brackets", addr)
		}
		if strings.ContainsAny(Domain(addr), "\r\n<> ") {
			t.Fatalf("%q has the domain %q", addr, Domain(addr))
		}
	})
}

func TestDomainIsLowerCased(t *testing.T) {
	for addr, want := range map[string]string{
		"A@Example.COM": "example.com", `"x@y"@B.example`: "b.example", "postmaster": "", "": "", "a@[192.0.2.1]": "[192.0.2.1]",
	} {
		if got := Domain(addr); got != want {
			t.Errorf("%q: %q, want %q", addr, got, want)
		}
	}
}

func full() Envelope {
	return Envelope{
		ID: 7, From: "a@b.example", Body8: true, UTF8: true, Ret: "HDRS", EnvID: "x+2By", Size: 1 << 40,
		Received: time.UnixMicro(1_700_000_000_123_456), Client: "127.0.0.1:4711", Helo: "app",
		To: []Recipient{{Addr: "c@d.example", Notify: "SUCCESS,DELAY", ORcpt: "rfc822;c@d.example"}, {Addr: `"e f"@g.example`}},
	}
}

func TestEnvelopeSurvivesTheJournal(t *testing.T) {
	header := full()
	header.Header8 = true
	for _, want := range []Envelope{full(), header, {From: "", Received: time.UnixMicro(0), To: []Recipient{{Addr: "postmaster"}}}} {
		b, err := want.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		b = AppendField(b, 99, []byte("a field of a later version"))
		var got Envelope
		if err := got.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	e := full()
	b, err := e.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Envelope
		if e.UnmarshalBinary(b) == nil && len(e.To) == 0 {
			t.Fatal("an envelope without recipients was taken")
		}
	})
}

func TestIDsAscendWhateverTheClockDoes(t *testing.T) {
	var ids IDs
	now := time.Unix(1_700_000_000, 0)
	last := ids.Next(now)
	for _, step := range []time.Duration{0, 0, time.Second, -time.Hour, 0, time.Microsecond} {
		now = now.Add(step)
		id := ids.Next(now)
		if id <= last || id.String() <= last.String() {
			t.Fatalf("%s after %s", id, last)
		}
		last = id
	}
	ids.Seen(last + 1000)
	if id := ids.Next(now); id != last+1001 {
		t.Fatalf("%d, want %d", id, last+1001)
	}
}

func TestIDsReadBack(t *testing.T) {
	for _, id := range []ID{0, 1, 31, 32, 1<<64 - 1, 0x0623_4567_89ab_cdef} {
		got, err := ParseID(strings.ToLower(id.String()))
		if err != nil || got != id {
			t.Errorf("%d: %d, %v", id, got, err)
		}
	}
	for _, s := range []string{"", "0", "GZZZZZZZZZZZZ", "000000000000U", "00000000000000"} {
		if id, err := ParseID(s); err == nil {
			t.Errorf("%q read as %d", s, id)
		}
	}
}

func TestReceivedStaysOneHeaderWhateverTheClientSays(t *testing.T) {
	for _, helo := range []string{"app.example", "", "a\r\nBcc: x@y", "(unclosed", strings.Repeat("x", 2000), "[192.0.2.1]", "jörg;\x00"} {
		e := full()
		e.Helo = helo
		b := e.AppendReceived(nil, "weir.example")
		m, err := mail.ReadMessage(bytes.NewReader(append(b, "Subject: s\r\n\r\nbody"...)))
		if err != nil {
			t.Fatalf("%q: %v", helo, err)
		}
		if len(m.Header) != 2 || m.Header.Get("Subject") != "s" || !strings.Contains(m.Header.Get("Received"), "id "+e.ID.String()+";") {
			t.Errorf("%q became %q", helo, b)
		}
		for line := range strings.SplitSeq(string(b), "\r\n") {
			if len(line) > 998 || strings.ContainsAny(line, "\r\n\x00") {
				t.Errorf("%q: bad line %q", helo, line)
			}
		}
	}
}

// Whatever the bytes are, both readers of an envelope refuse the same and understand the same.
func FuzzOutline(f *testing.F) {
	e := full()
	b, err := e.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	for n := range len(b) + 1 {
		f.Add(b[:n])
	}
	f.Add(AppendField(AppendField(nil, tagNotify, []byte("NEVER")), tagTo, []byte("a@b")))    // before its recipient
	f.Add(AppendField(AppendField(nil, tagTo, []byte("a@b")), tagSize, []byte{1, 2}))         // two numbers
	f.Add(AppendField(AppendField(nil, tagTo, []byte("a@b")), tagFlags, nil))                 // none
	f.Add(AppendField(AppendField(b[:len(b):len(b)], tagTo, nil), 99, []byte("of tomorrow"))) // an empty address, an unknown field
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Envelope
		want := e.UnmarshalBinary(b)
		var to []string
		got, err := ReadOutline(b, func(_, addr []byte) { to = append(to, string(addr)) })
		if (err == nil) != (want == nil) {
			t.Fatalf("%v; the envelope: %v", err, want)
		}
		if err != nil {
			return
		}
		same := got.Recipients == len(e.To) && got.Size == e.Size && (e.Received.IsZero() && got.Received == 0 || e.Received.UnixMicro() == got.Received)
		for i := range e.To {
			same = same && to[i] == e.To[i].Addr
		}
		if !same {
			t.Fatalf("%+v of %q; the envelope %+v", got, to, e)
		}
	})
}

// firstRecord is full as the first version wrote it.
const firstRecord = "0c0107010b6140622e6578616d706c6505010308068080808080200908c0c480c1c1c482030604484452530705782b3242790a0e3132372e302e302e" +
	"313a343731310b03617070020b6340642e6578616d706c65030d535543434553532c44454c415904127266633832323b6340642e6578616d706c6502" +
	"0f226520662240672e6578616d706c65"

// Records of earlier versions are in journals; what has been added since is absent in them, and what they say keeps its meaning.
func TestRecordsOfEarlierVersionsAreRead(t *testing.T) {
	b, err := hex.DecodeString(firstRecord)
	if err != nil {
		t.Fatal(err)
	}
	var got Envelope
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if want := full(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
