package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
)

func doctorCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look for everything that would stop mail, and say the cure", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ui.loadConfig()
			if err != nil {
				return err
			}
			findings := daemon.Examine(cmd.Context(), c)
			if ui.json {
				err = ui.printJSON(findings)
			} else {
				for _, f := range findings {
					mark := map[string]string{daemon.FindingOK: "ok  ", daemon.FindingWarn: "warn", daemon.FindingFail: "FAIL"}[f.State]
					fmt.Fprintf(ui.out, "%s  %-8s %s\n", mark, f.Check, f.Text)
					if f.Cure != "" {
						fmt.Fprintf(ui.out, "      %-8s → %s\n", "", f.Cure)
					}
				}
			}
			for _, f := range findings {
				if f.State == daemon.FindingFail && err == nil {
					return &exitError{status: exitFailed}
				}
			}
			return err
		},
	}
}
