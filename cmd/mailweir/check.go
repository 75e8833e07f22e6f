package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mailweir/mailweir/proxy/config"
)

func newCheckCommand(environ []string) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and name every fault",
		Long: `Check the configuration as "run" would, without starting anything. Every fault is named at
once, with the place it comes from and what to try. The exit code is 64 when there is one.`,
		Example: `  MAILWEIR_UPSTREAM=smtp://relay.example.com:587 mailweir check
  kubectl exec deploy/app -c mailweir -- mailweir check`,
		Args: cobra.NoArgs,
		RunE: does(func(cmd *cobra.Command) error {
			_, report, err := config.Load(environ)
			for _, warning := range report.Warnings {
				fmt.Fprintf(cmd.OutOrStdout(), "warning: %s\n", warning)
			}
			if err != nil {
				return &exitError{exitConfig, err}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "configuration is good")
			return err
		}),
	}
}

func newConfigCommand(environ []string) *cobra.Command {
	var markdown, yaml bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration in force and where each value comes from",
		Long: `Show every setting with its value and where it comes from: the default, the file named by
MAILWEIR_CONFIG, the environment, or what it was derived from. Secrets are masked.

With --markdown or --yaml it shows what can be set instead: as the table in the README, or as an example file.`,
		Example: `  mailweir config
  mailweir config --yaml > mailweir.yaml`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print the table of all settings for the README")
	cmd.Flags().BoolVar(&yaml, "yaml", false, "print an example file with all settings")
	cmd.MarkFlagsMutuallyExclusive("markdown", "yaml")
	cmd.RunE = does(func(cmd *cobra.Command) error {
		out := cmd.OutOrStdout()
		switch {
		case markdown:
			_, err := fmt.Fprint(out, config.Markdown())
			return err
		case yaml:
			_, err := fmt.Fprint(out, config.ExampleYAML())
			return err
		}
		_, report, faults := config.Load(environ)
		if err := report.WriteTable(out); err != nil {
			return err
		}
		if faults != nil {
			return &exitError{exitConfig, faults}
		}
		return nil
	})
	return cmd
}
