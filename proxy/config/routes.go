package config

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/route"
)

// A route is an item of a list: from, to, upstream, and where it is the first to name that upstream, its settings, by their names in the
// file without "upstream.".

const (
	othersMax = 16  // upstreams beside the default one: each has its own connections, and series of metrics
	routesMax = 200 // items, and domains of one
)

// upstreamName is what may be the name of an upstream: it becomes a label, and part of a name in the journal.
var upstreamName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// loadRoutes reads the list of routes with the upstreams that it defines.
func (l *loader) loadRoutes() {
	key, text, ok := l.list("routes", l.cfg.Routes, "routes_file", l.cfg.RoutesFile)
	if !ok || len(strings.TrimSpace(string(text))) == 0 {
		return
	}
	var items []map[string]any
	if err := yaml.Unmarshal(text, &items); err != nil {
		l.listFaults(key, errors.New("is no YAML list of routes: "+cause(err)))
		return
	}
	if len(items) > routesMax {
		l.listFaults(key, fmt.Errorf("has more than %d routes", routesMax))
		return
	}
	r := &routesReader{loader: l, lanes: map[string]int{admin.DefaultUpstream: 0}}
	for i, item := range items {
		r.where = fmt.Sprintf("route %d: ", i+1)
		r.item(item)
	}
	l.listFaults(key, errors.Join(r.faults...))
	l.cfg.Others, l.cfg.Table = r.others, r.table
}

// routesReader is the state of one loadRoutes.
type routesReader struct {
	*loader
	where  string // the item, for faults
	lanes  map[string]int
	others []Upstream
	table  route.Table
	faults []error
}

func (r *routesReader) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf(r.where+format, args...))
}

func (r *routesReader) item(item map[string]any) {
	rule := route.Rule{From: r.patterns("from", item["from"]), To: r.patterns("to", item["to"])}
	for _, key := range []string{"from", "to"} {
		if value, set := item[key]; set && value == nil {
			r.fault("%s: is empty; leave it out where any domain will do", key)
		}
	}
	if item["from"] == nil && item["to"] == nil {
		r.fault("has neither from nor to; what no route names goes to the upstream of MAILWEIR_UPSTREAM")
	}
	name, isText := item["upstream"].(string)
	switch {
	case item["upstream"] == nil:
		r.fault("upstream: is missing; give it a name")
		return
	case !isText || !upstreamName.MatchString(name):
		r.fault("upstream: a name has up to 32 of a-z, 0-9 and -")
		return
	}
	own := maps.Clone(item)
	for _, key := range []string{"from", "to", "upstream"} {
		delete(own, key)
	}
	lane, known := r.lanes[name]
	switch {
	case known && len(own) > 0 && lane == 0:
		r.fault("the settings of the default upstream are those outside of routes; here is %s", someKey(own))
	case known && len(own) > 0:
		r.fault("the settings of %s stand in the first route that names it; here is %s", name, someKey(own))
	case !known && len(r.others) == othersMax:
		r.fault("more than %d upstreams", othersMax)
		return
	case !known:
		lane = len(r.others) + 1
		r.lanes[name] = lane
		r.others = append(r.others, r.upstream(name, own))
	}
	rule.Lane = lane
	r.table = append(r.table, rule)
}

func someKey(m map[string]any) string { return slices.Sorted(maps.Keys(m))[0] }

// patterns reads one domain or a list of them.
func (r *routesReader) patterns(key string, value any) (list []route.Pattern) {
	var items []any
	switch v := value.(type) {
	case nil:
		return nil
	case string:
		items = []any{v}
	case []any:
		items = v
	}
	if len(items) == 0 || len(items) > routesMax {
		r.fault("%s: is neither a domain nor a list of up to %d", key, routesMax)
	}
	for _, item := range items {
		text, ok := item.(string)
		if !ok {
			r.fault("%s: %v is no text in YAML; put quotes around it", key, item)
			continue
		}
		p, err := route.Parse(text)
		if err != nil {
			r.fault("%s: %q %v", key, text, err)
		}
		list = append(list, p)
	}
	return list
}

// upstream reads the settings of an upstream. What is set for all stays: our name, the rules about replies, the scale of time.
func (r *routesReader) upstream(name string, own map[string]any) Upstream {
	c := Default()
	decoded := len(r.faults)
	r.applyTo(&c, own)
	c.Upstream.Hostname, c.Upstream.Rules = r.cfg.Hostname, r.cfg.Upstream.Rules
	c.Upstream.OAuth = c.OAuth.Enabled()
	c.Flow.Gain, c.Flow.Scale = c.UpstreamSlowness == slownessGain, r.cfg.Flow.Scale
	if c.OAuth.GoogleFile != "" && c.OAuth.GoogleSubject == "" {
		c.OAuth.GoogleSubject = c.Upstream.Username
	}
	before := len(r.faults)
	for _, err := range slices.Concat(splitJoined(c.Upstream.Validate()), splitJoined(c.OAuth.Validate()), splitJoined(c.Flow.Validate())) {
		text := err.Error()
		for _, component := range []string{"upstream: ", "oauth: ", "flowctl: validate "} {
			text = strings.TrimPrefix(text, component)
		}
		subject := r.where + text[:strings.Index(text, ":")+1]
		if !slices.ContainsFunc(r.faults[decoded:], func(known error) bool { return strings.HasPrefix(known.Error(), subject) }) {
			r.fault("%s", text)
		}
	}
	if door := r.frontDoor(c.Upstream); door != "" && len(r.faults) == before {
		r.fault("url: is our own front door, %s", door)
	}
	return Upstream{Name: name, Relay: c.Upstream, OAuth: c.OAuth, Flow: c.Flow, GroupMax: c.Queue.GroupMax}
}

// applyTo puts values where they belong, after those of the profile.
func (r *routesReader) applyTo(c *Config, own map[string]any) {
	texts := map[*setting]string{}
	for _, key := range slices.Sorted(maps.Keys(own)) {
		s := routeSetting(key)
		switch {
		case s == nil:
			r.fault("%s: is no setting of an upstream%s", key, or(nearest(key, routeKeys())))
			continue
		case s.secret:
			r.fault("%s: does not belong here, where it is shown; put it into a file and name that in %s_file", key, key)
			continue
		}
		text, m := written(s, own[key])
		if m != nil {
			r.fault("%s: %s%s", key, m.problem, or(m.try))
			continue
		}
		if text != "" {
			texts[s] = text
		}
	}
	for _, p := range profiles {
		if p.name != texts[settingByKey(profileSetting)] {
			continue
		}
		for _, d := range p.defaults {
			if s := settingByKey(d.key); texts[s] == "" {
				texts[s] = d.value
			}
		}
	}
	for i := range settings { // in the order of the documentation
		if s := &settings[i]; texts[s] != "" {
			r.apply(c, s, texts[s])
		}
	}
}

func (r *routesReader) apply(c *Config, s *setting, text string) {
	m := parseInto(s.at(c), text)
	if m == nil {
		m = s.inBounds(c)
	}
	key := routeKey(s)
	if m != nil {
		r.fault("%s: %q %s%s", key, shown(s, text), m.problem, or(m.try))
		return
	}
	if strings.HasSuffix(key, "_file") {
		switch content, err := readBounded(text); {
		case err != nil:
			r.fault("%s: %q cannot be read: %s", key, text, pathless(err))
		case len(content) == 0:
			r.fault("%s: %q is empty", key, text)
		}
	}
}

func or(try string) string {
	if try == "" {
		return ""
	}
	return "; try " + try
}

// routeKey is the name of a setting in a route, "" for one that does not belong there.
func routeKey(s *setting) string {
	switch s.key {
	case "upstream.rules", "upstream.rules_file": // they are about the words of servers
		return ""
	case "rate_per_second":
		return s.key
	case "quota.recipients_per_day":
		return "recipients_per_day"
	}
	key, ok := strings.CutPrefix(s.key, "upstream.")
	if !ok {
		return ""
	}
	return key
}

func routeSetting(key string) *setting {
	for i := range settings {
		if k := routeKey(&settings[i]); k != "" && k == key {
			return &settings[i]
		}
	}
	return nil
}

func routeKeys() []string {
	keys := []string{"from", "to", "upstream"}
	for i := range settings {
		if k := routeKey(&settings[i]); k != "" && !settings[i].secret {
			keys = append(keys, k)
		}
	}
	return keys
}
