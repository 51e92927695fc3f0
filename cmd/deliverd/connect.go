package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/cmd/deliverd/daemon"
)

// client finds the daemon to talk to: --server or DELIVERD_SERVER, else the one
// that the configuration would start on this machine; with DELIVERD_TOKEN, else the
// token that a local daemon leaves in its data directory for the user it runs as.
func (u *ui) client() (*client.Client, error) {
	server, token := u.server, os.Getenv("DELIVERD_TOKEN")
	if server == "" || token == "" {
		c, err := u.loadConfig()
		if err != nil {
			return nil, err
		}
		local := localURL(c.Listen.HTTP)
		if server == "" {
			server = local
		}
		if token == "" && server == local {
			// Without one the daemon says that it wants one, if it does.
			text, _ := os.ReadFile(filepath.Join(c.Data, daemon.LocalTokenFile))
			token = strings.TrimSpace(string(text))
		}
	}
	opts := []client.Option{client.UserAgent("deliverd-cli")}
	if token != "" {
		opts = append(opts, client.Token(token))
	}
	c, err := client.New(server, opts...)
	if err != nil {
		return nil, usage(err.Error(), "set --server to a URL such as http://127.0.0.1:8025, and DELIVERD_TOKEN to a token of it")
	}
	u.server = server
	return c, nil
}

func localURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "http://" + listen
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// connectionError says in our words that nobody answers.
func (u *ui) connectionError(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
		server := u.server
		if parsed, perr := url.Parse(server); perr == nil {
			server = parsed.Redacted()
		}
		return failed(fmt.Sprintf("no deliverd answers at %s", server),
			"start one with `deliverd dev` or `deliverd serve`, or name it with --server")
	}
	return err
}
