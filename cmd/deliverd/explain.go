package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/mail"
)

// explained is what `explain` says of a refusal, in JSON.
type explained struct {
	Kind    string            `json:"kind"`
	Reports []explainedReport `json:"reports"`
}

type explainedReport struct {
	Recipient string     `json:"recipient"`
	Action    string     `json:"action"`
	Status    string     `json:"status"`
	Code      int        `json:"code"`
	Cause     mail.Cause `json:"cause"`
	Hard      bool       `json:"hard"`
	Suppress  bool       `json:"suppress"`
	Retry     bool       `json:"retry"`
	WhoActs   mail.Actor `json:"who_acts"`
	Plain     string     `json:"plain"`
	NextStep  string     `json:"next_step"`
	Provider  string     `json:"provider"`
	// RetryAfter is the wait that the text asked for, in seconds.
	RetryAfter int `json:"retry_after,omitempty"`
}

func explainCommand(ui *ui) *cobra.Command {
	var lines bool
	var lang string
	cmd := &cobra.Command{
		Use:   `explain "550 5.1.1 ..."`,
		Short: "Say what an SMTP reply means, who acts, and what to do",
		Example: `  deliverd explain "550 5.1.1 <kari@nordlys.example>: Recipient address rejected: User unknown"
  deliverd explain --lines < replies.txt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case lines && len(args) == 0:
				return ui.explainLines(lang)
			case lines || len(args) != 1:
				return usage("explain takes one reply in quotes, or --lines", `for example: deliverd explain "451 4.7.1 Greylisted, try again in 300 seconds"`)
			}
			reply, ok := bounces.ParseReply(args[0])
			if !ok {
				return usage("this is no SMTP reply: it begins with no code", `for example: deliverd explain "550 5.1.1 User unknown"`)
			}
			e := explainReply(reply, lang)
			if ui.json {
				return ui.printJSON(e)
			}
			ui.printExplained(e.Reports[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&lines, "lines", false, "read one reply a line from standard input")
	cmd.Flags().StringVar(&lang, "lang", "en", "language of the sentences: en or fi")
	return cmd
}

// explainReply is total: what has no code is an unknown cause.
func explainReply(r mail.Reply, lang string) explained {
	v := bounces.Classify(bounces.Said{Reply: r})
	x := bounces.Explain(v.Cause, lang)
	status := r.Enhanced.String()
	if status == "" && r.Code != 0 {
		status = fmt.Sprintf("%d.0.0", r.Code/100)
	}
	action := "failed"
	if r.Code/100 == 4 {
		action = "delayed"
	}
	return explained{Kind: "reply", Reports: []explainedReport{{
		Action: action, Status: status, Code: r.Code, Cause: v.Cause, Hard: v.Hard, Suppress: v.Suppress, Retry: v.Retry,
		WhoActs: x.Who, Plain: x.Plain, NextStep: x.NextStep, Provider: v.Provider, RetryAfter: int(v.RetryAfter.Seconds()),
	}}}
}

func (u *ui) printExplained(r explainedReport) {
	fmt.Fprintln(u.out, u.bold(r.Plain))
	fmt.Fprintf(u.out, "\nNext:      %s\nWho acts:  %s\nCause:     %s\n", r.NextStep, r.WhoActs, r.Cause)
	decision := "final: trying again is of no use"
	switch {
	case r.RetryAfter > 0:
		decision = fmt.Sprintf("temporary: the server asks to wait %d seconds", r.RetryAfter)
	case r.Retry:
		decision = "temporary: deliverd tries again"
	}
	if r.Suppress {
		decision += "; the address is suppressed for this tenant"
	}
	fmt.Fprintf(u.out, "Decision:  %s\n", decision)
	if r.Provider != "" {
		fmt.Fprintf(u.out, "Provider:  %s\n", r.Provider)
	}
}

// maxReplyLine bounds a line of --lines; a longer one is explained by its beginning.
const maxReplyLine = 64 << 10

func (u *ui) explainLines(lang string) error {
	in := bufio.NewReaderSize(u.in, maxReplyLine)
	out := bufio.NewWriter(u.out)
	defer out.Flush()
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for {
		line, tooLong, err := in.ReadLine()
		if errors.Is(err, io.EOF) {
			return out.Flush()
		}
		if err != nil {
			return err
		}
		text := strings.TrimSpace(string(line))
		for tooLong && err == nil {
			_, tooLong, err = in.ReadLine()
		}
		r, _ := bounces.ParseReply(text)
		e := explainReply(r, lang)
		if u.json {
			if err := enc.Encode(e); err != nil {
				return err
			}
			continue
		}
		x := e.Reports[0]
		fmt.Fprintf(out, "%s\t%t\t%t\t%t\t%s\n", x.Cause, x.Hard, x.Retry, x.Suppress, x.Plain)
	}
}
