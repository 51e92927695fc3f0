package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
)

func configCommand(ui *ui) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check, print or begin a configuration"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "check [FILE]", Short: "Say whether a configuration is valid, and what is wrong with it",
			Args: cobra.MaximumNArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				if len(args) == 1 {
					ui.config = args[0]
				}
				if _, err := ui.loadConfig(); err != nil {
					return err
				}
				name := ui.config
				if name == "" {
					name = "the default configuration"
				}
				if ui.json {
					return ui.printJSON(map[string]any{"valid": true, "file": ui.config})
				}
				fmt.Fprintf(ui.out, "%s is valid\n", name)
				return nil
			},
		},
		&cobra.Command{
			Use: "print", Short: "Print the configuration in force, defaults and environment included",
			Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				c, err := ui.loadConfig()
				if err != nil {
					return err
				}
				if ui.json {
					return ui.printJSON(c.Map())
				}
				text, err := c.TOML()
				if err != nil {
					return err
				}
				_, err = ui.out.Write(text)
				return err
			},
		},
		&cobra.Command{
			Use: "example", Short: "Print a configuration with every key explained",
			Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				_, err := fmt.Fprint(ui.out, daemon.Example)
				return err
			},
		},
	)
	return cmd
}

func completionCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "completion bash|zsh|fish|powershell", Short: "Print a shell's completion script",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      exactly(1, "the name of a shell: bash, zsh, fish or powershell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(ui.out, true)
			case "zsh":
				return root.GenZshCompletion(ui.out)
			case "fish":
				return root.GenFishCompletion(ui.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(ui.out)
			}
			return usage(fmt.Sprintf("no completion for %q", args[0]), "use bash, zsh, fish or powershell")
		},
	}
}

func manCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "man [DIR]", Short: "Print the manual page, or write one a command into DIR",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			header := &doc.GenManHeader{Section: "1", Source: "deliverd " + buildVersion()}
			cmd.Root().DisableAutoGenTag = true
			if len(args) == 1 {
				return doc.GenManTree(cmd.Root(), header, args[0])
			}
			return doc.GenMan(cmd.Root(), header, ui.out)
		},
	}
}
