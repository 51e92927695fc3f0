package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/mail"
)

func sendCommand(ui *ui) *cobra.Command {
	var (
		r         mail.Request
		data      []string
		expiresIn string
		wait      bool
	)
	cmd := &cobra.Command{
		Use:   "send KIND --to ADDR",
		Short: "Send an invite, a reset, a pin or another kind",
		Example: `  deliverd send invite --to kari@nordlys.example --name "Kari Nordmann" --tenant 4711 \
      --data link=https://login.example.com/i/abc --data inviter=Lars
  deliverd send pin --to kari@nordlys.example --data code=482913 --expires-in 10m --wait`,
		Args: exactly(1, "one kind, for example `deliverd send invite --to ADDR`"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Kind = args[0]
			if r.To == "" {
				return usage("send needs to know to whom", "add --to ADDR")
			}
			var err error
			if r.Data, err = parseData(data); err != nil {
				return err
			}
			if expiresIn != "" {
				d, err := daemon.ParseDuration(expiresIn)
				if err != nil {
					return usage(err.Error(), "for example --expires-in 15m")
				}
				r.ExpiresAt = time.Now().Add(d)
			}
			c, err := ui.client()
			if err != nil {
				return err
			}
			receipt, err := c.Send(cmd.Context(), r)
			if err != nil {
				return err
			}
			if !wait {
				if ui.json {
					return ui.printJSON(receipt)
				}
				fmt.Fprintf(ui.out, "%s\t%s\t%s\n", receipt.Ref, receipt.ID, receipt.State)
				ui.warn(receipt.Warnings)
				return nil
			}
			if !ui.json {
				ui.warn(receipt.Warnings)
			}
			return ui.waitFor(cmd.Context(), string(receipt.ID), 0)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.To, "to", "", "the recipient's `ADDR`ess")
	f.StringVar(&r.ToName, "name", "", "the recipient's name")
	f.StringVar(&r.Tenant, "tenant", "", "the customer's number or id")
	f.StringVar(&r.TenantName, "tenant-name", "", "the customer's name")
	f.StringVar(&r.PersonID, "person", "", "the person's `ID` in the auth service")
	f.StringVar(&r.Locale, "locale", "", "language of the mail, for example fi")
	f.StringVar(&r.Template, "template", "", "template, if not the kind's own")
	f.StringVar(&r.From, "from", "", "sender, if not the configured one")
	f.StringArrayVar(&data, "data", nil, "a variable of the template, `k=v`; may be repeated")
	f.StringArrayVar(&r.Secrets, "secret", nil, "`NAME` of a variable that is secret beside code, pin, otp, link, url and token")
	f.StringVar(&expiresIn, "expires-in", "", "how long the mail is of use, for example 15m; the kind's own, if not given")
	f.StringVar(&r.IdempotencyKey, "key", "", "idempotency `KEY`: the same key sends once")
	f.BoolVar(&wait, "wait", false, "wait until it is settled; the exit status tells how it ended")
	return cmd
}

// parseData reads k=v pairs. A value stays a string: codes have leading zeros.
func parseData(pairs []string) (map[string]any, error) {
	data := map[string]any{}
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			// The value may be a secret: say which flag, not what it holds.
			return nil, usage("--data wants name=value", "for example --data link=https://…")
		}
		data[k] = v
	}
	return data, nil
}

func (u *ui) warn(warnings []mail.Warning) {
	for _, w := range warnings {
		fmt.Fprintln(u.err, "note:", w.Detail)
	}
}

func waitCommand(ui *ui) *cobra.Command {
	var timeout string
	cmd := &cobra.Command{
		Use:   "wait REF|ID",
		Short: "Wait until a message is settled; the exit status tells how it ended",
		Long: `Wait until a message is settled.

Exit status: 0 handed over, 10 refused or returned, 11 expired, superseded,
cancelled or suppressed, 8 still pending when --timeout passed.`,
		Args: exactly(1, "one reference or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var d time.Duration
			if timeout != "" {
				var err error
				if d, err = daemon.ParseDuration(timeout); err != nil {
					return usage(err.Error(), "for example --timeout 30s")
				}
			}
			return ui.waitFor(cmd.Context(), args[0], d)
		},
	}
	cmd.Flags().StringVar(&timeout, "timeout", "", "how long to wait, for example 30s; no limit if not given")
	return cmd
}
