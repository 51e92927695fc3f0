package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/dnscheck"
)

func dkimCommand(ui *ui) *cobra.Command {
	cmd := &cobra.Command{Use: "dkim", Short: "Make, publish and check signing keys"}
	cmd.AddCommand(dkimNewCommand(ui), dkimDNSCommand(ui), dkimRotateCommand(ui), dkimVerifyCommand(ui))
	return cmd
}

// dkimKey is a key as the commands show it: never its private half.
type dkimKey struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"`
	File      string `json:"file,omitempty"`
	Name      string `json:"name"`           // of the TXT record
	Record    string `json:"record"`         // its whole text
	Zone      string `json:"zone"`           // the same as a line of a zone file
	OK        *bool  `json:"ok,omitempty"`   // verify: published and right
	Text      string `json:"text,omitempty"` // verify: what was found
}

func shown(k *deliver.Key, file string) dkimKey {
	return dkimKey{Domain: k.Domain, Selector: k.Selector, Algorithm: k.Algorithm(), File: file,
		Name: k.RecordName(), Record: k.Record(), Zone: k.ZoneLine()}
}

func dkimNewCommand(ui *ui) *cobra.Command {
	var selector, dir string
	cmd := &cobra.Command{
		Use:   "new DOMAIN",
		Short: "Make an RSA-2048 and an Ed25519 key for a domain",
		Long: `Make an RSA-2048 and an Ed25519 key for a domain and print the DNS records to
publish and the lines for the configuration. Every verifier knows RSA; some know
Ed25519 as well. Messages get both signatures.

Existing files are never overwritten.`,
		Args: exactly(1, "the domain of the From address, for example example.com"),
		RunE: func(_ *cobra.Command, args []string) error {
			domain := strings.ToLower(args[0])
			if selector == "" {
				selector = time.Now().UTC().Format("d200601")
			}
			if dir == "" {
				c, err := ui.loadConfig()
				if err != nil {
					return err
				}
				dir = c.DKIMDir()
			}
			var made []dkimKey
			for _, a := range algorithms {
				k, err := newKeyFile(dir, domain, selector+a.suffix, a.alg)
				if err != nil {
					return err
				}
				made = append(made, k)
			}
			if ui.json {
				return ui.printJSON(made)
			}
			ui.printNewKeys(made)
			return nil
		},
	}
	cmd.Flags().StringVar(&selector, "selector", "", "`NAME` of the keys in DNS; the year and month, if not given")
	cmd.Flags().StringVar(&dir, "dir", "", "where to write the keys; the data directory's dkim/, if not given")
	return cmd
}

// algorithms are the keys that a domain gets, and what tells their selectors apart.
var algorithms = [...]struct {
	alg    deliver.Algorithm
	suffix string
}{{deliver.RSA2048, ""}, {deliver.Ed25519, "e"}}

// keyPath is where a key is kept.
func keyPath(dir, selector, domain string) string {
	return filepath.Join(dir, selector+"."+domain+".pem")
}

func newKeyFile(dir, domain, selector string, alg deliver.Algorithm) (dkimKey, error) {
	pem, err := deliver.NewKey(alg)
	if err != nil {
		return dkimKey{}, err
	}
	k, err := deliver.ParseKey(domain, selector, pem)
	if err != nil {
		return dkimKey{}, usage(err.Error(), "for example `deliverd dkim new example.com`")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return dkimKey{}, err
	}
	file, err := filepath.Abs(keyPath(dir, k.Selector, k.Domain))
	if err != nil {
		return dkimKey{}, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return dkimKey{}, failed(file+" is there already", "choose another --selector: a key that was published is not replaced under the same name")
	}
	if err != nil {
		return dkimKey{}, err
	}
	_, err = f.Write(pem)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return dkimKey{}, err
	}
	return shown(k, file), nil
}

func (u *ui) printNewKeys(keys []dkimKey) {
	fmt.Fprintf(u.out, "%s\n\n", u.bold("1. Publish these records:"))
	for _, k := range keys {
		fmt.Fprintln(u.out, k.Zone)
	}
	fmt.Fprintf(u.out, "\n%s\n\n", u.bold("2. Add this to the configuration, once `deliverd dkim verify` finds them:"))
	for _, k := range keys {
		fmt.Fprintf(u.out, "[[dkim]]\ndomain = %q\nselector = %q\nkey = %q\n\n", k.Domain, k.Selector, "file:"+k.File)
	}
}

// configuredKeys reads the keys that the configuration names.
func (u *ui) configuredKeys() ([]*deliver.Key, *daemon.Config, error) {
	c, err := u.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	keys, err := c.Keyring()
	if err != nil {
		return nil, nil, failed(err.Error(), "`deliverd doctor` looks at everything else, too")
	}
	if len(keys) == 0 {
		return nil, nil, failed("the configuration names no DKIM key", "`deliverd dkim new DOMAIN` makes them; name the configuration with -c")
	}
	return keys, c, nil
}

func dkimDNSCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "dns", Short: "Print the DNS records of the configured keys", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			keys, _, err := ui.configuredKeys()
			if err != nil {
				return err
			}
			var all []dkimKey
			for _, k := range keys {
				all = append(all, shown(k, ""))
			}
			if ui.json {
				return ui.printJSON(all)
			}
			for _, k := range all {
				fmt.Fprintln(ui.out, k.Zone)
			}
			return nil
		},
	}
}

func dkimVerifyCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Compare what is published with the configured keys", Args: cobra.NoArgs,
		Long: `Compare what DNS publishes with the configured keys.

Exit status: 0 all right, 1 a record is missing or wrong, 3 DNS did not answer.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, c, err := ui.configuredKeys()
			if err != nil {
				return err
			}
			resolver, err := c.Resolver()
			if err != nil {
				return err
			}
			var all []dkimKey
			status := 0
			for _, k := range keys {
				s := shown(k, "")
				err := publishedRight(cmd, resolver, k)
				s.OK, s.Text = new(err == nil), "published and right"
				if err != nil {
					s.Text = err.Error()
					status = max(status, exitFailed)
				}
				if e, ok := errors.AsType[*dnscheck.Error](err); ok && (e.Kind == dnscheck.Local || e.Kind == dnscheck.Temporary) {
					status = exitNotFound
				}
				all = append(all, s)
			}
			if ui.json {
				if err := ui.printJSON(all); err != nil {
					return err
				}
			} else {
				for _, s := range all {
					mark := "ok  "
					if !*s.OK {
						mark = "FAIL"
					}
					fmt.Fprintf(ui.out, "%s  %s: %s\n", mark, s.Name, s.Text)
				}
			}
			if status != 0 {
				return &exitError{status: status}
			}
			return nil
		},
	}
}

// publishedRight asks for the key's record and holds it against the key.
func publishedRight(cmd *cobra.Command, r *dnscheck.Resolver, k *deliver.Key) error {
	found, err := r.TXT(cmd.Context(), k.RecordName())
	if e, ok := errors.AsType[*dnscheck.Error](err); ok && (e.Kind == dnscheck.NoDomain || e.Kind == dnscheck.NoData) {
		return fmt.Errorf("%s is not published: publish what `deliverd dkim dns` prints", k.RecordName())
	}
	if err != nil {
		return err
	}
	for _, txt := range found.List {
		if err = k.CheckRecord(txt.String()); err == nil {
			return nil
		}
	}
	return err
}
