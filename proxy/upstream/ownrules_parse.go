package upstream

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mailweir/mailweir/flowctl"
)

// Bounds of what ParseRules takes.
const (
	RulesMax     = 100      // rules
	RulesTextMax = 64 << 10 // octets of YAML
	patternMax   = 1024     // octets of a rule's text
)

var (
	codeForm     = regexp.MustCompile(`^[45](?:[0-9][0-9x]|xx)$`)
	enhancedForm = regexp.MustCompile(`^[45x]\.(?:\d{1,3}|x)\.(?:\d{1,3}|x)$`)
)

// ParseRules reads a YAML list of rules: mappings with class, at least one of stage (a word or a list), code, enhanced and text
// (RE2, in any case), and perhaps retry_after. The error joins every fault, "rule 2: class: ..." each, with rules counted
// from 1. No text, or only comments, are no rules.
func ParseRules(text []byte) (Rules, error) {
	if len(text) > RulesTextMax {
		return nil, fmt.Errorf("are %d octets, more than %d", len(text), RulesTextMax)
	}
	var list []yaml.Node
	if err := yaml.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("are no YAML list: %s", strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))
	}
	if len(list) > RulesMax {
		return nil, fmt.Errorf("are %d, more than %d", len(list), RulesMax)
	}
	var rules Rules
	var faults []error
	for i := range list {
		p := ruleParser{number: i + 1}
		p.parse(&list[i])
		rules, faults = append(rules, p.rule), append(faults, p.faults...)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return rules, nil
}

type ruleParser struct {
	number int
	rule   Rule
	faults []error
}

func (p *ruleParser) fault(field, format string, args ...any) {
	where := fmt.Sprintf("rule %d: ", p.number)
	if field != "" {
		where += field + ": "
	}
	p.faults = append(p.faults, errors.New(where+fmt.Sprintf(format, args...)))
}

var ruleFields = []string{"class", "code", "enhanced", "retry_after", "stage", "text"}

func (p *ruleParser) parse(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.fault("", "is no mapping of %s", strings.Join(ruleFields, ", "))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		field, value := n.Content[i].Value, n.Content[i+1]
		switch {
		case !slices.Contains(ruleFields, field):
			p.fault(field, "is no field; there are %s", strings.Join(ruleFields, ", "))
		case seen[field]:
			p.fault(field, "stands twice")
		case field == "stage":
			p.stages(value)
		case value.Kind != yaml.ScalarNode || value.Value == "":
			p.fault(field, "is no text")
		default:
			p.field(field, value.Value)
		}
		seen[field] = true
	}
	if !seen["stage"] && !seen["code"] && !seen["enhanced"] && !seen["text"] {
		p.fault("", "has no condition: one of stage, code, enhanced, text")
	}
	if !seen["class"] {
		p.fault("class", "is missing")
	}
	p.fit()
}

func (p *ruleParser) field(field, value string) {
	r := &p.rule
	switch field {
	case "class":
		if _, known := classes[value]; !known {
			p.fault(field, "%q is not one of %s", value, strings.Join(slices.Sorted(maps.Keys(classes)), ", "))
			return
		}
		r.word = value
	case "code":
		if !codeForm.MatchString(value) {
			p.fault(field, "%q is no refusal such as 454, 45x or 4xx", value)
		}
		r.code = value
	case "enhanced":
		if !enhancedForm.MatchString(value) {
			p.fault(field, "%q is no refusal such as 4.7.0 or 4.7.x", value)
		}
		r.enhanced = value
	case "text":
		p.pattern(value)
	case "retry_after":
		d, err := time.ParseDuration(value)
		if err != nil || d <= 0 || d > retryHintMax {
			p.fault(field, "%q is no duration such as 30s or 2h, of at most %.0fh", value, retryHintMax.Hours())
		}
		r.wait = d
	}
}

func (p *ruleParser) pattern(value string) {
	if len(value) > patternMax {
		p.fault("text", "has %d octets, more than %d", len(value), patternMax)
		return
	}
	compiled, err := regexp.Compile("(?i)" + value)
	if err != nil {
		p.fault("text", "is no RE2 pattern: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	p.rule.text = compiled
}

func (p *ruleParser) stages(n *yaml.Node) {
	names := n.Content
	if n.Kind == yaml.ScalarNode {
		names = []*yaml.Node{n}
	}
	for _, name := range names {
		st, known := stageNames[name.Value]
		if !known || name.Kind != yaml.ScalarNode {
			p.fault("stage", "%q is not one of %s", name.Value, strings.Join(slices.Sorted(maps.Keys(stageNames)), ", "))
			continue
		}
		p.rule.stages = append(p.rule.stages, st)
	}
	if len(names) == 0 || n.Kind == yaml.MappingNode {
		p.fault("stage", "is neither a stage nor a list of them")
	}
}

// fit narrows the stages to those at which the class makes sense.
func (p *ruleParser) fit() {
	sense := stagesOf(p.rule.word)
	if len(p.rule.stages) == 0 {
		p.rule.stages = sense
		return
	}
	if slices.ContainsFunc(p.rule.stages, func(st flowctl.Stage) bool { return !slices.Contains(sense, st) }) {
		p.fault("class", "%s makes no sense at a stage that is named", p.rule.word)
	}
}

func digits(code int) string { return strconv.Itoa(code) }

// likes compares a code with a pattern of the same length, in which x is any digit.
func likes(pattern, code string) bool {
	for i := range len(pattern) {
		if i >= len(code) || pattern[i] != 'x' && pattern[i] != code[i] {
			return false
		}
	}
	return len(pattern) == len(code)
}

// likesParts compares an enhanced code with a pattern, in which x is any number.
func likesParts(pattern string, enh [3]uint16) bool {
	for i, part := range strings.Split(pattern, ".") {
		if part != "x" && part != strconv.Itoa(int(enh[i])) {
			return false
		}
	}
	return true
}
