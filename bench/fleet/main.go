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
	exitMissed  = 1 // a bar
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
	verdicts, err := judgeAll(ctx, o, progress)
	if err != nil {
		fmt.Fprintf(progress, "fleet: %v\n", err)
		return exitMissed
	}
	if o.draw != "" {
		if err := drawAll(ctx, o); err != nil {
			fmt.Fprintf(progress, "fleet: %v\n", err)
			return exitMissed
		}
	}
	write := writeTable
	if o.json {
		write = writeJSON
	}
	if err := write(out, o, verdicts); err != nil {
		fmt.Fprintf(progress, "fleet: write: %v\n", err)
		return exitMissed
	}
	for _, v := range verdicts {
		if !v.Reached {
			return exitMissed
		}
	}
	return exitReached
}
