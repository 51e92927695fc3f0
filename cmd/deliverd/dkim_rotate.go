package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/mail"
)

func dkimRotateCommand(ui *ui) *cobra.Command {
	var status bool
	var retire string
	cmd := &cobra.Command{
		Use:   "rotate [DOMAIN]",
		Short: "Make the next keys; the daemon uses them once they are published everywhere",
		Long: `Make the next keys of a domain and print the records to publish.

The daemon does the rest. It asks each configured resolver for the records, and signs
with the new keys when all of them have shown every record for five minutes. The
former keys sign no more from then on, and their records have to stay for as long as
a message that they signed may wait: 30 days. Then the daemon says that they can be
revoked, and forgets them once they are.

While a rotation waits for its records this command shows what it waits for;
--status shows it at any time and changes nothing.

A key that leaked: --retire SELECTOR. It signs nothing more within seconds, on every
node that shares the directory; messages that wait with its signature are signed anew;
new keys are made, and mail of the domain is held until they are published.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := ui.loadConfig()
			if err != nil {
				return err
			}
			domain, err := rotated(c, args)
			if err != nil {
				return err
			}
			r, err := changeRotation(c, domain, status, retire)
			if err != nil {
				return err
			}
			return ui.printRotation(cmd.Context(), c, domain, r)
		},
	}
	cmd.Flags().BoolVar(&status, "status", false, "show where it stands and change nothing")
	cmd.Flags().StringVar(&retire, "retire", "", "`SELECTOR` of a key that leaked")
	cmd.MarkFlagsMutuallyExclusive("status", "retire")
	return cmd
}

// rotated finds the domain that is meant among those that the configuration signs for.
func rotated(c *daemon.Config, args []string) (string, error) {
	var domains []string
	for _, k := range c.DKIM {
		domains = append(domains, strings.ToLower(k.Domain))
	}
	slices.Sort(domains)
	domains = slices.Compact(domains)
	switch {
	case len(domains) == 0:
		return "", failed("the configuration signs for no domain", "add a [[dkim]] section with the domain alone, and name the configuration with -c")
	case len(args) == 0 && len(domains) == 1:
		return domains[0], nil
	case len(args) == 0:
		return "", usage("which domain?", "one of "+strings.Join(domains, ", "))
	case !slices.Contains(domains, strings.ToLower(args[0])):
		return "", failed("the configuration does not sign for that domain", "it signs for "+strings.Join(domains, ", "))
	}
	return strings.ToLower(args[0]), nil
}

// changeRotation does what the flags ask for, and returns what is then.
func changeRotation(c *daemon.Config, domain string, status bool, retire string) (*deliver.Rotation, error) {
	var is *deliver.Rotation
	err := c.ChangeRotations(func(all daemon.Rotations) (bool, error) {
		is = all.Take(c, domain)
		if status {
			return false, nil
		}
		now := time.Now().UTC().Truncate(time.Second)
		if retire != "" && !is.Retire(retire, now) {
			return false, failed("no key of "+domain+" has that selector", "`deliverd dkim rotate --status "+domain+"` lists them")
		}
		if is.Next() != nil {
			return retire != "", nil
		}
		keys, err := makeNext(c, domain, is, now)
		if err != nil {
			return false, err
		}
		return is.Begin(keys, now), nil
	})
	return is, err
}

// makeNext makes a key of each algorithm under the month's next free selector.
func makeNext(c *daemon.Config, domain string, is *deliver.Rotation, now time.Time) ([]deliver.RotatingKey, error) {
	base := freeSelector(c.DKIMDir(), domain, is, now)
	var keys []deliver.RotatingKey
	for _, a := range algorithms {
		k, err := newKeyFile(c.DKIMDir(), domain, base+a.suffix, a.alg)
		if err != nil {
			return nil, err
		}
		keys = append(keys, deliver.RotatingKey{Selector: k.Selector, Key: "file:" + k.File})
	}
	return keys, nil
}

// freeSelector returns a name like d202611 or d202611-2 which has not been used
// before: verifiers may remember the record of one that was.
func freeSelector(dir, domain string, is *deliver.Rotation, now time.Time) string {
	month := now.Format("d200601")
	for n := 0; ; n++ {
		name := month
		if n > 0 {
			name += "-" + fmt.Sprint(n+1)
		}
		free := true
		for _, a := range algorithms {
			_, err := os.Stat(keyPath(dir, name+a.suffix, domain))
			free = free && errors.Is(err, fs.ErrNotExist) && !is.Has(name+a.suffix)
		}
		if free {
			return name
		}
	}
}

// rotationShown is a generation as the command shows it.
type rotationShown struct {
	Phase   deliver.Phase `json:"phase"`
	Leaked  bool          `json:"leaked,omitempty"`
	Since   time.Time     `json:"since,omitzero"`
	Until   time.Time     `json:"until,omitzero"` // old: when it can be revoked
	Keys    []dkimKey     `json:"keys"`
	Waiting []string      `json:"waiting,omitempty"` // what DNS has to show first
}

func (u *ui) printRotation(ctx context.Context, c *daemon.Config, domain string, r *deliver.Rotation) error {
	resolver, err := c.Resolver()
	if err != nil {
		return err
	}
	shownAll := make([]rotationShown, 0, len(r.Generations))
	for _, g := range r.Generations {
		s := rotationShown{Phase: g.Phase, Leaked: g.Leaked, Since: g.MadeAt}
		switch g.Phase {
		case deliver.PhaseActive:
			s.Since = g.UsedAt
		case deliver.PhaseOld:
			s.Since, s.Until = g.UnusedAt, g.UnusedAt.Add(mail.MaxLife)
		case deliver.PhaseRevoke:
			s.Since = g.UnusedAt
		}
		for _, k := range g.Keys {
			s.Keys = append(s.Keys, rotatingKey(domain, g.Phase, k))
		}
		if g.Phase == deliver.PhaseNext {
			_, _, s.Waiting = daemon.SeeDKIM(ctx, resolver, domain, &g)
		}
		shownAll = append(shownAll, s)
	}
	if u.json {
		return u.printJSON(map[string]any{"domain": domain, "generations": shownAll})
	}
	now := time.Now()
	for _, s := range shownAll {
		u.printGeneration(domain, &s, now)
	}
	return nil
}

// rotatingKey is a key with the record that it should have in DNS now.
func rotatingKey(domain string, phase deliver.Phase, k deliver.RotatingKey) dkimKey {
	name := k.Selector + "._domainkey." + domain
	out := dkimKey{Domain: domain, Selector: k.Selector, Name: name}
	if phase == deliver.PhaseRevoke {
		out.Record = "v=DKIM1; p="
		out.Zone = name + `. IN TXT "v=DKIM1; p="`
		return out
	}
	keys, err := daemon.ReadKeys(domain, &deliver.Generation{Keys: []deliver.RotatingKey{k}})
	if err != nil {
		out.Text = err.Error()
		return out
	}
	return shown(keys[0], daemon.Secret(k.Key).Path())
}

func (u *ui) printGeneration(domain string, s *rotationShown, now time.Time) {
	var names []string
	for _, k := range s.Keys {
		names = append(names, k.Selector)
	}
	since := ""
	if !s.Since.IsZero() {
		since = " since " + when(s.Since, now)
	}
	fmt.Fprintf(u.out, "%s  %s%s\n", u.bold(string(s.Phase)), strings.Join(names, ", "), since)
	switch s.Phase {
	case deliver.PhaseNext:
		fmt.Fprintln(u.out, "  Publish these records; nothing else is to do:")
		u.printZone(s.Keys)
		for _, w := range s.Waiting {
			fmt.Fprintln(u.out, "  waiting: "+w)
		}
		if s.Waiting == nil {
			fmt.Fprintln(u.out, "  Every resolver shows them. The running daemon signs with them after five minutes of that.")
		}
	case deliver.PhaseActive:
		fmt.Fprintln(u.out, "  signs the mail of "+domain)
	case deliver.PhaseOld:
		fmt.Fprintln(u.out, "  signs no more; leave its records until "+when(s.Until, now))
	case deliver.PhaseRevoke:
		if s.Leaked {
			fmt.Fprintln(u.out, "  leaked, signs no more. Revoke it now, by these records in the place of the former:")
		} else {
			fmt.Fprintln(u.out, "  of no more use. Revoke it, by these records in the place of the former:")
		}
		u.printZone(s.Keys)
	}
	fmt.Fprintln(u.out)
}

func (u *ui) printZone(keys []dkimKey) {
	for _, k := range keys {
		fmt.Fprintln(u.out, "  "+cmp.Or(k.Zone, k.Text))
	}
}
