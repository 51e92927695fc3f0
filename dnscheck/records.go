package dnscheck

import (
	"context"
	"encoding/hex"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// Records is what a lookup found: at least one record, or an error that says
// why there is none. Answer is filled in both cases, as far as it is known.
type Records[T any] struct {
	Answer
	List []T
}

// MX is one exchanger (RFC 5321 5.1).
type MX struct {
	Pref uint16
	Host string // lower case, no final dot; "." in a null MX (RFC 7505)
}

// TXT is one text record: its character strings, byte by byte as published.
type TXT []string

// String joins the strings without anything between (RFC 7208 3.3).
func (t TXT) String() string { return strings.Join(t, "") }

// TLSA is one certificate association (RFC 6698 2.1).
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// MX looks up exchangers, in the order of the answer.
func (r *Resolver) MX(ctx context.Context, name string) (Records[MX], error) {
	return records(r.find(ctx, name, dns.TypeMX, false), func(rr *dns.MX) (MX, bool) {
		return MX{rr.Preference, plain(rr.Mx)}, true
	})
}

// TXT looks up text records.
func (r *Resolver) TXT(ctx context.Context, name string) (Records[TXT], error) {
	return records(r.find(ctx, name, dns.TypeTXT, false), func(rr *dns.TXT) (TXT, bool) {
		return text(rr.Txt), true
	})
}

// TypeSPF looks up records of the type that SPF used before RFC 7208 3.1 dropped it.
func (r *Resolver) TypeSPF(ctx context.Context, name string) (Records[TXT], error) {
	return records(r.find(ctx, name, dns.TypeSPF, false), func(rr *dns.SPF) (TXT, bool) {
		return text(rr.Txt), true
	})
}

// A looks up IPv4 addresses.
func (r *Resolver) A(ctx context.Context, name string) (Records[netip.Addr], error) {
	return records(r.find(ctx, name, dns.TypeA, false), func(rr *dns.A) (netip.Addr, bool) {
		addr, ok := netip.AddrFromSlice(rr.A)
		return addr.Unmap(), ok
	})
}

// AAAA looks up IPv6 addresses.
func (r *Resolver) AAAA(ctx context.Context, name string) (Records[netip.Addr], error) {
	return records(r.find(ctx, name, dns.TypeAAAA, false), func(rr *dns.AAAA) (netip.Addr, bool) {
		return netip.AddrFromSlice(rr.AAAA)
	})
}

// CNAME looks up the alias at name itself, without following it.
func (r *Resolver) CNAME(ctx context.Context, name string) (Records[string], error) {
	return records(r.find(ctx, name, dns.TypeCNAME, false), func(rr *dns.CNAME) (string, bool) {
		return plain(rr.Target), true
	})
}

// NS looks up name servers.
func (r *Resolver) NS(ctx context.Context, name string) (Records[string], error) {
	return records(r.find(ctx, name, dns.TypeNS, false), func(rr *dns.NS) (string, bool) {
		return plain(rr.Ns), true
	})
}

// PTR looks up the names of an address.
func (r *Resolver) PTR(ctx context.Context, addr netip.Addr) (Records[string], error) {
	name, err := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	if err != nil {
		return records[*dns.PTR, string](failed(question{addr.String(), dns.TypePTR, false}, BadName, err), nil)
	}
	return records(r.find(ctx, name, dns.TypePTR, false), func(rr *dns.PTR) (string, bool) {
		return plain(rr.Ptr), true
	})
}

// TLSA looks up certificate associations; name includes port and protocol, such
// as "_25._tcp.mx.example.com". They mean something only if AD is set (RFC 7672
// 2.2).
func (r *Resolver) TLSA(ctx context.Context, name string) (Records[TLSA], error) {
	return records(r.find(ctx, name, dns.TypeTLSA, false), func(rr *dns.TLSA) (TLSA, bool) {
		data, err := hex.DecodeString(rr.Certificate)
		return TLSA{rr.Usage, rr.Selector, rr.MatchingType, data}, err == nil
	})
}

func text(strs []string) TXT {
	raw := make(TXT, len(strs))
	for i, s := range strs {
		raw[i] = unescape(s)
	}
	return raw
}

// records turns an answer's records into plain ones.
func records[RR dns.RR, T any](a *answer, read func(RR) (T, bool)) (Records[T], error) {
	found := Records[T]{Answer: a.Answer}
	if a.err != nil {
		return found, a.err
	}
	for _, rr := range a.records {
		if typed, ok := rr.(RR); ok {
			if record, ok := read(typed); ok {
				found.List = append(found.List, record)
			}
		}
	}
	if len(found.List) == 0 {
		return found, &Error{Kind: NoData, Domain: a.Name, Server: a.Server}
	}
	return found, nil
}
