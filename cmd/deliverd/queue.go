package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/console"
)

func queueCommand(ui *ui) *cobra.Command {
	cmd := &cobra.Command{
		Use: "queue", Short: "Show what waits; pause, resume or hurry some of it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			var q console.Queue
			if err := c.Do(cmd.Context(), http.MethodGet, "/v1/queue", nil, nil, &q); err != nil {
				return err
			}
			if ui.json {
				return ui.printJSON(q)
			}
			ui.printQueue(q)
			return nil
		},
	}
	for _, act := range []struct{ name, short, done string }{
		{"pause", "Hold back what a selector matches, until resume", "paused"},
		{"resume", "End a pause", "resumed"},
		{"retry", "Try now what waits for its next attempt", "due now"},
	} {
		cmd.AddCommand(queueActCommand(ui, act.name, act.short, act.done))
	}
	return cmd
}

func queueActCommand(ui *ui, name, short, done string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     name + " SELECTOR",
		Short:   short,
		Long:    short + ".\n\nA selector is kind:NAME, domain:NAME, provider:ID or tenant:ID.",
		Example: "  deliverd queue " + name + " domain:nordlys.example --reason \"their server is moved today\"",
		Args:    exactly(1, "one selector: kind:NAME, domain:NAME, provider:ID or tenant:ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			if reason == "" {
				reason = "by command"
			}
			body := console.QueueAct{Selector: args[0], Reason: reason}
			if err := c.Do(cmd.Context(), http.MethodPost, "/v1/queue/"+name, nil, body, nil); err != nil {
				return err
			}
			return ui.done(body, args[0]+" is "+done)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return cmd
}

func (u *ui) printQueue(q console.Queue) {
	now := time.Now()
	fmt.Fprintf(u.out, "%s wait, %d being sent, %d delayed, %d about to expire", u.bold(strconv.Itoa(q.Waiting)), q.Sending, q.Delayed, q.Expiring)
	if !q.Oldest.IsZero() {
		fmt.Fprintf(u.out, "; the oldest came %s", when(q.Oldest, now))
	}
	fmt.Fprintln(u.out)
	for _, group := range []struct {
		name string
		of   []console.Waiting
	}{{"kind", q.ByKind}, {"provider", q.ByProvider}, {"domain", q.ByDomain}} {
		if len(group.of) == 0 {
			continue
		}
		fmt.Fprintln(u.out)
		var rows [][]string
		for _, w := range group.of {
			rows = append(rows, []string{w.Name, strconv.Itoa(w.Waiting), strconv.Itoa(w.Delayed), when(w.Oldest, now)})
		}
		u.table([]string{group.name, "waiting", "delayed", "oldest"}, rows)
	}
	u.printDestinations(q.ByDestination, now)
	if q.NodesMissing > 0 {
		fmt.Fprintf(u.out, "\n%d of the nodes did not answer; what waits there is not counted\n", q.NodesMissing)
	}
	for _, p := range q.Pauses {
		fmt.Fprintf(u.out, "\npaused: %s since %s by %s: %s\n", p.Selector, when(p.Since, now), p.By, p.Reason)
	}
}

// printDestinations shows where mail waits for: how many attempts at once each takes,
// and what holds it back.
func (u *ui) printDestinations(all []console.Destination, now time.Time) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintln(u.out)
	var rows [][]string
	for _, d := range all {
		look, trouble := "", ""
		if !d.Look.IsZero() {
			look = when(d.Look, now)
		}
		if t := d.Trouble; t != nil && d.State != "open" {
			trouble = strings.TrimSpace(string(t.Cause) + " " + t.Host + " " + t.Said)
		}
		rows = append(rows, []string{d.Name, strconv.Itoa(d.Domains), strconv.Itoa(d.Waiting),
			fmt.Sprintf("%d/%d", d.Sending, d.Window), d.State, look, trouble})
	}
	u.table([]string{"destination", "domains", "waiting", "sending", "state", "next look", "last trouble"}, rows)
}

func suppressCommand(ui *ui) *cobra.Command {
	cmd := &cobra.Command{Use: "suppress", Short: "Addresses that get no mail: list, add, remove"}
	var tenant, reason, until string
	ls := &cobra.Command{
		Use: "ls", Short: "List the addresses that get no mail, and why", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			query := url.Values{}
			if tenant != "" {
				query.Set("tenant", tenant)
			}
			var list console.Suppressions
			if err := c.Do(cmd.Context(), http.MethodGet, "/v1/suppressions", query, nil, &list); err != nil {
				return err
			}
			if ui.json {
				return ui.printJSON(list.Suppressions)
			}
			var rows [][]string
			now := time.Now()
			for _, s := range list.Suppressions {
				ends := "until lifted"
				if !s.Until.IsZero() {
					ends = when(s.Until, now)
				}
				rows = append(rows, []string{string(s.Address), s.Tenant, string(s.Cause), when(s.Since, now), ends, s.By, s.Reason})
			}
			ui.table([]string{"address", "tenant", "cause", "since", "until", "by", "reason"}, rows)
			return nil
		},
	}
	add := &cobra.Command{
		Use: "add ADDR --reason R", Short: "Send no more mail to an address", Args: exactly(1, "one address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := console.SuppressionRequest{Tenant: tenant, Address: args[0], Reason: reason}
			if until != "" {
				d, err := daemon.ParseDuration(until)
				if err != nil {
					return usage(err.Error(), "for example --for 7d")
				}
				body.Until = time.Now().Add(d)
			}
			c, err := ui.client()
			if err != nil {
				return err
			}
			if err := c.Do(cmd.Context(), http.MethodPost, "/v1/suppressions", nil, body, nil); err != nil {
				return err
			}
			return ui.done(body, args[0]+" gets no mail")
		},
	}
	rm := &cobra.Command{
		Use: "rm ADDR --reason R", Short: "Send mail to an address again", Args: exactly(1, "one address"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			body := console.SuppressionRequest{Tenant: tenant, Address: args[0], Reason: reason}
			if err := c.Do(cmd.Context(), http.MethodDelete, "/v1/suppressions", nil, body, nil); err != nil {
				return err
			}
			return ui.done(body, args[0]+" gets mail again")
		},
	}
	for _, c := range []*cobra.Command{ls, add, rm} {
		c.Flags().StringVar(&tenant, "tenant", "", "of this tenant")
		cmd.AddCommand(c)
	}
	add.Flags().StringVar(&reason, "reason", "", "why, for the log")
	rm.Flags().StringVar(&reason, "reason", "", "why, for the log")
	add.Flags().StringVar(&until, "for", "", "how long, for example 7d; until it is removed, if not given")
	return cmd
}
