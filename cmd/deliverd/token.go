package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/console"
)

func tokenCommand(ui *ui) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "API tokens: make, list, revoke"}
	cmd.AddCommand(tokenNewCommand(ui), tokenListCommand(ui), tokenRevokeCommand(ui))
	return cmd
}

func tokenNewCommand(ui *ui) *cobra.Command {
	var scopes, expiresIn string
	var body console.TokenRequest
	cmd := &cobra.Command{
		Use:   "new NAME --scopes send,read",
		Short: "Make a token; it is shown once",
		Long: `Make a token. It is shown once and kept as a hash.

Scopes: send (hand mail over), read (see messages and events), act (cancel, pause,
suppress), domains (check domains), admin (everything, and tokens).`,
		Example: "  deliverd token new login-service --scopes send --source login",
		Args:    exactly(1, "a name for the token, for example the service that will hold it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body.Name = args[0]
			for s := range strings.SplitSeq(scopes, ",") {
				body.Scopes = append(body.Scopes, console.Scope(strings.TrimSpace(s)))
			}
			if expiresIn != "" {
				d, err := daemon.ParseDuration(expiresIn)
				if err != nil {
					return usage(err.Error(), "for example --expires-in 90d")
				}
				body.ExpiresAt = time.Now().Add(d)
			}
			c, err := ui.client()
			if err != nil {
				return err
			}
			var made console.NewToken
			if err := c.Do(cmd.Context(), http.MethodPost, "/v1/tokens", nil, body, &made); err != nil {
				return err
			}
			if ui.json {
				return ui.printJSON(made)
			}
			fmt.Fprintln(ui.out, made.Token)
			fmt.Fprintln(ui.err, "Keep it now: it is not shown again. Revoke it with: deliverd token revoke", made.Kept.ID)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&scopes, "scopes", "send", "what it allows, with commas between")
	f.StringSliceVar(&body.Tenants, "tenant", nil, "tenants that it is for; all, if not given")
	f.StringSliceVar(&body.Sources, "source", nil, "names under which it may hand mail over")
	f.StringVar(&expiresIn, "expires-in", "", "how long it works, for example 90d; for ever, if not given")
	return cmd
}

func tokenListCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List tokens; never the tokens themselves", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			var list console.TokenList
			if err := c.Do(cmd.Context(), http.MethodGet, "/v1/tokens", nil, nil, &list); err != nil {
				return err
			}
			if ui.json {
				return ui.printJSON(list.Tokens)
			}
			now := time.Now()
			var rows [][]string
			for _, t := range list.Tokens {
				var scopes []string
				for _, s := range t.Scopes {
					scopes = append(scopes, string(s))
				}
				rows = append(rows, []string{t.ID, t.Name, strings.Join(scopes, ","), strings.Join(t.Tenants, ","),
					when(t.CreatedAt, now), t.CreatedBy, when(t.ExpiresAt, now)})
			}
			ui.table([]string{"id", "name", "scopes", "tenants", "made", "by", "expires"}, rows)
			return nil
		},
	}
}

func tokenRevokeCommand(ui *ui) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "End a token", Args: exactly(1, "a token's id, as `deliverd token ls` shows it"),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{}
			if reason != "" {
				query.Set("reason", reason)
			}
			c, err := ui.client()
			if err != nil {
				return err
			}
			if err := c.Do(cmd.Context(), http.MethodDelete, "/v1/tokens/"+url.PathEscape(args[0]), query, nil, nil); err != nil {
				return err
			}
			return ui.done(map[string]string{"revoked": args[0]}, args[0]+" is revoked")
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return cmd
}
