package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"
)

func read(s string) (Reply, []string, error) {
	return readReply(bufio.NewReaderSize(strings.NewReader(s), replyLineMax))
}

func TestRepliesAreReadAsTheyComeInTheWild(t *testing.T) {
	for _, tc := range []struct {
		wire string
		want Reply
	}{
		{"250 ok\r\n", Reply{Code: 250, Text: "ok"}},
		{"250\r\n", Reply{Code: 250}},
		{"250 \r\n", Reply{Code: 250}},
		{"200 fine\n", Reply{Code: 200, Text: "fine"}},
		{"251 2.1.5 will forward\r\n", Reply{251, [3]uint16{2, 1, 5}, "will forward"}},
		{"250 2.0.0\r\n", Reply{250, [3]uint16{2, 0, 0}, ""}},
		{"550-5.7.1 not\r\n550 5.7.1 here\r\n", Reply{550, [3]uint16{5, 7, 1}, "not here"}},
		{"550-\r\n550-5.7.1 not\r\n550 here\r\n", Reply{550, [3]uint16{5, 7, 1}, "not here"}},
		{"550 5.7.708 Access denied\r\n", Reply{550, [3]uint16{5, 7, 708}, "Access denied"}},
		{"421 #4.4.5 Too many\r\n", Reply{421, [3]uint16{4, 4, 5}, "Too many"}},
		{"421 4.4.5 - Too many\r\n", Reply{421, [3]uint16{4, 4, 5}, "- Too many"}},
		{"550 1.2.3 no\r\n", Reply{Code: 550, Text: "1.2.3 no"}},
		{"550 5.1.1.1 no\r\n", Reply{Code: 550, Text: "5.1.1.1 no"}},
		{"550 5.1.1234 no\r\n", Reply{Code: 550, Text: "5.1.1234 no"}},
		{"550 5.+1.1 no\r\n", Reply{Code: 550, Text: "5.+1.1 no"}},
		{"550 bad\x1b[31m\x00\tthing\xff\u2028\u0085\r\n", Reply{Code: 550, Text: "bad?[31m? thing???"}},
		{"550 " + strings.Repeat("ä", 1000) + "\r\n", Reply{Code: 550, Text: strings.Repeat("ä", replyTextMax/2)}},
	} {
		got, _, err := read(tc.wire)
		if err != nil || got != tc.want {
			t.Errorf("%q: %+v, %v", tc.wire, got, err)
		}
	}
	if s := (Reply{550, [3]uint16{5, 7, 708}, "Access denied"}).String(); s != "550 5.7.708 Access denied" {
		t.Error(s)
	}
	if s := (Reply{Code: 250}).String(); s != "250" {
		t.Error(s)
	}
}

func TestBrokenRepliesAreErrors(t *testing.T) {
	many := strings.Repeat("250-x\r\n", replyLinesMax)
	for _, tc := range []struct {
		wire string
		want error
	}{
		{"", io.EOF},
		{"250 o", io.ErrUnexpectedEOF},
		{"250-a\r\n", io.ErrUnexpectedEOF},
		{"\r\n", errReplyMalformed},
		{"25\r\n", errReplyMalformed},
		{"150 x\r\n", errReplyMalformed},
		{"650 x\r\n", errReplyMalformed},
		{"25x ok\r\n", errReplyMalformed},
		{"250ok\r\n", errReplyMalformed},
		{"250-a\r\n550 b\r\n", errReplyMalformed},
		{many[7:] + "250 x\r\n", nil},
		{many + "250 x\r\n", errReplyTooLong},
		{"250 " + strings.Repeat("x", replyLineMax-7) + "\r\n", nil},
		{"250 " + strings.Repeat("x", replyLineMax-4) + "\r\n", errReplyTooLong},
		{strings.Repeat("250-"+strings.Repeat("x", 4000)+"\r\n", 17) + "250 x\r\n", errReplyTooLong},
	} {
		if _, _, err := read(tc.wire); !errors.Is(err, tc.want) {
			t.Errorf("%.40q...: %v, want %v", tc.wire, err, tc.want)
		}
	}
}

// FuzzReadReply: whatever comes, a reply is bounded, clean, and does not depend on how it is cut into packets.
func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 2.0.0 b\r\n", "421 \xff\x00\r\n", "2", "550-5.7.1 x\r\n550 5.7.1 y\r\n250 z\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, lines, err := readReply(bufio.NewReaderSize(bytes.NewReader(b), replyLineMax))
		r2, _, err2 := readReply(bufio.NewReaderSize(iotest.OneByteReader(bytes.NewReader(b)), replyLineMax))
		if r != r2 || (err == nil) != (err2 == nil) {
			t.Fatalf("%+v %v, octet by octet %+v %v", r, err, r2, err2)
		}
		if err != nil {
			return
		}
		if r.Code < 200 || r.Code > 599 || len(r.Text) > replyTextMax || len(lines) > replyLinesMax {
			t.Fatalf("%+v, %d lines", r, len(lines))
		}
		if !utf8.ValidString(r.Text) || strings.ContainsFunc(r.Text, unicode.IsControl) {
			t.Fatalf("%q", r.Text)
		}
		for st := range verbStages {
			if m := Classify(verbStages[st], r.Code, r.Enhanced, r.Text); r.negative() == (m.Class == 0) {
				t.Fatalf("%+v is %+v", r, m)
			}
		}
	})
}
