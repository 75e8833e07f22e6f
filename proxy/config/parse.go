package config

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// malformed says why a text is not a value, and what was probably meant. The text itself is never in it:
// it could be a secret.
type malformed struct {
	problem string
	try     string // "": nothing comes to mind
}

// parseInto reads text into what at points to. The type decides: time.Duration needs units ("30s"), int64 is
// a number of bytes ("50MiB"), []string is separated by commas, YAMLText is YAML, int and float64 are plain numbers.
func parseInto(at any, text string) *malformed {
	var m *malformed
	switch p := at.(type) {
	case *string:
		*p = text
	case *YAMLText:
		*p, m = parseYAML(text)
	case *[]string:
		*p, m = parseList(text)
	case *bool:
		*p, m = parseBool(text)
	case *int:
		*p, m = parseInt(text)
	case *float64:
		*p, m = parseFloat(text)
	case *int64:
		*p, m = parseBytes(text)
	case *time.Duration:
		*p, m = parseDuration(text)
	default:
		panic("config: a setting lands in a type that parseInto does not know")
	}
	return m
}

// format is parseInto's inverse: what it returns is parsed to the same value.
func format(at any) string {
	switch p := at.(type) {
	case *string:
		return *p
	case *YAMLText:
		return string(*p)
	case *[]string:
		return strings.Join(*p, ",")
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *float64:
		return strconv.FormatFloat(*p, 'g', -1, 64)
	case *int64:
		return formatBytes(*p)
	case *time.Duration:
		return formatDuration(*p)
	default:
		panic("config: a setting lands in a type that format does not know")
	}
}

// compare orders two values of the same type, for the bounds of a setting. Only numbers have bounds.
func compare(a, b any) int {
	number := func(v any) float64 {
		switch p := v.(type) {
		case *int:
			return float64(*p)
		case *int64:
			return float64(*p)
		case *float64:
			return *p
		case *time.Duration:
			return float64(*p)
		default:
			panic("config: a bound on a setting that is no number")
		}
	}
	switch x, y := number(a), number(b); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

func parseList(text string) ([]string, *malformed) {
	var list []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			return nil, &malformed{problem: "has an empty item between commas"}
		}
		list = append(list, item)
	}
	return list, nil
}

func parseBool(text string) (bool, *malformed) {
	switch strings.ToLower(text) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, &malformed{problem: "is neither true nor false"}
}

func parseInt(text string) (int, *malformed) {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0, &malformed{problem: "is not a whole number"}
	}
	if n < 0 {
		return 0, &malformed{problem: "is negative"}
	}
	return n, nil
}

func parseFloat(text string) (float64, *malformed) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, &malformed{problem: "is not a number"}
	}
	if f < 0 {
		return 0, &malformed{problem: "is negative"}
	}
	return f, nil
}

// parseDuration takes what time.ParseDuration takes, but for a negative one and a bare "0".
func parseDuration(text string) (time.Duration, *malformed) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return 0, &malformed{"is a duration without a unit", strconv.FormatUint(n, 10) + "s"}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return 0, &malformed{"is in days, but the longest unit is h", strconv.FormatUint(24*n, 10) + "h"}
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, &malformed{problem: "is not a duration such as 500ms, 30s, 5m or 96h"}
	}
	if d < 0 {
		return 0, &malformed{problem: "is negative"}
	}
	return d, nil
}

// formatDuration leaves out the units that are zero: 5m, not 5m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-len("0s")]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-len("0m")]
	}
	return s
}

type byteUnit struct {
	name string
	size int64
}

// byteUnits, the largest first, the binary ones before their decimal neighbours.
var byteUnits = []byteUnit{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9},
	{"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"B", 1},
}

// parseBytes takes a whole number of bytes, alone or with a unit of byteUnits in any case.
func parseBytes(text string) (int64, *malformed) {
	end := strings.IndexFunc(text, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(text)
	}
	digits, unit := text[:end], strings.TrimSpace(text[end:])
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, &malformed{problem: "is not a whole number of bytes such as 1048576, 50MiB or 1GiB"}
	}
	if unit == "" {
		return n, nil
	}
	i := slices.IndexFunc(byteUnits, func(u byteUnit) bool { return strings.EqualFold(u.name, unit) })
	if i < 0 {
		return 0, unknownUnit(digits, unit)
	}
	if n > math.MaxInt64/byteUnits[i].size {
		return 0, &malformed{problem: "is more than there are bytes"}
	}
	return n * byteUnits[i].size, nil
}

// unknownUnit knows the ways in which others write a size: 50M, and Kubernetes' 50Mi.
func unknownUnit(digits, unit string) *malformed {
	m := &malformed{problem: "has a unit that is none of B, KB, KiB, MB, MiB, GB, GiB, TB, TiB"}
	if prefix := strings.ToUpper(unit[:1]); strings.Contains("KMGT", prefix) {
		m.try = digits + prefix + "iB"
	}
	return m
}

// formatBytes writes n exactly, in the largest binary unit that leaves no remainder.
func formatBytes(n int64) string {
	for _, u := range byteUnits {
		if binary := u.size&(u.size-1) == 0; binary && u.size > 1 && n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
