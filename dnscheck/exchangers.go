package dnscheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"golang.org/x/net/publicsuffix"
)

// reception is what a check finds out about where mail for the domain goes.
type reception struct {
	list     Records[MX]
	err      error // of the MX lookup, if it did not bring records
	null     bool
	implicit bool
	hosts    []Host // as in a Route
	usable   bool   // some host has an address to send to
	unknown  bool   // whether there is one could not be learned
}

// exchangers reports on the domain's exchangers and their addresses, which it
// finds and orders as Route does.
func (s *survey) exchangers(ctx context.Context) *reception {
	m := &reception{}
	m.list, m.err = s.MX(ctx, s.domain)
	if len(m.list.Aliases) > 0 {
		s.add("domain.apex_cname", s.domain, fmt.Sprintf("The domain is an alias of %s, which takes its mail along.", m.list.Owner),
			shown(s.domain+" CNAME "+strings.Join(m.list.Aliases, " CNAME ")))
	}
	lookup, failed := errors.AsType[*Error](m.err)
	switch {
	case failed && !lookup.Permanent():
		m.unknown = true
		return m
	case failed && lookup.Kind == NoDomain:
		s.nonexistent(m)
		return m
	case failed:
		m.implicit = true
		m.hosts = []Host{{Name: s.domain}}
	default:
		m.hosts = exchangers(m.list.List)
		s.exchangerList(m)
	}
	s.fact("mx.hosts", len(m.hosts))
	if m.null = len(m.hosts) == 0; m.null {
		return m
	}
	m.hosts = m.hosts[:min(len(m.hosts), maxHosts)]
	var wg sync.WaitGroup
	for i := range m.hosts {
		// The report is about the Internet's view, whatever addresses deliveries
		// from here may use.
		wg.Go(func() { locate(ctx, s, &m.hosts[i], false) })
	}
	wg.Wait()
	s.exchangerHosts(m)
	return m
}

// nonexistent reports a domain of which there is nothing at all, or an alias that
// leads to nothing.
func (s *survey) nonexistent(m *reception) {
	s.fact("mx.hosts", 0)
	if len(m.list.Aliases) > 0 {
		s.add("mx.none", s.domain, "The domain is an alias that leads to nothing: there is nobody to take its mail.")
		return
	}
	s.add("domain.nxdomain", s.domain, "The domain does not exist.", shown("NXDOMAIN from "+m.list.Server))
}

// exchangerList reports what is wrong with the records themselves.
func (s *survey) exchangerList(m *reception) {
	whole := func(f *Finding) {
		for _, mx := range m.list.List[:min(len(m.list.List), maxHosts)] {
			record(m.list.Answer, "MX", fmt.Sprintf("%d %s", mx.Pref, mx.Host))(f)
		}
	}
	for _, mx := range m.list.List {
		if mx.Host != "." {
			continue
		}
		if len(m.hosts) > 0 {
			s.add("mx.null_with_others", s.domain, "The domain says that it takes no mail, and names exchangers beside it. We use those.", whole, fix("Delete the record with the dot."))
			break
		}
		s.add("mx.null", s.domain, "The domain says that it takes no mail at all.", whole)
		if mx.Pref != 0 {
			s.add("mx.null_bad_preference", s.domain, "A null MX has to have preference 0.", whole, fix("%s. IN MX 0 .", s.domain))
		}
	}
}

// exchangerHosts reports on each host, and on all of them together.
func (s *survey) exchangerHosts(m *reception) {
	v4, v6, doubt := 0, 0, false
	for i := range m.hosts {
		h := &m.hosts[i]
		for _, addr := range h.Addrs {
			m.usable = true
			if addr.Is4() {
				v4++
			} else {
				v6++
			}
		}
		if lookup, ok := errors.AsType[*Error](h.Err); ok && !lookup.Permanent() {
			doubt = true
		}
	}
	m.unknown = doubt && !m.usable
	if m.implicit {
		s.implicit(m)
	} else {
		for i := range m.hosts {
			s.exchangerHost(m, &m.hosts[i])
		}
	}
	if m.usable && v4 == 0 && v6 > 0 && !doubt {
		s.add("mx.ipv6_only", s.domain, "No exchanger can be reached over IPv4; senders without IPv6 can't deliver.", fix("Give at least one exchanger an A record."))
	}
}

// implicit reports a domain without MX, which is its own host or nothing.
func (s *survey) implicit(m *reception) {
	h := &m.hosts[0]
	switch {
	case m.unknown:
		s.add("mx.target_timeout", h.Name, "There is no MX record, and the domain's own address could not be looked up now.", shown(h.Err.Error()))
	case m.usable:
		s.add("mx.implicit", s.domain, "There is no MX record, so mail goes to the address of the domain itself, often a web server.",
			shown(fmt.Sprintf("%s has the address %s", s.domain, h.Addrs[0])), fix("%s. IN MX 10 <the mail server's name>.", s.domain))
	case len(h.Skipped) > 0:
		s.private(m, h)
	default:
		s.add("mx.none", s.domain, "The domain has neither an MX record nor an address: there is nobody to take its mail.", fix("%s. IN MX 10 <the mail server's name>.", s.domain))
	}
}

// exchangerHost reports on one exchanger. What makes it useless is grave only if
// no other is left.
func (s *survey) exchangerHost(m *reception, h *Host) {
	gravity := StateFail
	if m.usable || m.unknown {
		gravity = StateWarn
	}
	if len(h.Aliases) > 0 {
		s.add("mx.cname", h.Name, fmt.Sprintf("The exchanger %s is an alias of %s. An MX has to name the host itself.", h.Name, h.Aliases[len(h.Aliases)-1]),
			shown(h.Name+" CNAME "+strings.Join(h.Aliases, " CNAME ")), fix("%s. IN MX %d %s.", s.domain, h.Pref, h.Aliases[len(h.Aliases)-1]))
	}
	if len(h.Skipped) > 0 {
		s.private(m, h)
	}
	lookup, _ := errors.AsType[*Error](h.Err)
	doubled := s.doubled(h.Name, lookup != nil && lookup.Permanent() && len(h.Addrs) == 0)
	if doubled {
		s.add("mx.missing_dot", h.Name, fmt.Sprintf("%s looks like a name with the domain written twice: in a zone file, a name without a final dot gets the zone's name added.", h.Name),
			fix("%s. IN MX %d %s.", s.domain, h.Pref, strings.TrimSuffix(h.Name, "."+s.domain)))
	}
	if lookup == nil || len(h.Addrs) > 0 || len(h.Skipped) > 0 {
		return
	}
	switch _, err := netip.ParseAddr(h.Name); {
	case err == nil:
		s.add("mx.ip_literal", h.Name, fmt.Sprintf("The exchanger %s is an address; an MX has to name a host.", h.Name), as(gravity))
	case !lookup.Permanent():
		s.add("mx.target_timeout", h.Name, fmt.Sprintf("The exchanger %s could not be looked up now.", h.Name), shown(lookup.Error()))
	case lookup.Kind == NoDomain:
		s.add("mx.target_nxdomain", h.Name, fmt.Sprintf("The exchanger %s does not exist.", h.Name), as(gravity), shown(lookup.Error()))
	default:
		s.add("mx.target_no_address", h.Name, fmt.Sprintf("The exchanger %s has no address.", h.Name), as(gravity), shown(lookup.Error()))
	}
}

func (s *survey) private(m *reception, h *Host) {
	gravity := StateFail
	if m.usable || m.unknown {
		gravity = StateWarn
	}
	var addrs []string
	for _, addr := range h.Skipped {
		addrs = append(addrs, fmt.Sprintf("%s has the address %s", h.Name, addr))
	}
	s.add("mx.private_address", h.Name, fmt.Sprintf("%s has an address that can't be reached over the Internet.", h.Name), as(gravity), shown(addrs...))
}

// doubled reports whether an exchanger's name has the domain added by mistake:
// the domain twice, or, if the name leads nowhere, another public name before the
// domain.
func (s *survey) doubled(host string, dead bool) bool {
	rest, ok := strings.CutSuffix(host, "."+s.domain)
	if !ok {
		return false
	}
	if underOrEqual(rest, s.domain) {
		return true
	}
	suffix, icann := publicsuffix.PublicSuffix(rest)
	return dead && icann && strings.HasSuffix(rest, "."+suffix) && strings.Count(rest, ".") >= 2
}

// secured reports whether the answer for the exchangers and a host's addresses
// were validated, which DANE needs.
func (m *reception) secured(h *Host) bool { return m.list.AD && h.AD }
