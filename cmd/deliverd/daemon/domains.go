package daemon

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/dnscheck"
)

// Sender is our own side as a domain check needs it. Its error is a DKIM key that
// can't be read.
func (c *Config) Sender() (*dnscheck.Sender, error) {
	u := &dnscheck.Sender{Hello: c.Send.Hello, ReturnPath: strings.ToLower(c.Send.ReturnPathDomain)}
	for _, s := range c.sendAddresses() {
		u.Addresses = append(u.Addresses, netip.MustParseAddr(s)) // Validate has parsed it
	}
	if from := addrSpec(c.Send.From); from != "" {
		u.From = from.Domain()
		if u.ReturnPath == "" {
			u.ReturnPath = u.From // see Daemon.returnPath
		}
	}
	keys, err := c.Keyring()
	for _, k := range keys {
		u.Keys = append(u.Keys, dnscheck.SigningKey{Domain: k.Domain, Selector: k.Selector, Public: k.Public()})
	}
	return u, err
}

// Check is what every domain check of this installation has in common.
func (c *Config) Check() (dnscheck.Options, error) {
	sender, err := c.Sender()
	if err != nil {
		return dnscheck.Options{}, err
	}
	return dnscheck.Options{
		Sender:     sender,
		Blocklists: c.DNS.Blocklists,
		Web:        c.web(),
	}, nil
}

// Caller talks to exchangers as a delivery would, for the firewall test.
func (c *Config) Caller() *deliver.Caller {
	from := "postmaster@" + c.Send.ReturnPathDomain
	if c.Send.ReturnPathDomain == "" {
		from = string(addrSpec(c.Send.From))
	}
	return &deliver.Caller{Hello: c.hello(), From: from, Dial: c.labDial(), Sources: c.sources()}
}

// labbed reports whether connections to a port stay on this machine.
func (c *Config) labbed(port string) bool {
	_, ok := c.Lab.Dial[net.JoinHostPort("", port)]
	return ok
}

// domainReports answers about domains, over the API, on pages and on shared ones.
func (d *Daemon) domainReports(ctx context.Context) (*console.Domains, error) {
	root, err := d.config.rootKey()
	if err != nil {
		return nil, err
	}
	key, err := derive(root, "share link")
	if err != nil {
		return nil, err
	}
	runs, err := d.queue.Shared(ctx, "domains")
	if err != nil {
		return nil, err
	}
	return &console.Domains{
		Check: d.checkDomain, Options: (&checkOptions{d: d}).get, Evidence: d.view.DomainHistory, Store: tokenStore{runs}, Key: key,
		BaseURL: d.baseURL(), Note: d.serviceLog.Append, Log: d.log,
	}, nil
}

// checkDomain makes a report, with a resolver that remembers nothing where that is
// wanted: whoever has just mended a record wants to see it.
func (d *Daemon) checkDomain(ctx context.Context, domain string, o dnscheck.Options, fresh bool) dnscheck.Report {
	r := d.resolver
	if fresh {
		forgetful, err := d.config.Resolver()
		if err != nil {
			d.log.WarnContext(ctx, "a domain is checked with what is remembered of it", "domain", domain, "error", err)
		} else {
			r = forgetful
		}
	}
	return r.Check(ctx, domain, o)
}

// checkOptions are those of the configuration that is in force; its keys are read
// once.
type checkOptions struct {
	d *Daemon

	mu      sync.Mutex
	of      *Config
	options dnscheck.Options
}

func (c *checkOptions) get() dnscheck.Options {
	config := c.d.settings.Load().config
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == config {
		return c.options
	}
	options, err := config.Check()
	if err != nil {
		// A reload with a key that can't be read is refused; this one went since.
		c.d.log.Error("domain checks go on with the keys from before", "error", err)
		return c.options
	}
	c.of, c.options = config, options
	return options
}
