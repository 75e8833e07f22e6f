package config

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteTable writes what is in force as aligned columns.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tVALUE\tFROM\tENVIRONMENT")
	for _, v := range r.Values {
		text := v.Text
		if text == "" {
			text = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", v.Key, text, v.Source, v.Env)
	}
	return t.Flush()
}

// Markdown returns the table of all settings for the README.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| Environment | Key in the file | Default | What it does |\n|---|---|---|---|\n")
	for _, s := range settings {
		key := "`" + s.key + "`"
		if s.key == fileSetting {
			key = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.env, key, s.defaultWords(), s.doc+s.limits())
	}
	return b.String()
}

// defaultWords is the default for a reader: the value, or what its absence means.
func (s *setting) defaultWords() string {
	switch {
	case s.value != "" && s.empty != "":
		return "`" + s.value + "`: " + s.empty
	case s.value != "":
		return "`" + s.value + "`"
	default:
		return s.empty
	}
}

// limits says what is allowed, as a continuation of doc.
func (s *setting) limits() string {
	switch {
	case s.oneOf != nil:
		return " One of `" + strings.Join(s.oneOf, "`, `") + "`."
	case s.min != "" && s.max != "":
		return " From " + s.min + " to " + s.max + "."
	case s.max != "":
		return " At most " + s.max + "."
	default:
		return ""
	}
}

// ExampleYAML returns a file with every key that a file can hold, commented out with its default.
func ExampleYAML() string {
	var b strings.Builder
	b.WriteString("# Configuration of mailweir. Name this file in MAILWEIR_CONFIG; the environment wins over it.\n")
	section := ""
	for _, s := range settings {
		if s.key == fileSetting {
			continue
		}
		head, leaf, nested := strings.Cut(s.key, ".")
		indent := ""
		b.WriteByte('\n')
		if nested {
			indent = "  "
		} else {
			head, leaf = "", s.key
		}
		if nested && head != section {
			fmt.Fprintf(&b, "%s:\n", head)
		}
		section = head
		fmt.Fprintf(&b, "%s# %s%s", indent, s.doc, s.limits())
		if s.empty != "" {
			fmt.Fprintf(&b, " Default: %s.", s.empty)
		}
		fmt.Fprintf(&b, "\n%s# %s:%s\n", indent, leaf, yamlDefault(&s))
	}
	return b.String()
}

// yamlDefault is the value in YAML, with the blank before it. A list goes on a line for itself.
func yamlDefault(s *setting) string {
	switch s.at(&Config{}).(type) {
	case *YAMLText:
		return " []"
	case *[]string:
		return ` ["` + strings.ReplaceAll(s.value, ",", `", "`) + `"]`
	case *bool, *int, *float64:
		return " " + s.value
	}
	return fmt.Sprintf(" %q", s.value)
}
