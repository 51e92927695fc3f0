package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func tlsCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use:   "tls",
		Short: "Say how TLS goes with the servers that we deliver to",
		Long: `Say how TLS goes with the servers that we deliver to: connections of today and
yesterday (UTC) by domain and policy, as the node that is asked has counted them
since its start, and the MTA-STS policies that are remembered. Domains that ask
for it get the same as a report once a day (RFC 8460), unless tls.reports is off.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ui.client()
			if err != nil {
				return err
			}
			var raw json.RawMessage
			if err := c.Do(cmd.Context(), http.MethodGet, "/v1/tls", nil, nil, &raw); err != nil {
				return err
			}
			if ui.json {
				return ui.printJSON(raw)
			}
			var known tlsKnown
			if err := json.Unmarshal(raw, &known); err != nil {
				return failed("the daemon sent an answer that can't be read: "+err.Error(), "is it of the same version as this program?")
			}
			ui.printTLS(&known)
			return nil
		},
	}
}

// tlsKnown is the answer to GET /v1/tls as far as it is printed.
type tlsKnown struct {
	Sessions []struct {
		Day, Domain string
		Policies    []struct {
			Type              string
			Succeeded, Failed int
			Failures          []struct {
				What, Host string
				Count      int
			}
		}
	}
	Policies []struct {
		Domain, Mode, ID string
		MX               []string
		Expires          time.Time `json:"expires_at"`
	}
}

func (u *ui) printTLS(known *tlsKnown) {
	var rows [][]string
	for _, s := range known.Sessions {
		for _, p := range s.Policies {
			var failures []string
			for _, f := range p.Failures {
				failures = append(failures, fmt.Sprintf("%d %s at %s", f.Count, f.What, f.Host))
			}
			rows = append(rows, []string{s.Day, s.Domain, p.Type, strconv.Itoa(p.Succeeded), strconv.Itoa(p.Failed), strings.Join(failures, ", ")})
		}
	}
	u.table([]string{"day", "domain", "policy", "ok", "failed", "why"}, rows)
	rows = nil
	for _, p := range known.Policies {
		rows = append(rows, []string{p.Domain, p.Mode, strings.Join(p.MX[:min(len(p.MX), 5)], " "), p.ID, when(p.Expires, time.Now())})
	}
	if len(rows) > 0 {
		fmt.Fprintln(u.out)
		u.table([]string{"mta-sts", "mode", "mx", "id", "until"}, rows)
	}
}
