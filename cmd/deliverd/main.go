// Command deliverd delivers the mail that people wait for: invites, password
// resets and device PINs.
//
// This package is the command line: flags, output and exit statuses, each command
// a thin door to one package. The daemon itself is a value in package daemon.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // mails name zones that the machine may not have

	"github.com/spf13/cobra"
)

// version is set by the linker; a build without it says what the module knows.
var version string

func main() { os.Exit(run(os.Args[1:])) }

// run is main for tests, too.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ui := &ui{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := newRoot(ui)
	root.SetArgs(args)
	root.SetOut(ui.out)
	root.SetErr(ui.err)
	err := root.ExecuteContext(ctx)
	return ui.exit(err)
}

func newRoot(ui *ui) *cobra.Command {
	root := &cobra.Command{
		Use:   "deliverd",
		Short: "Deliver the mail that people wait for: invites, password resets, device PINs",
		Long: `deliverd keeps auth mail in a durable queue, signs and delivers it while it is
still of use, and says in one sentence what happened to it.

Begin with ` + "`deliverd dev`" + `: everything in one process, nothing to configure.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       buildVersion(),
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetVersionTemplate("deliverd {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(err.Error(), "see `"+cmd.CommandPath()+" --help`")
	})
	pf := root.PersistentFlags()
	pf.StringVarP(&ui.config, "config", "c", defaultConfig(), "configuration `FILE`; /etc/deliverd/deliverd.toml if that is there")
	pf.StringVar(&ui.server, "server", os.Getenv("DELIVERD_SERVER"), "`URL` of the daemon to talk to")
	pf.BoolVar(&ui.json, "json", false, "print JSON")
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "mail", Title: "Mail:"},
		&cobra.Group{ID: "look", Title: "Understand:"},
		&cobra.Group{ID: "set", Title: "Set up:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", devCommand(ui), serveCommand(ui), doctorCommand(ui), backupCommand(ui), restoreCommand(ui), verifyCommand(ui), benchCommand(ui))
	add("mail", sendCommand(ui), showCommand(ui), waitCommand(ui), tailCommand(ui), cancelCommand(ui), resendCommand(ui),
		whoCommand(ui), replyCommand(ui), queueCommand(ui), suppressCommand(ui))
	add("look", checkCommand(ui), identityCommand(ui), tlsCommand(ui), explainCommand(ui), deliverCommand(ui), logCommand(ui))
	add("set", configCommand(ui), dkimCommand(ui), tokenCommand(ui), adminCommand(ui), completionCommand(ui), manCommand(ui), versionCommand(ui))
	return root
}

// defaultConfig is the configuration of a command without -c: so that on the daemon's
// machine everybody's commands find it.
func defaultConfig() string {
	if file := os.Getenv("DELIVERD_CONFIG"); file != "" {
		return file
	}
	const installed = "/etc/deliverd/deliverd.toml"
	if _, err := os.Stat(installed); err != nil {
		return ""
	}
	return installed
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unversioned build)"
}

func versionCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if ui.json {
				return ui.printJSON(map[string]string{"version": buildVersion()})
			}
			fmt.Fprintln(ui.out, "deliverd", buildVersion())
			return nil
		},
	}
}
