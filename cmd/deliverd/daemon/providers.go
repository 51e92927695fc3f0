package daemon

import "sync"

// providerMemory remembers which provider takes a domain's mail, as attempts have
// shown. It is what `queue pause provider:…` goes by, and says nothing of a domain
// that was not tried since the start. The zero value is ready.
type providerMemory struct {
	mu sync.RWMutex
	by map[string]string
}

// providersMost bounds the memory; past it, it begins anew.
const providersMost = 200_000

func (p *providerMemory) learn(domain, provider string) {
	if p.of(domain) == provider {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.by == nil || len(p.by) >= providersMost {
		p.by = map[string]string{}
	}
	p.by[domain] = provider
}

func (p *providerMemory) of(domain string) string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.by[domain]
}
