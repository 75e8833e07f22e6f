package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/mailweir/mailweir/bench/relay"
	"github.com/mailweir/mailweir/bench/source"
	"github.com/mailweir/mailweir/proxy/admin"
)

// screen writes the demo's story: on a terminal with one progress line that is written over, elsewhere with a
// progress line now and then. It keeps the first error of its writer and is silent from then on.
type screen struct {
	w        io.Writer
	terminal bool
	interval time.Duration // between progress lines
	err      error
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w, terminal: isTerminal(w), interval: time.Second}
	if s.terminal {
		s.interval = 100 * time.Millisecond
	}
	return s
}

func (s *screen) printf(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.w, format, args...)
	}
}

func (s *screen) upstream(o demoOptions) {
	s.printf("upstream: %d connections at once, then %q;\n", o.limit, relay.ExchangeBusy)
	s.printf("  round trip %v, %v for each message, and %q to each %dth\n\n", o.rtt, o.service, relay.ExchangePressure, demoPressureEvery)
}

func (s *screen) direct(o demoOptions, r outcome) {
	served := r.sent.Count(source.Record.Acknowledged)
	refused := r.sent.Count(func(rec source.Record) bool { return rec.Refused() && rec.Code == 421 })
	s.printf("direct: %s at once -> %d served, %d refused with 421", load(o), served, refused)
	if other := len(r.sent.Records) - served - refused; other > 0 {
		s.printf(", %d failed otherwise", other)
	}
	if served < len(r.sent.Records) {
		s.printf("; those mails are lost unless the application retries")
	}
	s.printf("\n\nmailweir: the same storm; it may open %d connections to the upstream and is not told the limit\n", 2*o.limit)
}

func load(o demoOptions) string {
	if o.messages <= o.connections {
		return fmt.Sprintf("%d connections", o.messages)
	}
	return fmt.Sprintf("%d messages, %d connections", o.messages, o.connections)
}

// progress counts what the applications were told. It is safe for concurrent use.
type progress struct{ accepted, failed atomic.Int64 }

// count takes reports in any order; a late one never counts back.
func (p *progress) count(now source.Progress) {
	raise(&p.accepted, int64(now.Acknowledged))
	raise(&p.failed, int64(now.Failed))
}

func raise(v *atomic.Int64, to int64) {
	for was := v.Load(); to > was && !v.CompareAndSwap(was, to); was = v.Load() {
	}
}

func (s *screen) progress(since time.Duration, seen *progress, status admin.Status, upstream relay.Counters) {
	line := fmt.Sprintf("  %5.1f s  accepted %d  failed %d  delivered %d  width %.1f  connections %d  refusals %d  452s %d",
		since.Seconds(), seen.accepted.Load(), seen.failed.Load(), upstream.Taken,
		status.Upstream.Width, upstream.Current, upstream.Refused, upstream.Pressed)
	if s.terminal {
		s.printf("\r%s\x1b[K", line)
		return
	}
	s.printf("%s\n", line)
}

func (s *screen) endProgress() {
	if s.terminal {
		s.printf("\n")
	}
}

// table compares the two storms.
func (s *screen) table(direct, through outcome) {
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(name string, of func(outcome) string) {
		_, _ = fmt.Fprintf(t, "%-28s\t%s\t%s\t\n", name, of(direct), of(through))
	}
	number := func(of func(outcome) int) func(outcome) string {
		return func(r outcome) string { return strconv.Itoa(of(r)) }
	}
	quantile := func(q float64) func(outcome) string {
		return func(r outcome) string { return brief(r.sent.Quantile(q, source.Took)) }
	}
	// Nothing below can fail: a tabwriter has its writer's errors, and a Builder has none.
	_, _ = fmt.Fprintf(t, "%-28s\t%s\t%s\t\n", "", "direct", "mailweir")
	row("messages", number(func(r outcome) int { return len(r.sent.Records) }))
	row("failed for the application", number(func(r outcome) int {
		return len(r.sent.Records) - r.sent.Count(source.Record.Acknowledged)
	}))
	row("connect to 250, median", quantile(0.5))
	row("connect to 250, p99", quantile(0.99))
	row("refusals by the upstream", number(func(r outcome) int { return r.relay.Refused }))
	row("452s by the upstream", number(func(r outcome) int { return r.relay.Pressed }))
	row("connections to the upstream", number(func(r outcome) int { return r.relay.Accepted }))
	row("delivered", number(func(r outcome) int { return r.report.Arrived }))
	row("delivered more than once", number(func(r outcome) int { return len(r.report.Duplicated) }))
	row("lost after a 250", number(func(r outcome) int { return len(r.report.Lost) }))
	row("drain time", func(r outcome) string { return brief(r.drain) })
	_ = t.Flush()
	s.printf("\n%s", text.String())
}

func brief(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// byteSize is a flag: octets, with or without B, KiB or MiB.
type byteSize int

var byteUnits = []struct {
	suffix string
	factor int
}{{"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// String and Set implement pflag.Value, as Type does.
func (b *byteSize) String() string {
	for _, u := range byteUnits {
		if n := int(*b); n >= u.factor && n%u.factor == 0 {
			return strconv.Itoa(n/u.factor) + u.suffix
		}
	}
	return "0B"
}

// Set accepts what fits an int after multiplication.
func (b *byteSize) Set(text string) error {
	for _, u := range byteUnits {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || int(n) > (1<<31-1)/u.factor {
			break
		}
		*b = byteSize(int(n) * u.factor)
		return nil
	}
	return fmt.Errorf("%q is no size: write it like 2KiB", text)
}

// Type is shown in the help.
func (b *byteSize) Type() string { return "size" }
