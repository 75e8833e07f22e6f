package config

import (
	"fmt"
	"strings"
)

// Report says what is in force and where it came from. Nothing in it is secret.
type Report struct {
	Values   []Value  // every setting, in the order of the documentation
	Warnings []string // what is allowed and may still not be meant
}

// Value is one setting as it is in force.
type Value struct {
	Key    string // in the file
	Env    string // in the environment
	Text   string // the value as one would write it; masked when it is secret
	Source string // "default", "environment", "file", or what it was derived from
}

// Value returns the setting of that key, the zero Value when there is none.
func (r *Report) Value(key string) Value {
	for _, v := range r.Values {
		if v.Key == key {
			return v
		}
	}
	return Value{}
}

// Fault is one thing that is wrong with a configuration. Nothing in it is secret.
type Fault struct {
	Key     string // of the file; "" when there is none, as for an unknown name of the environment
	Problem string // the sentence, key and value included
	Source  string // where the value came from
	Try     string // a suggestion; "": none
}

// String is one line: problem, source, suggestion.
func (f Fault) String() string {
	s := f.Problem + " (" + f.Source + ")"
	if f.Try != "" {
		s += "; try " + f.Try
	}
	return s
}

// Faults is the error of Load: everything that is wrong, never empty.
type Faults []Fault

// Error has a line for each fault.
func (fs Faults) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "config: %d fault", len(fs))
	if len(fs) != 1 {
		b.WriteByte('s')
	}
	for _, f := range fs {
		b.WriteString("\n  " + f.String())
	}
	return b.String()
}

const mask = "********"

// shown is text as others may see it: a secret is masked, and so is what stands before the @ of a URL.
func shown(s *setting, text string) string {
	if s.secret && text != "" {
		return mask
	}
	scheme, rest, isURL := strings.Cut(text, "://")
	if at := strings.LastIndexByte(rest, '@'); isURL && at >= 0 {
		return scheme + "://" + mask + rest[at:]
	}
	return text
}
