package tlspolicy

import (
	"context"
	"sync"

	"github.com/deliverd/deliverd/dnscheck"
)

// Finder finds out what the policies of a domain ask for.
type Finder struct {
	// STS is nil where MTA-STS is not looked at.
	STS *STS
	// Associations is dnscheck's Resolver.Associations; nil where DANE is not looked at.
	Associations func(ctx context.Context, h dnscheck.Host, port uint16) (dnscheck.Associations, error)
}

// Found is what was decided about one host.
type Found struct {
	Demand Demand
	Barred *Problem // why nothing may be sent there, nil if it may
}

// smtpPort is where the exchangers of a domain are (RFC 5321 4.5.4.2).
const smtpPort = 25

// Find asks about all hosts of a route side by side, and beside them for the domain's
// own policy, and answers in the order of the hosts. failed says why a policy that the
// domain announces could not be had; the mail does not wait for that.
func (f *Finder) Find(ctx context.Context, route dnscheck.Route) (found []Found, failed *FetchError) {
	facts := make([]Facts, len(route.Hosts))
	var kept *Kept
	var wg sync.WaitGroup
	if f.STS != nil {
		wg.Go(func() { kept, failed = f.STS.Policy(ctx, route.Domain) })
	}
	for i, h := range route.Hosts {
		facts[i] = Facts{Domain: route.Domain, Host: h.Name, Port: smtpPort, MXSecure: route.AD}
		// An answer that nobody validated may name any host, with associations of its own;
		// and zones that are not signed are known to fail the question (FAULTS B13).
		if f.Associations == nil || !route.AD || len(h.Addrs) == 0 {
			continue
		}
		wg.Go(func() { facts[i].Associations, facts[i].TLSAErr = f.Associations(ctx, h, smtpPort) })
	}
	wg.Wait()
	found = make([]Found, len(facts))
	for i := range facts {
		facts[i].Policy = kept
		found[i].Demand, found[i].Barred = Decide(facts[i])
	}
	return found, failed
}
