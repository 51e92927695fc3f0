package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/console"
)

func resendCommand(ui *ui) *cobra.Command {
	var reason string
	var fresh bool
	cmd := &cobra.Command{
		Use:   "resend REF|ID --reason R",
		Short: "Send a message again: the same while it is valid, else a new one",
		Long: `Send a message again, to the same person at the same address.

The same message goes while it is valid and of a kind that may be sent twice, as
invites are. Otherwise, and with --new, the auth service that asked for the message is
asked for a new one, over NATS on deliverd.v1.renew.<source>. PINs and password resets
are never sent twice.

Exit status: 0 it goes, 3 there is no such message, 6 it can't be sent again: the text
says why, and what to do.`,
		Args: exactly(1, "one reference or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usage("resend wants a reason, which is kept in the log", "add --reason \"…\"")
			}
			c, err := ui.client()
			if err != nil {
				return err
			}
			ask := console.ResendRequest{Reason: reason}
			if fresh {
				ask.Mode = console.ResendNew
			}
			var sent console.Resent
			if err := c.Do(cmd.Context(), "POST", "/v1/messages/"+url.PathEscape(args[0])+"/resend", nil, ask, &sent); err != nil {
				return err
			}
			for _, w := range sent.Warnings {
				fmt.Fprintf(ui.err, "warning: %s\n", w.Detail)
			}
			what := "the same message goes again"
			if sent.Mode == console.ResendNew {
				what = "a new message goes"
			}
			return ui.done(sent, fmt.Sprintf("%s: %s", what, sent.Ref))
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	cmd.Flags().BoolVar(&fresh, "new", false, "ask for a new one even if the same would do")
	return cmd
}
