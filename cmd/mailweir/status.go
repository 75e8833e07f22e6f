package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailweir/mailweir/flowctl"
	"github.com/mailweir/mailweir/proxy/admin"
)

func newStatusCommand(environ []string) *cobra.Command {
	a := &asking{environ: environ}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running mailweir is doing",
		Example: `  mailweir status
  kubectl exec deploy/app -c mailweir -- mailweir status
  mailweir status --json | jq .queue.pending`,
		Args: cobra.NoArgs,
	}
	a.addFlags(cmd)
	cmd.RunE = does(func(cmd *cobra.Command) error {
		return a.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(cmd.OutOrStdout(), s)
			}
			return writeStatus(cmd.OutOrStdout(), s, time.Now())
		})
	})
	return cmd
}

// unusableShown is how many signing keys that cannot be used are named.
const unusableShown = 10

// writeStatus writes a line for each thing an operator asks first; what is none is left out.
func writeStatus(w io.Writer, s admin.Status, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, printable(fmt.Sprintf(format, args...)))
	}
	q, u, j, f := s.Queue, s.Upstream, s.Journal, s.Front
	line("version", "%s, up %s", s.Version, age(now, s.Started))
	line("ready", "%s", s.Ready)
	if s.Draining {
		line("draining", "yes")
	}
	if q.Held != "" {
		line("held", "%s", q.Held)
	}
	if r := s.Restart; r.Files != "" {
		line("restart needed", "%s", because("changed: "+r.Files, r.Refused))
	}
	line("pending", "%d messages in %d deliveries, %d in flight, %d deferred", q.Pending, q.Deliveries, q.InFlight, q.Deferred)
	line("oldest", "%s", age(now, q.OldestPending))
	line("next due", "%s", until(now, q.NextDue))
	line("accepted", "%d, %d of them found in the journal", q.Accepted, q.Recovered)
	line("delivered", "%d", q.Delivered)
	line("last delivered", "%s", ago(now, q.LastDelivered))
	line("dead", "%d, %d retained", q.Dead, q.DeadRetained)
	line("possible duplicates", "%d", q.DuplicatesPossible)
	writeUpstream(line, u, now)
	for _, other := range s.Upstreams[min(1, len(s.Upstreams)):] {
		line("", "")
		line("route to", "%s: %d deliveries, %d in flight", other.Name, other.Pending, other.InFlight)
		if other.Held != "" {
			line("held", "%s", other.Held)
		}
		writeUpstream(line, other, now)
	}
	if len(s.Upstreams) > 1 {
		line("", "")
	}
	line("journal", "%s of %s in %d segments, %s", size(j.Bytes), size(j.MaxBytes), j.Segments, j.Dir)
	if j.Error != "" {
		line("journal error", "%s", j.Error)
	}
	if j.Damaged > 0 || j.SyncFailures > 0 {
		line("journal damage", "%d records, %d failed syncs", j.Damaged, j.SyncFailures)
	}
	if g := s.Signing; g.Keys > 0 {
		line("signing", "%d keys, %d signed; unsigned: %s", g.Keys, g.Signed, counted(g.Unsigned))
		for _, why := range g.Unusable[:min(len(g.Unusable), unusableShown)] {
			line("signing error", "%s", why)
		}
	}
	line("application", "%d connections, %d so far; refused: %s", f.Connections, f.Total, counted(f.Refused))
	return t.Flush()
}

// writeUpstream tells what the flow control allows, why, and what it will do next.
func writeUpstream(line func(name, format string, args ...any), u admin.UpstreamStatus, now time.Time) {
	line("upstream", "%s, %s", u.Address, because(u.State, u.Reason))
	if u.Addresses > 1 || u.Down > 0 {
		line("addresses", "%d, %d down", u.Addresses, u.Down)
		for _, h := range u.Hosts {
			line("", "%s", describeAddress(h, now))
		}
	}
	line("width", "%.4g of %d, ceiling %s, %d connections, %d busy, %d dialling", u.Width, u.Max, orNone(u.Ceiling), u.Connections, u.Busy, u.Dialing)
	if u.Share > 0 || u.Waiting > 0 {
		line("sharing", "%s", sharing(u))
	}
	if u.StepReason != "" {
		line("pipelining", "%s, window %d, as %s; more is tried %s", u.Pipelining, u.Window, u.StepReason, until(now, u.StepUntil))
	} else if u.Pipelining != "" {
		line("pipelining", "%s, window %d", u.Pipelining, u.Window)
	}
	if u.SessionCap > 0 {
		line("session cap", "%d messages; then a connection is replaced, as the upstream takes no more over one", u.SessionCap)
	}
	if u.QuotaUsed > 0 || u.QuotaLimit > 0 {
		line("quota", "%d recipients in the last 24 hours, %s", u.QuotaUsed, quotaLimit(u.QuotaLimit))
	}
	if u.Rate > 0 {
		line("rate", "%.4g transactions a second", u.Rate)
	}
	if u.LastMove != "" {
		line("last move", "%s, %s", because(u.LastMove, u.LastReply), ago(now, u.LastMoveAt))
	}
	if u.Token != "" {
		line("token", "%s, expires %s", u.Token, until(now, u.TokenExpiry))
	}
	if u.State == flowctl.Stopped.String() && !u.NextProbe.IsZero() {
		line("next probe", "%s, with one message; while it is refused, %s between two", until(now, u.NextProbe), span(seconds(u.ProbeGap)))
	} else {
		line("next probe", "%s", until(now, u.NextProbe))
	}
	if u.NoDialBefore.After(now) {
		line("next dial", "%s", until(now, u.NoDialBefore))
	}
	if u.NoSendBefore.After(now) {
		line("next message", "%s", until(now, u.NoSendBefore))
	}
	line("outcomes", "%s", counted(u.Outcomes))
	if u.LastError != "" {
		line("last error", "%s", u.LastError)
	}
}

// describeAddress is a line about one address of several.
func describeAddress(h admin.AddressStatus, now time.Time) string {
	text := fmt.Sprintf("%s, priority %d, weight %d, %d connections", h.Address, h.Priority, h.Weight, h.Connections)
	switch {
	case h.Up:
		return text
	case h.Dialing > 0:
		text += ", down, being tried"
	case h.NoDialBefore.After(now):
		text += ", down, next try " + until(now, h.NoDialBefore)
	default:
		text += ", down, tried with the next connection"
	}
	return because(text, h.LastError)
}

// sharing tells whoever sees no width above 1 what the processes do among themselves.
func sharing(u admin.UpstreamStatus) string {
	var parts []string
	if u.Share > 0 {
		parts = append(parts, fmt.Sprintf("about %.2g of one connection, in turns with others", u.Share))
	} else {
		parts = append(parts, "others hold every connection that there is")
	}
	switch {
	case u.Waiting > 0:
		parts = append(parts, "waiting for a turn for "+span(seconds(u.Waiting)))
	case u.Connections > 0:
		parts = append(parts, "it is our turn")
	}
	return strings.Join(parts, "; ")
}

func quotaLimit(n int) string {
	if n == 0 {
		return "no limit is configured"
	}
	return fmt.Sprintf("of %d; what is more waits", n)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// because adds a reason in parentheses, if there is one.
func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + " (" + why + ")"
}

// counted lists what is not zero, by name.
func counted(m map[string]uint64) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if m[key] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", key, m[key]))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func orNone(n int) string {
	if n == 0 {
		return "not known"
	}
	return fmt.Sprint(n)
}
