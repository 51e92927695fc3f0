package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Limits of one evaluation (RFC 7208 4.6.4).
const (
	maxSPFLookups = 10 // terms that cause lookups
	maxSPFVoid    = 2  // lookups that find nothing
	maxSPFNames   = 10 // exchangers of an mx, names of a ptr
)

// SPFResult is what check_host returns (RFC 7208 2.6).
type SPFResult string

// The results.
const (
	SPFNone      SPFResult = "none"
	SPFNeutral   SPFResult = "neutral"
	SPFPass      SPFResult = "pass"
	SPFFail      SPFResult = "fail"
	SPFSoftfail  SPFResult = "softfail"
	SPFTemperror SPFResult = "temperror"
	SPFPermerror SPFResult = "permerror"
)

// SPFQuery is what a receiving server would check.
type SPFQuery struct {
	IP       netip.Addr
	Helo     string
	Sender   string // the envelope's; empty for a bounce, which is checked as postmaster@Helo
	Receiver string // for the %{r} of explanations; empty: "unknown"
}

// SPFVerdict is the outcome of an evaluation.
type SPFVerdict struct {
	Result      SPFResult
	Term        string // the directive that matched, in the domain At; empty for the default
	At          string
	Problem     string // why it is temperror or permerror
	Explanation string // of a fail, if the domain publishes one
	Lookups     int    // terms that caused lookups
	Void        int    // lookups that found nothing
}

// lookups are the questions that the checks ask; *Resolver answers them, and so
// does the wrapper that counts and bounds them for one report.
type lookups interface {
	TXT(ctx context.Context, name string) (Records[TXT], error)
	A(ctx context.Context, name string) (Records[netip.Addr], error)
	AAAA(ctx context.Context, name string) (Records[netip.Addr], error)
	MX(ctx context.Context, name string) (Records[MX], error)
	PTR(ctx context.Context, addr netip.Addr) (Records[string], error)
}

// CheckSPF evaluates the SPF policy of a sender as a receiving server would
// (check_host of RFC 7208 4).
func (r *Resolver) CheckSPF(ctx context.Context, q SPFQuery) SPFVerdict {
	return checkSPF(ctx, r, q, r.options.Now())
}

func checkSPF(ctx context.Context, dns lookups, q SPFQuery, now time.Time) SPFVerdict {
	if q.Sender == "" {
		q.Sender = "postmaster@" + q.Helo
	}
	at := strings.LastIndexByte(q.Sender, '@')
	if at <= 0 {
		q.Sender = "postmaster@" + q.Sender[at+1:]
		at = strings.LastIndexByte(q.Sender, '@')
	}
	if q.Receiver == "" {
		q.Receiver = "unknown"
	}
	e := &spfEvaluation{dns: dns, query: q, now: now}
	e.query.IP = q.IP.Unmap().WithZone("")
	result, err := e.checkHost(ctx, q.Sender[at+1:])
	e.verdict.Result = result
	if err != nil {
		e.verdict.Problem = err.Error()
	}
	if result == SPFFail && e.exp != nil {
		e.verdict.Explanation = e.explain(ctx)
	}
	return e.verdict
}

// spfEvaluation is one run of check_host, over all its includes and redirects.
type spfEvaluation struct {
	dns     lookups
	query   SPFQuery
	now     time.Time
	verdict SPFVerdict

	exp       *spfTerm // the explanation of the record that decided
	expDomain string
}

// errSPFTemporary marks what may succeed later.
var errSPFTemporary = errors.New("the DNS did not answer")

// checkHost evaluates the policy of one domain. An error comes with temperror and
// permerror only.
func (e *spfEvaluation) checkHost(ctx context.Context, domain string) (SPFResult, error) {
	domain = strings.TrimSuffix(domain, ".")
	if !spfDomain(domain) {
		return SPFNone, nil
	}
	found, err := e.dns.TXT(ctx, domain)
	if temporary(err) {
		return SPFTemperror, fmt.Errorf("%w for %s", errSPFTemporary, domain)
	}
	var text string
	records := 0
	for _, txt := range found.List {
		if isSPF(txt.String()) {
			text = txt.String()
			records++
		}
	}
	switch {
	case records == 0:
		return SPFNone, nil
	case records > 1:
		return SPFPermerror, fmt.Errorf("%s has %d SPF records", domain, records)
	}
	rec := parseSPF(text)
	if len(rec.faults) > 0 {
		return SPFPermerror, fmt.Errorf("%s: %q: %s", domain, rec.faults[0].term, rec.faults[0].why)
	}
	for i := range rec.terms {
		t := &rec.terms[i]
		match, err := e.matches(ctx, t, domain)
		if err != nil {
			return errorResult(err), err
		}
		if match {
			e.verdict.Term, e.verdict.At = t.text, domain
			e.exp, e.expDomain = rec.exp, domain
			return qualifierResult[t.qualifier], nil
		}
	}
	if rec.redirect == nil {
		e.verdict.Term, e.verdict.At = "", domain
		return SPFNeutral, nil
	}
	return e.redirect(ctx, rec.redirect, domain)
}

var qualifierResult = map[byte]SPFResult{'+': SPFPass, '-': SPFFail, '~': SPFSoftfail, '?': SPFNeutral}

func errorResult(err error) SPFResult {
	if errors.Is(err, errSPFTemporary) {
		return SPFTemperror
	}
	return SPFPermerror
}

// spfDomain reports whether a policy can be looked up for the name (RFC 7208
// 4.3): labels of 1 to 63 bytes, at least two of them.
func spfDomain(domain string) bool {
	_, err := presentation(domain)
	return err == nil && strings.Contains(domain, ".") && domain[0] != '['
}

// temporary reports whether err is a failed lookup rather than proven absence.
func temporary(err error) bool {
	lookup, ok := errors.AsType[*Error](err)
	return ok && !lookup.Permanent()
}

func (e *spfEvaluation) redirect(ctx context.Context, t *spfTerm, domain string) (SPFResult, error) {
	if err := e.count(t, domain); err != nil {
		return SPFPermerror, err
	}
	target := t.spec.expandDomain(e.values(ctx, domain))
	result, err := e.checkHost(ctx, target)
	if result == SPFNone {
		return SPFPermerror, fmt.Errorf("%s: %s leads to no SPF record", domain, t.text)
	}
	return result, err
}

// count notes a term that causes lookups.
func (e *spfEvaluation) count(t *spfTerm, domain string) error {
	if e.verdict.Lookups++; e.verdict.Lookups > maxSPFLookups {
		return fmt.Errorf("more than %d terms with lookups, the first beyond is %s of %s", maxSPFLookups, t.text, domain)
	}
	return nil
}

// void notes a lookup that found nothing.
func (e *spfEvaluation) void(name string) error {
	if e.verdict.Void++; e.verdict.Void > maxSPFVoid {
		return fmt.Errorf("more than %d lookups found nothing, the last one of %s", maxSPFVoid, name)
	}
	return nil
}

func (e *spfEvaluation) values(ctx context.Context, domain string) *spfValues {
	return &spfValues{
		sender: e.query.Sender, helo: e.query.Helo, domain: domain, ip: e.query.IP, receiver: e.query.Receiver, now: e.now,
		validated: func() string { return e.validatedName(ctx, domain) },
	}
}

// matches evaluates one mechanism (RFC 7208 5).
func (e *spfEvaluation) matches(ctx context.Context, t *spfTerm, domain string) (bool, error) {
	switch t.name {
	case "all":
		return true, nil
	case "ip4", "ip6":
		return t.network.Contains(e.query.IP), nil
	}
	if err := e.count(t, domain); err != nil {
		return false, err
	}
	target := domain
	if t.spec != nil {
		target = t.spec.expandDomain(e.values(ctx, domain))
	}
	switch t.name {
	case "include":
		return e.include(ctx, t, target)
	case "a":
		addrs, err := e.addresses(ctx, target)
		return t.covers(addrs, e.query.IP), err
	case "mx":
		return e.mx(ctx, t, target)
	case "exists":
		found, err := e.dns.A(ctx, target)
		if err := e.outcome(target, err); err != nil {
			return false, err
		}
		return len(found.List) > 0, nil
	case "ptr":
		for _, name := range e.validatedNames(ctx) {
			if underOrEqual(name, lowerASCII(target)) {
				return true, nil
			}
		}
	}
	return false, nil
}

// include evaluates another domain's policy, of which only a pass matters (RFC
// 7208 5.2).
func (e *spfEvaluation) include(ctx context.Context, t *spfTerm, target string) (bool, error) {
	result, err := e.checkHost(ctx, target)
	switch result {
	case SPFPass:
		return true, nil
	case SPFNone:
		return false, fmt.Errorf("%s leads to no SPF record", t.text)
	}
	return false, err
}

// outcome turns a lookup's error into the evaluation's: absence counts, failure
// ends it.
func (e *spfEvaluation) outcome(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case temporary(err):
		return fmt.Errorf("%w for %s", errSPFTemporary, name)
	}
	return e.void(name)
}

// addresses looks up a name's addresses of the client's family.
func (e *spfEvaluation) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	look := e.dns.A
	if !e.query.IP.Is4() {
		look = e.dns.AAAA
	}
	found, err := look(ctx, name)
	return found.List, e.outcome(name, err)
}

// mx matches the addresses of a name's exchangers (RFC 7208 5.4).
func (e *spfEvaluation) mx(ctx context.Context, t *spfTerm, target string) (bool, error) {
	found, err := e.dns.MX(ctx, target)
	if err := e.outcome(target, err); err != nil {
		return false, err
	}
	if len(found.List) > maxSPFNames {
		return false, fmt.Errorf("%s: %s has more than %d exchangers", t.text, target, maxSPFNames)
	}
	for _, mx := range found.List {
		if mx.Host == "." {
			continue
		}
		addrs, err := e.addresses(ctx, mx.Host)
		if err != nil {
			return false, err
		}
		if t.covers(addrs, e.query.IP) {
			return true, nil
		}
	}
	return false, nil
}

// covers reports whether any of addrs is in one network with ip.
func (t *spfTerm) covers(addrs []netip.Addr, ip netip.Addr) bool {
	bits := t.bits6
	if ip.Is4() {
		bits = t.bits4
	}
	for _, addr := range addrs {
		if network, err := addr.Prefix(bits); err == nil && network.Contains(ip) {
			return true
		}
	}
	return false
}

// validatedNames are the client's names that lead back to it, of at most ten
// (RFC 7208 5.5). Whatever fails here is no match.
func (e *spfEvaluation) validatedNames(ctx context.Context) []string {
	found, err := e.dns.PTR(ctx, e.query.IP)
	if err != nil {
		return nil
	}
	var names []string
	for _, name := range found.List[:min(len(found.List), maxSPFNames)] {
		look := e.dns.A
		if !e.query.IP.Is4() {
			look = e.dns.AAAA
		}
		back, err := look(ctx, name)
		if err != nil {
			continue
		}
		if slices.Contains(back.List, e.query.IP) {
			names = append(names, name)
		}
	}
	return names
}

// validatedName is the value of %{p}: a validated name, the domain itself or one
// below it before others (RFC 7208 7.3).
func (e *spfEvaluation) validatedName(ctx context.Context, domain string) string {
	names := e.validatedNames(ctx)
	domain = lowerASCII(domain)
	best := "unknown"
	for _, name := range names {
		switch {
		case name == domain:
			return name
		case underOrEqual(name, domain) && !underOrEqual(best, domain), best == "unknown":
			best = name
		}
	}
	return best
}

// underOrEqual reports whether name is domain or below it, on a label boundary.
// Both are in lower case.
func underOrEqual(name, domain string) bool {
	return name == domain || domain != "" && strings.HasSuffix(name, "."+domain)
}

// explain fetches and expands the explanation of a fail; whatever goes wrong
// leaves it empty (RFC 7208 6.2).
func (e *spfEvaluation) explain(ctx context.Context) string {
	values := e.values(ctx, e.expDomain)
	found, err := e.dns.TXT(ctx, e.exp.spec.expandDomain(values))
	if err != nil || len(found.List) != 1 {
		return ""
	}
	text, err := parseMacro(found.List[0].String(), "slodiphvcrt")
	if err != nil {
		return ""
	}
	return text.expand(values)
}
