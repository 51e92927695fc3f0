package deliver

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// Plan is the way to a destination: asked for before dialling, once an attempt. It
// is the seat of everything that decides where a connection may go and how it must
// be protected (MX, relay, MTA-STS, DANE); the conversation only obeys.
type Plan struct {
	// Destination names what mail of several domains has in common, the servers that it
	// goes to, so that limits can be kept for it as a whole. "" is the domain itself.
	Destination string
	Provider    string // a provider's id, "" if not known
	// Hosts in the order in which they are to be tried. At most 5 of them, and 2
	// addresses of each, are tried in one attempt (as Postfix's
	// smtp_mx_session_limit and smtp_mx_address_limit bound it).
	Hosts []Host
	Port  uint16 // 0: 25
	TLS   TLSPolicy
	// Messages is the most that one connection may carry; 0: as many as the pool allows.
	Messages int
	// Login is set for a relay that wants AUTH (RFC 4954). It is used inside TLS only;
	// with TLSEncrypted whoever answers gets to see it.
	Login *Login
	// Relay says that the hosts are a smarthost of ours, not the recipient's own: their
	// name may be ours (no loop), and where they refuse us before MAIL, the message waits
	// until that is mended. What they say of a message is the last word all the same.
	Relay bool
	// Domain is whose policies the hosts' demands come from; "" where nobody was asked.
	Domain string
	// Unfetched is why a policy that the domain announces could not be had, for the
	// report to it; nil if it could, or none is announced.
	Unfetched *tlspolicy.FetchError

	from  *origin
	kind  string // of the message
	floor mail.TLSFloor
}

// Host is one server of a plan.
type Host struct {
	Name string // for certificates and for people; no final dot
	Pref uint16 // the MX preference: hosts of the lowest are the best
	// Addrs in the order in which they are to be tried; none where they can't be had for
	// the moment.
	Addrs []netip.Addr
	// TLS is what the domain's policies ask of a connection to the host, beyond the
	// plan's TLS; nil: nothing.
	TLS *tlspolicy.Demand
	// Barred says why nothing may be sent to the host although it is there: it is not
	// dialled, and has failed.
	Barred *tlspolicy.Problem
}

// Login is what AUTH PLAIN or LOGIN says.
type Login struct{ User, Password string }

// String hides the password from whoever prints a plan.
func (l Login) String() string { return "[login]" }

// GoString does so for %#v.
func (l Login) GoString() string { return "[login]" }

// TLSPolicy is how a connection must be protected.
type TLSPolicy = tlspolicy.Level

// The policies, as package tlspolicy describes them.
const (
	TLSOpportunistic = tlspolicy.Opportunistic
	TLSNone          = tlspolicy.None
	TLSEncrypted     = tlspolicy.Encrypted
	TLSVerified      = tlspolicy.Verified
	TLSImplicit      = tlspolicy.Implicit
)

// Planner finds the way to a domain. Its error is best a *dnscheck.Error, whose
// kind decides what becomes of the message; any other one is a fault of our own,
// and the message waits.
type Planner func(ctx context.Context, domain string) (Plan, error)

// ByMX plans by the domain's MX records, as RFC 5321 5.1 says. route is dnscheck's
// Resolver.Route, which orders hosts and addresses and leaves out the addresses that
// mail must not go to. find is tlspolicy's Finder.Find, which says how each host is to
// be talked to; nil: encrypted where it can be.
func ByMX(route func(ctx context.Context, domain string) (dnscheck.Route, error),
	find func(ctx context.Context, r dnscheck.Route) ([]tlspolicy.Found, *tlspolicy.FetchError)) Planner {
	return func(ctx context.Context, domain string) (Plan, error) {
		r, err := route(ctx, domain)
		if err != nil {
			return Plan{}, err
		}
		p := Plan{Hosts: make([]Host, 0, len(r.Hosts))}
		p.Destination, p.Provider = destinationOf(&r)
		p.Messages = KnownLimits(p.Destination).Messages
		var found []tlspolicy.Found
		if find != nil {
			found, p.Unfetched = find(ctx, r)
			p.Domain = r.Domain
		}
		for i, h := range r.Hosts {
			// A host whose addresses are not to be had today stays in the plan: the others
			// can't refuse for it.
			if len(h.Addrs) == 0 && !temporary(h.Err) {
				continue
			}
			host := Host{Name: h.Name, Pref: h.Pref, Addrs: h.Addrs}
			if find != nil {
				host.TLS, host.Barred = &found[i].Demand, found[i].Barred
			}
			p.Hosts = append(p.Hosts, host)
		}
		return p, p.deaf()
	}
}

// deaf returns the failure of our own resolvers that bars every host of the plan, if
// that is so: it says nothing of the domain, and the message has not been tried.
func (p *Plan) deaf() error {
	var ours error
	for _, h := range p.Hosts {
		if len(h.Addrs) == 0 {
			continue
		}
		if h.Barred == nil {
			return nil
		}
		lookup, ok := errors.AsType[*dnscheck.Error](h.Barred)
		if !ok || lookup.Kind != dnscheck.Local {
			return nil
		}
		ours = lookup
	}
	return ours
}

func temporary(err error) bool {
	lookup, ok := errors.AsType[*dnscheck.Error](err)
	return ok && !lookup.Permanent()
}

// ByRelay sends everything to one relay, whose addresses lookup finds anew for
// every attempt, in random order.
func ByRelay(relay Plan, host string, lookup func(ctx context.Context, host string) ([]netip.Addr, error)) Planner {
	relay.Relay = true
	relay.Destination = host
	return func(ctx context.Context, _ string) (Plan, error) {
		addrs, err := lookup(ctx, host)
		if err == nil && len(addrs) == 0 {
			err = errors.New("its name has no address")
		}
		if err != nil {
			// Our own relay's name: whatever is wrong with it, the message has not been
			// tried.
			return Plan{}, &relayError{host, err}
		}
		addrs = slices.Clone(addrs) // they may be a cache's
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
		p := relay
		p.Hosts = []Host{{Name: host, Addrs: addrs}}
		return p, nil
	}
}

type relayError struct {
	host string
	err  error
}

func (e *relayError) Error() string { return "relay " + e.host + ": " + e.err.Error() }

// Fixed sends the mail of every domain to one address, as a rehearsal or a catching
// server wants it. Each domain stays a destination of its own: the server plays them
// all.
func Fixed(host string, addr netip.AddrPort, policy TLSPolicy) Planner {
	return func(context.Context, string) (Plan, error) {
		return Plan{
			Port: addr.Port(), TLS: policy,
			Hosts: []Host{{Name: host, Addrs: []netip.Addr{addr.Addr()}}},
		}, nil
	}
}

// The bounds of one attempt, FAULTS C09.
const (
	maxHosts        = 5
	maxAddrsPerHost = 2
)

// target is one address of one host: what can be dialled.
type target struct {
	host   string
	pref   uint16
	addr   netip.AddrPort
	other  netip.AddrPort    // the host's address of the other family, if it has one
	tls    *tlspolicy.Demand // nil: opportunistic
	barred *tlspolicy.Problem
}

// is reports whether two targets are one, whoever asked for them.
func (t target) is(other target) bool {
	return t.addr == other.addr && t.host == other.host && t.pref == other.pref
}

// demand is how a connection to the target has to be.
func (t target) demand() tlspolicy.Demand {
	if t.tls == nil {
		return tlspolicy.Demand{Host: t.host, By: mail.TLSOpportunistic}
	}
	return *t.tls
}

// targets lists what an attempt tries, in order. Of a host with both families it
// takes one address of each, so that a broken IPv6 can't use up the tries (FAULTS
// C12, as Postfix's smtp_balance_inet_protocols does).
func (p *Plan) targets() []target {
	port := p.Port
	if port == 0 {
		port = 25
	}
	var out []target
	hosts := 0
	for _, h := range p.Hosts {
		if len(h.Addrs) == 0 {
			continue
		}
		if hosts++; hosts > maxHosts {
			break
		}
		demand, barred := p.demand(&h)
		first := len(out)
		for _, a := range balanced(h.Addrs) {
			out = append(out, target{host: h.Name, pref: h.Pref, addr: netip.AddrPortFrom(a.Unmap(), port), tls: demand, barred: barred})
			if barred != nil {
				break // its other address is as little to be dialled
			}
		}
		paired(out[first:])
	}
	return out
}

// demand is what plan, host and the message's kind come to together.
func (p *Plan) demand(h *Host) (*tlspolicy.Demand, *tlspolicy.Problem) {
	d := tlspolicy.Demand{Host: h.Name, By: mail.TLSOpportunistic, Secure: p.Relay}
	if h.TLS != nil {
		d = *h.TLS
	}
	if p.TLS > d.Level {
		d.Level = p.TLS
		if p.Relay {
			d.By, d.Source = mail.TLSByRelay, "send.relay"
		}
	}
	raised, problem := d.Raise(p.floor, p.kind)
	switch {
	case p.floor == mail.TLSFloorIgnored:
	case h.Barred != nil:
		problem = h.Barred
	}
	return &raised, problem
}

// balanced takes the first maxAddrsPerHost addresses, the last of which is of
// another family than the first, if there is one.
func balanced(addrs []netip.Addr) []netip.Addr {
	if len(addrs) <= maxAddrsPerHost {
		return addrs
	}
	first := addrs[0]
	for _, a := range addrs[1:] {
		if a.Unmap().Is4() != first.Unmap().Is4() {
			return []netip.Addr{first, a}
		}
	}
	return addrs[:maxAddrsPerHost]
}

// best is the preference of the best hosts.
func (p *Plan) best() uint16 {
	best := p.Hosts[0].Pref
	for _, h := range p.Hosts {
		best = min(best, h.Pref)
	}
	return best
}
