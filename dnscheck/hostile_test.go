package dnscheck

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// Whatever text a zone's owner publishes, the report has a verdict, only codes of
// the catalogue, and nothing in it that could steer a terminal or a page.
func FuzzReport(f *testing.F) {
	for _, text := range []string{
		"v=spf1 exists:%{p}%{s}%{l}%{o}%{h}%{i}%{v} exp=%{d}.x.example", "v=spf1 include:%{d} a mx ptr exists:%{i} redirect=good.example -all", "v=DMARC1; p=reject; rua=mailto:a%0a@b.example!5m; sp=x; t=y",
		"v=STSv1; id=1", "v=TLSRPTv1; rua=x", "v=BIMI1; l=http://x; a=self", "\x1b[31m\u202e\x00\xff", " v=spf1", "\"v=spf1 -all\"", "v=dmarc1;p",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4000 {
			return
		}
		var strs strings.Builder
		for rest := text; rest != ""; rest = rest[min(len(rest), 200):] {
			strs.WriteString(` "`)
			for _, c := range []byte(rest[:min(len(rest), 200)]) {
				fmt.Fprintf(&strs, `\%03d`, c)
			}
			strs.WriteString(`"`)
		}
		if text == "" {
			strs.WriteString(` ""`)
		}
		var zones strings.Builder
		for _, name := range []string{"good.example", "_dmarc.good.example", "_mta-sts.good.example", "_smtp._tls.good.example", "default._bimi.good.example"} {
			zones.WriteString(name + ". TXT" + strs.String() + "\n")
		}
		s, err := dnstest.New(zoneWith(zones.String()))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		r, err := NewResolver(ResolverOptions{Servers: []string{"127.0.0.1"}, Dial: s.Dial})
		if err != nil {
			t.Fatal(err)
		}
		report := r.Check(t.Context(), "good.example", Options{})
		if report.Verdict != Arrives {
			t.Errorf("their text makes mail %s: %s", report.Verdict, report.Summary)
		}
		for _, finding := range report.Findings {
			if _, ok := codes[finding.Code]; !ok {
				t.Errorf("unknown code %s", finding.Code)
			}
			for _, said := range append(finding.Evidence, finding.Subject, finding.Text, finding.Fix) {
				if strings.ContainsFunc(said, func(c rune) bool {
					return unicode.In(c, unicode.Cc, unicode.Cf) || c == unicode.ReplacementChar && !strings.ContainsRune(text, c)
				}) {
					t.Errorf("%s says %q", finding.Code, said)
				}
			}
		}
		if _, err := json.Marshal(report); err != nil {
			t.Error(err)
		}
	})
}

// A domain that is accepted can be looked up, and is in its normal form already.
func FuzzNormalDomain(f *testing.F) {
	for _, text := range []string{"Example.COM. ", "a@bücher.example", "例え。テスト", "xn--bcher-kva.example", "\u200bא.example", "1.2.3.4"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		domain, err := NormalDomain(text)
		if err != nil {
			return
		}
		if again, err := NormalDomain(domain); err != nil || again != domain {
			t.Errorf("%q becomes %q, and that %q, %v", text, domain, again, err)
		}
		if fqdn, err := presentation(domain); err != nil || fqdn != domain+"." {
			t.Errorf("%q can't be asked for as it is: %q, %v", domain, fqdn, err)
		}
	})
}
