package dnstest

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// A resolver's view of wildcards, empty names and aliases (RFC 4592, RFC 8020).
func TestZoneAnswersAsResolversDo(t *testing.T) {
	t.Parallel()
	z, err := parseZone(`
$ORIGIN example.
@        SOA ns hm 1 2 3 4 77
@        MX 10 mx
deep.ent A 192.0.2.1
*.wild   TXT star
b.wild   TXT own
alias    CNAME far.other.
far.other. A 192.0.2.2
dead     CNAME nowhere.other.
`)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, kind, want string }{
		{"EXAMPLE.", "MX", "NOERROR MX"},
		{"example.", "A", "NOERROR -SOA"},
		{"ent.example.", "A", "NOERROR -SOA"},
		{"no.example.", "A", "NXDOMAIN -SOA"},
		{"a.wild.example.", "TXT", "NOERROR TXT"},
		{"a.wild.example.", "A", "NOERROR -SOA"},
		{"x.b.wild.example.", "TXT", "NXDOMAIN -SOA"},
		{"alias.example.", "A", "NOERROR CNAME A"},
		{"alias.example.", "CNAME", "NOERROR CNAME"},
		{"dead.example.", "A", "NXDOMAIN CNAME -SOA"},
	} {
		m := new(dns.Msg).SetQuestion(tt.name, dns.StringToType[tt.kind])
		z.fill(m)
		got := []string{dns.RcodeToString[m.Rcode]}
		for _, rr := range m.Answer {
			got = append(got, dns.TypeToString[rr.Header().Rrtype])
		}
		for _, rr := range m.Ns {
			got = append(got, "-"+dns.TypeToString[rr.Header().Rrtype])
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.name, tt.kind, s, tt.want)
		}
	}
	if _, err := parseZone("a.example. MX ten mx.example."); err == nil {
		t.Error("a broken zone was taken")
	}
}
