package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/console"
)

func identityCommand(ui *ui) *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "identity",
		Short: "Say whether others can verify our mail: SPF, DKIM keys, DMARC, PTR, HELO, blocklists",
		Long: `Say whether others can verify our mail: the SPF of our envelope domain, our DKIM
keys, DMARC and its alignment, the names of our addresses, the name that we greet
with, and the blocklists of dns.blocklists. Our side is what the configuration says.

Exit status: 0 nothing found, 1 a finding at or above --fail-on, 2 usage,
3 unknown because the DNS did not answer.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.validate(cmd, []string{"identity"}); err != nil {
				return err
			}
			resolver, o, err := ui.checker(&f)
			if err != nil {
				return err
			}
			if u := o.Sender; len(u.Addresses) == 0 && u.Hello == "" && u.ReturnPath == "" && u.From == "" && len(u.Keys) == 0 {
				return failed("the configuration says nothing of our own side", "set [send] and [[dkim]], and name the configuration with -c; `deliverd config example` shows them")
			}
			report := resolver.Identity(cmd.Context(), o)
			run := checkRun{ui: ui, flags: &f, failOn: true}
			if ui.json {
				err = ui.printJSON(report)
			} else {
				p := reportPrinter{ui: ui, story: console.TellDomain(&report, o.Sender, console.Telling{Lang: f.lang, Now: time.Now()})}
				p.identity()
			}
			if status := run.status(&report); err == nil && status != 0 {
				return &exitError{status: status}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.resolver, "resolver", "", "ask the DNS server at `HOST:PORT`")
	flags.StringVar(&f.failOn, "fail-on", "fail", "exit with 1 if there is a finding of this `STATE` or worse: fail, warn or info")
	flags.StringVar(&f.lang, "lang", "en", "language of the sentences: en or fi")
	return cmd
}

// identity prints the answer and what is known of our side.
func (p *reportPrinter) identity() {
	p.answer()
	p.block(&p.story.Ours)
	p.values("  ", p.story.Values)
}
