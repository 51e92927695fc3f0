package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/console"
)

func adminCommand(ui *ui) *cobra.Command {
	cmd := &cobra.Command{Use: "admin", Short: "Let people in, see who is signed in, sign them out"}
	cmd.AddCommand(loginLinkCommand(ui), sessionsCommand(ui))
	return cmd
}

func loginLinkCommand(ui *ui) *cobra.Command {
	var body console.LoginLinkRequest
	var role string
	cmd := &cobra.Command{
		Use: "login-link --reason R", Short: "Make a link that signs somebody in once",
		Long: `Make a link that signs somebody in once, within ten minutes, also while the sign-in
system is down. On the daemon's own machine, the user that it runs as needs no token.
Who made it, for whom and why is in the service log.`,
		Example: "  deliverd admin login-link --name liv@acme.example --role operator --reason \"the sign-in system is down\"",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			if body.Name == "" {
				body.Name = userName()
			}
			body.Role = console.Role(role)
			var link console.LoginLink
			if err := c.Do(cmd.Context(), http.MethodPost, "/v1/login-links", nil, body, &link); err != nil {
				return err
			}
			if ui.json {
				return ui.printJSON(link)
			}
			fmt.Fprintln(ui.out, link.URL)
			fmt.Fprintf(ui.err, "It signs %s in as %s, once, until %s. Give it to nobody else.\n", link.Name, link.Role, when(link.ExpiresAt, time.Now()))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&body.Name, "name", "", "who will use it, for the log; you, if not given")
	f.StringVar(&role, "role", "admin", "support, operator or admin")
	f.StringVar(&body.Reason, "reason", "", "why, for the log")
	_ = cmd.MarkFlagRequired("reason") // its error is a flag that isn't there
	return cmd
}

// userName is who runs this command, as the machine knows them.
func userName() string {
	u, err := user.Current()
	if err != nil {
		return "unknown"
	}
	return u.Username
}

func sessionsCommand(ui *ui) *cobra.Command {
	cmd := &cobra.Command{Use: "sessions", Short: "Who is signed in: list, end"}
	cmd.AddCommand(sessionsListCommand(ui), sessionsEndCommand(ui))
	return cmd
}

func sessionsListCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List who is signed in", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			var list console.SessionList
			if err := c.Do(cmd.Context(), http.MethodGet, "/v1/sessions", nil, nil, &list); err != nil {
				return err
			}
			if ui.json {
				return ui.printJSON(list.Sessions)
			}
			now := time.Now()
			var rows [][]string
			for _, s := range list.Sessions {
				rows = append(rows, []string{s.ID, s.Name, s.How, s.From, when(s.CreatedAt, now), when(s.SeenAt, now), when(s.ExpiresAt, now)})
			}
			ui.table([]string{"id", "name", "by", "from", "since", "seen", "until"}, rows)
			return nil
		},
	}
}

func sessionsEndCommand(ui *ui) *cobra.Command {
	var name, reason string
	cmd := &cobra.Command{
		Use: "end [ID] --reason R", Short: "Sign somebody out: one session, or everywhere with --name",
		Example: "  deliverd admin sessions end --name liv@acme.example --reason \"left the company\"",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			query := url.Values{"reason": {reason}}
			switch {
			case len(args) == 1 && name == "":
				query.Set("id", args[0])
			case len(args) == 0 && name != "":
				query.Set("name", name)
			default:
				return usage("say whom: either a session's id or --name", "`deliverd admin sessions ls` shows who is signed in")
			}
			c, err := ui.client()
			if err != nil {
				return err
			}
			var ended console.EndedSessions
			if err := c.Do(cmd.Context(), http.MethodDelete, "/v1/sessions", query, nil, &ended); err != nil {
				return err
			}
			return ui.done(ended, fmt.Sprintf("%d signed out", len(ended.Ended)))
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "all sessions of this person")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	_ = cmd.MarkFlagRequired("reason") // its error is a flag that isn't there
	return cmd
}
