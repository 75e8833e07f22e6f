package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/mailweir/mailweir/proxy/admin"
	"github.com/mailweir/mailweir/proxy/config"
)

// askTimeout bounds one question to a running mailweir, which answers within a second.
const askTimeout = 10 * time.Second

// asking is what the commands have in common that ask a running mailweir.
type asking struct {
	environ []string
	address string // --admin; "": from the configuration
	json    bool
}

func (a *asking) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.address, "admin", "", "unix:/path or host:port of the operator API (default: MAILWEIR_ADMIN_LISTEN)")
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON")
}

// ask puts one question. When nobody answers the error says who was asked, and what to do.
func (a *asking) ask(ctx context.Context, question func(context.Context, *admin.Client) error) error {
	address, source := a.address, "--admin"
	if address == "" {
		cfg, report, _ := config.Load(a.environ) // faults elsewhere are no matter of this question
		address, source = cfg.Admin.Listen, report.Value("admin.listen").Source
	}
	client, err := admin.NewClient(address)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err = question(ctx, client)
	if errors.Is(err, admin.ErrUnreachable) {
		return fmt.Errorf("%w at %s (%s)\nIs mailweir running, here and as this user? If it is, say where with --admin or MAILWEIR_ADMIN_LISTEN",
			err, address, source)
	}
	return err
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
