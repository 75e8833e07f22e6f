package upstream

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestNeedsAreWordsThatEveryMatchHolds(t *testing.T) {
	for pattern, want := range map[string][]string{
		`too many`:                  {"too many"},
		`many|trop de`:              {"many", "trop de"},
		`\bfrequen\w+`:              {"frequen"},
		`(limit|quota).{0,9}exceed`: {"exceed"},
		`x?limits?`:                 {"limit"},
		`(busy)+|(?:quota){2}`:      {"busy", "quota"},
		`(busy)*`:                   nil,
		`quota|\d+`:                 nil,
		`a|busy`:                    nil,
		`(?i)quota`:                 nil,
		`[0-9.]+`:                   nil,
	} {
		got := needs(regexp.MustCompile(pattern))
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
}

// The words save time; they change no meaning.
func TestNeedsHideNoMatch(t *testing.T) {
	saved := 0
	for _, name := range corpora {
		for _, k := range readReplies(t, name) {
			text := essence(strings.ToLower(k.reply.Text))
			for i := range rules {
				for _, w := range []*words{rules[i].text, rules[i].not} {
					if w == nil || w.needs == nil || holdsOne(text, w.needs) {
						continue
					}
					saved++
					if w.pattern.MatchString(text) {
						t.Errorf("rule %d, %s: %q is not looked at", i, rules[i].word, text)
					}
				}
			}
		}
	}
	if saved < 1000 {
		t.Errorf("the words spare only %d tries", saved)
	}
}
