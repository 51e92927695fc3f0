package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/dnscheck"
)

// checkFlags are the flags of `check`.
type checkFlags struct {
	resolver  string
	smtp      bool
	allowlist string // a product; allOwn for whichever the domain has; "" for the whole report
	failOn    string
	lang      string
	clients   bool
	share     bool
}

// allOwn is --allowlist without a product.
const allOwn = "their own"

// smtpLimit bounds a check that talks to exchangers: a greeting may take seconds.
const smtpLimit = 30 * time.Second

func checkCommand(ui *ui) *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check DOMAIN... | -",
		Short: "Say whether mail from us will arrive at a domain, and how they let it in",
		Long: `Say whether mail from us will arrive at a domain, what filters it there, and how
the people there can let it in, with our own values filled in.

It asks the DNS from here and, but for --share, needs no daemon. Our side is what the configuration
says of it. "-" reads domains from standard input, one a line; it and --json print
one JSON document a line, in the order of the domains.

Exit status: 0 nothing found, 1 a finding at or above --fail-on, 2 usage,
3 unknown because the DNS did not answer.`,
		Example: `  deliverd check nordlys.example
  deliverd check nordlys.example --allowlist > steps-for-their-it.txt
  deliverd check nordlys.example --allowlist mimecast
  deliverd check nordlys.example --share --lang fi
  deliverd check - < domains.txt | jq -r 'select(.verdict != "arrives") | .summary'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			args = f.takeProduct(args)
			if err := f.validate(cmd, args); err != nil {
				return err
			}
			if f.share {
				return ui.shareReport(cmd.Context(), args[0], f.lang)
			}
			resolver, o, err := ui.checker(&f)
			if err != nil {
				return err
			}
			run := checkRun{
				ui: ui, flags: &f, sender: o.Sender, failOn: cmd.Flags().Changed("fail-on") || f.allowlist == "",
				check: func(ctx context.Context, domain string) dnscheck.Report { return resolver.Check(ctx, domain, o) },
			}
			return run.all(cmd.Context(), args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.resolver, "resolver", "", "ask the DNS server at `HOST:PORT`")
	flags.BoolVar(&f.smtp, "smtp", false, "also talk to their mail servers, up to RCPT: the firewall test")
	flags.StringVar(&f.allowlist, "allowlist", "", "print only the steps that let our mail in, of their product or of `PRODUCT`")
	flags.Lookup("allowlist").NoOptDefVal = allOwn
	flags.StringVar(&f.failOn, "fail-on", "fail", "exit with 1 if there is a finding of this `STATE` or worse: fail, warn or info")
	flags.StringVar(&f.lang, "lang", "en", "language of the sentences: en or fi")
	flags.BoolVar(&f.share, "share", false, "print the address of a page with the report, which the daemon shows to whoever has it for 14 days")
	flags.BoolVar(&f.clients, "clients", false, "add what a person can do in common mail programs")
	return cmd
}

// takeProduct finds the product of `--allowlist PRODUCT`, which to pflag is an
// argument: no product's id has a dot, and every domain has one.
func (f *checkFlags) takeProduct(args []string) []string {
	i := slices.IndexFunc(args, func(a string) bool { return a != "-" && !strings.ContainsAny(a, ".@") })
	if f.allowlist != allOwn || i < 0 {
		return args
	}
	f.allowlist = args[i]
	return slices.Delete(slices.Clone(args), i, i+1)
}

func (f *checkFlags) validate(cmd *cobra.Command, args []string) error {
	help := "see `" + cmd.CommandPath() + " --help`"
	switch {
	case len(args) == 0:
		return usage("check needs a domain, or - to read domains from standard input", "for example: deliverd check example.com")
	case slices.Contains(args, "-") && len(args) > 1:
		return usage("- reads the domains from standard input: name none beside it", help)
	case f.share && (len(args) > 1 || args[0] == "-"):
		return usage("--share makes the page of one domain", help)
	case f.lang != "en" && f.lang != "fi":
		return usage("--lang is en or fi", help)
	case f.resolver != "" && !isServer(f.resolver):
		return usage(fmt.Sprintf("--resolver: %q is no address of a DNS server", f.resolver), "write it as 127.0.0.1:53")
	case threshold(f.failOn) == nil:
		return usage("--fail-on is fail, warn or info", help)
	}
	if f.allowlist == "" || f.allowlist == allOwn {
		return nil
	}
	var ids []string
	for _, p := range dnscheck.Products() {
		if p.ID == f.allowlist {
			return nil
		}
		ids = append(ids, p.ID)
	}
	return usage(fmt.Sprintf("--allowlist: no product %q is known", f.allowlist), "the products are: "+strings.Join(ids, ", "))
}

// isServer reports whether s is an address, or a host and a port.
func isServer(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && perr == nil && n > 0 && host != ""
}

// threshold lists the states at or above one; nil for what is none.
func threshold(state string) []dnscheck.State {
	order := []dnscheck.State{dnscheck.StateFail, dnscheck.StateWarn, dnscheck.StateInfo}
	i := slices.Index(order, dnscheck.State(state))
	if i < 0 {
		return nil
	}
	return order[:i+1]
}

// checker makes what domains are checked with.
func (u *ui) checker(f *checkFlags) (*dnscheck.Resolver, dnscheck.Options, error) {
	c, err := u.loadConfig()
	if err != nil {
		return nil, dnscheck.Options{}, err
	}
	if f.resolver != "" {
		c.DNS.Servers = []string{f.resolver}
	}
	resolver, err := c.Resolver()
	if err != nil {
		return nil, dnscheck.Options{}, failed(err.Error(), "name a DNS server with --resolver, or dns.servers in the configuration")
	}
	o, err := c.Check()
	if err != nil {
		return nil, o, failed(err.Error(), "run it as the user that the daemon runs as, or name another configuration with -c")
	}
	o.Lang, o.Clients = f.lang, f.clients
	if f.allowlist != allOwn {
		o.Product = f.allowlist
	}
	if f.smtp {
		o.Converse, o.Limit = c.Caller().Converse, smtpLimit
	}
	return resolver, o, nil
}

// shareReport has the daemon make a page for people who have no account.
func (u *ui) shareReport(ctx context.Context, domain, lang string) error {
	c, err := u.client()
	if err != nil {
		return err
	}
	var share console.Share
	if err := c.Do(ctx, http.MethodPost, "/v1/domains/"+url.PathEscape(domain)+"/share", nil, console.ShareRequest{Lang: lang}, &share); err != nil {
		return err
	}
	if u.json {
		return u.printJSON(share)
	}
	fmt.Fprintln(u.out, share.URL)
	return nil
}
