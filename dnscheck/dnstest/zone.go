package dnstest

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// maxChain is how many aliases the server follows before it hands over what it
// has, as resolvers do.
const maxChain = 20

// zone is all names the server knows, whatever zones they are spread over in
// the world.
type zone struct {
	records map[string][]dns.RR // by owner, lower case with final dot
	exists  map[string]bool     // owners and everything above them
}

// parseZone reads RFC 1035 master text. Names are relative to the root unless
// the text says $ORIGIN, and a TTL that isn't given is 300.
func parseZone(text string) (*zone, error) {
	z := &zone{records: map[string][]dns.RR{}, exists: map[string]bool{".": true}}
	parser := dns.NewZoneParser(strings.NewReader(text), ".", "")
	parser.SetDefaultTTL(300)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		owner := dns.CanonicalName(rr.Header().Name)
		z.records[owner] = append(z.records[owner], rr)
		for name := owner; name != "."; name = parent(name) {
			z.exists[name] = true
		}
	}
	if err := parser.Err(); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	return z, nil
}

func parent(name string) string {
	off, end := dns.NextLabel(name, 0)
	if end {
		return "."
	}
	return name[off:]
}

// fill answers the question of m from the zone: records, the aliases on the way
// to them, or absence with the SOA that covers it.
func (z *zone) fill(m *dns.Msg) {
	name, kind := dns.CanonicalName(m.Question[0].Name), m.Question[0].Qtype
	for range maxChain {
		records, known := z.at(name)
		var alias *dns.CNAME
		found := false
		for _, rr := range records {
			if rr.Header().Rrtype == kind || kind == dns.TypeANY {
				m.Answer = append(m.Answer, rr)
				found = true
			}
			if c, ok := rr.(*dns.CNAME); ok {
				alias = c
			}
		}
		if found {
			return
		}
		if alias != nil {
			m.Answer = append(m.Answer, alias)
			name = dns.CanonicalName(alias.Target)
			continue
		}
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		m.Ns = []dns.RR{z.soa(name)}
		return
	}
}

// at returns a name's own records or those of the wildcard that covers it (RFC
// 4592), and whether the name exists.
func (z *zone) at(name string) ([]dns.RR, bool) {
	if z.exists[name] {
		return z.records[name], true
	}
	above := parent(name)
	for !z.exists[above] {
		above = parent(above)
	}
	star := "*." + strings.TrimPrefix(above, ".")
	if !z.exists[star] {
		return nil, false
	}
	var records []dns.RR
	for _, rr := range z.records[star] {
		rr = dns.Copy(rr)
		rr.Header().Name = name
		records = append(records, rr)
	}
	return records, true
}

// soa returns the SOA closest above name, or one made up for the root that says
// to remember absence for a minute.
func (z *zone) soa(name string) dns.RR {
	for ; ; name = parent(name) {
		for _, rr := range z.records[name] {
			if rr.Header().Rrtype == dns.TypeSOA {
				return rr
			}
		}
		if name == "." {
			return &dns.SOA{
				Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 60},
				Ns:  "a.invalid.", Mbox: "nobody.invalid.", Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: 60,
			}
		}
	}
}
