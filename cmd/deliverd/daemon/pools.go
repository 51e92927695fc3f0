package daemon

import (
	"net/netip"
	"slices"

	"github.com/deliverd/deliverd/deliver"
)

// validatePools complains about what is wrong with send.pool.
func (c *Config) validatePools(complain func(format string, args ...any)) {
	kinds, taken := c.kinds(), map[string]bool{}
	for i, p := range c.Send.Pools {
		if len(p.Kinds) == 0 {
			complain("send.pool[%d].kinds: name the kinds whose mail it sends, for example [\"pin\"]", i)
		}
		if p.Hello == "" && len(p.Addresses) == 0 {
			complain("send.pool[%d]: give it hello, addresses or both; otherwise it changes nothing", i)
		}
		for _, kind := range p.Kinds {
			if _, ok := kinds[kind]; !ok {
				complain("send.pool[%d].kinds: there is no kind %q", i, kind)
			} else if taken[kind] {
				complain("send.pool[%d].kinds: %q has a pool already", i, kind)
			}
			taken[kind] = true
		}
		for _, a := range p.Addresses {
			if _, err := netip.ParseAddr(a); err != nil {
				complain("send.pool[%d].addresses: %q is not an IP address", i, a)
			}
		}
	}
}

// origins are the pools as the deliverer wants them, by kind.
func (c *Config) origins() map[string]*deliver.Origin {
	origins := make(map[string]*deliver.Origin)
	for _, p := range c.Send.Pools {
		from := &deliver.Origin{Hello: p.Hello, Sources: parsedAddrs(p.Addresses)}
		for _, kind := range p.Kinds {
			origins[kind] = from
		}
	}
	return origins
}

// sendAddresses are all that mail may come from, for SPF and for advice.
func (c *Config) sendAddresses() []string {
	all := slices.Clone(c.Send.Addresses)
	for _, p := range c.Send.Pools {
		for _, a := range p.Addresses {
			if !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

// parsedAddrs are addresses that Validate has looked at.
func parsedAddrs(texts []string) (addrs []netip.Addr) {
	for _, s := range texts {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs
}
