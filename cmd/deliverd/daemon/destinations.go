package daemon

import (
	"cmp"
	"net"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/queue"
)

// destination is where all mail goes when it goes to one place; "" where each domain's
// MX decides, which an attempt finds out.
func (d *Daemon) destination(string) string {
	c := d.config
	if s := d.settings.Load(); s != nil {
		c = s.config
	}
	if d.catch != nil {
		return "" // it plays every domain's server
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
	if relay := d.destination(""); relay != "" && name == relay {
		return queue.Limits{Initial: relayWindow, Most: d.config.Send.Concurrency}
	}
	known := deliver.KnownLimits(name)
	most := d.config.Send.PerDestination
	return queue.Limits{Most: min(most, cmp.Or(known.Connections, most)), PerMinute: known.PerMinute}
}
