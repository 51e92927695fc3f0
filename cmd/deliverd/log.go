package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/console"
)

func logCommand(ui *ui) *cobra.Command {
	var since string
	var table bool
	query := url.Values{}
	filters := map[string]*string{}
	cmd := &cobra.Command{
		Use: "log", Short: "The service log: what the system noticed and what people did", Args: cobra.NoArgs,
		Long: `The service log: what the system noticed and what people did, oldest first, of the
last week unless --since says otherwise.

With --json each entry is the line as it is stored, which holds the SHA-256 of the
line before: keep them, and anybody can verify them.`,
		Example: "  deliverd log --since 24h\n  deliverd log --act pause --by liv@acme.example\n  deliverd log --since 400d --json > service-log.jsonl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := daemon.ParseDuration(since)
			if err != nil {
				return usage(err.Error(), "for example --since 24h")
			}
			query.Set("since", time.Now().Add(-d).UTC().Format(time.RFC3339))
			for name, value := range filters {
				if *value != "" {
					query.Set(name, *value)
				}
			}
			return ui.showLog(cmd, query, table)
		},
	}
	f := cmd.Flags()
	f.StringVar(&since, "since", "7d", "how far back")
	f.BoolVar(&table, "csv", false, "print a table for spreadsheets")
	for name, what := range map[string]string{
		"by": "of one person or token only", "act": "of one sort only, for example pause, or store for all about it",
		"on": "about one thing only: a message's id, an address, a selector", "tenant": "of one tenant only",
	} {
		filters[name] = f.String(name, "", what)
	}
	cmd.AddCommand(logVerifyCommand(ui))
	return cmd
}

func (u *ui) showLog(cmd *cobra.Command, query url.Values, table bool) error {
	c, err := u.client()
	if err != nil {
		return err
	}
	query.Set("format", "jsonl")
	if table {
		query.Set("format", "csv")
	}
	file, err := c.Open(cmd.Context(), "/v1/log", query)
	if err != nil {
		return err
	}
	defer file.Close()
	if table || u.json {
		if _, err := io.Copy(u.out, file); err != nil {
			return failed("the log broke off: "+err.Error(), "try again")
		}
		return nil
	}
	for line, err := range linesOf(file) {
		if err != nil {
			return failed("the log broke off: "+err.Error(), "try again")
		}
		var e console.LogEntry
		if err := json.Unmarshal(line, &e); err != nil {
			fmt.Fprintln(u.out, "an entry that can't be read; `deliverd log verify` tells more")
			continue
		}
		u.printLogEntry(&e)
	}
	return nil
}

// printLogEntry prints an entry as a line that can be read aloud.
func (u *ui) printLogEntry(e *console.LogEntry) {
	who := e.By
	if who == "" {
		who = "deliverd at " + e.Node
	} else if e.Via != "" {
		who += " (" + e.Via + ")"
	}
	cells := []string{e.At.UTC().Format("2006-01-02 15:04:05Z"), who, e.Act, e.On, e.Tenant, strings.TrimSpace(e.Reason + " " + e.Detail)}
	if !u.terminal() {
		fmt.Fprintln(u.out, strings.Join(cells, "\t"))
		return
	}
	cells[2] = u.bold(cells[2])
	if e.Tenant != "" {
		cells[4] = "tenant " + e.Tenant
	}
	cells = slices.DeleteFunc(cells, func(s string) bool { return s == "" })
	fmt.Fprintln(u.out, strings.Join(cells, "  "))
}

// logLine is longer than any entry.
const logLine = 1 << 20

// linesOf yields the lines of a file.
func linesOf(r io.Reader) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		s := bufio.NewScanner(r)
		s.Buffer(nil, logLine)
		for s.Scan() {
			if !yield(s.Bytes(), nil) {
				return
			}
		}
		if err := s.Err(); err != nil {
			yield(nil, err)
		}
	}
}

func logVerifyCommand(ui *ui) *cobra.Command {
	var known []string
	cmd := &cobra.Command{
		Use: "verify [FILE|-]", Short: "Check that nothing in the service log was changed",
		Long: `Check that nothing in the service log was changed, taken out or put in: the running
daemon's, or one that "deliverd log --json" printed.

It prints the place and the hash of the newest entry. Keep them elsewhere: with
--known they show later that nothing up to there was changed, not even the end.`,
		Example: "  deliverd log verify\n  deliverd log verify --known 1290:9f86d081884c…",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			hashes, err := knownHashes(known)
			if err != nil {
				return err
			}
			file, err := ui.openLog(cmd, args)
			if err != nil {
				return err
			}
			defer file.Close()
			v, err := console.VerifyLog(linesOf(file), hashes)
			if err != nil {
				return failed("the log can't be read: "+err.Error(), "try again")
			}
			return ui.printVerdict(v, hashes)
		},
	}
	cmd.Flags().StringArrayVar(&known, "known", nil, "an entry's place and hash, `N:HASH`, as printed earlier; may be given more than once")
	return cmd
}

// knownHashes reads N:HASH.
func knownHashes(known []string) (map[uint64]string, error) {
	hashes := map[uint64]string{}
	for _, k := range known {
		place, hash, _ := strings.Cut(k, ":")
		n, err := strconv.ParseUint(place, 10, 64)
		if err != nil || len(hash) != 64 {
			return nil, usage(strconv.Quote(k)+" is no place and hash", "write it as `deliverd log verify` printed it: N:HASH")
		}
		hashes[n] = strings.ToLower(hash)
	}
	return hashes, nil
}

func (u *ui) openLog(cmd *cobra.Command, args []string) (io.ReadCloser, error) {
	switch {
	case len(args) == 0:
		c, err := u.client()
		if err != nil {
			return nil, err
		}
		return c.Open(cmd.Context(), "/v1/log", url.Values{"format": {"jsonl"}, "whole": {"1"}})
	case args[0] == "-":
		return io.NopCloser(u.in), nil
	}
	file, err := os.Open(args[0])
	if err != nil {
		return nil, failed(err.Error(), "name a file that `deliverd log --json` printed")
	}
	return file, nil
}

func (u *ui) printVerdict(v console.LogVerdict, known map[uint64]string) error {
	for n := range known {
		if v.Bad == 0 && (n > v.Last || n < v.First) {
			v.Bad, v.Problem = n, "it is not there, and its hash was kept"
		}
	}
	if u.json {
		if err := u.printJSON(v); err != nil {
			return err
		}
	}
	if v.Bad != 0 {
		return failed(fmt.Sprintf("the service log is not whole at entry %d: %s", v.Bad, v.Problem),
			"compare with an earlier export, and find out who can write to the store")
	}
	switch {
	case u.json:
	case v.Entries == 0:
		fmt.Fprintln(u.out, "there are no entries")
	default:
		fmt.Fprintf(u.out, "%d entries, from %d to %d, fit together\n%d:%s\n", v.Entries, v.First, v.Last, v.Last, v.Head)
	}
	return nil
}
