package daemon

import (
	"net"
	"net/netip"
	"strings"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/dnscheck"
)

// Sender is our own side as a domain check needs it. Its error is a DKIM key that
// can't be read.
func (c *Config) Sender() (*dnscheck.Sender, error) {
	u := &dnscheck.Sender{Hello: c.Send.Hello, ReturnPath: strings.ToLower(c.Send.ReturnPathDomain)}
	for _, s := range c.Send.Addresses {
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
		Web:        dnscheck.Web{Dial: c.labDial(), Anywhere: c.labbed("443")},
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
