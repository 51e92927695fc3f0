package daemon

import (
	"cmp"
	"net"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/queue"
)

// catchHost is where everything goes in `deliverd dev`.
const catchHost = "catch.acme.example"

// destination is where all mail goes when it goes to one place; "" where each domain's
// MX decides, which an attempt finds out.
func (d *Daemon) destination(string) string {
	c := d.config
	if s := d.settings.Load(); s != nil {
		c = s.config
	}
	if d.catch != nil {
		return catchHost
	}
	host, _, _ := net.SplitHostPort(c.Send.Relay) // Validate has parsed it
	return host
}

// relayWindow is how many attempts go to a relay of our own at first: it is there for
// us, and says 421 if it is not.
const relayWindow = 20

// limits bound the attempts at once to a destination: the operator's number, and what
// the provider is known to take where that is less. Our own relay gets all the mail
// there is.
func (d *Daemon) limits(name string) queue.Limits {
	if name == d.destination("") {
		return queue.Limits{Initial: relayWindow, Most: d.config.Send.Concurrency}
	}
	known := deliver.KnownLimits(name)
	most := d.config.Send.PerDestination
	return queue.Limits{Most: min(most, cmp.Or(known.Connections, most)), PerMinute: known.PerMinute}
}
