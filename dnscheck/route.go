package dnscheck

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// maxHosts is how many hosts of a route have their addresses looked up; big
	// providers publish five to seven. A delivery tries fewer still.
	maxHosts = 10
	// maxAddrs is how many addresses of one family a host keeps.
	maxAddrs = 8
)

// Route is where mail for a domain goes: hosts in the order in which they are to
// be tried (RFC 5321 5.1).
type Route struct {
	Domain   string        // the domain asked for, in lower case
	Hosts    []Host        // by preference, in random order within one
	Implicit bool          // the domain has no MX and is its own host
	AD       bool          // the MX answer, or its absence, was validated; see ResolverOptions.Validating
	Server   string        // the resolver that answered for the MX
	TTL      time.Duration // how long the MX answer holds, within 5 s and a day
	Dropped  int           // hosts beyond the tenth, not looked up
}

// Host is one host of a route.
type Host struct {
	Name string // A-label, lower case, no final dot; the name to hold certificates and TLSA records against
	Pref uint16
	// Addrs are the addresses to try: both families in turn, so that one that is
	// broken costs no more than every second try, IPv6 first, in random order
	// within a family.
	Addrs []netip.Addr
	// Skipped are addresses that mail is not sent to, see Routable.
	Skipped []netip.Addr
	// AD says that the address answers were validated. DANE needs it (RFC 7672 2.2.1).
	// A family that could not be learned takes nothing from the other one, or else
	// whoever can silence it could turn DANE off.
	AD bool
	// Aliases is the chain of CNAMEs from Name to the name that has the addresses,
	// without Name itself.
	Aliases []string
	// Err says why Addrs is empty, or why one family is missing from it: an *Error.
	Err error
}

// Route finds the hosts that take mail for domain, at least one of them with an
// address, or says why there is none. The error is always an *Error: NoDomain,
// NullMX, NoAddress and BadName are final, Temporary and Local are not. A domain
// whose MX could not be learned is Temporary and never gets an implicit MX,
// which would send its mail to its web server. Beside an error, Route tells what
// was found of hosts.
func (r *Resolver) Route(ctx context.Context, domain string) (Route, error) {
	route := Route{Domain: plain(domain)}
	found, err := r.MX(ctx, domain)
	route.AD, route.Server = found.AD, found.Server
	route.TTL = min(max(found.TTL, minTTL), maxTTL)
	if lookup, ok := errors.AsType[*Error](err); ok {
		if lookup.Kind != NoData {
			return route, lookup
		}
		route.Implicit = true
		route.Hosts = []Host{{Name: route.Domain}}
	} else {
		route.Hosts = exchangers(found.List)
	}
	if len(route.Hosts) == 0 {
		return route, &Error{Kind: NullMX, Domain: route.Domain, Type: "MX", Server: route.Server}
	}
	if over := len(route.Hosts) - maxHosts; over > 0 {
		route.Hosts, route.Dropped = route.Hosts[:maxHosts], over
	}
	var wg sync.WaitGroup
	for i := range route.Hosts {
		wg.Go(func() { locate(ctx, r, &route.Hosts[i], r.options.Private) })
	}
	wg.Wait()
	return route, route.usable()
}

// exchangers orders the exchangers: by preference, at random within one, each
// name once. "." beside others is ignored, alone it is a null MX (RFC 7505 3).
func exchangers(list []MX) []Host {
	list = slices.Clone(list)
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(a, b MX) int { return cmp.Compare(a.Pref, b.Pref) })
	var hosts []Host
	seen := map[string]bool{".": true}
	for _, mx := range list {
		if !seen[mx.Host] {
			seen[mx.Host] = true
			hosts = append(hosts, Host{Name: mx.Host, Pref: mx.Pref})
		}
	}
	return hosts
}

// locate fills in a host's addresses, both families at once.
func locate(ctx context.Context, dns lookups, h *Host, private bool) {
	if _, err := netip.ParseAddr(h.Name); err == nil {
		h.Err = &Error{Kind: NoAddress, Domain: h.Name, Type: "A", Err: errors.New("an exchanger has to be a name, not an address (RFC 5321 5.1)")}
		return
	}
	var v4, v6 Records[netip.Addr]
	var err4, err6 error
	var wg sync.WaitGroup
	wg.Go(func() { v6, err6 = dns.AAAA(ctx, h.Name) })
	v4, err4 = dns.A(ctx, h.Name)
	wg.Wait()
	h.AD = (v4.AD || v6.AD) && (v4.AD || temporary(err4)) && (v6.AD || temporary(err6))
	h.Aliases = v4.Aliases
	if len(h.Aliases) == 0 {
		h.Aliases = v6.Aliases
	}
	h.Addrs = interleave(h.permitted(v6.List, private), h.permitted(v4.List, private))
	h.Err = hostError(h, err4, err6)
}

// permitted returns those of addrs that mail may go to, in random order, and
// notes the others.
func (h *Host) permitted(addrs []netip.Addr, private bool) []netip.Addr {
	var keep []netip.Addr
	for _, addr := range addrs {
		switch {
		case private || Routable(addr):
			keep = append(keep, addr)
		case len(h.Skipped) < maxAddrs:
			h.Skipped = append(h.Skipped, addr)
		}
	}
	rand.Shuffle(len(keep), func(i, j int) { keep[i], keep[j] = keep[j], keep[i] })
	return keep[:min(len(keep), maxAddrs)]
}

// interleave takes from a and b in turn, a first.
func interleave(a, b []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out
}

// hostError says what is wrong with a host, given how its two lookups went: a
// family that could not be learned, or no address to use at all.
func hostError(h *Host, errs ...error) error {
	var absent *Error
	for _, err := range errs {
		lookup, ok := errors.AsType[*Error](err)
		switch {
		case !ok:
		case !lookup.Permanent():
			return lookup
		default:
			absent = lookup
		}
	}
	if len(h.Addrs) > 0 {
		return nil
	}
	if len(h.Skipped) > 0 {
		return &Error{Kind: NoAddress, Domain: h.Name, Type: "A", Err: errors.New("only addresses that are not on the public Internet")}
	}
	if absent.Kind == NoData {
		return &Error{Kind: NoAddress, Domain: h.Name, Type: "A", Server: absent.Server, EDE: absent.EDE}
	}
	return absent
}

// usable returns nil if any host has an address, and else the one error that
// decides: as long as any host might have had one, the answer isn't final.
func (route *Route) usable() error {
	var worst *Error
	for _, h := range route.Hosts {
		if len(h.Addrs) > 0 {
			return nil
		}
		lookup, _ := errors.AsType[*Error](h.Err)
		if worst == nil || !lookup.Permanent() && worst.Permanent() {
			worst = lookup
		}
	}
	if !worst.Permanent() {
		return &Error{Kind: worst.Kind, Domain: route.Domain, Type: "MX", Server: worst.Server, EDE: worst.EDE, Err: worst}
	}
	return &Error{Kind: NoAddress, Domain: route.Domain, Type: "MX", Server: route.Server, Err: worst}
}
