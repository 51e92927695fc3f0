package dnscheck

import (
	"context"
	"net/netip"
	"time"
)

// Route is where mail for a domain goes: hosts in the order in which they are to
// be tried (RFC 5321 5.1).
type Route struct {
	Domain   string // the domain asked for, as an A-label in lower case
	Hosts    []Host // by preference, in random order within one; at least one has addresses
	Implicit bool   // the domain has no MX and is its own host
	AD       bool   // the MX answer (or its proven absence) was validated, see Resolver
	Server   string // the resolver that answered for the MX
	TTL      time.Duration
	Dropped  int // hosts beyond the limit, not looked up
}

// Host is one host of a route.
type Host struct {
	Name  string // A-label, lower case, no final dot; the name to ask certificates and TLSA records for
	Pref  uint16
	Addrs []netip.Addr // IPv6 and IPv4 in turn, in random order within a family
	// Skipped are addresses that mail is not sent to (loopback, private and other
	// special networks), unless ResolverOptions.Private allows them.
	Skipped []netip.Addr
	// AD says that both address answers were validated. DANE needs it (RFC 7672
	// 2.2.1).
	AD bool
	// Aliases is the chain of CNAMEs from Name to the name that has the addresses,
	// without Name itself; empty if there is none.
	Aliases []string
	// Err says why Addrs is empty, or why one family is missing: an *Error.
	Err error
}

// Route finds the hosts that take mail for domain. The error is always an
// *Error: NoDomain, NullMX, NoAddress and BadName are final, Temporary and Local
// are not. A domain whose MX could not be learned is Temporary, never an
// implicit MX.
func (r *Resolver) Route(ctx context.Context, domain string) (Route, error) {
	return Route{}, &Error{Kind: Local, Domain: domain, Type: "MX"}
}
