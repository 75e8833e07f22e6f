package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// serviceVariable matches what Kubernetes puts into the environment of every pod for a Service called
// mailweir or mailweir-anything (documented under "Discovering services"). No setting may end so.
var serviceVariable = regexp.MustCompile(`^MAILWEIR_(.*_)?(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_\d+_.*)$`)

// unknownName finds fault with a name that is meant for us and that we do not know: a typing error in a
// name would otherwise be a default in force that nobody chose.
func (l *loader) unknownName(name string) {
	if !strings.HasPrefix(name, envPrefix) || serviceVariable.MatchString(name) {
		return
	}
	f := Fault{Problem: strconv.Quote(name) + " is no setting", Source: "in the environment"}
	names := make([]string, len(settings))
	for i, s := range settings {
		names[i] = s.env
	}
	f.Try = nearest(name, names)
	if name == "MAILWEIR_UPSTREAM_URL" { // the one name that does not follow from its key, and TLS is nearer
		f.Try = "MAILWEIR_UPSTREAM"
	}
	l.faults = append(l.faults, f)
}

// unknownKey is unknownName for the file.
func (l *loader) unknownKey(key string) {
	f := Fault{Key: key, Problem: strconv.Quote(key) + " is no setting", Source: "in " + l.texts[fileSetting]}
	keys := make([]string, len(settings))
	for i, s := range settings {
		keys[i] = s.key
	}
	switch {
	case key == fileSetting:
		f.Problem = strconv.Quote(key) + " cannot be set in the file"
	case isSection(key): // "upstream: smtp://..." for "upstream: {url: smtp://...}"
		f.Try = keys[slices.IndexFunc(keys, func(k string) bool { return strings.HasPrefix(k, key+".") })]
	default:
		f.Try = nearest(key, keys)
	}
	l.faults = append(l.faults, f)
}

// isSection reports whether keys begin with key and a dot.
func isSection(key string) bool {
	return slices.ContainsFunc(settings, func(s setting) bool { return strings.HasPrefix(s.key, key+".") })
}

// nearest returns the name that needs the fewest changed letters to become word, "" when that would be
// more than a third of them. An end that is missing counts as one letter.
func nearest(word string, names []string) string {
	word = strings.ToLower(word)
	best, least := "", len(word)/3+1
	for _, n := range names {
		d := editDistance(word, strings.ToLower(n))
		if d > 1 && d < least && strings.HasPrefix(strings.ToLower(n), word) {
			d = 1
		}
		if d < least {
			best, least = n, d
		}
	}
	return best
}

// wordMax bounds the work of editDistance; our names are shorter.
const wordMax = 64

// editDistance counts the insertions, deletions and replacements of bytes that make b of a (Levenshtein).
func editDistance(a, b string) int {
	if len(a) > wordMax || len(b) > wordMax {
		return max(len(a), len(b))
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
