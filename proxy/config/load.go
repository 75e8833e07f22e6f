package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/viper"
	"gopkg.in/yaml.v3"
)

// envPrefix is what every name in the environment that concerns us begins with.
const envPrefix = "MAILWEIR_"

// fileMax bounds the file: no ConfigMap of Kubernetes is larger.
const fileMax = 1 << 20

// Load makes the configuration of environ (as os.Environ returns it) and of the file it names, and
// checks it. The environment wins over the file, and an empty value counts as not set.
//
// The error is a Faults with everything that is wrong. Config and Report are filled in as far as possible
// even then, for those who need only a part, such as the address of the probes.
func Load(environ []string) (Config, *Report, error) { return load(environ, thisHost) }

func load(environ []string, host host) (Config, *Report, error) {
	l := &loader{
		cfg:     Default(),
		host:    host,
		environ: environ,
		values:  viper.New(),
		texts:   map[string]string{},
		sources: map[string]string{},
		bad:     map[string]bool{},
	}
	for _, s := range settings {
		l.values.SetDefault(s.key, s.value)
		l.sources[s.key] = sourceDefault
	}
	env := l.readEnvironment()
	if path, ok := env["MAILWEIR_CONFIG"]; ok {
		l.readFile(path)
	}
	for i := range settings {
		s := &settings[i]
		if text, ok := env[s.env]; ok {
			l.values.Set(s.key, text)
			l.sources[s.key] = sourceEnvironment
		}
	}
	l.applyProfile()
	for i := range settings {
		l.decode(&settings[i])
	}
	l.loadRules()
	l.loadKeys()
	l.derive()
	l.loadRoutes()
	l.validate()
	l.cfg.AtStart.again = func() error {
		_, _, err := load(environ, host)
		return err
	}
	report := &Report{Values: l.report(), Warnings: l.warnings}
	if len(l.faults) > 0 {
		return l.cfg, report, l.faults
	}
	return l.cfg, report, nil
}

const (
	sourceDefault     = "default"
	sourceEnvironment = "environment"
	sourceFile        = "file"
)

// loader is the state of one Load.
type loader struct {
	cfg      Config
	host     host
	environ  []string
	values   *viper.Viper      // defaults, file and environment, one above the other
	texts    map[string]string // key: what was written, once known
	sources  map[string]string // key: who wrote it
	bad      map[string]bool   // key: already in faults, so that no fault follows from another
	faults   Faults
	warnings []string
}

// readEnvironment returns our names that are set, and finds fault with those that we do not know.
func (l *loader) readEnvironment() map[string]string {
	env := map[string]string{}
	known := map[string]*setting{}
	for i := range settings {
		known[settings[i].env] = &settings[i]
	}
	for _, entry := range l.environ {
		name, value, _ := strings.Cut(entry, "=")
		s := known[name]
		if s == nil {
			l.unknownName(name)
			continue
		}
		if !s.secret { // a secret may begin or end in blanks; anything else got them from a template
			value = strings.TrimSpace(value)
		}
		if value != "" {
			env[name] = value
		}
	}
	return env
}

// readFile lays the YAML file between the defaults and the environment.
func (l *loader) readFile(path string) {
	l.sources[fileSetting] = sourceEnvironment
	l.texts[fileSetting] = path
	text, err := l.read(fileSetting, path)
	if err != nil {
		l.fault(fileSetting, "cannot be read: "+pathless(err), "")
		return
	}
	file := viper.New()
	file.SetConfigType("yaml")
	if err := file.ReadConfig(bytes.NewReader(text)); err != nil {
		l.fault(fileSetting, "is not YAML: "+cause(err), "")
		return
	}
	if !oneDocument(text) {
		l.fault(fileSetting, severalDocuments, "")
		return
	}
	for _, key := range slices.Sorted(slices.Values(file.AllKeys())) {
		set := file.Get(key) != nil
		switch s := settingByKey(key); {
		case s == nil && !set && isSection(key): // its lines are commented out
		case s == nil || key == fileSetting:
			l.unknownKey(key)
		case set:
			l.sources[key] = sourceFile
		}
	}
	if err := l.values.MergeConfigMap(file.AllSettings()); err != nil {
		l.fault(fileSetting, "cannot be used: "+err.Error(), "")
	}
}

// quoted is a piece of the file in an error of the YAML parser. It could be a secret.
var quoted = regexp.MustCompile("`[^`]*`")

// cause strips the wrapping of the library from an error, which says "yaml:" itself, and what it quotes.
func cause(err error) string {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return quoted.ReplaceAllLiteralString(strings.Join(strings.Fields(err.Error()), " "), "...")
}

// pathless is the cause of a file's error without its path, which a fault names already.
func pathless(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(text) > fileMax {
		return nil, fmt.Errorf("it is larger than %s", formatBytes(fileMax))
	}
	return text, nil
}

// decode puts the value of s in its place. A malformed one is a fault; a word is then in its place nevertheless, and
// anything else leaves the default there, so that other checks do not find it missing.
func (l *loader) decode(s *setting) {
	text, m := written(s, l.values.Get(s.key))
	l.texts[s.key] = text
	if m == nil && text == "" {
		return
	}
	fresh := l.cfg
	at := s.at(&fresh)
	if p := parseInto(at, text); m == nil {
		m = p
	}
	if m == nil {
		m = s.inBounds(&fresh)
	}
	if m != nil {
		l.fault(s.key, m.problem, m.try)
	}
	if _, isWord := at.(*string); m == nil || isWord {
		l.cfg = fresh
	}
}

// written is value, as viper has it from the environment (always a string) or from YAML, as text. A
// number where words are wanted is refused: YAML has already lost the zeros of a password like 0123.
func written(s *setting, value any) (string, *malformed) {
	quotes := &malformed{problem: "is no text in YAML", try: "quotes around it"}
	if _, isYAML := s.at(&Config{}).(*YAMLText); isYAML {
		return writtenYAML(value)
	}
	switch v := value.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case []any:
		return writtenList(v, quotes)
	case map[string]any:
		if len(v) > 0 {
			return "", nil // its keys are unknown, and reported as such
		}
		return "{}", quotes
	case bool, int, int64, uint64, float64:
		switch s.at(&Config{}).(type) {
		case *string, *[]string:
			return fmt.Sprint(v), quotes
		}
		if f, ok := v.(float64); ok {
			return strconv.FormatFloat(f, 'f', -1, 64), nil
		}
		return fmt.Sprint(v), nil
	default:
		return fmt.Sprint(v), quotes
	}
}

// writtenYAML is written for a setting that is YAML itself: text in the environment, any value in the file.
func writtenYAML(value any) (string, *malformed) {
	switch v := value.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	}
	text, err := yaml.Marshal(value)
	if err != nil {
		return "", &malformed{problem: "cannot be used: " + err.Error()}
	}
	return strings.TrimSpace(string(text)), nil
}

func writtenList(list []any, otherwise *malformed) (string, *malformed) {
	var items []string
	for _, item := range list {
		text, ok := item.(string)
		if !ok {
			return fmt.Sprint(list), otherwise
		}
		items = append(items, text)
	}
	return strings.Join(items, ","), nil
}

// inBounds checks the value of s alone: its words, its least and its most.
func (s *setting) inBounds(c *Config) *malformed {
	at := s.at(c)
	if text, ok := at.(*string); ok && s.oneOf != nil {
		return oneOf(*text, s.oneOf)
	}
	bound := func(text string) any {
		var b Config
		if m := parseInto(s.at(&b), text); m != nil {
			panic("config: bound of " + s.key + ": " + m.problem)
		}
		return s.at(&b)
	}
	switch {
	case s.min != "" && compare(at, bound(s.min)) < 0:
		return &malformed{problem: "is less than " + s.min, try: s.min}
	case s.max != "" && compare(at, bound(s.max)) > 0:
		return &malformed{problem: "is more than " + s.max, try: s.max}
	}
	return nil
}

func oneOf(text string, words []string) *malformed {
	for _, w := range words {
		if text == w {
			return nil
		}
	}
	return &malformed{problem: "is not one of " + strings.Join(words, ", "), try: nearest(text, words)}
}

// fault records what is wrong with the value of key.
func (l *loader) fault(key, problem, try string) {
	s := settingByKey(key)
	subject := key
	if text := l.texts[key]; text != "" {
		subject += " " + strconv.Quote(shown(s, text))
	}
	l.bad[key] = true
	l.faults = append(l.faults, Fault{Key: key, Problem: subject + " " + problem, Source: l.origin(s), Try: try})
}

// origin says where the user has to look for the value of s.
func (l *loader) origin(s *setting) string {
	switch source := l.sources[s.key]; {
	case source == sourceEnvironment:
		return "from " + s.env
	case source == sourceFile:
		return "from " + l.cfg.File
	case source != sourceDefault:
		return source
	case l.texts[s.key] == "":
		return "not set; " + s.env
	default:
		return "the default of " + s.env
	}
}

// sound reports whether none of the keys is at fault already.
func (l *loader) sound(keys ...string) bool {
	for _, key := range keys {
		if l.bad[key] {
			return false
		}
	}
	return true
}

func (l *loader) report() []Value {
	values := make([]Value, 0, len(settings))
	for i := range settings {
		s := &settings[i]
		text := format(s.at(&l.cfg))
		if l.bad[s.key] {
			text = l.texts[s.key] // what was written, not the default that stands in for it
		}
		values = append(values, Value{Key: s.key, Env: s.env, Text: shown(s, text), Source: l.sources[s.key]})
	}
	return values
}
