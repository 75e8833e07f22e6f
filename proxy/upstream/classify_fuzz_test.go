package upstream

import (
	"strings"
	"testing"
	"time"

	"github.com/mailweir/mailweir/flowctl"
)

// classifySlow is far more than the worst text takes (about a millisecond), and far less than what would be felt.
const classifySlow = 500 * time.Millisecond

// FuzzClassify: whatever a server says, what it took was taken and what it refused was not, a 4yz bounces nothing, a session
// that did not come up is not about a message, and finding out takes no time.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{
		"too many connections from 192.0.2.1", "host x said: 421 try again in 5 minutes", "wait 00:00:00", "retry in 999999 hours",
		"\xff\xfe\x00", strings.Repeat("too many messages limit ", 60), strings.Repeat("a a ", 300), "ÄÖÜ İ ẞ mailbox",
		"requested action not taken: mailbox unavailable daily quota", "limit 99999", "retry after 1.5 hours", "retry in 1h2m3.4s",
	} {
		for _, code := range []uint16{250, 354, 421, 454, 501, 550, 552, 0, 999} {
			f.Add(uint8(flowctl.StageDot), code, uint16(code/100), uint16(7), uint16(1), s)
		}
	}
	f.Fuzz(func(t *testing.T, stage uint8, code, class, subject, detail uint16, text string) {
		st := flowctl.StageConnect + flowctl.Stage(stage)%(flowctl.StageIdle-flowctl.StageConnect+1)
		enh := [3]uint16{class, subject, detail}
		began := time.Now()
		m := Classify(st, int(code), enh, text)
		if took := time.Since(began); took > classifySlow {
			t.Errorf("took %s", took)
		}
		if (m.Class == flowctl.OK) != (code/100 == 2 || code/100 == 3) || m.Class == flowctl.OK && m != (Meaning{}) || classes[m.Word] != m.Class {
			t.Fatalf("%d: %+v", code, m)
		}
		if m.Class == flowctl.Permanent && (code/100 != 5 || st < flowctl.StageMail || st > flowctl.StageDot) {
			t.Fatalf("stage %d, %d is permanent", st, code)
		}
		if m.Class == flowctl.PerMessage && m.Word != "temp" && (st < flowctl.StageMail || st > flowctl.StageDot) {
			t.Fatalf("stage %d, %d is about a recipient: %+v", st, code, m)
		}
		if m.RetryAfter < 0 || m.RetryAfter > retryHintMax || m.Limit < 0 {
			t.Fatalf("%+v", m)
		}
		if again := Classify(st, int(code), enh, text); again != m {
			t.Fatalf("%+v, then %+v", m, again)
		}
	})
}
