package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/mail"
)

func deliverCommand(ui *ui) *cobra.Command {
	var trace bool
	var kind string
	cmd := &cobra.Command{
		Use:   "deliver --trace ADDRESS",
		Short: "Talk to a recipient's mail servers up to RCPT, and show it all",
		Long: `Talk to a recipient's mail servers as an attempt would: the same hosts, the same TLS
policy, the same source address and name, up to RCPT. No message is sent, and nothing
is queued. The daemon does it, with its own configuration and resolvers.

The exit status is 0 if mail would be taken now, 10 if it would be refused, 1 if it
would be delayed.`,
		Args: exactly(1, "one address, for example: deliverd deliver --trace kari@nordlys.example"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !trace {
				return usage("deliver only traces; it sends nothing", "add --trace, or use `deliverd send` for a message")
			}
			c, err := ui.client()
			if err != nil {
				return err
			}
			stop := ui.after(time.Second, "talking to the servers of "+args[0]+" ...")
			defer stop()
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodPost, "/v1/trace", nil, map[string]string{"to": args[0], "kind": kind}, &raw); err != nil {
				return err
			}
			stop()
			var t deliver.Trace
			if err := json.Unmarshal(raw, &t); err != nil {
				return failed("the daemon's answer can't be read: "+err.Error(), "is it of the same version as this program?")
			}
			if ui.json {
				err = ui.printJSON(raw)
			} else {
				ui.printTrace(&t)
			}
			return traceStatus(t.State, err)
		},
	}
	cmd.Flags().BoolVar(&trace, "trace", false, "run the conversation, and show it")
	cmd.Flags().StringVar(&kind, "kind", "", "as for mail of this `KIND`: its TLS floor, its source address")
	return cmd
}

func traceStatus(s mail.State, err error) error {
	switch {
	case err != nil || s == mail.StateAccepted:
		return err
	case s == mail.StateRefused:
		return &exitError{status: exitRefused}
	}
	return &exitError{status: exitFailed}
}

func (u *ui) printTrace(t *deliver.Trace) {
	for _, c := range t.Calls {
		fmt.Fprintf(u.out, "%s\n", u.bold(strings.TrimSpace(c.Host+" "+bracketed(c.IP))))
		u.printConversation(c.Conversation)
		if c.TLS != nil {
			u.printRow("TLS", tlsLine(c.TLS))
			u.printRow("certificate", certificateLine(c.TLS))
		}
		u.printRow("offers", strings.Join(c.Capabilities, ", "))
		u.printRow("error", c.Error)
		fmt.Fprintln(u.out)
	}
	switch t.State {
	case mail.StateAccepted:
		fmt.Fprintf(u.out, "Mail to %s would be taken now.\n", t.To)
	case mail.StateRefused:
		fmt.Fprintf(u.out, "Mail to %s would be refused (%s): %s\n", t.To, t.Cause, t.Error)
	default:
		fmt.Fprintf(u.out, "Mail to %s would have to wait (%s): %s\n", t.To, t.Cause, t.Error)
	}
}

// printConversation shows who said what, and how long the other side took.
func (u *ui) printConversation(said []mail.Exchange) {
	for _, x := range said {
		if x.Command != "" {
			fmt.Fprintf(u.out, "  %8s  > %s\n", "", x.Command)
		}
		took := x.Took.Round(10 * time.Microsecond)
		if x.Reply != "" {
			fmt.Fprintf(u.out, "  %8s  < %s\n", took, x.Reply)
		}
		if x.Error != "" {
			fmt.Fprintf(u.out, "  %8s  * %s\n", took, x.Error)
		}
	}
}

func tlsLine(t *mail.TLS) string {
	switch {
	case t.Version == "":
		return t.Problem
	case t.Verified:
		return t.Version + ", " + t.Cipher + ", certificate verified"
	}
	return t.Version + ", " + t.Cipher + ", certificate not verified: " + t.Problem
}

func certificateLine(t *mail.TLS) string {
	if t.Expires.IsZero() {
		return ""
	}
	line := strings.Join(t.Names, ", ") + ", until " + t.Expires.Format(time.DateOnly)
	if t.Issuer != "" {
		line += ", issued by " + t.Issuer
	}
	return strings.TrimSpace(line)
}
