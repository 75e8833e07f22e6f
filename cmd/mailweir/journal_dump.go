package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mailweir/mailweir/proxy/journal"
)

func newDumpCommand() *cobra.Command {
	var only, eml string
	cmd := &cobra.Command{
		Use:   "dump DIR",
		Short: "Print the records of a journal as JSON lines, or one message",
		Long: `Print every sound record of a journal directory as one JSON object a line, oldest first, and then each damaged
place. Nothing is changed, and no lock is taken: it may run beside mailweir. A message that mailweir has copied to a newer segment
comes more than once.

With --eml it writes one message instead, as it was accepted, also one that has ended if its bytes are still there. Nothing
but what its checksum covers is written: a damaged message is refused, and it is said where its bytes are.
Exit codes: 0; 1 something is damaged, or there is no such message; 64 not a journal, or not an ID.`,
		Example: `  mailweir journal dump /var/lib/mailweir | jq -c 'select(.type == "accepted") | [.id, .record.from, .record.to]'
  mailweir journal dump --id 00D5Y2BMKR401 /var/lib/mailweir
  mailweir journal dump --eml 00D5Y2BMKR401 /var/lib/mailweir > saved.eml`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&only, "id", "", "only records about this message")
	cmd.Flags().StringVar(&eml, "eml", "", "write this message to standard output")
	cmd.MarkFlagsMutuallyExclusive("id", "eml")
	cmd.RunE = does(func(cmd *cobra.Command) error {
		switch {
		case cmd.Flags().Changed("eml"):
			id, err := parseID(eml)
			if err != nil {
				return err
			}
			return dumpMessage(cmd, id)
		case cmd.Flags().Changed("id"):
			id, err := parseID(only)
			if err != nil {
				return err
			}
			return dumpRecords(cmd, id)
		}
		return dumpRecords(cmd, 0)
	})
	return cmd
}

// dumpRecords prints the records of one message, or all if id is 0.
func dumpRecords(cmd *cobra.Command, id uint64) error {
	out := bufio.NewWriter(cmd.OutOrStdout())
	enc := json.NewEncoder(out)
	report, _, err := inspect(cmd, journal.Inspection{SkipBodies: true, Visit: func(f journal.Found) error {
		if id != 0 && f.ID != id {
			return nil
		}
		return enc.Encode(viewRecord(f))
	}})
	if err != nil {
		return errors.Join(err, out.Flush())
	}
	damaged := 0
	for _, d := range report.Damage {
		if id != 0 && !slices.ContainsFunc(d.Lost, func(x journal.Lost) bool { return x.ID == id }) {
			continue
		}
		damaged++
		if err := enc.Encode(viewDamage(d)); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if id == 0 {
		damaged = report.Damaged
	}
	if damaged > 0 {
		return fmt.Errorf("%s; mailweir journal verify says what that means", damagedPlaces(damaged))
	}
	return nil
}

// dumpMessage writes one message to stdout: not a byte before all of it was found sound.
func dumpMessage(cmd *cobra.Command, id uint64) error {
	var kept journal.Found // any sound copy is as good as another; the latest is the one most likely to stay
	report, _, err := inspect(cmd, journal.Inspection{SkipBodies: true, Visit: func(f journal.Found) error {
		if f.Type == journal.Accepted && f.ID == id {
			kept = f.Clone()
		}
		return nil
	}})
	switch {
	case err != nil:
		return err
	case kept.ID == 0:
		return noMessage(id, report)
	}
	if err := writeBody(io.Discard, kept); err != nil {
		return fmt.Errorf("message %s: %w\nNothing was written. Its content, as far as it is there, begins at byte %d of %s",
			idText(id), err, journal.BodyFileStart, kept.File)
	}
	return writeBody(cmd.OutOrStdout(), kept)
}

func writeBody(w io.Writer, f journal.Found) error {
	body, err := f.Body()
	if err != nil {
		return err
	}
	_, err = io.Copy(w, body)
	return errors.Join(err, body.Close())
}

// noMessage says why there is nothing to write.
func noMessage(id uint64, report journal.Report) error {
	for _, d := range report.Damage {
		for _, x := range d.Lost {
			if x.ID == id && x.Type == journal.Accepted {
				return fmt.Errorf("message %s is damaged: %s\nNothing was written. What is left of it stands in %s, offset %d, %d bytes",
					idText(id), d.Fault, d.File, d.Offset, d.Length)
			}
		}
	}
	err := fmt.Errorf("no message %s in the journal: it was never accepted, or it has ended and its bytes are gone", idText(id))
	if report.Damaged > 0 {
		err = fmt.Errorf("%w, or it stood in what is damaged (%s): see mailweir journal verify", err, damagedPlaces(report.Damaged))
	}
	return err
}
