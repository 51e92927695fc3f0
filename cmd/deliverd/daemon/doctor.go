package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
)

// Finding is what the doctor says of one thing.
type Finding struct {
	Check string `json:"check"`
	State string `json:"state"` // ok, warn, fail
	Text  string `json:"text"`
	Cure  string `json:"cure,omitempty"`
}

// The states of a finding.
const (
	FindingOK   = "ok"
	FindingWarn = "warn"
	FindingFail = "fail"
)

// Examine looks for what would keep a daemon with this configuration from
// delivering mail. It changes nothing, and works whether or not the daemon runs.
func Examine(ctx context.Context, c *Config) []Finding {
	x := examination{config: c}
	x.running = x.daemonRuns(ctx)
	x.clock()
	x.data()
	x.ports(ctx)
	x.queue(ctx)
	x.keys(ctx)
	x.sender(ctx)
	x.dns(ctx)
	return x.findings
}

// examination collects findings.
type examination struct {
	config   *Config
	running  bool
	findings []Finding
}

func (x *examination) say(check, state, text, cure string) {
	x.findings = append(x.findings, Finding{check, state, text, cure})
}

// daemonRuns asks the configured address whether a deliverd answers there.
func (x *examination) daemonRuns(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+dialable(x.config.Listen.HTTP)+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		x.say("daemon", FindingWarn, "no daemon answers at "+x.config.Listen.HTTP, "start it with `deliverd serve`, or look at its log")
		return false
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		x.say("daemon", FindingOK, "a daemon answers at "+x.config.Listen.HTTP+" and is ready", "")
	case http.StatusServiceUnavailable:
		x.say("daemon", FindingFail, "the daemon at "+x.config.Listen.HTTP+" says that it is not ready", "ask it why: `curl http://"+dialable(x.config.Listen.HTTP)+"/readyz`")
	default:
		x.say("daemon", FindingFail, "something else than deliverd answers at "+x.config.Listen.HTTP, "stop it, or change listen.http")
		return false
	}
	return true
}

// dialable turns a listening address into one to connect to.
func dialable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func (x *examination) data() {
	dir := x.config.Data
	if err := os.MkdirAll(dir, 0o700); err != nil {
		x.say("disk", FindingFail, fmt.Sprintf("can't make %s: %v", dir, err), "set `data` to a directory that this user may write")
		return
	}
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		x.say("disk", FindingFail, fmt.Sprintf("can't write in %s: %v", dir, err), "give the directory to the user that deliverd runs as")
		return
	}
	f.Close()
	os.Remove(f.Name())
	free, _, err := diskSpace(dir)
	switch {
	case err != nil:
		x.say("disk", FindingWarn, "can't tell how much space is free: "+err.Error(), "")
	case free < 1<<30:
		x.say("disk", FindingFail, fmt.Sprintf("%d MiB free in %s: intake stops when the disk is full", free>>20, dir), "free some space or move `data`")
	case free < 5<<30:
		x.say("disk", FindingWarn, fmt.Sprintf("%d MiB free in %s; 1,000,000 waiting messages take some 2 GiB", free>>20, dir), "")
	default:
		x.say("disk", FindingOK, fmt.Sprintf("%d GiB free in %s", free>>30, dir), "")
	}
}

func (x *examination) ports(ctx context.Context) {
	if x.running {
		return // they are its
	}
	for _, l := range []struct{ key, addr string }{
		{"listen.http", x.config.Listen.HTTP}, {"listen.metrics", x.config.Listen.Metrics},
		{"listen.bounces", x.config.Listen.Bounces}, {"listen.nats", x.config.Listen.NATS},
	} {
		if l.addr == "" {
			continue
		}
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", l.addr)
		if err != nil {
			x.say("ports", FindingFail, fmt.Sprintf("can't listen on %s (%s): %v", l.addr, l.key, err), "stop what uses it, or change "+l.key)
			continue
		}
		ln.Close()
		x.say("ports", FindingOK, l.addr+" is free for "+l.key, "")
	}
}

func (x *examination) queue(ctx context.Context) {
	if x.config.NATS.URL == "" {
		x.say("nats", FindingOK, "embedded, in "+filepath.Join(x.config.Data, "nats"), "")
		return
	}
	nc, err := connect(nil, x.config.NATS.URL, x.config.NATS.Credentials, discard)
	if err != nil {
		x.say("nats", FindingFail, err.Error(), "")
		return
	}
	defer nc.Close()
	x.say("nats", FindingOK, "connected to "+nc.ConnectedUrlRedacted()+", server "+nc.ConnectedServerVersion(), "")
}

// keys reads every key as the daemon would.
func (x *examination) keys(context.Context) {
	keys, err := x.config.Keyring()
	switch {
	case err != nil:
		x.say("dkim", FindingFail, err.Error(), "")
	case len(keys) == 0 && len(x.config.DKIM) > 0:
		x.say("dkim", FindingFail, "no DKIM key may sign at present, so mail is held", "`deliverd dkim rotate --status` says which records have to be published")
	case len(keys) == 0:
		x.say("dkim", FindingWarn, "no DKIM key: mail leaves unsigned, and much of it will be taken for spam", "`deliverd dkim new DOMAIN` makes keys and prints what to publish")
	default:
		x.say("dkim", FindingOK, fmt.Sprintf("%d keys can be read; `deliverd dkim verify` compares them with DNS", len(keys)), "")
	}
	for _, k := range []struct {
		name string
		ref  Secret
	}{{"keys.seal", x.config.Keys.Seal}, {"keys.root", x.config.Keys.Root}} {
		if k.ref == "" {
			continue
		}
		if _, err := k.ref.Read(); err != nil {
			x.say("keys", FindingFail, k.name+": "+err.Error(), "restore it from the backup; without it, waiting mail can't be opened")
		}
	}
}

func (x *examination) sender(ctx context.Context) {
	s := x.config.Send
	if s.From == "" {
		x.say("send", FindingWarn, "send.from is empty: every request has to name its sender", "set send.from, for example \"Acme <no-reply@example.com>\"")
	}
	if s.Hello == "" {
		x.say("send", FindingWarn, "send.hello is empty: we greet as "+hostname()+", which many servers refuse", "set send.hello to a name whose address is ours and whose address' PTR is that name")
	}
	if s.ReturnPathDomain == "" {
		x.say("send", FindingWarn, "send.return_path_domain is empty: bounces go to the From address, where nobody counts them", "set it to a subdomain of its own, for example bounce.example.com, with an SPF record")
	}
	if s.Relay == "" && len(x.config.Lab.Dial) == 0 {
		x.port25(ctx)
	}
}

// port25 tries to reach a well-known mail server. Providers of virtual machines
// often close the port until asked.
func (x *examination) port25(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "gmail-smtp-in.l.google.com:25")
	if err != nil {
		x.say("port 25", FindingWarn, "can't connect to gmail-smtp-in.l.google.com on port 25: "+err.Error(),
			"if other hosts can't be reached either, ask your provider to open outgoing port 25, or set send.relay")
		return
	}
	conn.Close()
	x.say("port 25", FindingOK, "outgoing connections to port 25 work", "")
}

func (x *examination) dns(ctx context.Context) {
	r, err := x.config.Resolver()
	if err != nil {
		x.say("dns", FindingFail, err.Error(), "set dns.servers to a resolver that answers")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	domain := x.config.Send.ReturnPathDomain
	if domain == "" {
		domain = "example.com"
	}
	_, err = r.Route(ctx, domain)
	if e, ok := errors.AsType[*dnscheck.Error](err); ok && (e.Kind == dnscheck.Local || e.Kind == dnscheck.Temporary) {
		x.say("dns", FindingFail, "asked for the MX of "+domain+": "+strings.TrimSpace(err.Error()), "check dns.servers and the way to them: without DNS no mail leaves")
		return
	}
	x.say("dns", FindingOK, "the resolver answers", "")
	if x.config.TLS.DANE && x.config.Send.Relay == "" {
		x.dnssec(ctx, r)
	}
}

// dnssec tells whether DANE has anything to stand on.
func (x *examination) dnssec(ctx context.Context, r *dnscheck.Resolver) {
	switch validates, err := r.Validates(ctx); {
	case err != nil:
		x.say("dnssec", FindingWarn, "can't tell whether the resolver validates DNSSEC: "+strings.TrimSpace(err.Error()), "")
	case !validates:
		x.say("dnssec", FindingWarn, notValidating, notValidatingCure)
	default:
		x.say("dnssec", FindingOK, "the resolver validates DNSSEC: DANE counts", "")
	}
}
