package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailweir/mailweir/proxy/admin"
)

func newQueueCommand(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look at the mail that waits, and at the mail that died",
		Example: `  mailweir queue ls
  mailweir queue dead --json`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command) error { return cmd.Help() }),
	}
	cmd.AddCommand(
		newListCommand(environ, "ls", "List pending deliveries, the oldest first", (*admin.Client).Queue),
		newListCommand(environ, "dead", "List dead messages, the oldest first", (*admin.Client).Dead),
	)
	return cmd
}

func newListCommand(environ []string, name, short string,
	list func(*admin.Client, context.Context, int) ([]admin.Entry, error)) *cobra.Command {
	a := &asking{environ: environ}
	var limit int
	cmd := &cobra.Command{
		Use:     name,
		Short:   short,
		Example: fmt.Sprintf("  mailweir queue %s\n  mailweir queue %[1]s --max 1000 --json", name),
		Args:    cobra.NoArgs,
	}
	a.addFlags(cmd)
	cmd.Flags().IntVar(&limit, "max", 100, "the most entries to show, up to 1000")
	cmd.RunE = does(func(cmd *cobra.Command) error {
		return a.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
			rows, err := list(c, ctx, limit)
			if err != nil {
				return err
			}
			if a.json {
				return writeJSON(cmd.OutOrStdout(), rows)
			}
			return writeEntries(cmd.OutOrStdout(), rows, limit, time.Now())
		})
	})
	return cmd
}

func writeEntries(w io.Writer, rows []admin.Entry, limit int, now time.Time) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "none")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tAGE\tSIZE\tSTATE\tUPSTREAM\tATTEMPTS\tNEXT\tFROM\tTO\tREASON")
	for _, e := range rows {
		attempts := strconv.Itoa(e.Attempts)
		if e.State == "dead" {
			attempts = "-" // there will be no more, and how many there were does not matter
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.ID, age(now, e.Received), size(e.Size), e.State,
			cmp.Or(e.Upstream, "-"), attempts, until(now, e.Next), printable("<"+e.From+">"), printable(recipients(e)), printable(e.Reason))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(rows) == limit {
		_, err := fmt.Fprintf(w, "(the oldest %d; --max shows more)\n", limit)
		return err
	}
	return nil
}

func recipients(e admin.Entry) string {
	if len(e.To) == 0 {
		return "-"
	}
	if more := len(e.To) - 1 + e.ToMore; more > 0 {
		return fmt.Sprintf("<%s> and %d more", e.To[0], more)
	}
	return "<" + e.To[0] + ">"
}
