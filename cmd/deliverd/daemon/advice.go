package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// Advice is what a caller is told with its receipt: that a domain looks like a slip,
// takes no mail, or keeps it waiting at the moment. All of it comes from memory or is
// given up after an instant: no request waits for advice.

// tenantDomains remembers, for some minutes, the domains that a tenant's people have.
// The zero value is ready.
type tenantDomains struct {
	mu sync.Mutex
	by map[string]domainsOf
}

type domainsOf struct {
	domains []string
	until   time.Time
}

const (
	tenantDomainsFor = 10 * time.Minute
	// tenantNoneFor is for a tenant without any: its first mails are being handed over.
	tenantNoneFor     = 10 * time.Second
	tenantDomainsMost = 10_000 // tenants
	tenantDomainsTime = 50 * time.Millisecond
)

// tenantDomains is the preparer's source of suggestions.
func (d *Daemon) tenantDomains(tenant string) []string {
	if tenant == "" {
		return nil
	}
	t := &d.tenants
	now := time.Now()
	t.mu.Lock()
	known, ok := t.by[tenant]
	t.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.domains
	}
	ctx, cancel := context.WithTimeout(context.Background(), tenantDomainsTime)
	defer cancel()
	domains, err := d.view.TenantDomains(ctx, tenant)
	if err != nil {
		domains = known.domains // what was known is better than nothing
	}
	keep := tenantDomainsFor
	if len(domains) == 0 {
		keep = tenantNoneFor
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil || len(t.by) >= tenantDomainsMost {
		t.by = map[string]domainsOf{}
	}
	t.by[tenant] = domainsOf{domains, now.Add(keep)}
	return domains
}

// takesNoMail reports whether the DNS says that a domain takes no mail. A lookup that
// is not done in time goes on for the next caller.
func (d *Daemon) takesNoMail(ctx context.Context, domain string) bool {
	if d.catch != nil || d.settings.Load().config.Send.Relay != "" {
		return false // where mail goes otherwise, DNS does not matter
	}
	_, err := d.resolver.Route(ctx, domain)
	e, ok := errors.AsType[*dnscheck.Error](err)
	return ok && (e.Kind == dnscheck.NullMX || e.Kind == dnscheck.NoDomain)
}

// delays knows which domains have kept mail waiting lately, by what this node's
// attempts came to. The zero value is ready.
type delays struct {
	mu sync.Mutex
	by map[string]delay
}

type delay struct {
	row   int // attempts in a row that were delayed
	last  time.Time
	cause mail.Cause
}

const (
	delaysMost = 50_000 // domains
	// delayedRow attempts in a row, the last within delayedFor, make a domain late: one
	// greylisted message is no news.
	delayedRow = 3
	delayedFor = 30 * time.Minute
)

// learn takes in the end of an attempt.
func (d *delays) learn(e *mail.Event) {
	domain := e.To.Domain()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e.State {
	case mail.StateAccepted, mail.StateRefused:
		delete(d.by, domain)
	case mail.StateDelayed:
		if d.by == nil || len(d.by) >= delaysMost {
			d.by = map[string]delay{}
		}
		x := d.by[domain]
		d.by[domain] = delay{x.row + 1, e.At, e.Cause}
	}
}

// about returns a sentence about a domain that is late, "" for any other.
func (d *delays) about(domain string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.by[domain]
	if x.row < delayedRow || time.Since(x.last) > delayedFor {
		return ""
	}
	return fmt.Sprintf("Mail to this domain is delayed at the moment (%s); the last %d attempts had to be put off.", x.cause, x.row)
}
