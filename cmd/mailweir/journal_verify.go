package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailweir/mailweir/proxy"
	"github.com/mailweir/mailweir/proxy/journal"
)

func newVerifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify DIR",
		Short: "Read everything in a journal and name what is damaged",
		Long: `Read every record and every body in a journal directory, compare all checksums, and say what is there and what is
damaged: which message, what will come of it, what to do. Nothing is changed, and no lock is taken: it may run beside mailweir.

An unfinished write at the very end is no damage: nobody had been told that it is safe.
Exit codes: 0 sound, 1 damaged or not readable, 64 not a journal.`,
		Example: `  mailweir journal verify /var/lib/mailweir
  kubectl exec deploy/app -c mailweir -- mailweir journal verify /var/lib/mailweir
  mailweir journal verify --json /backup/mailweir | jq '.damage[].lost[].id'`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = does(func(cmd *cobra.Command) error {
		report, took, err := inspect(cmd, journal.Inspection{})
		if err != nil {
			return err
		}
		if asJSON {
			err = writeJSON(cmd.OutOrStdout(), viewReport(report))
		} else {
			err = writeReport(cmd.OutOrStdout(), cmd.Flags().Arg(0), report, took)
		}
		if err == nil && report.Damaged > 0 {
			err = &exitError{exitFailure, fmt.Errorf("%s in %s", damagedPlaces(report.Damaged), cmd.Flags().Arg(0))}
		}
		return err
	})
	return cmd
}

func writeReport(w io.Writer, dir string, r journal.Report, took time.Duration) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) // a Builder takes everything
	}
	verdict := "sound"
	if r.Damaged > 0 {
		verdict = damagedPlaces(r.Damaged)
	}
	row("journal", "%s, %s: %s", dir, size(r.Bytes), verdict)
	row("segments", "%s", listed(count(r.Sealed, "sealed"), count(r.Unsealed, "not sealed"), count(r.Reserves, "empty"),
		count(r.Broken, "without a header"), count(r.Freed, "freed meanwhile")))
	row("records", "%s", records(r.Records))
	row("messages", "%d waiting, %d dead, %d ended", r.Live, r.Dead, r.Ended)
	row("body files", "%d sound, %s", r.Bodies, size(r.BodyBytes))
	for _, f := range []struct {
		name  string
		files journal.Files
	}{{"bodies of none", r.Orphans}, {"spare", r.Spare}, {"unfinished", r.Unfinished},
		{"quarantined", r.Quarantined}, {"not ours", r.Foreign}} {
		if f.files.Count > 0 {
			row(f.name, "%d files, %s: %s", f.files.Count, size(f.files.Bytes), names(f.files))
		}
	}
	if r.Torn {
		row("at the end", "an unfinished write, which never counted or is under way")
	}
	row("read", "%s in %.1f s, %s", size(r.Read+r.BodyBytes), took.Seconds(), speed(r.Read+r.BodyBytes, took))
	if err := t.Flush(); err != nil {
		return err
	}
	for _, d := range r.Damage {
		b.WriteString("\n" + describeDamage(d))
	}
	if more := r.Damaged - len(r.Damage); more > 0 {
		_, _ = fmt.Fprintf(&b, "\nand %d more places\n", more)
	}
	if r.Damaged > 0 {
		b.WriteString(whatToDo)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const whatToDo = `
Before mailweir is started again, copy the directory: what is damaged is set aside then (*.quarantine), not repaired. Ask the
disk what it knows (dmesg, smartctl). Messages that are lost must be sent again by the application.
`

func damagedPlaces(n int) string {
	if n == 1 {
		return "1 damaged place"
	}
	return fmt.Sprintf("%d damaged places", n)
}

func count(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s", n, what)
}

func listed(parts ...string) string {
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return cmp.Or(strings.Join(parts, ", "), "none")
}

const namesShown = 3

func names(f journal.Files) string {
	shown := f.Names[:min(len(f.Names), namesShown)]
	text := printable(strings.Join(shown, ", "))
	if f.Count > len(shown) {
		text += ", ..."
	}
	return text
}

// records lists those that are not the journal's own.
func records(by map[journal.Type]int64) string {
	var parts []string
	var total int64
	for _, t := range slices.Sorted(maps.Keys(by)) {
		if !t.Control() {
			parts = append(parts, fmt.Sprintf("%d %s", by[t], typeText(t)))
			total += by[t]
		}
	}
	return strings.TrimSuffix(fmt.Sprintf("%d: %s", total, strings.Join(parts, ", ")), ": ")
}

func typeText(t journal.Type) string { return cmp.Or(t.Name(), fmt.Sprintf("type %d", t)) }

// describeDamage is one line for the place, and one for each record that stood in it.
func describeDamage(d journal.Damage) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, offset %d, %d bytes: %s", printable(d.File), d.Offset, d.Length, d.Fault)
	switch {
	case d.Harm == journal.NoHarm:
		b.WriteString("; nothing is lost by it")
	case d.Harm == journal.Unknown && len(d.Lost) == 0:
		b.WriteString("; what stood there is not known: compare the log's accepted lines with its settled ones")
	case d.Harm == journal.Unknown:
		b.WriteString("; what else stood there is not known: compare the log's accepted lines with its settled ones")
	}
	b.WriteByte('\n')
	for _, x := range d.Lost {
		if x.Harm != journal.NoHarm {
			fmt.Fprintf(&b, "  %s\n", describeLost(x))
		}
	}
	if d.More > 0 {
		fmt.Fprintf(&b, "  and %d more records\n", d.More)
	}
	return b.String()
}

func describeLost(x journal.Lost) string {
	if x.Harm == journal.BlobLost {
		return "something mailweir had learnt, as a limit of the relay, is forgotten; it will be learnt again"
	}
	subject := "message " + idText(x.ID) + envelopeText(x)
	if !x.Certain {
		return fmt.Sprintf("perhaps a record (%s) about %s; that is not certain", typeText(x.Type), subject)
	}
	return subject + " " + harmText[x.Harm]
}

var harmText = map[journal.Harm]string{
	journal.NoteLost:    "may be tried sooner than planned, or sent again to recipients who have it: a note about it is lost",
	journal.EndLost:     "had ended and will be sent again: the record of its end is lost",
	journal.ContentLost: "cannot be delivered any more; mailweir knows of it, and lists it among the dead when its turn comes",
	journal.MessageLost: "cannot be delivered any more; mailweir does not know of it after the next start, and nobody is told but you",
	journal.Unknown:     "may be harmed",
}

// envelopeText says what is known of a message whose record is damaged.
func envelopeText(x journal.Lost) string {
	v, err := proxy.Describe(journal.Record{Type: journal.Accepted, Payload: x.Meta})
	env, ok := v.(proxy.Envelope)
	if x.Meta == nil || err != nil || !ok {
		return ""
	}
	to := "<" + env.To[0] + ">"
	if more := len(env.To) - 1; more > 0 {
		to += fmt.Sprintf(" and %d more", more)
	}
	text := fmt.Sprintf("<%s> to %s, received %s, %s", env.From, to, env.Received.Format(time.RFC3339), size(env.Size))
	if !x.MetaCertain {
		text += ", if that part is whole"
	}
	return printable(" (from " + text + ")")
}
