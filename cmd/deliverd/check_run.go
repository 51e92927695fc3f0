package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/dnscheck"
)

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
	case r.flags.allowlist != "" && len(report.Allowlist) == 0:
		return exitNotFound
	case r.flags.allowlist != "" && !r.failOn:
		return 0
	case report.Verdict == dnscheck.Unknown:
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
