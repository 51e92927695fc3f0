package dnscheck

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/publicsuffix"
)

// maxReportDomains is how many foreign report addresses are verified.
const maxReportDomains = 5

// dmarc reports on the domain's policy for mail in its name.
func (s *survey) dmarc(ctx context.Context) dmarcPolicy {
	p := discoverDMARC(ctx, s, s.domain, true, false)
	if p.record != nil && (!valid7489(p.record.text) || len(p.record.reporters(p.location)) > 0) {
		p = discoverDMARC(ctx, s, s.domain, true, true)
	}
	first := p.seen[0]
	name := "_dmarc." + s.domain
	switch {
	case p.err != nil:
		s.add("dmarc.temperror", name, "The DMARC policy could not be looked up now, so it is not known.", shown(p.err.Error()))
		return p
	case len(p.multiple) > 0:
		s.add("dmarc.multiple", name, fmt.Sprintf("%s has %d DMARC records, so receivers apply none of them.", name, len(p.multiple)),
			shown(p.multiple...), fix("Delete all but one of them."))
		return p
	}
	s.dmarcAlias(first)
	s.dmarcHints(first)
	if first.err == nil && first.count == 0 {
		s.wildcard(ctx)
	}
	if p.record == nil {
		if p.location == "" {
			s.add("dmarc.missing", name, "There is no DMARC record, so receivers decide for themselves what to do with forged mail.",
				txtFix(name, "v=DMARC1; p=none; rua=mailto:dmarc@"+s.domain))
		}
		return p
	}
	s.fact("dmarc.policy", p.policy)
	s.fact("dmarc.location", "_dmarc."+p.location)
	s.dmarcRecord(ctx, &p)
	if old, known := s.policy7489(&p); known && old != p.policy {
		s.fact("dmarc.policy_rfc7489", old)
	}
	return p
}

// dmarcAlias reports a record that is kept elsewhere.
func (s *survey) dmarcAlias(level dmarcLevel) {
	aliases := level.found.Aliases
	if len(aliases) == 0 {
		return
	}
	name, target := "_dmarc."+level.domain, aliases[len(aliases)-1]
	if level.err != nil {
		s.add("dmarc.cname_dangling", name, fmt.Sprintf("%s is an alias of %s, where there is nothing. Whoever registers that name decides over this domain's mail.", name, target),
			shown(name+" CNAME "+target), fix("Delete the alias, or publish the record at %s.", target))
		return
	}
	s.add("dmarc.cname", name, fmt.Sprintf("The record is kept at %s.", target), shown(name+" CNAME "+target))
}

// dmarcHints points at texts that were meant to be a record.
func (s *survey) dmarcHints(level dmarcLevel) {
	name := "_dmarc." + level.domain
	for _, txt := range level.found.List {
		text := txt.String()
		trimmed := strings.TrimLeft(text, " \t")
		head := strings.ToUpper(strings.Join(strings.Fields(trimmed[:min(len(trimmed), 30)]), ""))
		switch {
		case isDMARC(trimmed) || !strings.HasPrefix(head, "V=DMARC1"):
		case isDMARC("v=DMARC1"+cutVersion(trimmed)) && !strings.Contains(trimmed, "DMARC1"):
			s.add("dmarc.version_case", name, "The version has to be written DMARC1 in capitals; receivers ignore this record.",
				record(level.found.Answer, "TXT", text), txtFix(name, "v=DMARC1"+cutVersion(trimmed)))
		default:
			s.add("dmarc.syntax", name, "The record does not begin with v=DMARC1 and a semicolon; receivers ignore it.",
				record(level.found.Answer, "TXT", text))
		}
	}
}

// cutVersion is the text behind the version tag.
func cutVersion(text string) string {
	if i := strings.IndexByte(text, ';'); i >= 0 {
		return text[i:]
	}
	return ""
}

// dmarcAtApex reports a record that stands at the domain itself instead of below
// _dmarc.
func (s *survey) dmarcAtApex(a Answer, texts []TXT) {
	for _, txt := range texts {
		if isDMARC(txt.String()) {
			s.add("dmarc.wrong_location", s.domain, "There is a DMARC record at the domain itself, where nobody looks for it.",
				record(a, "TXT", txt.String()), txtFix("_dmarc."+s.domain, txt.String()))
		}
	}
}

// dmarcRecord reports on the record that decides.
func (s *survey) dmarcRecord(ctx context.Context, p *dmarcPolicy) {
	d, name := p.record, "_dmarc."+p.location
	whole := record(p.answer, "TXT", d.text)
	if p.location != s.domain {
		s.add("dmarc.inherited", s.domain, fmt.Sprintf("The policy comes from %s.", p.location), whole)
	}
	for _, f := range d.faults {
		text := "In the record, " + f.text + "."
		if !d.applies && (f.code == "dmarc.syntax" || f.code == "dmarc.invalid_policy" || f.code == "dmarc.missing_policy") {
			text += " Receivers ignore the whole record."
		}
		s.add(f.code, name, text, whole)
	}
	if !d.applies {
		return
	}
	if p.policy == "none" {
		s.add("dmarc.policy_none", name, "The policy is none: receivers report forged mail, but deliver it.", whole)
	}
	if len(d.rua) == 0 && !s.has("dmarc.rua_invalid") {
		s.add("dmarc.no_rua", name, "Nobody receives the reports on forged mail.", whole)
	}
	s.dmarcReports(ctx, p)
}

// dmarcReports verifies that foreign domains want the reports sent to them (RFC
// 9990 4).
func (s *survey) dmarcReports(ctx context.Context, p *dmarcPolicy) {
	foreign := p.record.reporters(p.org)
	var wg sync.WaitGroup
	for _, domain := range foreign[:min(len(foreign), maxReportDomains)] {
		wg.Go(func() {
			name := p.location + "._report._dmarc." + domain
			found, err := s.TXT(ctx, name)
			if temporary(err) {
				return
			}
			for _, txt := range found.List {
				if isDMARC(txt.String()) {
					return
				}
			}
			s.add("dmarc.rua_unauthorized", domain, fmt.Sprintf("Reports are to go to %s, which has not agreed to take them; receivers send none there.", domain),
				txtFix(name, "v=DMARC1"))
		})
	}
	wg.Wait()
}

// reporters are the domains that reports go to, but for those of org.
func (d *dmarcRecord) reporters(org string) []string {
	var domains []string
	for _, mailbox := range slices.Concat(d.rua, d.ruf) {
		domain := lowerASCII(mailbox[strings.LastIndexByte(mailbox, '@')+1:])
		if !underOrEqual(domain, org) && !slices.Contains(domains, domain) {
			domains = append(domains, domain)
		}
	}
	return domains
}

// policy7489 is what receivers that still follow RFC 7489 apply: the record of
// the domain itself, or of the organizational domain by the public suffix list,
// without t and np. False if that record wasn't among those looked up.
func (s *survey) policy7489(p *dmarcPolicy) (policy string, known bool) {
	org, err := publicsuffix.EffectiveTLDPlusOne(p.author)
	if err != nil {
		org = p.author
	}
	for _, domain := range []string{p.author, org} {
		level := levelOf(p.seen, domain)
		if level == nil {
			return "", false
		}
		if level.record == nil || !valid7489(level.record.text) {
			continue
		}
		d := level.record
		policy = d.p
		if domain != p.author && d.sp != "" {
			policy = d.sp
		}
		if policy == "" {
			policy = "none"
		}
		return policy, true
	}
	return "", true
}
