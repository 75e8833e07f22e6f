// Command fleet judges the controller of package flowctl in a simulated fleet: a table of bars that it must reach, and beside it
// what other laws reach in the same model.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit codes.
const (
	exitReached = 0
	exitMissed  = 1 // a bar, or it could not be judged
	exitUsage   = 64
)

// run is main without the process.
func run(ctx context.Context, args []string, out, progress io.Writer) int {
	o, err := parse(args, progress)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitReached
	case err != nil:
		fmt.Fprintf(progress, "fleet: %v\n", err)
		return exitUsage
	}
	if o.draw != "" {
		err = drawAll(ctx, o)
	} else {
		err = judge(ctx, o, out, progress)
	}
	if err != nil {
		fmt.Fprintf(progress, "fleet: %v\n", err)
		return exitMissed
	}
	return exitReached
}

var errMissed = errors.New("a bar is missed")

// judge prints what came of all that was asked for.
func judge(ctx context.Context, o *options, out, progress io.Writer) error {
	verdicts, err := judgeAll(ctx, o, progress)
	if err != nil {
		return err
	}
	write := writeTable
	switch {
	case o.json:
		write = writeJSON
	case o.markdown:
		write = writeMarkdown
	}
	if err := write(out, o, verdicts); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	for _, v := range verdicts {
		if v.Grade == missed {
			return errMissed
		}
	}
	return nil
}
