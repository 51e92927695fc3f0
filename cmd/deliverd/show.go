package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/mail"
)

func showCommand(ui *ui) *cobra.Command {
	var lang string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "show REF|ID",
		Short: "Tell what happened to a message, with the evidence",
		Args:  exactly(1, "one reference or id, for example 7K3Q-9DXP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, raw, err := ui.message(cmd.Context(), args[0], lang)
			if err != nil {
				return err
			}
			if ui.json {
				return ui.printJSON(raw)
			}
			ui.printMessage(m, verbose)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "with each attempt's conversation, and what the server offered")
	cmd.Flags().StringVar(&lang, "lang", "", "language of the sentences: en or fi")
	return cmd
}

// message asks for one message: decoded, and as the API wrote it.
func (u *ui) message(ctx context.Context, name, lang string) (m console.Message, raw json.RawMessage, err error) {
	c, err := u.client()
	if err != nil {
		return m, nil, err
	}
	query := url.Values{}
	if lang != "" {
		query.Set("lang", lang)
	}
	if err := c.Do(ctx, http.MethodGet, "/v1/messages/"+url.PathEscape(name), query, nil, &raw); err != nil {
		return m, nil, err
	}
	return m, raw, json.Unmarshal(raw, &m)
}

func (u *ui) printMessage(m console.Message, verbose bool) {
	fmt.Fprintln(u.out, u.bold(m.Verdict))
	if m.Ahead != "" {
		fmt.Fprintln(u.out, m.Ahead)
	}
	if m.WhoActs != mail.ActNobody && m.NextStep != "" {
		fmt.Fprintf(u.out, "%s: %s\n", capital(m.WhoActsText), m.NextStep)
	}
	fmt.Fprintln(u.out)
	for _, line := range m.Story {
		fmt.Fprintf(u.out, "%s  %s\n", u.dim(line.At.UTC().Format("2006-01-02 15:04:05Z")), line.Text)
	}
	for _, a := range m.Attempts {
		u.printAttempt(a, verbose)
	}
	fmt.Fprintf(u.out, "\n%s\n", u.dim(fmt.Sprintf("%s  %s  %s to %s  valid until %s", m.Ref, m.ID, m.Kind, m.To, when(m.ExpiresAt, time.Now()))))
}

func (u *ui) printAttempt(a console.Attempt, verbose bool) {
	fmt.Fprintf(u.out, "\nAttempt %d: %s", a.Number, a.State)
	if a.Cause != "" {
		fmt.Fprintf(u.out, " (%s)", a.Cause)
	}
	if a.PossibleDuplicate {
		fmt.Fprint(u.out, ", may have been taken all the same")
	}
	fmt.Fprintln(u.out)
	e := a.Evidence
	if e == nil {
		return
	}
	row := u.printRow
	row("began", e.StartedAt.UTC().Format("2006-01-02 15:04:05.000Z")+", took "+e.Took.Round(time.Millisecond).String())
	row("server", strings.TrimSpace(e.Host+" "+bracketed(e.IP)))
	if e.TLS != nil {
		row("TLS", tlsLine(e.TLS))
		if verbose || e.TLS.Failure != "" {
			row("certificate", certificateLine(e.TLS))
		}
		row("policy", policyLine(e.TLS))
	}
	row("stage", string(e.Stage))
	if e.Reply != nil {
		row("reply", e.Reply.String())
	}
	row("error", e.Error)
	row("queue id", e.QueueID)
	for _, t := range e.Tries {
		said := t.Error
		if t.Reply != nil {
			said = t.Reply.String()
		}
		row("before", fmt.Sprintf("%s %s: %s at %s", t.Host, bracketed(t.IP), said, t.Stage))
	}
	if !verbose {
		return
	}
	row("offers", strings.Join(e.Capabilities, ", "))
	if e.Bytes > 0 {
		row("size", fmt.Sprintf("%d bytes", e.Bytes))
	}
	if e.Reused {
		row("", "on a connection that carried another message before")
	}
	u.printConversation(e.Conversation)
}

func (u *ui) printRow(name, value string) {
	if value != "" {
		fmt.Fprintf(u.out, "  %-9s %s\n", name, value)
	}
}

// policyLine tells who decided how the connection had to be protected.
func policyLine(t *mail.TLS) string {
	said := string(t.Policy)
	if t.Source != "" {
		said += ", " + t.Source
	}
	if t.Failure != "" {
		said += "; not met: " + string(t.Failure)
	}
	if !t.Downgrade.IsZero() {
		said += "; tls_downgrade: this host took TLS on " + t.Downgrade.UTC().Format(time.DateOnly)
	}
	return said
}

func bracketed(ip string) string {
	if ip == "" {
		return ""
	}
	return "[" + ip + "]"
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// waitFor waits until a message has ended, at most for limit (0: for ever), prints
// how, and makes the exit status say so.
func (u *ui) waitFor(ctx context.Context, name string, limit time.Duration) error {
	c, err := u.client()
	if err != nil {
		return err
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	if _, err := c.Wait(ctx, name); err != nil && ctx.Err() == nil {
		return err
	}
	// However that ended, the story says where it stands.
	m, raw, err := u.message(context.WithoutCancel(ctx), name, "")
	if err != nil {
		return err
	}
	if u.json {
		err = u.printJSON(raw)
	} else {
		_, err = fmt.Fprintf(u.out, "%s\t%s\t%s\n", m.Ref, m.State, m.Verdict)
	}
	if status := stateStatus(m.State); err == nil && status != 0 {
		return &exitError{status: status}
	}
	return err
}

func cancelCommand(ui *ui) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "cancel REF|ID --reason R",
		Short: "Stop a message that has not been handed over",
		Args:  exactly(1, "one reference or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usage("cancel wants a reason, which is kept in the log", "add --reason \"…\"")
			}
			c, err := ui.client()
			if err != nil {
				return err
			}
			if err := c.Cancel(cmd.Context(), args[0], reason); err != nil {
				return err
			}
			return ui.done(map[string]string{"message": args[0], "state": string(mail.StateCancelled)}, args[0]+" is cancelled")
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return cmd
}

// done prints that an act was carried out.
func (u *ui) done(v any, text string) error {
	if u.json {
		return u.printJSON(v)
	}
	_, err := fmt.Fprintln(u.out, text)
	return err
}

func tailCommand(ui *ui) *cobra.Command {
	var tenant, state, after string
	cmd := &cobra.Command{
		Use: "tail", Short: "Follow the events as they happen", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			query := url.Values{}
			for name, value := range map[string]string{"tenant": tenant, "state": state} {
				if value != "" {
					query.Set(name, value)
				}
			}
			path := "/v1/events"
			if q := query.Encode(); q != "" {
				path += "?" + q
			}
			for e, err := range c.Stream(cmd.Context(), path, after) {
				if err != nil {
					return err
				}
				if ui.json {
					fmt.Fprintf(ui.out, "%s\n", e.Data)
					continue
				}
				var event mail.Event
				if err := json.Unmarshal(e.Data, &event); err != nil {
					return failed("the daemon sent an event that can't be read: "+err.Error(), "is it of the same version as this program?")
				}
				ui.printEvent(event)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "of one tenant only")
	cmd.Flags().StringVar(&state, "state", "", "of one state only, for example delayed")
	cmd.Flags().StringVar(&after, "after", "", "begin after this event's id, 0 for the beginning of the log; now, if not given")
	return cmd
}

func (u *ui) printEvent(e mail.Event) {
	detail := string(e.Cause)
	if e.Evidence != nil && e.Evidence.Reply != nil {
		detail = strings.TrimSpace(detail + " " + e.Evidence.Reply.String())
	} else if e.Evidence != nil && e.Evidence.Error != "" {
		detail = strings.TrimSpace(detail + " " + e.Evidence.Error)
	}
	if !e.NextAttempt.IsZero() {
		detail = strings.TrimSpace(detail + ", next " + relative(time.Until(e.NextAttempt)))
	}
	fmt.Fprintln(u.out, strings.Join([]string{e.At.UTC().Format("15:04:05.000"), string(e.State), e.Kind, string(e.Ref), string(e.To), detail}, "\t"))
}
