package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailweir/mailweir/proxy/journal"
	"github.com/mailweir/mailweir/proxy/message"
)

func newJournalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Look into a journal directory: is it sound, what is in it",
		Long: `Look into the directory in which mailweir keeps mail (MAILWEIR_JOURNAL_DIR). These commands read files and change
nothing. They work beside a running mailweir, on a copy, and on a read-only volume.`,
		Example: `  mailweir journal verify /var/lib/mailweir
  mailweir journal dump /var/lib/mailweir | jq -c 'select(.type == "accepted")'`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command) error { return cmd.Help() }),
	}
	cmd.AddCommand(newVerifyCommand(), newDumpCommand())
	return cmd
}

// inspect runs one inspection with a progress line on stderr. A directory that cannot be meant is a fault of usage.
func inspect(cmd *cobra.Command, in journal.Inspection) (journal.Report, time.Duration, error) {
	started := time.Now()
	m := newMeter(cmd.ErrOrStderr(), cmd.Name(), started)
	in.Dir = cmd.Flags().Arg(0)
	in.Progress = func(done, total int64) { m.show(done, total, time.Now()) }
	report, err := journal.Inspect(in)
	m.end()
	if errors.Is(err, fs.ErrNotExist) {
		err = &exitError{exitConfig, fmt.Errorf("%w\nGive the directory that MAILWEIR_JOURNAL_DIR names", err)}
	}
	return report, time.Since(started), err
}

// meter says how far long work is: on a terminal with one line that is written over, elsewhere with a line now and then.
type meter struct {
	w        io.Writer
	verb     string
	terminal bool
	interval time.Duration
	started  time.Time
	shown    time.Time
	dirty    bool // a line stands on the terminal
}

const (
	meterInterval         = 5 * time.Second
	meterTerminalInterval = 200 * time.Millisecond
)

func newMeter(w io.Writer, verb string, now time.Time) *meter {
	m := &meter{w: w, verb: verb, terminal: isTerminal(w), interval: meterInterval, started: now, shown: now}
	if m.terminal {
		m.interval = meterTerminalInterval
	}
	return m
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// show writes nothing most of the time. What the progress line cannot tell is no reason to stop the work.
func (m *meter) show(done, total int64, now time.Time) {
	if now.Sub(m.shown) < m.interval {
		return
	}
	m.shown = now
	line := fmt.Sprintf("%s: %s of %s GB, %s", m.verb, gigabytes(done), gigabytes(total), speed(done, now.Sub(m.started)))
	if m.terminal {
		m.dirty = true
		_, _ = fmt.Fprintf(m.w, "\r%s\x1b[K", line)
		return
	}
	_, _ = fmt.Fprintln(m.w, line)
}

// end clears the line for what comes next.
func (m *meter) end() {
	if m.dirty {
		_, _ = fmt.Fprint(m.w, "\r\x1b[K")
	}
}

func gigabytes(n int64) string { return strconv.FormatFloat(float64(n)/1e9, 'f', 1, 64) }

func speed(bytes int64, took time.Duration) string {
	return fmt.Sprintf("%.0f MB/s", float64(bytes)/1e6/max(took.Seconds(), 0.001))
}

// parseID reads a queue ID as the log and the queue show it, or in the 16 hexadecimal digits that name a body file.
func parseID(text string) (uint64, error) {
	const hexDigits = 16
	if len(text) == hexDigits {
		if id, err := strconv.ParseUint(text, 16, 64); err == nil && id != 0 {
			return id, nil
		}
	}
	id, err := message.ParseID(text)
	if err != nil || id == 0 {
		return 0, &exitError{exitConfig, fmt.Errorf("%q is no message ID: 13 letters and digits, as in the log and in queue ls, or "+
			"16 hexadecimal digits, as in the name of a body file", text)}
	}
	return uint64(id), nil
}

func idText(id uint64) string { return message.ID(id).String() }
