package tlsrpt

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/mail"
)

// What is kept of one day, on one node.
const (
	maxDomains  = 10_000
	maxPolicies = 8  // of a domain: hosts with associations of their own, or a policy that changes all day
	maxFailures = 50 // of a policy; more are counted in its sum alone
)

// Tally is what happened under the policies of one domain on one day (UTC).
type Tally struct {
	Day      string        `json:"day"` // "2026-11-21"
	Domain   string        `json:"domain"`
	Policies []PolicyTally `json:"policies"`
}

// PolicyTally is what happened under one policy.
type PolicyTally struct {
	Type      string    `json:"type"`
	Strings   []string  `json:"strings,omitempty"`
	MX        []string  `json:"mx,omitempty"`
	Succeeded int       `json:"succeeded"`
	Failed    int       `json:"failed"`
	Failures  []Failure `json:"failures,omitempty"`
}

// Failure is how often the same thing went wrong with the same server.
type Failure struct {
	What    mail.TLSFailure `json:"what"`
	Host    string          `json:"host,omitempty"`
	Address string          `json:"address,omitempty"`
	Reason  string          `json:"reason,omitempty"` // of the first of them
	Count   int             `json:"count"`
}

// Collector counts sessions. It is safe for concurrent use.
type Collector struct {
	store Store
	node  string
	wants func(ctx context.Context, domain string) (bool, error)
	log   *slog.Logger

	mu      sync.Mutex
	tallies map[dayDomain]*counted
	dropped int // sessions of domains beyond maxDomains
}

type dayDomain struct{ day, domain string }

type counted struct {
	Tally
	unsaved bool
}

// Store keeps small values by name, durably and for all nodes.
type Store = tlspolicy.Store

// NewCollector counts for one process, whose node no other one has, nor an earlier
// life of this one: what that kept is added to, never written over. wants says whether
// a domain asks for reports; what is counted of the others is not kept beyond memory.
func NewCollector(store Store, node string, wants func(ctx context.Context, domain string) (bool, error), log *slog.Logger) *Collector {
	return &Collector{store: store, node: node, wants: wants, log: log, tallies: map[dayDomain]*counted{}}
}

// Add counts a session that ended at now.
func (c *Collector) Add(s tlspolicy.Session, now time.Time) {
	key := dayDomain{now.UTC().Format(time.DateOnly), s.Domain}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tallies[key]
	if t == nil {
		if len(c.tallies) >= maxDomains {
			c.dropped++
			return
		}
		t = &counted{Tally: Tally{Day: key.day, Domain: key.domain}}
		c.tallies[key] = t
	}
	t.unsaved = true
	t.add(PolicyTally{Type: s.Type, Strings: s.Strings, MX: s.MX}, s.Failure, s.Reason, s.Host, s.Address)
	if s.Fetch != "" {
		t.add(PolicyTally{Type: tlspolicy.STSType}, s.Fetch, s.FetchReason, "mta-sts."+s.Domain, netip.Addr{})
	}
}

func (t *Tally) add(of PolicyTally, failure mail.TLSFailure, reason, host string, addr netip.Addr) {
	p := t.policy(of)
	if failure == "" {
		p.Succeeded++
		return
	}
	f := Failure{What: failure, Host: host, Reason: reason, Count: 1}
	if addr.IsValid() {
		f.Address = addr.String()
	}
	p.Failed++
	p.count(f)
}

// policy finds the tally of a policy, or begins one. Beyond the bound, sessions count
// for the last.
func (t *Tally) policy(of PolicyTally) *PolicyTally {
	for i := range t.Policies {
		p := &t.Policies[i]
		if p.Type == of.Type && slices.Equal(p.Strings, of.Strings) && slices.Equal(p.MX, of.MX) {
			return p
		}
	}
	if len(t.Policies) < maxPolicies {
		t.Policies = append(t.Policies, of)
	}
	return &t.Policies[len(t.Policies)-1]
}

func (p *PolicyTally) count(f Failure) {
	for i := range p.Failures {
		g := &p.Failures[i]
		if g.What == f.What && g.Host == f.Host && g.Address == f.Address {
			g.Count += f.Count
			return
		}
	}
	if len(p.Failures) < maxFailures {
		p.Failures = append(p.Failures, f)
	}
}

// copied is a tally that its owner may go on with.
func (t *Tally) copied() Tally {
	out := *t
	out.Policies = slices.Clone(t.Policies)
	for i := range out.Policies {
		out.Policies[i].Failures = slices.Clone(out.Policies[i].Failures)
	}
	return out
}

// Tallies returns what this process has counted and still has in memory, today's and
// yesterday's, by day and domain.
func (c *Collector) Tallies() []Tally {
	c.mu.Lock()
	var all []Tally
	for _, t := range c.tallies {
		all = append(all, t.copied())
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b Tally) int {
		if a.Day != b.Day {
			return strings.Compare(b.Day, a.Day)
		}
		return strings.Compare(a.Domain, b.Domain)
	})
	return all
}

const saveEvery = time.Minute

// Keep saves what was counted until ctx ends, and once more then.
func (c *Collector) Keep(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveEvery)
		c.Save(last, time.Now())
		cancel()
	}
}

// Save writes what was counted for the domains that want reports, and forgets what is
// older than yesterday.
func (c *Collector) Save(ctx context.Context, now time.Time) {
	c.mu.Lock()
	yesterday := now.UTC().AddDate(0, 0, -1).Format(time.DateOnly)
	maps.DeleteFunc(c.tallies, func(k dayDomain, _ *counted) bool { return k.day < yesterday })
	var unsaved []Tally
	for _, t := range c.tallies {
		if t.unsaved {
			t.unsaved = false
			unsaved = append(unsaved, t.copied())
		}
	}
	dropped := c.dropped
	c.dropped = 0
	c.mu.Unlock()
	if dropped > 0 {
		c.log.Warn("more domains than are kept for TLS reports; these sessions are in none", "sessions", dropped)
	}
	for _, t := range unsaved {
		if err := c.save(ctx, &t); err != nil {
			c.log.Debug("a tally for TLS reports is not kept yet", "domain", t.Domain, "error", err)
			c.again(&t)
		}
	}
}

func (c *Collector) save(ctx context.Context, t *Tally) error {
	wanted, err := c.wants(ctx, t.Domain)
	if err != nil || !wanted {
		return err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return c.store.Put(ctx, tallyKey(t.Day, c.node, t.Domain), text)
}

func (c *Collector) again(t *Tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if mine := c.tallies[dayDomain{t.Day, t.Domain}]; mine != nil {
		mine.unsaved = true
	}
}

// tallyKey names a tally in the store; claimKey names who sends the report.
func tallyKey(day, node, domain string) string { return "tally." + day + "." + node + "." + domain }
func claimKey(day, domain string) string       { return "claim." + day + "." + domain }
