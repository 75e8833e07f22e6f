package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/config"
)

func newHealthcheckCommand(environ []string) *cobra.Command {
	var ready bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the mailweir of this configuration whether it is alive",
		Long: `Ask the probes at MAILWEIR_PROBE_LISTEN, for an image that has no curl. The exit code is 0, or 1
with the reason.`,
		Example: `  mailweir healthcheck          # liveness: /healthz
  mailweir healthcheck --ready  # readiness: /readyz`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask for readiness instead of liveness")
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "how long to wait for the answer")
	cmd.RunE = does(func(cmd *cobra.Command) error {
		// Whatever else is wrong with the configuration is no matter of this question.
		cfg, report, _ := config.Load(environ)
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		if err := admin.Probe(ctx, cfg.Admin.ProbeListen, ready); err != nil {
			v := report.Value("probe.listen")
			return fmt.Errorf("%w (probe.listen is %s, from %s)", err, v.Text, v.Source)
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "ok")
		return err
	})
	return cmd
}
