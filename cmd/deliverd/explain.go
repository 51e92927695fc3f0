package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/bounces"
)

func explainCommand(ui *ui) *cobra.Command {
	var lines bool
	var lang string
	cmd := &cobra.Command{
		Use:   `explain "550 5.1.1 ..." | FILE.eml... | -`,
		Short: "Say what an SMTP reply or a bounce means, who acts, and what to do",
		Long: `Say what an SMTP reply means, or a mail that came back: the cause, whether it is
final, who acts, the next step, and a text to paste to the customer.

The argument is a reply in quotes, one or more files with a mail each, or - for a
mail on standard input. With --lines, standard input has one reply a line.`,
		Example: `  deliverd explain "550 5.1.1 <kari@nordlys.example>: Recipient address rejected: User unknown"
  deliverd explain bounce.eml
  deliverd explain --lines --json < replies.txt`,
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case lines && len(args) == 0:
				return ui.explainLines(lang)
			case lines || len(args) == 0:
				return usage("explain takes a reply in quotes, files, -, or --lines", `for example: deliverd explain "451 4.7.1 Greylisted, try again in 300 seconds"`)
			case len(args) == 1 && args[0] != "-" && !isFile(args[0]):
				return ui.explainReply(args[0], lang)
			}
			return ui.explainMails(args, lang)
		},
	}
	cmd.Flags().BoolVar(&lines, "lines", false, "read one reply a line from standard input")
	cmd.Flags().StringVar(&lang, "lang", "en", "language of the sentences: en or fi")
	return cmd
}

func isFile(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func (u *ui) explainReply(text, lang string) error {
	if _, ok := bounces.ParseReply(text); !ok {
		return usage("this is neither a file nor an SMTP reply, which begins with its code", `for example: deliverd explain "550 5.1.1 User unknown"`)
	}
	e := bounces.ExplainReply(text, lang)
	if u.json {
		return u.printJSON(e)
	}
	u.printExplained(e.Reports[0])
	return nil
}

// maxMailFile bounds a mail that is read; what is longer is explained by its
// beginning, where a bounce says what it has to say.
const maxMailFile = 4 << 20

func (u *ui) explainMails(names []string, lang string) error {
	for i, name := range names {
		raw, err := u.readMail(name)
		if err != nil {
			return failed(err.Error(), "name files with one mail each, or - for standard input")
		}
		e := bounces.ExplainMail(raw, lang)
		if u.json {
			if err := json.NewEncoder(u.out).Encode(e); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(u.out)
		}
		if len(names) > 1 {
			fmt.Fprintf(u.out, "%s\n", u.dim(name))
		}
		if len(e.Reports) == 0 {
			fmt.Fprintf(u.out, "%s: this mail says nothing about a delivery\n", e.Kind)
		}
		for _, r := range e.Reports {
			fmt.Fprintf(u.out, "%s, %s %s\n", e.Kind, r.Action, r.Recipient)
			u.printExplained(r)
		}
	}
	return nil
}

func (u *ui) readMail(name string) ([]byte, error) {
	in := u.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	return io.ReadAll(io.LimitReader(in, maxMailFile))
}

func (u *ui) printExplained(r bounces.ExplainedReport) {
	fmt.Fprintln(u.out, u.bold(r.Plain))
	fmt.Fprintln(u.out)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(u.out, "%-10s %s\n", name, value)
		}
	}
	row("Next:", r.NextStep)
	row("Who acts:", string(r.WhoActs))
	row("Cause:", string(r.Cause))
	decision := ""
	switch {
	case r.RetryAfter > 0:
		decision = fmt.Sprintf("temporary: the server asks to wait %d seconds", r.RetryAfter)
	case r.Retry:
		decision = "temporary: deliverd tries again"
	case r.Cause != "":
		decision = "final: trying again is of no use"
	}
	if r.Suppress {
		decision += "; the address gets no mail of this tenant for a day"
	}
	row("Decision:", decision)
	row("Provider:", r.Provider)
	row("Said:", r.Said)
}

// maxReplyLine bounds a line of --lines; a longer one is explained by its beginning.
const maxReplyLine = 64 << 10

func (u *ui) explainLines(lang string) error {
	in := bufio.NewReaderSize(u.in, maxReplyLine)
	out := bufio.NewWriter(u.out)
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
		e := bounces.ExplainReply(text, lang)
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
