package source

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/mailweir/mailweir/bench/relay"
)

// two acknowledged messages, the second to two recipients, and the relay's view of them.
func twoMessages() (Ledger, []relay.Message) {
	sums := [2]relay.Sum{sha256.Sum256([]byte("one")), sha256.Sum256([]byte("two"))}
	sent := Ledger{Records: []Record{
		{XID: "s-0", From: "a@x", To: []string{"b@x"}, Sum: sums[0], Size: 3, Stage: StageDot, Code: 250},
		{XID: "s-1", From: "a@x", To: []string{"b@x", "c@x"}, Sum: sums[1], Size: 3, Stage: StageDot, Code: 250},
	}}
	taken := []relay.Message{
		{XID: "s-0", From: "a@x", To: []string{"b@x"}, Sum: sums[0], SumFromID: sums[0], Size: 3},
		{XID: "s-1", From: "a@x", To: []string{"b@x", "c@x"}, Sum: sums[1], SumFromID: sums[1], Size: 3},
	}
	return sent, taken
}

// TestTheCheckerSeesEveryFault: each fault planted alone must be the one that is reported.
func TestTheCheckerSeesEveryFault(t *testing.T) {
	prepend := func(text string) func(*Ledger, *[]relay.Message) {
		return func(_ *Ledger, taken *[]relay.Message) {
			m := &(*taken)[0]
			m.Prefix, m.Size, m.Sum = text, m.Size+int64(len(text)), relay.Sum{}
		}
	}
	tests := []struct {
		name  string
		plant func(*Ledger, *[]relay.Message)
		want  Report
		fatal bool
	}{
		{"none", func(*Ledger, *[]relay.Message) {}, Report{Acknowledged: 3, Arrived: 3}, false},
		{"a message lost", func(_ *Ledger, taken *[]relay.Message) { *taken = (*taken)[:1] },
			Report{Acknowledged: 3, Arrived: 1, Lost: []string{"s-1 to b@x", "s-1 to c@x"}}, true},
		{"a recipient lost", func(_ *Ledger, taken *[]relay.Message) { (*taken)[1].To = []string{"c@x"} },
			Report{Acknowledged: 3, Arrived: 2, Lost: []string{"s-1 to b@x"}}, true},
		{"a message twice", func(_ *Ledger, taken *[]relay.Message) { *taken = append(*taken, (*taken)[0]) },
			Report{Acknowledged: 3, Arrived: 3, Duplicated: []string{"s-0 to b@x: 2 times"}}, false},
		{"recipients split", func(_ *Ledger, taken *[]relay.Message) {
			*taken = append(*taken, (*taken)[1])
			(*taken)[1].To, (*taken)[2].To = []string{"b@x"}, []string{"c@x"}
		}, Report{Acknowledged: 3, Arrived: 3}, false},
		{"a recipient twice", func(_ *Ledger, taken *[]relay.Message) {
			*taken = append(*taken, (*taken)[1])
			(*taken)[2].To = []string{"c@x"}
		}, Report{Acknowledged: 3, Arrived: 3, Duplicated: []string{"s-1 to c@x: 2 times"}}, false},
		{"content altered", func(_ *Ledger, taken *[]relay.Message) { (*taken)[0].SumFromID[31] ^= 1 },
			Report{Acknowledged: 3, Arrived: 3, Altered: []string{"s-0: content changed"}}, true},
		{"fields prepended", prepend("Received: from a\r\n\tby b\r\nDKIM-Signature: v=1\r\n"), Report{Acknowledged: 3, Arrived: 3}, false},
		{"a body prepended", prepend("Received: x\r\n\r\n"),
			Report{Acknowledged: 3, Arrived: 3, Altered: []string{`s-0: what was prepended is no header: "Received: x\r\n\r\n"`}}, true},
		{"more prepended than was kept", func(_ *Ledger, taken *[]relay.Message) { (*taken)[0].Size++ },
			Report{Acknowledged: 3, Arrived: 3, Altered: []string{"s-0: prepended more than the relay kept"}}, true},
		{"sender altered", func(_ *Ledger, taken *[]relay.Message) { (*taken)[0].From = "" },
			Report{Acknowledged: 3, Arrived: 3, Altered: []string{"s-0: sender "}}, true},
		{"recipient strayed", func(_ *Ledger, taken *[]relay.Message) { (*taken)[0].To = []string{"b@x", "evil@x"} },
			Report{Acknowledged: 3, Arrived: 3, Altered: []string{"s-0: recipient evil@x"}}, true},
		{"a foreign message", func(_ *Ledger, taken *[]relay.Message) { *taken = append(*taken, relay.Message{XID: "other-0"}) },
			Report{Acknowledged: 3, Arrived: 3, Foreign: 1}, false},
		{"arrived without acknowledgement", func(sent *Ledger, _ *[]relay.Message) { sent.Records[0].Code = 0 },
			Report{Acknowledged: 2, Arrived: 2, Surplus: 1}, false},
		{"refused and not arrived", func(sent *Ledger, taken *[]relay.Message) {
			sent.Records[0].Stage, sent.Records[0].Code, *taken = StageGreeting, 421, (*taken)[1:]
		}, Report{Acknowledged: 2, Arrived: 2}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sent, taken := twoMessages()
			tt.plant(&sent, &taken)
			got := Check(sent, taken)
			if got.Acknowledged != tt.want.Acknowledged || got.Arrived != tt.want.Arrived || got.Surplus != tt.want.Surplus ||
				got.Foreign != tt.want.Foreign || !slices.Equal(got.Lost, tt.want.Lost) ||
				!slices.Equal(got.Duplicated, tt.want.Duplicated) || !slices.Equal(got.Altered, tt.want.Altered) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
			if err := got.Err(); (err != nil) != tt.fatal {
				t.Errorf("Err: %v", err)
			}
		})
	}
}

func TestErrNamesTheFirstOfEachFault(t *testing.T) {
	err := Report{Lost: []string{"a", "b"}, Altered: []string{"c"}}.Err()
	if err == nil || !strings.Contains(err.Error(), "2 acknowledged and lost, the first a") || !strings.Contains(err.Error(), "1 altered, the first c") {
		t.Error(err)
	}
}

func TestPrependedTextMustBeWholeFields(t *testing.T) {
	for text, want := range map[string]bool{
		"":                      true,
		"A: b\r\n":              true,
		"A: b\r\n\tc\r\n d\r\n": true,
		"A: b":                  false,
		"A: b\n":                false,
		" c\r\n":                false,
		"A b: c\r\n":            false,
		": c\r\n":               false,
		"no field\r\n":          false,
		"A: b\r\n\r\n":          false,
		"A: b\r\n \r\n":         false,
	} {
		if got := isFields(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
