package deliver

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"time"
)

// Origin is where mail of some kinds is sent from, so that a PIN's reputation with its
// receivers is its own, and not that of a week's invites.
type Origin struct {
	// Hello is the EHLO name; "" is Options.Hello. The addresses' PTR records name it.
	Hello string
	// Sources are the addresses to send from, the first of a family for that family;
	// none: Options.Sources.
	Sources []netip.Addr
}

// origin is an Origin ready for use. Connections are of one origin, and are shared
// within it alone.
type origin struct {
	hello string
	dial  func(ctx context.Context, network, addr string) (net.Conn, error)
}

// origins makes the usual origin and those of kinds. Kinds that share an Origin share
// its connections.
func origins(o *Options) (usual *origin, kinds map[string]*origin) {
	usual = &origin{hello: o.Hello, dial: o.Dial}
	if usual.dial == nil {
		usual.dial = dialFrom(o.Sources)
	}
	made := make(map[*Origin]*origin)
	kinds = make(map[string]*origin)
	for kind, from := range o.Origins {
		if made[from] == nil {
			own := &origin{hello: cmp.Or(from.Hello, o.Hello), dial: usual.dial}
			if o.Dial == nil && len(from.Sources) > 0 {
				own.dial = dialFrom(from.Sources)
			}
			made[from] = own
		}
		kinds[kind] = made[from]
	}
	return usual, kinds
}

// originOf is where a kind's mail is sent from.
func (d *Deliverer) originOf(kind string) *origin {
	if o := d.origins[kind]; o != nil {
		return o
	}
	return d.usual
}

// connect names the family to the dialer: the address is one of a plan's, never a name
// to be looked up.
func (o *origin) connect(ctx context.Context, addr netip.AddrPort, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	network := "tcp6"
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	return o.dial(ctx, network, addr.String())
}
