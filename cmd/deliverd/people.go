package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/mail"
)

func whoCommand(ui *ui) *cobra.Command {
	var tenant, lang string
	cmd := &cobra.Command{
		Use:   "who QUERY",
		Short: "Find a person by address, name, id or reference, and say what happened",
		Args:  exactly(1, "one address, name, person id or reference"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			found, err := findPeople(cmd.Context(), c, args[0], tenant, lang)
			if err != nil {
				return err
			}
			if len(found.People) == 0 {
				return ui.printNobody(found)
			}
			if len(found.People) > 1 {
				return ui.printPeople(found)
			}
			var story console.PersonStory
			if err := c.Do(cmd.Context(), http.MethodGet, "/v1/people/"+url.PathEscape(found.People[0].ID), inLanguage(lang), nil, &story); err != nil {
				return err
			}
			if ui.json {
				return ui.printJSON(story)
			}
			ui.printPerson(story)
			return nil
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "of this tenant only")
	cmd.Flags().StringVar(&lang, "lang", "", "language of the sentences: en or fi")
	return cmd
}

func inLanguage(lang string) url.Values {
	query := url.Values{}
	if lang != "" {
		query.Set("lang", lang)
	}
	return query
}

// findPeople asks for the people that a query names; a reference names one.
func findPeople(ctx context.Context, c *client.Client, q, tenant, lang string) (console.People, error) {
	query := inLanguage(lang)
	query.Set("q", q)
	if tenant != "" {
		query.Set("tenant", tenant)
	}
	var found console.People
	err := c.Do(ctx, http.MethodGet, "/v1/people", query, nil, &found)
	return found, err
}

// printNobody says in words that nobody was found, and shows who is spelled like
// the query.
func (u *ui) printNobody(found console.People) error {
	if u.json {
		if err := u.printJSON(found); err != nil {
			return err
		}
	} else if len(found.Near) > 0 {
		u.tablePeople(found.Near)
	}
	why := strings.TrimRight(cmp.Or(found.Answer, "nobody answers to that"), ".")
	return &exitError{exitNotFound, why, "search by the address, a part of it, the name, the tenant, or the reference in the mail's footer"}
}

func (u *ui) printPeople(found console.People) error {
	if u.json {
		return u.printJSON(found)
	}
	u.tablePeople(found.People)
	return nil
}

func (u *ui) tablePeople(people []console.Person) {
	now := time.Now()
	var rows [][]string
	for _, p := range people {
		address := mail.Address("")
		if len(p.Addresses) > 0 {
			address = p.Addresses[0]
		}
		rows = append(rows, []string{
			string(address), p.Name, p.Tenant, p.TenantName, string(p.Latest.State), p.WhoActsText, when(p.Latest.QueuedAt, now),
		})
	}
	u.table([]string{"address", "name", "tenant", "tenant name", "latest", "who acts", "asked for"}, rows)
}

func (u *ui) printPerson(s console.PersonStory) {
	u.printMessage(s.Message, false)
	if len(s.Messages) < 2 {
		return
	}
	fmt.Fprintln(u.out)
	now := time.Now()
	var rows [][]string
	for _, m := range s.Messages {
		rows = append(rows, []string{string(m.Ref), m.Kind, string(m.State), string(m.To), when(m.QueuedAt, now)})
	}
	u.table([]string{"ref", "kind", "state", "to", "asked for"}, rows)
}

func replyCommand(ui *ui) *cobra.Command {
	var lang string
	cmd := &cobra.Command{
		Use:   "reply REF|ID",
		Short: "Print the text to paste to the customer",
		Args:  exactly(1, "one reference or id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, _, err := ui.message(cmd.Context(), args[0], lang)
			if err != nil {
				return err
			}
			if m.Reply == "" {
				return failed("there is nothing to answer for this message: "+m.Verdict, "`deliverd show "+args[0]+"` tells the whole story")
			}
			if ui.json {
				return ui.printJSON(console.ReplyText{Lang: m.Lang, Text: m.Reply})
			}
			_, err = fmt.Fprintln(ui.out, m.Reply)
			return err
		},
	}
	cmd.Flags().StringVar(&lang, "lang", "", "language of the text: en or fi")
	return cmd
}
