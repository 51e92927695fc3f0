package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// TestScripts runs testdata/script/*.txtar as a person or a script would use the
// program. Scripts in daemon-*.txtar have a running daemon, which $DELIVERD_CONFIG
// names, and a mail server for every domain that plays trouble by what an address
// begins with.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			if err := resolver(env); err != nil {
				return err
			}
			if !strings.HasPrefix(env.T().(interface{ Name() string }).Name(), "TestScripts/daemon-") {
				return nil
			}
			w := newWorld(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, "[log]\nlevel = \"warn\"\n")
			p := w.start(t)
			env.Defer(p.stop)
			env.Setenv("DELIVERD_CONFIG", w.config)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"field":  field,
			"status": status,
		},
	})
}

// resolver starts the resolver of a script that has a zone.txt, and names it in
// $RESOLVER. It never learns anything of dead.example.
func resolver(env *testscript.Env) error {
	zone, err := os.ReadFile(filepath.Join(env.WorkDir, "zone.txt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s, err := dnstest.Start(string(zone), dnstest.Fault{Name: "*dead.example", Do: dnstest.Servfail})
	if err != nil {
		return err
	}
	env.Defer(func() { s.Close() })
	env.Setenv("RESOLVER", s.Addr)
	return nil
}

// field NAME N sets a variable to the N-th tab-separated field of the last output.
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || len(args[1]) != 1 {
		ts.Fatalf("usage: field NAME N")
	}
	fields := strings.Split(strings.TrimSpace(ts.ReadFile("stdout")), "\t")
	n := int(args[1][0] - '1')
	if n < 0 || n >= len(fields) {
		ts.Fatalf("the output has %d fields: %q", len(fields), fields)
	}
	ts.Setenv(args[0], fields[n])
}

// status N COMMAND... runs a command that has to end with the exit status N.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("%q ended with %s, want %s", args[1:], got, args[0])
	}
}
