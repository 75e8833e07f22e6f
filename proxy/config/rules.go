package config

import (
	"strings"

	"gopkg.in/yaml.v3"

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
	const inline, file = "upstream.rules", "upstream.rules_file"
	if !l.sound(inline, file) {
		return
	}
	key, text := inline, []byte(l.cfg.UpstreamRules)
	if path := l.cfg.UpstreamRulesFile; path != "" {
		if len(text) > 0 {
			l.fault(file, "is set, and "+inline+" too", "")
			return
		}
		var err error
		if text, err = readBounded(path); err != nil {
			l.fault(file, "cannot be read: "+pathless(err), "")
			return
		}
		key = file
	}
	rules, err := upstream.ParseRules(text)
	for _, err := range splitJoined(err) {
		l.bad[key] = true
		l.faults = append(l.faults, Fault{Key: key, Problem: key + ": " + err.Error(), Source: l.origin(settingByKey(key))})
	}
	l.cfg.Upstream.Rules = rules
}
