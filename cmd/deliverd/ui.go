package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/mail"
)

// This file holds the rules by which every command speaks: results on standard
// output, as a table on a terminal and tab-separated elsewhere, or as JSON; errors
// on standard error, one sentence saying what is wrong and one saying what to do;
// the exit status says which sort of thing happened.

// The exit statuses, which scripts rely on.
const (
	exitFailed       = 1
	exitUsage        = 2
	exitNotFound     = 3
	exitNotAllowed   = 4
	exitConfig       = 5
	exitConflict     = 6
	exitPending      = 8
	exitRefused      = 10
	exitNotDelivered = 11 // expired, superseded, cancelled or suppressed
)

// ui is where a command reads, prints and finds its daemon.
type ui struct {
	in       io.Reader
	out, err io.Writer

	config string // -c
	server string // --server
	json   bool   // --json
}

// An exitError ends the program with a status, what is wrong, and what to do. An
// empty text prints nothing: the output has said it all.
type exitError struct {
	status int
	text   string
	hint   string
}

func (e *exitError) Error() string { return e.text }

func failed(text, hint string) error { return &exitError{exitFailed, text, hint} }
func usage(text, hint string) error  { return &exitError{exitUsage, text, hint} }

// exit prints err and returns the exit status that belongs to it.
func (u *ui) exit(err error) int {
	if err == nil {
		return 0
	}
	err = u.connectionError(err)
	status, text, hint := exitFailed, err.Error(), ""
	if e, ok := errors.AsType[*exitError](err); ok {
		status, text, hint = e.status, e.text, e.hint
	} else if e, ok := errors.AsType[*daemon.ConfigError](err); ok {
		status = exitConfig
		for _, p := range e.Problems {
			fmt.Fprintln(u.err, "deliverd:", p)
		}
		text, hint = "", "`deliverd config example` prints a file with every key explained."
	} else if p, ok := errors.AsType[*client.Problem](err); ok {
		status, text, hint = problemStatus(p.Type), p.Title, p.Detail
		if p.Field != "" {
			text += " (" + p.Field + ")"
		}
		if p.Suppression != nil {
			hint += "\n" + p.Suppression.Lift
		}
	} else if strings.HasPrefix(text, "unknown command") || strings.Contains(text, "arg(s)") || strings.Contains(text, "required flag") {
		// cobra has no type for these.
		status, hint = exitUsage, "see `deliverd --help`"
	}
	if text != "" {
		fmt.Fprintln(u.err, "deliverd:", text)
	}
	if hint != "" {
		fmt.Fprintln(u.err, hint)
	}
	return status
}

func problemStatus(problemType string) int {
	switch problemType {
	case mail.ProblemNotFound:
		return exitNotFound
	case mail.ProblemNotSignedIn, mail.ProblemNotAllowed:
		return exitNotAllowed
	case mail.ProblemConflict, mail.ProblemNotResendable, mail.ProblemAlreadyEnded:
		return exitConflict
	case mail.ProblemSuppressed:
		return exitNotDelivered
	}
	return exitFailed
}

// stateStatus is the exit status that tells how a message stands.
func stateStatus(s mail.State) int {
	switch s {
	case mail.StateAccepted:
		return 0
	case mail.StateRefused, mail.StateReturned, mail.StateComplained:
		return exitRefused
	case mail.StateExpired, mail.StateSuperseded, mail.StateCancelled, mail.StateSuppressed:
		return exitNotDelivered
	}
	return exitPending
}

func (u *ui) printJSON(v any) error {
	enc := json.NewEncoder(u.out)
	enc.SetEscapeHTML(false)
	if u.terminal() {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

// terminal reports whether standard output is one.
func (u *ui) terminal() bool {
	f, ok := u.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// color reports whether output may be coloured: https://no-color.org.
func (u *ui) color() bool { return u.terminal() && os.Getenv("NO_COLOR") == "" }

func (u *ui) paint(code, s string) string {
	if !u.color() {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (u *ui) bold(s string) string { return u.paint("1", s) }
func (u *ui) dim(s string) string  { return u.paint("2", s) }

// table prints rows, aligned on a terminal and tab-separated without the heading
// elsewhere.
func (u *ui) table(heading []string, rows [][]string) {
	if !u.terminal() {
		for _, r := range rows {
			fmt.Fprintln(u.out, strings.Join(r, "\t"))
		}
		return
	}
	w := tabwriter.NewWriter(u.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.ToUpper(strings.Join(heading, "\t")))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
}

// when prints a time relative and absolute.
func when(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return relative(t.Sub(now)) + " (" + t.UTC().Format("2006-01-02 15:04:05Z") + ")"
}

func relative(d time.Duration) string {
	ago := d < 0
	s := roughly(d.Abs())
	switch {
	case s == "0s":
		return "now"
	case ago:
		return s + " ago"
	}
	return "in " + s
}

// roughly writes a duration with its largest one or two units.
func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		m, s := d/time.Minute, d%time.Minute/time.Second
		if s == 0 || m >= 10 {
			return fmt.Sprintf("%dm", m)
		}
		return fmt.Sprintf("%dm%ds", m, s)
	case d < 48*time.Hour:
		h, m := d/time.Hour, d%time.Hour/time.Minute
		if m == 0 {
			return fmt.Sprintf("%dh", h)
		}
		return fmt.Sprintf("%dh%dm", h, m)
	}
	return fmt.Sprintf("%dd", (d+12*time.Hour)/(24*time.Hour))
}

// loadConfig reads the configuration that -c names, or the defaults.
func (u *ui) loadConfig() (*daemon.Config, error) { return daemon.Load(u.config, os.Environ()) }

// exactly says in our words what cobra.ExactArgs says in its own.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usage(fmt.Sprintf("%s takes %s", cmd.CommandPath(), what), "see `"+cmd.CommandPath()+" --help`")
		}
		return nil
	}
}

// after says on standard error what is being done, if that takes longer than wait. The
// function that it returns ends that.
func (u *ui) after(wait time.Duration, text string) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-time.After(wait):
			fmt.Fprintln(u.err, text)
		case <-done:
		}
	}()
	return sync.OnceFunc(func() { close(done); <-ended })
}
