package source

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mailweir/mailweir/bench/relay"
)

// Report is the comparison of a source's ledger with a relay's. Its unit is the delivery: one message to one
// recipient. Each list names its deliveries, with the reason where there are several.
type Report struct {
	Acknowledged int // deliveries
	Arrived      int // acknowledged deliveries that the relay took, counted once
	Surplus      int // deliveries that arrived although they were not acknowledged: allowed, since a reply can be lost
	Foreign      int // messages of the relay that are not this source's

	Lost       []string // acknowledged and not taken
	Duplicated []string // taken more than once
	Altered    []string // content, sender or recipient not as sent
}

// Err says what broke the promise, that every acknowledged message arrives unaltered at least once; nil when it was
// kept. Duplicates do not count.
func (r Report) Err() error {
	var errs []error
	complain := func(what string, list []string) {
		if len(list) > 0 {
			errs = append(errs, fmt.Errorf("source: %d %s, the first %s", len(list), what, list[0]))
		}
	}
	complain("acknowledged and lost", r.Lost)
	complain("altered", r.Altered)
	return errors.Join(errs...)
}

// Check compares. The relay may have messages with header fields prepended and with their recipients split over
// several transactions.
func Check(sent Ledger, taken []relay.Message) Report {
	var rep Report
	byID := make(map[string]*Record, len(sent.Records))
	for i := range sent.Records {
		byID[sent.Records[i].XID] = &sent.Records[i]
	}
	arrived := map[string]int{}
	for i := range taken {
		m := &taken[i]
		rec := byID[m.XID]
		if rec == nil {
			rep.Foreign++
			continue
		}
		if why := altered(rec, m); why != "" {
			rep.Altered = append(rep.Altered, rec.XID+": "+why)
		}
		for _, to := range m.To {
			arrived[delivery(rec.XID, to)]++
		}
	}
	for i := range sent.Records {
		rep.judge(&sent.Records[i], arrived)
	}
	return rep
}

func delivery(id, to string) string { return id + " to " + to }

func (r *Report) judge(rec *Record, arrived map[string]int) {
	for _, to := range rec.To {
		name := delivery(rec.XID, to)
		n := arrived[name]
		if n > 1 {
			r.Duplicated = append(r.Duplicated, fmt.Sprintf("%s: %d times", name, n))
		}
		switch {
		case !rec.Acknowledged():
			r.Surplus += min(n, 1)
		case n == 0:
			r.Acknowledged++
			r.Lost = append(r.Lost, name)
		default:
			r.Acknowledged++
			r.Arrived++
		}
	}
}

// altered returns how what was taken differs from what was sent; "": in nothing.
func altered(rec *Record, m *relay.Message) string {
	if m.SumFromID != rec.Sum {
		return "content changed"
	}
	if m.Size != rec.Size+int64(len(m.Prefix)) {
		return "prepended more than the relay kept"
	}
	if !isFields(m.Prefix) {
		return fmt.Sprintf("what was prepended is no header: %.80q", m.Prefix)
	}
	if m.From != rec.From {
		return "sender " + m.From
	}
	for _, to := range m.To {
		if !slices.Contains(rec.To, to) {
			return "recipient " + to
		}
	}
	return ""
}

// isFields accepts whole header fields, folded or not (RFC 5322 section 2.2).
func isFields(text string) bool {
	inField := false
	for line := range strings.Lines(text) {
		body, whole := strings.CutSuffix(line, "\r\n")
		if !whole || body == "" {
			return false
		}
		if body[0] == ' ' || body[0] == '\t' {
			if !inField || strings.TrimSpace(body) == "" {
				return false
			}
			continue
		}
		name, _, colon := strings.Cut(body, ":")
		if !colon || name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return false
		}
		inField = true
	}
	return true
}
