package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
)

// The messages of a test: one in its record, one in a file, one that is dead, one that has ended.
const (
	inlineID = message.ID(0x00065f2a3c4d1801 + iota)
	fileID
	deadID
	endedID
)

var contents = map[message.ID]string{
	inlineID: "Subject: in the record\r\n\r\nthe content of one\r\n",
	fileID:   "Subject: in a file\r\n\r\n" + strings.Repeat("the content of another\r\n", 2000),
	deadID:   "Subject: dead\r\n\r\nnobody took it\r\n",
	endedID:  "Subject: delivered\r\n\r\nit was taken\r\n",
}

// writeJournal makes a journal of these messages; meanwhile runs before it is closed.
func writeJournal(t *testing.T, meanwhile func(dir string)) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "journal")
	j, err := journal.Open(journal.Config{Dir: dir, MaxBytes: 4 << 20, InlineBytes: 4 << 10}, func(journal.Record) error { return nil })
	must(t, err)
	for id := inlineID; id <= endedID; id++ {
		env := message.Envelope{ID: id, From: "app@example.com", To: []message.Recipient{{Addr: "a@example.org"}, {Addr: "b@example.org"}},
			Size: int64(len(contents[id])), Received: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
		meta, err := env.AppendBinary(nil)
		must(t, err)
		d, err := j.Begin(uint64(id), env.Size)
		must(t, err)
		_, err = d.Write([]byte(contents[id]))
		must(t, err)
		must(t, d.Commit(meta))
		if id == deadID {
			reply := message.AppendField(nil, 4, []byte("550 no")) // as package proxy has it
			must(t, j.Append(journal.Record{Type: journal.Dead, ID: uint64(id), Payload: reply}))
		}
	}
	must(t, j.Append(journal.Record{Type: journal.Settled, ID: uint64(endedID)}))
	must(t, j.Append(journal.Record{Type: 99, ID: uint64(inlineID), Payload: []byte{0xff}}))
	must(t, j.PutBlob("learnt", []byte("20")))
	if meanwhile != nil {
		meanwhile(dir)
	}
	must(t, j.Close())
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mailweir runs one command line.
func mailweir(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = execute(args, nil, &out, &errs)
	return code, out.String(), errs.String()
}

// spoil flips a bit of a file, at the text it is to find there.
func spoil(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	must(t, err)
	at := bytes.Index(b, []byte(text))
	if at < 0 {
		t.Fatalf("no %q in %s", text, name)
	}
	b[at] ^= 1
	must(t, os.WriteFile(path, b, 0o600))
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

const firstSegment, bodyFile = "00000001.seg", "00065f2a3c4d1802.body"

func TestVerifySaysWhatIsThere(t *testing.T) {
	code, out, errs := mailweir("journal", "verify", writeJournal(t, nil))
	if code != 0 || errs != "" {
		t.Errorf("exit %d, %s", code, errs)
	}
	for _, want := range []string{`^journal +\S+, .* KiB: sound\n`, `(?m)^segments +1 sealed$`, `(?m)^messages +2 waiting, 1 dead, 1 ended$`,
		`(?m)^records +8: 4 accepted, 1 settled, 1 dead, 1 blob, 1 type 99$`, `(?m)^body files +1 sound, 46\.\d KiB$`,
		`(?m)^read +.* in \d+\.\d s, \d+ MB/s$`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
}

func TestVerifyTellsWhatDamageMeans(t *testing.T) {
	var unsealed string
	sealed := writeJournal(t, func(dir string) { unsealed = copyOf(t, dir) })
	const envelope = `\(from <app@example.com> to <a@example.org> and 1 more, received 2026-05-01T12:00:00Z, \d+ B`
	for name, c := range map[string]struct {
		dir, file, at string
		harm, want    string
	}{
		"content": {sealed, firstSegment, "the content of one", "not_deliverable",
			firstSegment + `, offset \d+, \d+ bytes: checksum does not match\n  message ` +
				inlineID.String() + ` ` + envelope + `\) cannot be delivered any more; mailweir knows`},
		"dead": {sealed, firstSegment, "nobody took it", "not_deliverable", `message ` + deadID.String()},
		"content without a footer": {unsealed, firstSegment, "the content of one", "message_lost",
			`message ` + inlineID.String() + ` ` + envelope + `, if that part is whole\) cannot be delivered any more; mailweir does not know`},
		"ended": {sealed, firstSegment, "it was taken", "none", firstSegment + `.*; nothing is lost by it`},
		"note":  {unsealed, firstSegment, "550 no", "note_lost", `message ` + deadID.String() + ` may be tried sooner`},
		"body": {sealed, bodyFile, "another", "not_deliverable",
			bodyFile + `, offset 0, 48\d+ bytes: checksum.*\n  message ` + fileID.String() + ` cannot be delivered`},
		"header": {sealed, bodyFile, "mwbody", "not_deliverable", bodyFile + `.*\n  message ` + fileID.String()},
		"one copy": {sealed, firstSegment, "mwseg", "none",
			firstSegment + `, offset 0, 48 bytes: one of the two headers is damaged; nothing is lost`},
	} {
		dir := copyOf(t, c.dir)
		spoil(t, dir, c.file, c.at)
		code, out, errs := mailweir("journal", "verify", dir)
		if code != 1 || !regexp.MustCompile(c.want).MatchString(out) ||
			!strings.Contains(out, ": 1 damaged place\n") || !strings.Contains(errs, "1 damaged place in") {
			t.Errorf("%s: exit %d, %s\n%s", name, code, errs, out)
		}
		var v reportView
		if code, out, _ = mailweir("journal", "verify", "--json", dir); code != 1 {
			t.Errorf("%s: exit %d with --json", name, code)
		}
		must(t, json.Unmarshal([]byte(out), &v))
		if v.Sound || v.Damaged != 1 || len(v.Damage) != 1 || v.Damage[0].File != c.file || v.Damage[0].Harm != c.harm {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestWhatIsNoJournalIsAFaultOfUsage(t *testing.T) {
	other := t.TempDir()
	must(t, os.WriteFile(filepath.Join(other, "README"), []byte("x"), 0o600))
	later := copyOf(t, writeJournal(t, nil))
	b, err := os.ReadFile(filepath.Join(later, firstSegment))
	must(t, err)
	b[8], b[512+8] = 99, 99
	must(t, os.WriteFile(filepath.Join(later, firstSegment), b, 0o600))
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"verify"}, 64, "accepts 1 arg"},
		{[]string{"verify", other + "/nowhere"}, 64, "no such file or directory\nGive the directory"},
		{[]string{"dump", other}, 64, "no journal here"},
		{[]string{"dump", "--eml", "x", later}, 64, `"x" is no message ID`},
		{[]string{"dump", "--id", inlineID.String(), "--eml", inlineID.String(), later}, 64, "none of the others can be"},
		{[]string{"verify", later}, 1, "unknown journal version 99"},
		{[]string{"dump", later}, 1, "unknown journal version 99"},
	} {
		code, out, errs := mailweir(append([]string{"journal"}, c.args...)...)
		if code != c.code || !strings.Contains(errs, c.want) || out != "" {
			t.Errorf("%v: exit %d, %q, %q", c.args, code, out, errs)
		}
	}
	if _, err := os.Stat(other + "/nowhere"); !os.IsNotExist(err) {
		t.Error("the directory was made")
	}
}

func TestDumpPrintsEachRecord(t *testing.T) {
	dir := writeJournal(t, nil)
	code, out, errs := mailweir("journal", "dump", dir)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || errs != "" || len(lines) != 8 {
		t.Fatalf("exit %d, %s\n%s", code, errs, out)
	}
	for n, want := range []string{
		`{"segment":1,"offset":\d+,"type":"accepted","id":"` + inlineID.String() +
			`","record":{"from":"app@example.com","to":\["a@example.org","b@example.org"\],` +
			`"size":46,"received":"2026-05-01T12:00:00Z"},"body_bytes":46}`,
		`"type":"accepted","id":"` + fileID.String() + `",.*"body_bytes":48022,"body_file":"` + bodyFile + `"}`,
		`"type":"accepted"`,
		`"type":"dead","id":"` + deadID.String() + `","record":{"reply":"550 no"}}`,
		`"type":"accepted"`,
		`"type":"settled","id":"` + endedID.String() + `","record":{}}`,
		`"type":"type 99",.*"payload":"/w=="}`,
		`"type":"blob","name":"learnt","payload":"MjA="}`,
	} {
		if !regexp.MustCompile(want).MatchString(lines[n]) {
			t.Errorf("line %d: %s\nwant %s", n, lines[n], want)
		}
	}
	_, out, _ = mailweir("journal", "dump", dir, "--id", deadID.String())
	if strings.Count(out, "\n") != 2 || strings.Count(out, deadID.String()) != 2 {
		t.Errorf("one message: %s", out)
	}
	spoil(t, dir, firstSegment, "the content of one")
	code, out, _ = mailweir("journal", "dump", dir)
	lines = strings.Split(strings.TrimSpace(out), "\n")
	if code != 1 || len(lines) != 8 || !strings.Contains(lines[7], `"fault":"checksum does not match"`) {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, out, _ = mailweir("journal", "dump", dir, "--id", deadID.String()); code != 0 || strings.Count(out, "\n") != 2 {
		t.Errorf("damage elsewhere: exit %d\n%s", code, out)
	}
}

func TestOneMessageIsWrittenOutWholeOrNotAtAll(t *testing.T) {
	dir := writeJournal(t, nil)
	for id, want := range contents {
		for _, text := range []string{id.String(), strings.ToLower(id.String()), hex(id)} {
			if code, out, errs := mailweir("journal", "dump", "--eml", text, dir); code != 0 || out != want || errs != "" {
				t.Errorf("%s: exit %d, %d bytes of %d, %s", text, code, len(out), len(want), errs)
			}
		}
	}
	spoil(t, dir, firstSegment, "the content of one")
	spoil(t, dir, bodyFile, "another")
	for id, want := range map[message.ID]string{
		inlineID:     `message ` + inlineID.String() + ` is damaged: .*\nNothing was written. .* stands in 00000001.seg, offset \d+, \d+ bytes`,
		fileID:       `message ` + fileID.String() + `: .*damaged.*\nNothing was written. .* begins at byte 48 of ` + bodyFile,
		endedID + 50: `no message .* has ended and its bytes are gone, or it stood in what is damaged \(1 damaged place\)`,
	} {
		code, out, errs := mailweir("journal", "dump", "--eml", id.String(), dir)
		if code != 1 || out != "" || !regexp.MustCompile(want).MatchString(errs) {
			t.Errorf("exit %d, %d bytes, %s", code, len(out), errs)
		}
	}
}

func hex(id message.ID) string { return strings.TrimSuffix(bodyFileName(id), ".body") }

func bodyFileName(id message.ID) string {
	return strings.Replace(bodyFile, "02.", string("0123456789"[id>>4&15])+string("0123456789"[id&15])+".", 1)
}

// Nothing is made, changed or touched, sound or damaged, and no right to write is needed.
func TestLookingChangesNothing(t *testing.T) {
	dir := writeJournal(t, nil)
	spoil(t, dir, firstSegment, "the content of one")
	must(t, os.WriteFile(filepath.Join(dir, "00000007.seg.tmp"), []byte("x"), 0o600))
	must(t, os.Remove(filepath.Join(dir, "lock")))
	must(t, os.Chmod(dir, 0o500))
	defer func() { must(t, os.Chmod(dir, 0o700)) }()
	before := stateOf(t, dir)
	for _, args := range [][]string{{"verify", dir}, {"verify", "--json", dir}, {"dump", dir}, {"dump", "--eml", fileID.String(), dir}} {
		mailweir(append([]string{"journal"}, args...)...)
		if after := stateOf(t, dir); after != before {
			t.Errorf("%v: before\n%s\nafter\n%s", args, before, after)
		}
	}
}

func stateOf(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		b.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		if info.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		b.Write(content)
		return err
	}))
	return b.String()
}

func TestProgressIsShownNowAndThen(t *testing.T) {
	var b strings.Builder
	m := newMeter(&b, "verify", noon)
	for s := range 12 {
		m.show(int64(s)*540e6, 10.24e9, noon.Add(time.Duration(s)*time.Second))
	}
	m.end()
	if want := "verify: 2.7 of 10.2 GB, 540 MB/s\nverify: 5.4 of 10.2 GB, 540 MB/s\n"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
	b.Reset()
	m = &meter{w: &b, verb: "verify", terminal: true, interval: meterTerminalInterval, started: noon, shown: noon}
	m.show(0, 1e9, noon.Add(time.Millisecond))
	m.show(1e9, 1e9, noon.Add(time.Second))
	m.end()
	if want := "\rverify: 1.0 of 1.0 GB, 1000 MB/s\x1b[K\r\x1b[K"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}
