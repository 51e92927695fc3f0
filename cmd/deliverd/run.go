package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/deliver/smtptest"
)

func serveCommand(ui *ui) *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Run the daemon", Args: cobra.NoArgs,
		Long: `Run the daemon until it is told to stop: SIGTERM lets attempts under way finish
first. SIGHUP reads the configuration again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ui.loadConfig()
			if err != nil {
				return err
			}
			log := newLogger(ui, c.Log)
			s, err := newSupervisor(log)
			if err != nil {
				return failed(err.Error(), "see Sockets= and NotifyAccess= of the service's unit")
			}
			d, err := daemon.Open(cmd.Context(), c, daemon.Options{Log: log, Version: buildVersion(), Signers: signers(widen()), Sockets: s.sockets})
			if err != nil {
				return failed(err.Error(), "`deliverd doctor` looks for everything that would stop mail")
			}
			log.Info("deliverd is ready", "http", d.HTTPAddr().String(), "version", buildVersion())
			stop := reloadOnHangup(cmd.Context(), ui, d, s, log)
			defer stop()
			defer s.tend(cmd.Context(), d)()
			return d.Run(cmd.Context())
		},
	}
}

// reloadOnHangup reads the configuration again at each SIGHUP. One that is not valid
// changes nothing.
func reloadOnHangup(ctx context.Context, ui *ui, d *daemon.Daemon, s *supervisor, log *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
			}
			s.reloading()
			c, err := ui.loadConfig()
			if err == nil {
				err = d.Reload(c)
			}
			s.ready()
			if err != nil {
				log.Error("the configuration was not reloaded; the old one stays in force", "error", err)
			}
		}
	}()
	return func() {
		signal.Stop(hangups)
		cancel()
		<-done
	}
}

func newLogger(ui *ui, c daemon.LogConfig) *slog.Logger {
	var level slog.Level
	// Validate has seen that it is one of four words.
	_ = level.UnmarshalText([]byte(c.Level))
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(ui.err, o))
	}
	return slog.New(slog.NewTextHandler(ui.err, o))
}

func devCommand(ui *ui) *cobra.Command {
	var data, httpAddr, smtpAddr, natsAddr string
	var noSample bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, with every mail caught; nothing to configure",
		Long: `Run everything in one process: the daemon with its queue embedded, and an SMTP
server that stands for every recipient's and catches all mail. Nothing leaves the
machine, and the API needs no token: it answers on loopback only.

A data directory that nothing was sent from yet begins with a day of made-up mail, so
that every page has something to show; --no-sample begins empty.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := daemon.Defaults()
			c.Data += "-dev"
			if data != "" {
				c.Data = data
			}
			c.Listen.HTTP, c.Listen.NATS = httpAddr, natsAddr
			c.Send.From = "Acme <no-reply@acme.example>"
			c.Send.Hello = "mail.acme.example"
			c.Send.ReturnPathDomain = "bounce.acme.example"
			for flag, addr := range map[string]string{"--http": httpAddr, "--smtp": smtpAddr, "--nats": natsAddr} {
				if !loopback(addr) {
					return usage(fmt.Sprintf("%s %s is not on this machine", flag, addr), "`deliverd dev` has no passwords and listens on 127.0.0.1 only; `deliverd serve` is for others")
				}
			}
			if err := c.Validate(); err != nil {
				return err
			}
			sink, err := smtptest.Listen(smtptest.SinkOptions{Addr: smtpAddr, Name: "catch.acme.example", Rules: smtptest.Newcomers()})
			if err != nil {
				return failed("can't catch mail on "+smtpAddr+": "+err.Error(), "choose another port with --smtp 127.0.0.1:0")
			}
			defer sink.Close()
			log := newLogger(ui, daemon.LogConfig{Level: "info", Format: "text"})
			if c.DKIM, err = devKeys(c.Data); err != nil {
				return err
			}
			d, err := daemon.Open(cmd.Context(), c, daemon.Options{
				Log: log, Version: buildVersion(), Signers: signers(widen()), Catch: sink, Hints: tryThese(httpAddr, natsAddr)})
			if err != nil {
				return failed(err.Error(), "other addresses: --http, --smtp, --nats 127.0.0.1:0; another place for data: --data DIR")
			}
			if !noSample {
				if _, err := d.Sample(cmd.Context()); err != nil {
					log.Warn("the day of made-up mail is not whole; everything else works", "error", err)
				}
			}
			ui.printDevHelp(d, sink, c.Data)
			return d.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&data, "data", "", "`DIR`ectory for the queue; one that it names, if not given")
	f.BoolVar(&noSample, "no-sample", false, "begin without a day of made-up mail")
	f.StringVar(&httpAddr, "http", "127.0.0.1:8025", "`ADDR`ess of API and pages")
	f.StringVar(&smtpAddr, "smtp", "127.0.0.1:1025", "`ADDR`ess of the catching SMTP server")
	f.StringVar(&natsAddr, "nats", "127.0.0.1:4222", "`ADDR`ess of the embedded NATS server")
	return cmd
}

// devKeys makes the keys of the rehearsal's sender at the first start, so that what
// is caught is signed as it would be in earnest.
func devKeys(data string) ([]daemon.DKIMConfig, error) {
	const domain = "acme.example"
	var keys []daemon.DKIMConfig
	for selector, alg := range map[string]deliver.Algorithm{"dev": deliver.RSA2048, "deve": deliver.Ed25519} {
		file := filepath.Join(data, "dkim", selector+"."+domain+".pem")
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			if _, err := newKeyFile(filepath.Dir(file), domain, selector, alg); err != nil {
				return nil, err
			}
		}
		keys = append(keys, daemon.DKIMConfig{Domain: domain, Selector: selector, Key: daemon.Secret("file:" + file)})
	}
	return keys, nil
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// tryThese are the commands that a newcomer tries first, for a daemon at these
// addresses.
func tryThese(httpAddr, natsAddr string) []string {
	self, server, natsServer := os.Args[0], "", ""
	if httpAddr != "127.0.0.1:8025" {
		server = " --server http://" + httpAddr
	}
	if natsAddr != "127.0.0.1:4222" {
		natsServer = " -s " + natsAddr
	}
	return []string{
		self + ` send invite --to kari@nordlys.example --name "Kari Nordmann" --tenant 4711 --data link=https://login.acme.example/i/abc --data inviter=Lars` + server,
		self + " show REF" + server,
		"curl -s http://" + httpAddr + `/v1/messages -H 'Content-Type: application/json' -d '{"kind": "pin", "to": "kari@nordlys.example", "data": {"code": "482913"}}'`,
		"nats" + natsServer + ` req deliverd.v1.send.demo '{"kind": "pin", "to": "kari@nordlys.example", "data": {"code": "482913"}}'`,
	}
}

// printDevHelp says what to try next, with the addresses as they are.
func (u *ui) printDevHelp(d *daemon.Daemon, sink *smtptest.Sink, data string) {
	row := func(name, value string) { fmt.Fprintf(u.out, "  %-16s %s\n", name, value) }
	heading := func(s string) { fmt.Fprintf(u.out, "\n%s\n\n", u.bold(s)) }
	heading("deliverd is running. Every mail is caught; nothing leaves this machine.")
	row("pages, API", fmt.Sprintf("http://%s/", d.HTTPAddr()))
	row("caught mail", fmt.Sprintf("http://%s/caught", d.HTTPAddr()))
	row("SMTP", fmt.Sprintf("%s stands for every recipient's server", sink.Addr()))
	row("NATS", d.NATSAddr().String())
	row("data", data)
	heading("Try, in another terminal:")
	for _, line := range tryThese(d.HTTPAddr().String(), d.NATSAddr().String()) {
		fmt.Fprintf(u.out, "  %s\n\n", line)
	}
	fmt.Fprintf(u.out, "%s\n\n", u.bold("Trouble, by what the address begins with:"))
	for _, r := range smtptest.Newcomers() {
		row(strings.TrimSuffix(r.Pattern, "*@*")+"@…", r.Behaviour.String())
	}
	fmt.Fprintf(u.out, "\n  …or for any other address:\n  curl -s http://%s/dev/catch -H 'Content-Type: application/json' -d '{\"address\": \"liv@nordlys.example\", \"behaviour\": \"greylist 1\"}'\n", d.HTTPAddr())
	fmt.Fprintln(u.out, "\nStop with Ctrl-C. What was queued is there again at the next start.")
}
