package dnscheck

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// checkLimit keeps a check within five seconds, even of a domain whose servers
// are silent.
const checkLimit = 4500 * time.Millisecond

// maxQuery is how much of what was asked for is repeated in the report.
const maxQuery = 300

// Options says how to check, and who asks.
type Options struct {
	// Sender is our own side; nil leaves it out, and advice then names our values
	// in words.
	Sender *Sender
	// Lang is the language of summary and advice: "en" or "fi"; empty: "en".
	Lang string
	// Product asks for advice on this product, whatever the MX says.
	Product string
	// Clients adds what a person can do in common mail programs.
	Clients bool
	// Blocklists are DNS zones to look our addresses up in.
	Blocklists []string
	// Web says how to fetch an MTA-STS policy.
	Web Web
	// Converse talks to an exchanger as for a delivery to domain, up to RCPT; nil:
	// nobody is talked to.
	Converse func(ctx context.Context, domain string, h Host) Conversation
	// History tells what happened to our mail to a domain; nil: nothing known.
	History func(ctx context.Context, domain string) *History
	// Limit bounds the whole check; 0: 4.5 s. Converse may want more.
	Limit time.Duration
}

// domainProfile is UTS 46 lookup processing, non-transitional, with the rules for
// host names and bidirectional text (FAULTS C17).
var domainProfile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true), idna.Transitional(false))

// NormalDomain is a domain as people write it, or the one of an address, in the
// form that is looked up: lower case, A-labels, no final dot. An error says what
// is wrong with it.
func NormalDomain(text string) (string, error) {
	text = strings.TrimFunc(text, func(c rune) bool {
		return c <= ' ' || c == 0xa0 || c == 0xfeff || 0x2000 <= c && c <= 0x200f || strings.ContainsRune("<>\"'", c)
	})
	text = text[strings.LastIndexByte(text, '@')+1:]
	if len(text) > 4*maxName {
		return "", fmt.Errorf("a name of %d bytes is too long", len(text))
	}
	domain, err := domainProfile.ToASCII(strings.TrimSuffix(text, "."))
	if err != nil || !utf8.ValidString(text) {
		return "", fmt.Errorf("%q is not a domain name", printable(text, 100))
	}
	labels := strings.Split(domain, ".")
	if len(labels) < 2 || allDigits(labels[len(labels)-1]) {
		return "", fmt.Errorf("%q is not a domain on the Internet", printable(text, 100))
	}
	return domain, nil
}

// Check reports whether mail from us will arrive at a domain, what stands in its
// way, and how they can let it in. It always returns a report; what could not be
// learned in time is told as unknown. It costs an ordinary domain some 15
// questions in three rounds, and no domain more than 150.
func (r *Resolver) Check(ctx context.Context, query string, o Options) Report {
	began := r.options.Now()
	report := Report{Version: 1, Query: query[:min(len(query), maxQuery)], At: began, Facts: map[string]any{}, Findings: []Finding{}, Allowlist: []Advice{}}
	domain, err := NormalDomain(query)
	s := newSurvey(r, domain, &o)
	if err != nil {
		report.Domain = printable(query, 100)
		s.domain = report.Domain
		s.add("domain.invalid", report.Domain, "This is not a domain: "+err.Error()+".")
		report.Findings = s.findings
		report.conclude(s, &reception{})
		return report
	}
	report.Domain = domain
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.Limit, checkLimit))
	defer cancel()
	found := s.look(ctx)
	s.judge(ctx, found)

	report.SMTP, report.History = found.talks, found.history
	report.Provider, report.Behind = found.products.named()
	report.Facts, report.Findings = s.facts, s.sorted()
	report.Allowlist = found.products.advice(&o)
	if o.Clients {
		report.Clients = clientAdvice(&o)
	}
	report.conclude(s, found.reception)
	report.Queries = s.questions()
	report.TookMS = r.options.Now().Sub(began).Milliseconds()
	return report
}

// sights is what the subjects of a check, looked at side by side, bring home.
type sights struct {
	reception *reception
	spf       *spfTree
	dmarc     dmarcPolicy
	sts       stsState
	tlsrpt    bool
	bimi      bool
	tlsa      map[string][]TLSA
	talks     []Conversation
	discover  Records[string] // the alias autodiscover is
	history   *History
	products  detection
}

// look asks all questions.
func (s *survey) look(ctx context.Context) *sights {
	found := &sights{}
	var wg sync.WaitGroup
	wg.Go(func() {
		found.reception = s.exchangers(ctx)
		found.tlsa = s.dane(ctx, found.reception)
		found.talks = s.converse(ctx, found.reception, found.tlsa)
	})
	wg.Go(func() { found.spf = s.spf(ctx) })
	wg.Go(func() { found.dmarc = s.dmarc(ctx) })
	wg.Go(func() { found.sts = s.sts(ctx) })
	wg.Go(func() { found.tlsrpt = s.tlsrpt(ctx) })
	wg.Go(func() { found.bimi = s.bimi(ctx) })
	wg.Go(func() { found.discover, _ = s.CNAME(ctx, "autodiscover."+s.domain) })
	wg.Go(func() { s.sender(ctx) })
	if s.options.History != nil {
		wg.Go(func() { found.history = s.options.History(ctx, s.domain) })
	}
	wg.Wait()
	return found
}

// judge draws the conclusions that need more than one subject.
func (s *survey) judge(ctx context.Context, found *sights) {
	m := found.reception
	s.unanswered(ctx, m)
	if s.has("domain.nxdomain") {
		s.forget(func(f Finding) bool { return f.Concerns == TheirMail })
		return
	}
	s.dmarcAtApex(found.spf.root().answer, found.spf.root().texts)
	s.stsCovers(found.sts, m)
	if (found.sts.announced || len(found.tlsa) > 0) && !found.tlsrpt && !s.asksInVain("_smtp._tls."+s.domain) {
		s.add("tlsrpt.missing", s.domain, "The domain demands encryption of senders, but has nobody told when that fails.",
			txtFix("_smtp._tls."+s.domain, "v=TLSRPTv1; rua=mailto:tls-reports@"+s.domain))
	}
	if found.bimi {
		s.bimiEnforced(&found.dmarc)
	}
	if m.list.AD {
		s.add("dnssec.signed", s.domain, "The domain is signed with DNSSEC, and the signatures are valid.", shown("validated by "+m.list.Server))
	}
	found.products = detect(s, found)
}

// asksInVain reports whether a question about name was not answered.
func (s *survey) asksInVain(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.failures, func(e *Error) bool { return e.Domain == name })
}

// forget takes back findings that a later one has made meaningless.
func (s *survey) forget(which func(Finding) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.findings = slices.DeleteFunc(s.findings, which)
}

var gravity = map[State]int{StateFail: 0, StateUnknown: 1, StateWarn: 2, StateInfo: 3, StateOK: 4}

// sorted returns the findings: what matters for our mail first, the gravest of it
// first.
func (s *survey) sorted() []Finding {
	slices.SortStableFunc(s.findings, func(a, b Finding) int {
		matters := func(f Finding) int {
			if f.Matters {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(matters(a), matters(b)), cmp.Compare(gravity[a.State], gravity[b.State]),
			cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject))
	})
	if s.findings == nil {
		return []Finding{}
	}
	return s.findings
}
