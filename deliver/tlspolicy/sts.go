package tlspolicy

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

const (
	// fetchTime bounds the whole of a fetch (RFC 8461 3.3 suggests a minute).
	fetchTime = time.Minute
	// fetchPause is how long a failed fetch is not repeated, and the least that a policy
	// is used before its host is asked again (RFC 8461 3.3: 5 minutes or more).
	fetchPause = 5 * time.Minute
	// renewAfter is the age at which a policy in use is fetched anew although its id is
	// the same, if half of its max_age does not come first: so that it never lapses
	// because its record is held back from us (RFC 8461 10.2).
	renewAfter = 24 * time.Hour
	// idleFor is how long a policy that no mail asks for is kept fresh.
	idleFor = 30 * 24 * time.Hour
	// absentFor is how long a domain counts as one of which the store has nothing.
	absentFor = 10 * time.Minute
	// stsMost bounds the domains remembered in memory.
	stsMost = 10_000
)

// Kept is a domain's MTA-STS policy as it was fetched.
type Kept struct {
	dnscheck.STSPolicy
	Domain  string
	ID      string    // of the record that announced it
	Fetched time.Time // and found to be as it is
	Used    time.Time // by mail, to a day or so
}

// Expires is until when the policy counts.
func (k *Kept) Expires() time.Time { return k.Fetched.Add(max(k.MaxAge, fetchPause)) }

// due reports whether it is time to fetch it anew.
func (k *Kept) due(now time.Time) bool {
	return now.Sub(k.Fetched) >= max(min(k.MaxAge/2, renewAfter), fetchPause)
}

func (k *Kept) source() string {
	return "policy of " + k.Domain + ", mode " + k.Mode + ", id " + k.ID + ", fetched " + k.Fetched.UTC().Format("2006-01-02 15:04Z")
}

// report is the policy as reports quote it (RFC 8460 4.2).
func (k *Kept) report() *Policy {
	mx := k.MX[:min(len(k.MX), maxStrings-3)]
	p := &Policy{Type: STSType, Domain: k.Domain, MX: mx, Strings: []string{"version: STSv1", "mode: " + k.Mode}}
	for _, pattern := range mx {
		p.Strings = append(p.Strings, "mx: "+pattern)
	}
	p.Strings = append(p.Strings, "max_age: "+strconv.Itoa(int(k.MaxAge/time.Second)))
	return p
}

// Announced is how the DNS and the policy host are asked.
type Announced interface {
	STSRecord(ctx context.Context, domain string) (id string, err error)
	FetchSTS(ctx context.Context, domain string, web dnscheck.Web) (dnscheck.STSPolicy, error)
}

// STS knows the MTA-STS policies of domains. It is safe for concurrent use.
type STS struct {
	dns   Announced
	web   dnscheck.Web
	store Store
	log   *slog.Logger

	mu      sync.Mutex
	known   map[string]*stsEntry
	closing context.Context
	close   context.CancelFunc
	running sync.WaitGroup
}

// stsEntry is what is remembered of one domain. The mutex of STS guards it.
type stsEntry struct {
	policy *Kept     // nil: none is known, and the store was asked at looked
	looked time.Time // when the store was last asked
	failed *FetchError
	tried  time.Time // when failed was found
	flight chan struct{}
}

// FetchError is why an announced policy could not be had.
type FetchError struct {
	Failure mail.TLSFailure // a result type of RFC 8460 4.3.2.2
	Err     error           // an *dnscheck.STSError
}

func (e *FetchError) Error() string { return e.Err.Error() }
func (e *FetchError) Unwrap() error { return e.Err }

// The ways in which a policy can't be had.
const (
	FetchFailed  mail.TLSFailure = "sts-policy-fetch-error"
	FetchInvalid mail.TLSFailure = "sts-policy-invalid"
	FetchWebPKI  mail.TLSFailure = "sts-webpki-invalid"
)

// NewSTS makes the memory of policies over a store, nil for one that ends with the
// process. Close ends it.
func NewSTS(dns Announced, web dnscheck.Web, store Store, log *slog.Logger) *STS {
	s := &STS{dns: dns, web: web, store: store, log: log, known: map[string]*stsEntry{}}
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

// Close ends the fetches that are under way and waits for them.
func (s *STS) Close() {
	s.close()
	s.running.Wait()
}

// Policy returns the policy that counts for a domain now, nil if there is none, and,
// beside either, why the one that the domain announces could not be had. It waits for
// a policy that is not known yet, at most a minute.
//
// The record that announces a policy only says whether to look: neither its absence
// nor silence takes anything from a policy that has not lapsed (RFC 8461 5.1).
func (s *STS) Policy(ctx context.Context, domain string) (*Kept, *FetchError) {
	id, err := s.dns.STSRecord(ctx, domain)
	kept := s.inForce(ctx, domain)
	switch {
	case err != nil || id == "":
		return kept, nil
	case kept != nil && kept.ID == id:
		if kept.due(time.Now()) {
			s.fetch(domain, id) // goes on behind
		}
		return kept, nil
	}
	select {
	case <-s.fetch(domain, id):
	case <-ctx.Done():
	}
	s.mu.Lock()
	e := s.entry(domain)
	failed := e.failed
	s.mu.Unlock()
	return s.inForce(ctx, domain), failed
}

// inForce returns the policy that is remembered, here or in the store, and has not
// lapsed.
func (s *STS) inForce(ctx context.Context, domain string) *Kept {
	now := time.Now()
	s.mu.Lock()
	e := s.entry(domain)
	kept, looked := e.policy, e.looked
	s.mu.Unlock()
	if kept == nil && s.store != nil && now.Sub(looked) >= absentFor {
		var found bool
		if kept, found = s.load(ctx, domain); found {
			s.mu.Lock()
			e = s.entry(domain)
			if e.looked = now; e.policy == nil {
				e.policy = kept
			}
			kept = e.policy
			s.mu.Unlock()
		}
	}
	if kept == nil || !now.Before(kept.Expires()) {
		return nil
	}
	return s.use(ctx, kept, now)
}

// use marks a policy as used now and then, so that it is kept fresh.
func (s *STS) use(ctx context.Context, kept *Kept, now time.Time) *Kept {
	if now.Sub(kept.Used) < 24*time.Hour {
		return kept
	}
	marked := *kept
	if s.store != nil {
		// Another node may have a newer one: then that is the one.
		if stored, _ := s.load(ctx, kept.Domain); stored != nil && stored.Fetched.After(kept.Fetched) {
			marked = *stored
		}
	}
	marked.Used = now
	s.mu.Lock()
	e := s.entry(kept.Domain)
	mine := e.policy == kept // once, whoever comes at the same time
	if mine {
		e.policy = &marked
	}
	s.mu.Unlock()
	if mine {
		s.save(s.closing, &marked)
	}
	return &marked
}

// entry returns what is remembered of a domain, and makes room for it. The mutex is
// held.
func (s *STS) entry(domain string) *stsEntry {
	e := s.known[domain]
	if e != nil {
		return e
	}
	if len(s.known) >= stsMost {
		for d, old := range s.known {
			if old.flight == nil {
				delete(s.known, d)
			}
			if len(s.known) < stsMost*3/4 {
				break
			}
		}
	}
	e = &stsEntry{}
	s.known[domain] = e
	return e
}

// fetch gets the policy of an id, once for all who want it, and says when that has
// ended. Where it failed a moment ago it has ended already.
func (s *STS) fetch(domain, id string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(domain)
	if e.flight != nil {
		return e.flight
	}
	done := make(chan struct{})
	if e.failed != nil && time.Since(e.tried) < fetchPause || s.closing.Err() != nil {
		close(done)
		return done
	}
	e.flight = done
	s.running.Go(func() {
		kept, failed := s.get(domain, id)
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.flight, e.failed, e.tried = nil, failed, time.Now(); kept != nil {
			e.policy = kept
		}
		close(done)
	})
	return done
}

// get asks the store for the policy of an id, where another node may have put it, and
// then its host.
func (s *STS) get(domain, id string) (*Kept, *FetchError) {
	ctx, cancel := context.WithTimeout(s.closing, fetchTime)
	defer cancel()
	if s.store != nil {
		if kept, _ := s.load(ctx, domain); kept != nil && kept.ID == id && !kept.due(time.Now()) {
			return kept, nil
		}
	}
	policy, err := s.dns.FetchSTS(ctx, domain, s.web)
	if err != nil {
		if s.closing.Err() == nil {
			s.log.Warn("the MTA-STS policy that a domain announces can't be had; what is known of an older one counts until it lapses",
				"domain", domain, "id", id, "error", err)
		}
		return nil, &FetchError{fetchFailure(err), err}
	}
	now := time.Now()
	kept := &Kept{STSPolicy: policy, Domain: domain, ID: id, Fetched: now, Used: now}
	s.save(s.closing, kept)
	return kept, nil
}

func fetchFailure(err error) mail.TLSFailure {
	if failed, ok := errors.AsType[*dnscheck.STSError](err); ok {
		switch failed.Step {
		case "certificate":
			return FetchWebPKI
		case "syntax", "size", "type":
			return FetchInvalid
		}
	}
	return FetchFailed
}

// load reads a policy out of the store; found says that the store has answered.
func (s *STS) load(ctx context.Context, domain string) (kept *Kept, found bool) {
	text, err := s.store.Get(ctx, domain)
	if err != nil {
		return nil, ctx.Err() == nil
	}
	kept = &Kept{}
	if json.Unmarshal(text, kept) != nil || kept.Domain != domain {
		return nil, true
	}
	return kept, true
}

func (s *STS) save(ctx context.Context, kept *Kept) {
	if s.store == nil {
		return
	}
	text, err := json.Marshal(kept)
	if err == nil {
		err = s.store.Put(ctx, kept.Domain, text)
	}
	if err != nil && ctx.Err() == nil {
		s.log.Warn("an MTA-STS policy could not be kept; a restart forgets it", "domain", kept.Domain, "error", err)
	}
}

// Tend fetches the policies anew that are in use and due, whether or not there is
// mail at the moment, and drops those that have lapsed. It returns when that is done.
func (s *STS) Tend(ctx context.Context) error {
	kept, err := s.Policies(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	for _, k := range kept {
		switch {
		case !now.Before(k.Expires()):
			s.mu.Lock()
			if e := s.known[k.Domain]; e != nil && e.flight == nil {
				delete(s.known, k.Domain)
			}
			s.mu.Unlock()
			if err := s.store.Delete(ctx, k.Domain); err != nil {
				return err
			}
		case k.due(now) && now.Sub(k.Used) < idleFor:
			id, err := s.dns.STSRecord(ctx, k.Domain)
			if err != nil || id == "" {
				continue
			}
			select {
			case <-s.fetch(k.Domain, id):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// Policies returns what the store has, by domain.
func (s *STS) Policies(ctx context.Context) ([]*Kept, error) {
	if s.store == nil {
		return nil, nil
	}
	all, err := s.store.All(ctx)
	if err != nil {
		return nil, err
	}
	var kept []*Kept
	for domain, text := range all {
		k := &Kept{}
		if json.Unmarshal(text, k) == nil && k.Domain == domain {
			kept = append(kept, k)
		}
	}
	slices.SortFunc(kept, func(a, b *Kept) int { return strings.Compare(a.Domain, b.Domain) })
	return kept, nil
}
