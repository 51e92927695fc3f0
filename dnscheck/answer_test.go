package dnscheck

import (
	"testing"

	"github.com/miekg/dns"
)

// Whatever bytes a server sends, an answer is one of three things: records,
// another name to ask, or an error; and it is bounded.
func FuzzDigest(f *testing.F) {
	for _, text := range []string{
		"a.example. 60 A 192.0.2.1", "a.example. 60 CNAME a.example.", "a.example. 60 CNAME b.example.", `a.example. TXT "x"`,
	} {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		m := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
		m.Response = true
		m.Answer = []dns.RR{rr}
		m.SetEdns0(ednsSize, false)
		explainBogus := &dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus, ExtraText: "no\nluck\x00"}
		m.IsEdns0().Option = []dns.EDNS0{explainBogus}
		wire, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		m := new(dns.Msg)
		if m.Unpack(wire) != nil {
			return
		}
		for _, kind := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeCNAME, dns.TypeMX} {
			a := digest(question{name: "a.example.", kind: kind}, &reply{msg: m, server: new(server)})
			states := 0
			for _, is := range []bool{len(a.records) > 0, a.next != "", a.err != nil} {
				if is {
					states++
				}
			}
			if states != 1 {
				t.Errorf("%d records, next %q, err %v", len(a.records), a.next, a.err)
			}
			if len(a.records) > maxRecords || len(a.Aliases) > maxAliases || len(a.EDE) > maxEDE || a.keep < 0 || a.keep > maxTTL || a.AD {
				t.Errorf("out of bounds: %+v", a.Answer)
			}
		}
	})
}
