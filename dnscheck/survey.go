package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// maxQuestions bounds one check whatever the zone says. An ordinary domain
	// needs 15.
	maxQuestions = 150
	// maxFindings, of one code and of all, and maxEvidence bound the report.
	maxPerCode  = 10
	maxFindings = 100
	maxEvidence = 400
	maxSubject  = 260
	maxText     = 1000
	maxFix      = 2500
)

// errBudget ends the lookups of a check that has asked enough.
var errBudget = errors.New("not asked: too many questions for one check")

// survey is one check under way: its questions, counted and bounded, and what it
// has found. Safe for concurrent use, because the subjects are looked at side by
// side.
type survey struct {
	resolver *Resolver
	domain   string
	options  *Options
	ours     bool // the domain is one of ours, so that its findings are about our mail
	shared   bool // our mail uses the domain in its addresses

	mu       sync.Mutex
	asked    map[question]bool
	failures []*Error        // questions that were not answered, one each
	told     map[string]bool // findings made, by code and subject
	made     map[string]int  // how many, by code
	findings []Finding
	facts    map[string]any
}

func newSurvey(r *Resolver, domain string, o *Options) *survey {
	u := o.Sender
	shared := u != nil && domain != "" && (underOrEqual(lowerASCII(u.From), domain) || underOrEqual(lowerASCII(u.ReturnPath), domain))
	return &survey{resolver: r, domain: domain, options: o, shared: shared, asked: map[question]bool{}, told: map[string]bool{}, made: map[string]int{}, facts: map[string]any{}}
}

// add reports a finding, in the state that the catalogue gives its code. The
// same about the same subject is reported once.
func (s *survey) add(name, subject, text string, more ...detail) {
	c := codes[name]
	f := Finding{Code: name, State: c.state, Subject: subject, Text: text, RFC: c.rfc, Concerns: c.concerns, WhoActs: TheirIT}
	for _, d := range more {
		d(&f)
	}
	if s.ours {
		f.Concerns = OurMail
	}
	if f.Concerns == OurMail {
		f.WhoActs = Us
	}
	if f.State == StateInfo || f.State == StateOK || f.State == StateUnknown {
		f.WhoActs = Nobody
	}
	f.Matters = (f.Concerns != TheirMail || s.shared) && f.State != StateInfo && f.State != StateOK
	// Much of it was written by a zone's owner.
	f.Subject, f.Text, f.Fix = printable(f.Subject, maxSubject), printable(f.Text, maxText), printable(f.Fix, maxFix)
	s.mu.Lock()
	defer s.mu.Unlock()
	key := f.Code + "\x00" + f.Subject
	if s.told[key] || s.made[f.Code] == maxPerCode || len(s.findings) == maxFindings {
		return
	}
	s.told[key] = true
	s.made[f.Code]++
	s.findings = append(s.findings, f)
}

// has reports whether a finding with the code was made.
func (s *survey) has(code string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.findings, func(f Finding) bool { return f.Code == code })
}

func (s *survey) fact(name string, value any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.facts[name] = value
}

// detail adds to a finding what not every one has.
type detail func(*Finding)

// as gives another state than the catalogue's.
func as(state State) detail { return func(f *Finding) { f.State = state } }

// fix gives the record to publish, or the step to take.
func fix(format string, args ...any) detail {
	return func(f *Finding) { f.Fix = fmt.Sprintf(format, args...) }
}

// shown adds evidence; it is a zone owner's text, so it is made harmless.
func shown(evidence ...string) detail {
	return func(f *Finding) {
		for _, e := range evidence {
			if len(f.Evidence) < 20 {
				f.Evidence = append(f.Evidence, printable(e, maxEvidence))
			}
		}
	}
}

// record adds a record as evidence: its name, type and text, and where the
// answer came from.
func record(a Answer, kind, data string) detail {
	line := fmt.Sprintf("%s %s %s", a.Owner, kind, data)
	source := fmt.Sprintf(" (TTL %d s, from %s", int(a.TTL/time.Second), a.Server)
	if a.AD {
		source += ", validated"
	}
	return shown(printable(line, maxEvidence-len(source)-1) + source + ")")
}

// about says that a finding is about other mail than the catalogue says.
func about(c Concern) detail { return func(f *Finding) { f.Concerns = c } }

// questions is how many different ones were asked.
func (s *survey) questions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// survey answers the same lookups as the resolver.
var _ lookups = (*survey)(nil)

// counted asks one question within the check's budget, and notes how the servers
// did.
func counted[T any](s *survey, name string, kind uint16, look func() (Records[T], error)) (Records[T], error) {
	q, err := s.spend(name, kind)
	if err != nil {
		return Records[T]{}, err
	}
	found, err := look()
	s.observe(q, found.Answer, err)
	return found, err
}

// spend takes a question from the check's budget; asking it again is free.
func (s *survey) spend(name string, kind uint16) (question, error) {
	q := question{name: lowerASCII(strings.TrimSuffix(name, ".")), kind: kind}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked[q] && len(s.asked) >= maxQuestions {
		return q, &Error{Kind: Temporary, Domain: q.name, Type: dns.TypeToString[kind], Err: errBudget}
	}
	s.asked[q] = true
	return q, nil
}

// observe reports what an answer says about the servers themselves.
func (s *survey) observe(q question, a Answer, err error) {
	if a.NoEDNS {
		s.add("dns.edns_broken", a.Server, "The server answers only questions without EDNS.", shown("answered by "+a.Server))
	}
	if a.TCP {
		s.add("dns.tcp_fallback", q.name, fmt.Sprintf("The %s records of %s are too many for a datagram and needed TCP.", dns.TypeToString[q.kind], q.name))
	}
	lookup, ok := errors.AsType[*Error](err)
	if !ok || lookup.Permanent() || errors.Is(err, context.Canceled) || errors.Is(err, errBudget) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, lookup)
}

func (s *survey) TXT(ctx context.Context, name string) (Records[TXT], error) {
	return counted(s, name, dns.TypeTXT, func() (Records[TXT], error) { return s.resolver.TXT(ctx, name) })
}

func (s *survey) TypeSPF(ctx context.Context, name string) (Records[TXT], error) {
	return counted(s, name, dns.TypeSPF, func() (Records[TXT], error) { return s.resolver.TypeSPF(ctx, name) })
}

func (s *survey) A(ctx context.Context, name string) (Records[netip.Addr], error) {
	return counted(s, name, dns.TypeA, func() (Records[netip.Addr], error) { return s.resolver.A(ctx, name) })
}

func (s *survey) AAAA(ctx context.Context, name string) (Records[netip.Addr], error) {
	return counted(s, name, dns.TypeAAAA, func() (Records[netip.Addr], error) { return s.resolver.AAAA(ctx, name) })
}

func (s *survey) MX(ctx context.Context, name string) (Records[MX], error) {
	return counted(s, name, dns.TypeMX, func() (Records[MX], error) { return s.resolver.MX(ctx, name) })
}

func (s *survey) PTR(ctx context.Context, addr netip.Addr) (Records[string], error) {
	return counted(s, addr.String(), dns.TypePTR, func() (Records[string], error) { return s.resolver.PTR(ctx, addr) })
}

// CNAME looks up an alias as a mere hint: that it can't be learned is no finding.
func (s *survey) CNAME(ctx context.Context, name string) (Records[string], error) {
	if _, err := s.spend(name, dns.TypeCNAME); err != nil {
		return Records[string]{}, err
	}
	return s.resolver.CNAME(ctx, name)
}

// TLSA looks up certificate associations. Where they would not count, because the
// host's addresses aren't validated, it is no finding that they can't be learned:
// servers exist that fail on the question (FAULTS B13).
func (s *survey) TLSA(ctx context.Context, name string, secured bool) (Records[TLSA], error) {
	if secured {
		return counted(s, name, dns.TypeTLSA, func() (Records[TLSA], error) { return s.resolver.TLSA(ctx, name) })
	}
	if _, err := s.spend(name, dns.TypeTLSA); err != nil {
		return Records[TLSA]{}, err
	}
	return s.resolver.TLSA(ctx, name)
}
