package dnscheck

import (
	"context"
	"net"
	"sync"
	"time"
)

// ResolverOptions configures a Resolver. The zero value asks the system's
// servers and suits production.
type ResolverOptions struct {
	// Servers are recursive resolvers as "host:port" or a bare address, asked in
	// this order. Empty: those of /etc/resolv.conf, re-read when it changes.
	Servers []string
	// Validating says that the way to Servers is safe and that they validate
	// DNSSEC, so that their AD bit counts. A loopback server's always does.
	Validating bool
	// Private also routes to addresses that are not globally routable.
	Private bool
	// Try is how long a datagram waits for its answer before the next server is
	// asked, or the same one again; 0: 2 s, as recursive resolvers need about that
	// for a domain far away.
	Try time.Duration
	// Total bounds one question over all servers and tries, if the context does
	// not end it earlier; 0: 10 s.
	Total time.Duration
	// Memory bounds the remembered answers, in bytes; 0: 16 MiB, some 20,000
	// ordinary answers.
	Memory int
	// Dial opens the connections to Servers, network "udp" or "tcp"; nil: a
	// net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock of the memory; nil: time.Now.
	Now func() time.Time
}

// Resolver asks recursive resolvers and remembers their answers. It is safe for
// concurrent use, and questions that are alike and asked together are asked once.
type Resolver struct {
	options ResolverOptions
	servers *serverList

	mu      sync.Mutex
	cache   *cache
	flights map[question]*flight
}

// NewResolver checks the options and makes a resolver. It asks nothing yet.
func NewResolver(options ResolverOptions) (*Resolver, error) {
	if options.Try <= 0 {
		options.Try = 2 * time.Second
	}
	if options.Total <= 0 {
		options.Total = 10 * time.Second
	}
	if options.Memory <= 0 {
		options.Memory = 16 << 20
	}
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Dial == nil {
		options.Dial = new(net.Dialer).DialContext
	}
	servers, err := newServerList(&options)
	if err != nil {
		return nil, err
	}
	return &Resolver{
		options: options,
		servers: servers,
		cache:   newCache(options.Memory),
		flights: map[question]*flight{},
	}, nil
}
