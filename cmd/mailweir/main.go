// Command mailweir is an SMTP proxy beside one application: what it answers with 250 is on disk, and goes to
// the relay over as few connections as the relay can take.
//
// Exit codes: 0; 1 failure; 64 wrong configuration or usage; 75 stopped with mail left in the journal.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// Exit codes, beside 0. 64 and 75 are EX_USAGE and EX_TEMPFAIL of sysexits(3).
const (
	exitFailure  = 1
	exitConfig   = 64
	exitMailLeft = 75
)

func main() {
	os.Exit(execute(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// execute runs one command line and returns the exit code.
func execute(args, environ []string, stdout, stderr io.Writer) int {
	root := newRootCommand(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	// Only cobra's own errors, about the command line, come without a code.
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{exitConfig, fmt.Errorf("%w; see mailweir --help", err)}
	}
	if exit.err != nil {
		fmt.Fprintf(stderr, "mailweir: %v\n", exit.err)
	}
	return exit.code
}

func newRootCommand(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "mailweir",
		Short: "An SMTP proxy that keeps your application's mail until the relay has taken it",
		Long: `mailweir runs beside one application. The application sends its mail to localhost:2525, as fast
as it likes; mailweir answers 250 when the message is on disk, and forwards it to the relay over a few
connections, whose number follows what the relay can take.

Everything is set in the environment; "mailweir config" shows what is in force.`,
		Example: `  MAILWEIR_UPSTREAM=smtp://relay.example.com:587 mailweir check
  MAILWEIR_UPSTREAM=smtp://relay.example.com:587 mailweir run`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.AddCommand(subcommands(environ)...)
	return root
}

func subcommands(environ []string) []*cobra.Command {
	return []*cobra.Command{
		newRunCommand(environ),
		newDemoCommand(),
		newCheckCommand(environ),
		newConfigCommand(environ),
		newHealthcheckCommand(environ),
		newStatusCommand(environ),
		newQueueCommand(environ),
		newResumeCommand(environ),
		newJournalCommand(),
		newVersionCommand(),
	}
}

// exitError ends the process with a code of our choice.
type exitError struct {
	code int
	err  error // nil: it has been told already
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// does makes what cobra runs of a command's work: whatever goes wrong in it is a failure, unless it says
// with which code to exit.
func does(work func(cmd *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		err := work(cmd)
		var exit *exitError
		if err == nil || errors.As(err, &exit) {
			return err
		}
		return &exitError{exitFailure, err}
	}
}
