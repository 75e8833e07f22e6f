package dkim

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Bounds of what ParseKeys takes.
const (
	KeysMax       = 1000     // keys
	KeysTextMax   = 64 << 10 // octets of YAML
	SignaturesMax = 8        // of one message
)

// ParseKeys reads a YAML list of keys: mappings with selector and key_file; domain, which is d= of the signature ("*" or absent: that of
// From); and from, the domain or the list of domains in From that it signs ("*": all; absent: domain). It opens no file. The
// error joins every fault, "key 2: selector: ..." each, with keys counted from 1; a key is returned for each item of the list nevertheless, as far as
// it could be read.
func ParseKeys(text []byte) ([]Key, error) {
	if len(text) > KeysTextMax {
		return nil, fmt.Errorf("are %d octets, more than %d", len(text), KeysTextMax)
	}
	var list []yaml.Node
	if err := yaml.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("are no YAML list: %s", strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "))
	}
	if len(list) > KeysMax {
		return nil, fmt.Errorf("are %d, more than %d", len(list), KeysMax)
	}
	var keys []Key
	var faults []error
	for i := range list {
		p := keyParser{number: i + 1}
		p.parse(&list[i])
		if slices.ContainsFunc(keys, func(k Key) bool { return k.Selector != "" && k.name() == p.key.name() }) {
			p.fault("selector", "stands twice for this domain, where DNS has one key")
		}
		keys, faults = append(keys, p.key), append(faults, p.faults...)
	}
	if most := mostSignatures(keys); most > SignaturesMax {
		faults = append(faults, fmt.Errorf("would sign one message %d times, more than %d", most, SignaturesMax))
	}
	return keys, errors.Join(faults...)
}

// mostSignatures is how many keys sign the same message at most.
func mostSignatures(keys []Key) int {
	all, most, count := 0, 0, map[string]int{}
	for _, k := range keys {
		if k.From == nil {
			all++
		}
		for _, domain := range k.From {
			count[domain]++
			most = max(most, count[domain])
		}
	}
	return all + most
}

type keyParser struct {
	number int
	key    Key
	faults []error
}

func (p *keyParser) fault(field, format string, args ...any) {
	where := fmt.Sprintf("key %d: ", p.number)
	if field != "" {
		where += field + ": "
	}
	p.faults = append(p.faults, errors.New(where+fmt.Sprintf(format, args...)))
}

var keyFields = []string{"domain", "from", "key_file", "selector"}

const everyDomain = "*"

func (p *keyParser) parse(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		p.fault("", "is no mapping of %s", strings.Join(keyFields, ", "))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		field, value := n.Content[i].Value, n.Content[i+1]
		switch {
		case !slices.Contains(keyFields, field):
			p.fault(field, "is no field; there are %s", strings.Join(keyFields, ", "))
		case seen[field]:
			p.fault(field, "stands twice")
		case field == "from":
			p.from(value)
		case value.Kind != yaml.ScalarNode || value.Value == "":
			p.fault(field, "is no text")
		default:
			p.field(field, value.Value)
		}
		seen[field] = true
	}
	for _, field := range []string{"key_file", "selector"} {
		if !seen[field] {
			p.fault(field, "is missing")
		}
	}
	if !seen["from"] && p.key.Domain != "" {
		p.key.From = []string{p.key.Domain}
	}
}

func (p *keyParser) field(field, value string) {
	switch field {
	case "key_file":
		p.key.File = value
	case "domain":
		if value != everyDomain {
			p.key.Domain = p.domain(field, value)
		}
	case "selector":
		p.key.Selector = p.domain(field, value)
	}
}

// domain returns value as DNS has it; "" after a fault.
func (p *keyParser) domain(field, value string) string {
	name, ok := dnsName(value)
	if !ok {
		p.fault(field, "%q is no name of DNS", value)
	}
	return name
}

func (p *keyParser) from(n *yaml.Node) {
	list := n.Content
	if n.Kind == yaml.ScalarNode {
		list = []*yaml.Node{n}
	}
	if len(list) == 0 || n.Kind == yaml.MappingNode {
		p.fault("from", "is neither a domain nor a list of them")
		return
	}
	every := false
	for _, item := range list {
		if item.Value == everyDomain {
			every = true
			continue
		}
		if name := p.domain("from", item.Value); name != "" && !slices.Contains(p.key.From, name) {
			p.key.From = append(p.key.From, name)
		}
	}
	if every {
		p.key.From = nil
	}
}
