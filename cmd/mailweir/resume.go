package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/mailweir/mailweir/proxy/admin"
)

func newResumeCommand(environ []string) *cobra.Command {
	a := &asking{environ: environ}
	cmd := &cobra.Command{
		Use:   "resume",
		Short: "Have a held upstream tried at once, after the cure",
		Long: `Held mail is probed once in a while: a login every 15 minutes, since retries lock accounts. This has one probe go
out at once and ends every other pause. The mail stays held until a probe gets through.`,
		Example: `  mailweir resume
  kubectl exec deploy/app -c mailweir -- mailweir resume`,
		Args: cobra.NoArgs,
	}
	a.addFlags(cmd)
	cmd.RunE = does(func(cmd *cobra.Command) error {
		return a.ask(cmd.Context(), func(ctx context.Context, c *admin.Client) error {
			r, err := c.Resume(ctx)
			switch {
			case err != nil:
				return err
			case a.json:
				return writeJSON(cmd.OutOrStdout(), r)
			case r.Held == "":
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing was held; every pause is over")
			default:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "tried at once; it was held for: %s\n", printable(r.Held))
			}
			return err
		})
	})
	return cmd
}
