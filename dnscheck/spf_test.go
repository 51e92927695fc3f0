package dnscheck

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

func TestCheckSPF(t *testing.T) {
	const zones = `
example.com.        TXT "v=spf1 ip4:192.0.2.0/28 include:_spf.example.net a:mail.example.com -all exp=why.example.com"
why.example.com.    TXT "%{i} may not send for %{d}; ask %{r}"
_spf.example.net.   TXT "v=spf1 ip6:2001:db8::/32 ?all"
mail.example.com.   A 192.0.2.77
two.example.        TXT "v=spf1 -all"
two.example.        TXT "v=spf1 +all"
bad.example.        TXT "v=spf1 ip4:300.1.1.1 -all"
slow.example.       TXT "v=spf1 include:dead.example -all"
self.example.       TXT "v=spf1 redirect=self.example"
`
	for _, tt := range []struct {
		ip, sender string
		result     SPFResult
		term, text string // the term that matched; part of problem or explanation
	}{
		{"192.0.2.3", "a@example.com", SPFPass, "ip4:192.0.2.0/28", ""},
		{"::ffff:192.0.2.3", "a@example.com", SPFPass, "ip4:192.0.2.0/28", ""},
		{"2001:db8::5", "a@example.com", SPFPass, "include:_spf.example.net", ""},
		{"192.0.2.77", "a@Example.COM", SPFPass, "a:mail.example.com", ""},
		{"198.51.100.1", "a@example.com", SPFFail, "-all", "198.51.100.1 may not send for example.com; ask unknown"},
		{"198.51.100.1", "a@nothing.example", SPFNone, "", ""},
		{"198.51.100.1", "a@two.example", SPFPermerror, "", "2 SPF records"},
		{"198.51.100.1", "a@bad.example", SPFPermerror, "", "ip4:300.1.1.1"},
		{"198.51.100.1", "a@slow.example", SPFTemperror, "", "dead.example"},
		{"198.51.100.1", "a@self.example", SPFPermerror, "", "more than 10"},
		{"198.51.100.1", "", SPFNone, "", ""},
	} {
		t.Run(tt.ip+" "+tt.sender, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := inMemory(t, ResolverOptions{}, zone(t, zones, dnstest.Fault{Name: "dead.example", Do: dnstest.Servfail}))
				got := r.CheckSPF(t.Context(), SPFQuery{IP: netip.MustParseAddr(tt.ip), Helo: "mx.sender.example", Sender: tt.sender})
				if got.Result != tt.result || got.Term != tt.term || !strings.Contains(got.Problem+got.Explanation, tt.text) {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// C16: whatever the zone holds, an evaluation asks few questions.
func TestC16SPFIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var text strings.Builder
		text.WriteString("*.wide.example. TXT \"v=spf1")
		for range 30 {
			text.WriteString(" include:%{i}.%{d}")
		}
		text.WriteString(" -all\"\n")
		s := zone(t, strings.ReplaceAll(text.String(), " include:%{i}.%{d} include", " include:%{i}.%{d}\" \" include"))
		r := inMemory(t, ResolverOptions{}, s)
		got := r.CheckSPF(t.Context(), SPFQuery{IP: netip.MustParseAddr("192.0.2.1"), Sender: "a@a.wide.example"})
		if got.Result != SPFPermerror || s.Queries() > 2*(maxSPFLookups+1) {
			t.Errorf("%+v with %d queries", got, s.Queries())
		}
	})
}

// Parsing is total, what was parsed expands to something that fits a name, and a
// record without faults holds every term of the text.
func FuzzParseSPF(f *testing.F) {
	for _, s := range []string{
		"v=spf1 -all", "v=spf1 a:%{d}/24//64 mx//0 ~all", "v=spf1 exists:%{l1r+-}.%{ir}.%{v}.x.example redirect=%{d2}.example",
		"v=spf1 ip4:1.2.3.4/33 ip6:::1/129 include: ptr:x exp=%{c}", "v=spf1 a/ a// a:/ %", "v=spf1 foo=%{", "v=spf1 a:%{D}.%%%_%-",
	} {
		f.Add(s)
	}
	values := &spfValues{
		sender: "l.o-c@sender.example", helo: "h.example", domain: "d.example", ip: netip.MustParseAddr("2001:db8::1"),
		now: time.Unix(0, 0), validated: func() string { return "unknown" },
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !isSPF(s) {
			return
		}
		rec := parseSPF(s)
		for _, term := range rec.terms {
			if name := term.spec.expandDomain(values); len(name) > maxName {
				t.Errorf("%q expands to %d bytes", term.text, len(name))
			}
			if !strings.Contains(s, term.text) {
				t.Errorf("%q comes from nowhere", term.text)
			}
		}
		if words := strings.Count(s, " "); len(rec.faults)+len(rec.terms) > words {
			t.Errorf("%d terms and %d faults of %d words", len(rec.terms), len(rec.faults), words)
		}
	})
}
