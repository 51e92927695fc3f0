package dnscheck

import (
	"context"
	"strings"
)

// dmarcPolicy is what the tree walk of RFC 9989 4.10 finds out about an author
// domain.
type dmarcPolicy struct {
	author   string
	location string       // the domain whose record decides, without _dmarc; empty: none
	org      string       // the organizational domain, if the walk was whole
	record   *dmarcRecord // the one that decides
	answer   Answer       // which holds it
	policy   string       // effective for the author domain; empty: DMARC doesn't apply
	multiple []string     // the texts, if the author domain has more than one record
	err      error        // a lookup that failed for the time being
	seen     []dmarcLevel
}

// dmarcLevel is one name asked on the way up.
type dmarcLevel struct {
	domain string
	found  Records[TXT]
	err    error
	record *dmarcRecord // the one record there, if there is exactly one
	count  int
}

// maxDMARCQueries is the most that a walk takes (RFC 9989 4.10).
const maxDMARCQueries = 8

// walkNames lists the domains to ask, from the author domain up: names of more
// than eight labels skip to the last seven.
func walkNames(author string) []string {
	names := []string{author}
	labels := strings.Split(author, ".")
	rest := labels[1:]
	if len(labels) >= maxDMARCQueries {
		rest = labels[len(labels)-maxDMARCQueries+1:]
	}
	for ; len(rest) > 0; rest = rest[1:] {
		names = append(names, strings.Join(rest, "."))
	}
	return names
}

// discoverDMARC walks up from author. exists says whether the author domain
// exists in the DNS, which decides between sp and np. The policy is known as soon
// as the author domain has a record of its own; the organizational domain only
// after the whole walk.
func discoverDMARC(ctx context.Context, dns lookups, author string, exists, whole bool) dmarcPolicy {
	p := dmarcPolicy{author: author, org: author}
	known := false
	for i, domain := range walkNames(author) {
		level := askDMARC(ctx, dns, domain)
		p.seen = append(p.seen, level)
		if temporary(level.err) {
			if known {
				// What was found below stands, whatever a parent would say.
				break
			}
			p.err = level.err
			return p
		}
		known = known || level.record != nil
		if known && !whole {
			break
		}
		if i == 0 && level.count > 1 {
			// The author domain's own records contradict each other: not applied.
			for _, txt := range level.found.List {
				if isDMARC(txt.String()) {
					p.multiple = append(p.multiple, txt.String())
				}
			}
			return p
		}
		if level.record != nil && (level.record.psd == "n" || level.record.psd == "y" && i > 0) {
			break
		}
	}
	p.decide(exists)
	return p
}

func askDMARC(ctx context.Context, dns lookups, domain string) dmarcLevel {
	level := dmarcLevel{domain: domain}
	level.found, level.err = dns.TXT(ctx, "_dmarc."+domain)
	for _, txt := range level.found.List {
		if text := strings.TrimLeft(txt.String(), " \t"); isDMARC(text) {
			level.count++
			level.record = parseDMARC(text)
		}
	}
	if level.count > 1 {
		level.record = nil
	}
	return level
}

// decide finds the organizational domain (RFC 9989 4.10.2) and the record that
// applies (4.10.1): the author domain's own, else the organization's, else that
// of the public suffix above it.
func (p *dmarcPolicy) decide(exists bool) {
	var own, org, suffix *dmarcLevel
	below := p.author
	for i := range p.seen {
		level := &p.seen[i]
		if level.record != nil {
			if i == 0 {
				own = level
			}
			if level.record.psd == "y" && i > 0 {
				suffix = level
				p.org, org = below, levelOf(p.seen, below)
				break
			}
			p.org, org = level.domain, level
		}
		if i+1 < len(p.seen) {
			below = childOn(p.author, p.seen[i+1].domain)
		}
	}
	for _, level := range []*dmarcLevel{own, org, suffix} {
		if level != nil && level.record != nil {
			p.location, p.record, p.answer = level.domain, level.record, level.found.Answer
			p.policy = level.record.policy(level.domain != p.author, exists)
			return
		}
	}
}

// childOn returns the name one label below parent on the way to author.
func childOn(author, parent string) string {
	rest := strings.TrimSuffix(author, "."+parent)
	return rest[strings.LastIndexByte(rest, '.')+1:] + "." + parent
}

func levelOf(levels []dmarcLevel, domain string) *dmarcLevel {
	for i := range levels {
		if levels[i].domain == domain {
			return &levels[i]
		}
	}
	return nil
}

// organization is the organizational domain of a name, for alignment; the name
// itself if nothing is published above it.
func organization(ctx context.Context, dns lookups, domain string) (string, error) {
	p := discoverDMARC(ctx, dns, lowerASCII(domain), true, true)
	return p.org, p.err
}
