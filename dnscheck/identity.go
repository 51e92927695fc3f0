package dnscheck

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Sender is our own side, as others see it.
type Sender struct {
	Addresses  []netip.Addr // that our mail comes from
	Hello      string       // our EHLO name
	ReturnPath string       // the envelope sender's domain
	From       string       // the From header's domain
	Keys       []SigningKey
	LinkHosts  []string // hosts of the links in our mail
}

// known reports whether anything is configured that can be checked.
func (u *Sender) known() bool {
	return u != nil && (len(u.Addresses) > 0 || u.Hello != "" || u.ReturnPath != "" || u.From != "" || len(u.Keys) > 0)
}

// Identity reports on our own side alone: whether others can verify our mail.
// The report's domain is the one of our From.
func (r *Resolver) Identity(ctx context.Context, o Options) Report {
	began := r.options.Now()
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.Limit, checkLimit))
	defer cancel()
	o.Sender = cmp.Or(o.Sender, &Sender{})
	u := o.Sender
	s := newSurvey(r, lowerASCII(cmp.Or(u.From, u.ReturnPath)), &o)
	s.ours = true
	report := Report{Version: 1, Query: s.domain, Domain: s.domain, At: began, Allowlist: []Advice{}}
	var wg sync.WaitGroup
	wg.Go(func() { s.sender(ctx) })
	if s.domain != "" {
		wg.Go(func() { s.dmarc(ctx) })
	}
	envelope := newSurvey(r, lowerASCII(u.ReturnPath), &o)
	envelope.ours = true
	if envelope.domain != "" {
		wg.Go(func() { envelope.spf(ctx) })
	}
	wg.Wait()
	envelope.unanswered(ctx, &reception{})
	s.unanswered(ctx, &reception{})
	for _, f := range envelope.findings {
		s.add(f.Code, f.Subject, f.Text, func(g *Finding) { *g = f })
	}
	maps.Copy(s.facts, envelope.facts)
	report.Facts, report.Findings = s.facts, s.sorted()
	report.concludeOurs(phrasesOf(o.Lang))
	report.Queries = s.questions() + envelope.questions()
	report.TookMS = r.options.Now().Sub(began).Milliseconds()
	return report
}

// sender reports on our own side.
func (s *survey) sender(ctx context.Context) {
	u := s.options.Sender
	if !u.known() {
		return
	}
	var wg sync.WaitGroup
	for _, addr := range u.Addresses {
		addr = addr.Unmap()
		wg.Go(func() { s.ptr(ctx, addr) })
		wg.Go(func() { s.sendsFor(ctx, addr) })
		for _, list := range s.options.Blocklists {
			wg.Go(func() { s.blocklist(ctx, addr, list) })
		}
	}
	for _, key := range u.Keys {
		wg.Go(func() { s.dkim(ctx, key) })
	}
	wg.Go(func() { s.helo(ctx) })
	wg.Go(func() { s.aligned(ctx) })
	wg.Wait()
}

// ptr verifies that an address of ours has a name that leads back to it, which
// many servers ask for.
func (s *survey) ptr(ctx context.Context, addr netip.Addr) {
	found, err := s.PTR(ctx, addr)
	switch {
	case temporary(err):
		return
	case err != nil:
		s.add("ptr.missing", addr.String(), fmt.Sprintf("Our address %s has no name (PTR record); many servers refuse such senders.", addr),
			fix("Ask the network's operator for: %s IN PTR %s.", reverse(addr), s.options.Sender.Hello))
		return
	}
	for _, name := range found.List[:min(len(found.List), maxSPFNames)] {
		addrs, err := s.family(ctx, name, addr)
		if temporary(err) || slices.Contains(addrs, addr) {
			return
		}
	}
	s.add("ptr.mismatch", addr.String(), fmt.Sprintf("The name of our address %s, %s, does not lead back to it.", addr, found.List[0]),
		record(found.Answer, "PTR", found.List[0]))
}

func reverse(addr netip.Addr) string {
	name, err := dns.ReverseAddr(addr.String())
	if err != nil {
		return addr.String()
	}
	return name
}

// family looks up a name's addresses of the same family as addr.
func (s *survey) family(ctx context.Context, name string, addr netip.Addr) ([]netip.Addr, error) {
	look := s.A
	if !addr.Is4() {
		look = s.AAAA
	}
	found, err := look(ctx, name)
	return found.List, err
}

// helo verifies that the name that we greet with exists and is one of ours.
func (s *survey) helo(ctx context.Context) {
	u := s.options.Sender
	if u.Hello == "" {
		return
	}
	v4, err4 := s.A(ctx, u.Hello)
	v6, err6 := s.AAAA(ctx, u.Hello)
	addrs := append(slices.Clone(v4.List), v6.List...)
	switch {
	case len(addrs) == 0 && (temporary(err4) || temporary(err6)):
	case len(addrs) == 0:
		s.add("helo.unresolvable", u.Hello, fmt.Sprintf("The name that we greet with, %s, has no address; many servers refuse such senders.", u.Hello))
	case len(u.Addresses) > 0 && !slices.ContainsFunc(u.Addresses, func(a netip.Addr) bool { return slices.Contains(addrs, a.Unmap()) }):
		s.add("helo.mismatch", u.Hello, fmt.Sprintf("The name that we greet with, %s, does not lead to an address that we send from.", u.Hello),
			shown(fmt.Sprintf("%s has the address %s", u.Hello, addrs[0])))
	}
}

// sendsFor verifies that the envelope domain's policy lets an address send.
func (s *survey) sendsFor(ctx context.Context, addr netip.Addr) {
	u := s.options.Sender
	if u.ReturnPath == "" {
		return
	}
	verdict := checkSPF(ctx, s, SPFQuery{IP: addr, Helo: u.Hello, Sender: "postmaster@" + u.ReturnPath}, s.resolver.options.Now())
	s.fact("sender.spf."+addr.String(), string(verdict.Result))
	switch verdict.Result {
	case SPFPass:
	case SPFTemperror:
		s.add("spf.temperror", u.ReturnPath, "Our own SPF policy could not be looked up now: "+verdict.Problem+".", about(OurMail))
	default:
		mechanism := "ip4:"
		if !addr.Is4() {
			mechanism = "ip6:"
		}
		problem := verdict.Problem
		if problem == "" {
			problem = "the term that decides is " + verdict.Term
			if verdict.Term == "" {
				problem = "nothing in it names the address"
			}
		}
		s.add("sender.spf_ip_missing", addr.String(), fmt.Sprintf("The SPF policy of %s does not let our address %s send: the result is %s; %s.", u.ReturnPath, addr, verdict.Result, problem),
			fix("Add %s%s to the SPF record of %s, before all.", mechanism, addr, u.ReturnPath))
	}
}

// aligned verifies that the mail's From domain is vouched for by a signature or
// by the envelope domain (RFC 9989 4.4).
func (s *survey) aligned(ctx context.Context) {
	u := s.options.Sender
	if u.From == "" {
		return
	}
	policy := discoverDMARC(ctx, s, lowerASCII(u.From), true, true)
	if policy.err != nil || policy.record == nil {
		return // without a record nobody asks for alignment, and no tree says who belongs to whom
	}
	adkim, aspf := policy.record.adkim, policy.record.aspf
	signed := slices.ContainsFunc(u.Keys, func(k SigningKey) bool { return s.alignedWith(ctx, &policy, k.Domain, adkim) })
	sent := u.ReturnPath != "" && s.alignedWith(ctx, &policy, u.ReturnPath, aspf)
	switch {
	case !signed && !sent:
		s.add("dmarc.not_aligned", u.From, fmt.Sprintf("Neither a signature nor the envelope domain belongs to %s, the domain in our From; DMARC fails for our mail.", u.From),
			fix("Sign with d=%s.", u.From))
	case !sent:
		s.add("dmarc.spf_not_aligned", u.From, fmt.Sprintf("The envelope domain %s does not belong to %s, so DMARC rests on the signature alone.", u.ReturnPath, u.From))
	}
}

func (s *survey) alignedWith(ctx context.Context, p *dmarcPolicy, domain, mode string) bool {
	domain = lowerASCII(domain)
	if domain == p.author {
		return true
	}
	if mode == "s" || !underOrEqual(domain, p.org) {
		return false
	}
	org, err := organization(ctx, s, domain)
	return err == nil && org == p.org
}

// blocklist asks one list for one address (RFC 5782 2.1). Lists answer with codes
// in 127.0.0.0/8; 127.255.255.x says that the question was refused, such as one
// through a public resolver, and anything else is no list's answer at all.
func (s *survey) blocklist(ctx context.Context, addr netip.Addr, list string) {
	list = strings.Trim(list, ".")
	name := strings.TrimSuffix(strings.TrimSuffix(reverse(addr), "in-addr.arpa."), "ip6.arpa.") + list
	found, err := s.A(ctx, name)
	if err != nil {
		return
	}
	var codes []string
	refused := false
	for _, code := range found.List {
		b := code.As4()
		refused = refused || b[0] != 127 || b[1] == 255 && b[2] == 255
		codes = append(codes, code.String())
	}
	evidence := shown(name + " A " + strings.Join(codes, ", "))
	if refused {
		s.add("dnsbl.query_refused", addr.String()+" at "+list, fmt.Sprintf("%s refused to answer about %s, so it is not known whether we are listed.", list, addr), evidence)
		return
	}
	reason := ""
	if text, err := s.TXT(ctx, name); err == nil {
		reason = " " + printable(text.List[0].String(), 200)
	}
	s.add("dnsbl.listed", addr.String()+" at "+list, fmt.Sprintf("Our address %s is on the blocklist %s.%s", addr, list, reason), evidence,
		fix("Find out what caused it, end it, and ask %s for removal.", list))
}
