package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

It asks the DNS from here and needs no daemon. Our side is what the configuration
says of it. "-" reads domains from standard input, one a line; it and --json print
one JSON document a line, in the order of the domains.

Exit status: 0 nothing found, 1 a finding at or above --fail-on, 2 usage,
3 unknown because the DNS did not answer.`,
		Example: `  deliverd check nordlys.example
  deliverd check nordlys.example --allowlist > steps-for-their-it.txt
  deliverd check nordlys.example --allowlist mimecast
  deliverd check - < domains.txt | jq -r 'select(.verdict != "arrives") | .summary'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			args = f.takeProduct(args)
			if err := f.validate(cmd, args); err != nil {
				return err
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

// checkRun checks the domains of one command line.
type checkRun struct {
	ui     *ui
	flags  *checkFlags
	sender *dnscheck.Sender
	check  func(ctx context.Context, domain string) dnscheck.Report
	failOn bool // findings decide about the exit status

	stream  bool // one JSON document a line
	checked atomic.Int64
	printed int
}

// abreast is how many domains are checked at once.
const abreast = 32

// all checks domains and prints their reports.
func (r *checkRun) all(ctx context.Context, args []string) error {
	r.stream = args[0] == "-" || r.ui.json && len(args) > 1
	many := r.stream || len(args) > 1
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	domains, readErr := slices.Values(args), error(nil)
	if args[0] == "-" {
		domains = lines(r.ui.in, &readErr)
	}
	stop := r.progress(args[0], many)
	defer stop()
	status := 0
	for report := range inOrder(ctx, domains, r.one) {
		if ctx.Err() != nil {
			return failed("interrupted", "")
		}
		if !many {
			stop()
		}
		if err := r.print(&report); err != nil {
			return err
		}
		status = worse(status, r.status(&report))
	}
	if readErr != nil {
		return failed("standard input: "+readErr.Error(), "give one domain a line")
	}
	if status != 0 {
		return &exitError{status: status}
	}
	return nil
}

func (r *checkRun) one(ctx context.Context, domain string) dnscheck.Report {
	defer r.checked.Add(1)
	return r.check(ctx, domain)
}

// ahead is how many domains are checked beyond one that takes long, and how many
// reports are held in memory at most.
const ahead = 512

// inOrder works on inputs, abreast at once, and yields the results in the order of
// the inputs, so that a script can lay them beside its own list.
func inOrder[T any](ctx context.Context, inputs iter.Seq[string], work func(context.Context, string) T) iter.Seq[T] {
	return func(yield func(T) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		results := make(chan chan T, ahead)
		go func() {
			defer close(results)
			slots := make(chan struct{}, abreast)
			for input := range inputs {
				result := make(chan T, 1)
				select {
				case results <- result:
				case <-ctx.Done():
					return
				}
				slots <- struct{}{} // whatever is under way ends with ctx
				go func() {
					defer func() { <-slots }()
					result <- work(ctx, input)
				}()
			}
		}()
		for result := range results {
			if !yield(<-result) {
				return
			}
		}
	}
}

// maxDomainLine bounds a line of standard input; what is longer is no domain, and
// its beginning tells which.
const maxDomainLine = 4 << 10

// lines yields the lines of in, but for empty ones and comments.
func lines(in io.Reader, failed *error) iter.Seq[string] {
	return func(yield func(string) bool) {
		r := bufio.NewReaderSize(in, maxDomainLine)
		for {
			line, more, err := r.ReadLine()
			text := strings.TrimSpace(string(line))
			for more && err == nil {
				_, more, err = r.ReadLine()
			}
			if text != "" && text[0] != '#' && !yield(text) {
				return
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					*failed = err
				}
				return
			}
		}
	}
}

// progress says on standard error how far the check is, once it takes more than a
// second. The function that it returns ends that.
func (r *checkRun) progress(domain string, many bool) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			switch {
			case many && n%5 == 0:
				fmt.Fprintf(r.ui.err, "%d domains checked\n", r.checked.Load())
			case !many && n == 0:
				fmt.Fprintf(r.ui.err, "checking %s ...\n", domain)
			}
		}
	}()
	return sync.OnceFunc(func() { close(done); <-ended })
}

func (r *checkRun) print(report *dnscheck.Report) error {
	switch {
	case r.flags.allowlist != "" && (r.ui.json || r.stream):
		return r.encode(struct {
			Domain    string            `json:"domain"`
			Verdict   dnscheck.Verdict  `json:"verdict"`
			Provider  *dnscheck.Product `json:"provider,omitempty"`
			Behind    *dnscheck.Product `json:"behind,omitempty"`
			Allowlist []dnscheck.Advice `json:"allowlist"`
		}{report.Domain, report.Verdict, report.Provider, report.Behind, report.Allowlist})
	case r.ui.json || r.stream:
		return r.encode(report)
	}
	if r.printed++; r.printed > 1 {
		fmt.Fprint(r.ui.out, "\n\n")
	}
	p := reportPrinter{ui: r.ui, story: console.TellDomain(report, r.sender, console.Telling{Lang: r.flags.lang, Now: time.Now()})}
	if r.flags.allowlist != "" {
		p.allowlist()
	} else {
		p.report()
	}
	return nil
}

// encode writes one document: on a line of its own if there are more.
func (r *checkRun) encode(v any) error {
	if !r.stream {
		return r.ui.printJSON(v)
	}
	enc := json.NewEncoder(r.ui.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// status is the exit status that a report deserves.
func (r *checkRun) status(report *dnscheck.Report) int {
	bad := threshold(r.flags.failOn)
	switch {
	case report.Verdict == dnscheck.Unknown:
		return exitNotFound
	case r.flags.allowlist != "" && len(report.Allowlist) == 0:
		return exitNotFound
	case r.failOn && slices.ContainsFunc(report.Findings, func(f dnscheck.Finding) bool { return slices.Contains(bad, f.State) }):
		return exitFailed
	}
	return 0
}

// worse is the status of two checks together: what is known to be bad counts more
// than what is not known.
func worse(a, b int) int {
	if a == exitFailed || b == exitFailed {
		return exitFailed
	}
	return max(a, b)
}
