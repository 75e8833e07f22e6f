package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mailweir/mailweir/proxy"
	"github.com/mailweir/mailweir/proxy/config"
)

func newRunCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the proxy",
		Long: `Run the proxy until SIGTERM or SIGINT. It then drains: it takes no new mail, delivers what
it can within MAILWEIR_DRAIN_TIMEOUT, and keeps the rest in the journal for the next start. A second signal
ends it at once, which loses nothing either, but may send again what was under way.

Exit codes: 0 drained, 1 failure, 64 wrong configuration, 75 stopped with mail left.`,
		Example: `  MAILWEIR_UPSTREAM=smtps://relay.example.com MAILWEIR_JOURNAL_DIR=/srv/mailweir mailweir run`,
		Args:    cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command) error {
			return runProxy(cmd.Context(), environ, cmd.ErrOrStderr())
		}),
	}
}

func runProxy(ctx context.Context, environ []string, stderr io.Writer) error {
	cfg, report, err := config.Load(environ)
	if err != nil {
		return &exitError{exitConfig, err}
	}
	log, err := newLogger(cfg.Log.Level, stderr)
	if err != nil {
		return &exitError{exitConfig, err}
	}
	for _, warning := range report.Warnings {
		log.Warn("configuration", zap.String("reason", warning))
	}
	setMemoryLimit(environ, log)
	defer paceCollector(environ)()
	// A log collector that goes away must not take the mail with it: without this, writing to its pipe kills.
	// Nor must a terminal that closes end it without a drain.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	sigs := make(chan os.Signal, 2) // both signals that mean something, so that neither is dropped
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(sigs)

	p, err := proxy.New(cfg, log, versionString())
	if err != nil {
		log.Error("start failed", zap.Error(err))
		return &exitError{code: exitFailure}
	}
	giveBack()
	return supervise(ctx, log, sigs, os.Exit, p.Run)
}

// supervise runs until run returns. The first signal cancels its context; the second one calls exit, which does not
// return but in tests.
func supervise(ctx context.Context, log *zap.Logger, sigs <-chan os.Signal, exit func(int),
	run func(context.Context) (left int, err error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		select {
		case sig := <-sigs:
			log.Info("stopping", zap.Stringer("signal", sig))
			cancel()
		case <-ended:
			return
		}
		select {
		case sig := <-sigs:
			log.Error("cut", zap.Stringer("signal", sig))
			exit(exitFailure)
		case <-ended:
		}
	})
	left, err := run(ctx)
	close(ended)
	watcher.Wait()
	switch {
	case err != nil:
		log.Error("failed", zap.Error(err), zap.Int("left", left))
		return &exitError{code: exitFailure}
	case left > 0:
		return &exitError{code: exitMailLeft} // the proxy has logged how many
	}
	return nil
}

// newLogger writes one JSON object a line, every one of them: sampling would lose the line that is looked for.
func newLogger(level string, w io.Writer) (*zap.Logger, error) {
	least, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	enc := zap.NewProductionEncoderConfig()
	enc.TimeKey, enc.EncodeTime = "time", zapcore.ISO8601TimeEncoder
	enc.EncodeDuration = zapcore.SecondsDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(enc), zapcore.Lock(zapcore.AddSync(w)), least)), nil
}
