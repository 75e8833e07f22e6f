package upstream

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// needsMax bounds the words that a pattern is tried by; a pattern that would need more is always tried itself.
const needsMax = 64

// needs returns words of which every text that a pattern matches holds at least one; nil: there are none to be named. Looking
// for words costs much less than trying the pattern, and most patterns are of no use for most texts. Words of a single letter
// are hardly better than none.
func needs(pattern *regexp.Regexp) []string {
	tree, err := syntax.Parse(pattern.String(), syntax.Perl)
	if err != nil {
		return nil // cannot be: it has been compiled
	}
	words := needsOf(tree)
	if len(words) > needsMax || slices.ContainsFunc(words, func(w string) bool { return len(w) < 2 }) {
		return nil
	}
	return words
}

func needsOf(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase != 0 {
			return nil
		}
		return []string{string(re.Rune)}
	case syntax.OpCapture, syntax.OpPlus:
		return needsOf(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return needsOf(re.Sub[0])
		}
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			words := needsOf(sub)
			if words == nil {
				return nil
			}
			all = append(all, words...)
		}
		return all
	case syntax.OpConcat:
		var best []string // whose shortest word is the longest
		for _, sub := range re.Sub {
			if words := needsOf(sub); words != nil && shortest(words) > shortest(best) {
				best = words
			}
		}
		return best
	}
	return nil
}

// shortest returns the length of the shortest word, 0 when there is none.
func shortest(words []string) int {
	least := 0
	for i, w := range words {
		if i == 0 || len(w) < least {
			least = len(w)
		}
	}
	return least
}

// holdsOne reports whether text holds one of words.
func holdsOne(text string, words []string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}
