package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mailweir/mailweir/proxy/dkim"
	"github.com/mailweir/mailweir/proxy/upstream"
)

// YAMLText is a value that is itself YAML, on one line and without comments; "": none.
type YAMLText string

// parseYAML brings text into the form of a YAMLText.
func parseYAML(text string) (YAMLText, *malformed) {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		return "", &malformed{problem: "is not YAML: " + cause(err)}
	}
	if !oneDocument([]byte(text)) {
		return "", &malformed{problem: severalDocuments}
	}
	if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" || doc.Content[0].Kind == yaml.SequenceNode && len(doc.Content[0].Content) == 0 {
		return "", nil
	}
	oneLine(&doc)
	line, err := yaml.Marshal(&doc)
	if err != nil {
		return "", &malformed{problem: "is not YAML: " + cause(err)}
	}
	return YAMLText(strings.TrimSpace(string(line))), nil
}

const severalDocuments = "has several YAML documents; what is behind a line --- would not count"

// oneDocument tells whether text, which is YAML, has nothing in a second document. The parser would leave that out without a word.
func oneDocument(text []byte) bool {
	d := yaml.NewDecoder(bytes.NewReader(text))
	for first := true; ; first = false {
		var doc yaml.Node
		if err := d.Decode(&doc); err != nil {
			return first || errors.Is(err, io.EOF) // what is wrong with the first is told by who reads it
		}
		if !first && doc.Content[0].Tag != "!!null" {
			return false
		}
	}
}

// oneLine makes n and what is in it be written without a line break.
func oneLine(n *yaml.Node) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	switch {
	case n.Kind != yaml.ScalarNode:
		n.Style |= yaml.FlowStyle
	case n.Tag == "!!null":
		n.Value = "null"
	case strings.ContainsRune(n.Value, '\n') || n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, child := range n.Content {
		oneLine(child)
	}
}

// loadRules compiles the operator's own rules about replies.
func (l *loader) loadRules() {
	key, text, ok := l.list("upstream.rules", l.cfg.UpstreamRules, "upstream.rules_file", l.cfg.UpstreamRulesFile)
	if !ok {
		return
	}
	rules, err := upstream.ParseRules(text)
	l.listFaults(key, err)
	l.cfg.Upstream.Rules = rules
}

// loadKeys reads the list of signing keys, and looks whether each key can be used now.
func (l *loader) loadKeys() {
	key, text, ok := l.list("dkim.keys", l.cfg.DKIMKeys, "dkim.keys_file", l.cfg.DKIMKeysFile)
	if !ok {
		return
	}
	keys, err := dkim.ParseKeys(text)
	l.listFaults(key, err)
	if err == nil && len(keys) == 0 && l.cfg.DKIMKeysFile != "" {
		l.listFaults(key, errors.New("name no key, so nothing would be signed")) // such as a file that is not filled yet
	}
	for i, k := range keys {
		if k.File == "" {
			continue // missing, which is a fault already
		}
		if err := k.Check(); err != nil {
			l.listFaults(key, fmt.Errorf("key %d: key_file: %q %v", i+1, k.File, err))
		}
	}
	l.cfg.DKIM = keys
}

// list returns a setting that is a YAML list and can be in a file of its own, and which of the two was used. ok is false after a fault.
func (l *loader) list(inline string, value YAMLText, file, path string) (key string, text []byte, ok bool) {
	switch {
	case !l.sound(inline, file):
		return "", nil, false
	case path == "":
		return inline, []byte(value), true
	case value != "":
		l.fault(file, "is set, and "+inline+" too", "")
		return "", nil, false
	}
	text, err := l.read(file, path)
	if err != nil {
		l.fault(file, "cannot be read: "+pathless(err), "")
		return "", nil, false
	}
	if !oneDocument(text) {
		l.fault(file, severalDocuments, "")
		return "", nil, false
	}
	return file, text, true
}

// listFaults takes in what is wrong with the items of a list.
func (l *loader) listFaults(key string, err error) {
	for _, err := range splitJoined(err) {
		l.bad[key] = true
		l.faults = append(l.faults, Fault{Key: key, Problem: key + ": " + err.Error(), Source: l.origin(settingByKey(key))})
	}
}
