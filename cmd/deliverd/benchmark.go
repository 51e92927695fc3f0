package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/bench"
)

func benchCommand(ui *ui) *cobra.Command {
	var o bench.Options
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine: messages a second, a PIN's latency, memory, restart",
		Long: `Start daemons of this program in temporary directories, with fsync, RSA and
Ed25519 signatures and STARTTLS on, send mail through them into a sink, and report
what it cost. Nothing leaves the machine. With the defaults it takes some minutes.

CPU and memory are the daemon's alone. Load and sink run beside it, so that
messages a second are what they leave of the machine.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Program, err = os.Executable(); err != nil {
				return err
			}
			o.Progress = ui.err
			r, err := bench.Run(cmd.Context(), o)
			if err != nil {
				return failed("the benchmark did not finish: "+err.Error(), "run `deliverd doctor` if the reason is not clear")
			}
			r.Version = buildVersion()
			r.Machine = fmt.Sprintf("%d cores, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			if ui.json {
				return ui.printJSON(r)
			}
			ui.printBench(r)
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Messages, "messages", 20_000, "messages for the throughput over each door")
	f.IntVar(&o.Backlog, "backlog", 100_000, "invites that PINs have to pass")
	f.IntVar(&o.PINs, "pins", 300, "PINs for each measurement of latency")
	f.IntSliceVar(&o.Waiting, "waiting", []int{100_000}, "sizes of the backlog for memory and restart")
	return cmd
}

func (u *ui) printBench(r bench.Result) {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }
	s := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
	fmt.Fprintf(u.out, "deliverd %s, %s\nfsync on, DKIM RSA-2048 + Ed25519, STARTTLS; one signature of each: %.2f ms of CPU\n\n", r.Version, r.Machine, r.SignMillis)
	var rows [][]string
	for _, t := range r.Throughput {
		rows = append(rows, []string{t.Door, fmt.Sprint(t.Messages), fmt.Sprintf("%.0f", t.PerSecond), fmt.Sprintf("%.2f ms", t.CPUMillis),
			fmt.Sprintf("%.0f %%", 100*r.SignMillis/t.CPUMillis)})
	}
	u.table([]string{"door", "messages", "per second", "CPU a message", "of which signing"}, rows)
	fmt.Fprintln(u.out)
	rows = nil
	for _, l := range r.PINs {
		rows = append(rows, []string{"PIN " + l.Beside, ms(l.P50), ms(l.P99), ms(l.Max)})
	}
	u.table([]string{"call to hand-over", "p50", "p99", "max"}, rows)
	fmt.Fprintln(u.out)
	rows = nil
	for _, w := range r.Waiting {
		rows = append(rows, []string{fmt.Sprint(w.Messages), fmt.Sprintf("%.0f", w.PerSecond), fmt.Sprintf("%.0f MB", w.MemoryMB),
			fmt.Sprintf("%.0f MB", w.RestartMB), s(w.FirstPIN), s(w.AllScanned), s(time.Duration(w.ScanCPU * float64(time.Second)))})
	}
	u.table([]string{"waiting", "accepted/s", "memory", "after kill -9", "first PIN after", "all known after", "CPU for that"}, rows)
}
