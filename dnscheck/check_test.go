package dnscheck

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// good is a domain at which nothing is to be found fault with. A test replaces
// the records of the names that it gives itself.
var good = []string{
	"good.example. MX 10 mx1.good.example.",
	"good.example. MX 20 mx2.good.example.",
	"mx1.good.example. A 192.0.2.1",
	"mx1.good.example. AAAA 2001:db8::1",
	"mx2.good.example. A 192.0.2.2",
	`good.example. TXT "v=spf1 mx include:_spf.good.example -all"`,
	`_spf.good.example. TXT "v=spf1 ip4:192.0.2.0/28 -all"`,
	`_dmarc.good.example. TXT "v=DMARC1; p=reject; rua=mailto:d@good.example"`,
	"elsewhere.example. A 192.0.2.80",
}

// zoneWith is the good zone with the records of text in place of its own.
func zoneWith(text string) string { return overlay(good, text) }

// overlay is base with the records of text in place of those of the same name and
// type. "name TYPE -" only takes records away.
func overlay(base []string, text string) string {
	replaced := map[string]bool{}
	var lines []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		replaced[fields[0]+" "+fields[1]] = true
		if fields[2] != "-" {
			lines = append(lines, line)
		}
	}
	for _, line := range base {
		fields := strings.Fields(line)
		if len(fields) > 2 && !replaced[fields[0]+" "+fields[1]] {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// said lists a report's findings as "code" or, for one about something else than
// the domain, "code subject", but for the kinds left out.
func said(report Report, without ...State) []string {
	var out []string
	for _, f := range report.Findings {
		if slices.Contains(without, f.State) {
			continue
		}
		out = append(out, f.Code)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func checkZone(t *testing.T, text string, o Options, faults ...dnstest.Fault) (Report, *dnstest.Server) {
	t.Helper()
	s := zone(t, text, faults...)
	r := inMemory(t, ResolverOptions{}, s)
	began := time.Now()
	report := r.Check(t.Context(), "good.example", o)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	for _, f := range report.Findings {
		if _, ok := codes[f.Code]; !ok || f.Text == "" || f.State == "" {
			t.Errorf("finding %+v", f)
		}
	}
	return report, s
}

func TestGoodDomain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		report, s := checkZone(t, zoneWith(""), Options{})
		if report.Verdict != Arrives || len(report.Findings) > 0 || report.Summary != "Mail from us to good.example should arrive." {
			t.Errorf("%+v", report)
		}
		want := map[string]any{
			"spf.lookups": 2, "spf.void": 0, "spf.result_other_ip": "fail", "dmarc.policy": "reject",
			"dmarc.location": "_dmarc.good.example", "mx.hosts": 2,
		}
		if fmt.Sprint(report.Facts) != fmt.Sprint(want) {
			t.Errorf("facts %v", report.Facts)
		}
		if report.Queries > 30 || s.Queries() > 30 {
			t.Errorf("%d questions, %d queries", report.Queries, s.Queries())
		}
	})
}

// Five dependent rounds at most: with a second a question, five seconds.
func TestRounds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := zone(t, zoneWith(""), dnstest.Fault{Name: "*", Do: dnstest.Slow, Delay: time.Second})
		r := inMemory(t, ResolverOptions{}, s)
		began := time.Now()
		report := r.Check(t.Context(), "good.example", Options{Limit: time.Minute})
		if took := time.Since(began); took > 5*time.Second || report.Verdict != Arrives {
			t.Errorf("%v, %s", took, report.Verdict)
		}
	})
}

func TestFindings(t *testing.T) {
	servfail := func(name, kind string) dnstest.Fault {
		return dnstest.Fault{Name: name, Type: kind, Do: dnstest.Servfail}
	}
	spf := func(text string) string { return "good.example. TXT \"" + text + "\"\n" }
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, " a:h%d.elsewhere.example", i)
		}
		return b.String()
	}
	const hosts = "*.elsewhere.example. A 192.0.2.80\n"
	tests := []struct {
		zone    string
		want    string // codes of everything but info
		info    string // codes of info
		verdict Verdict
		faults  []dnstest.Fault
	}{
		{"good.example. MX 10 .", "mx.null mx.null_bad_preference", "", Undeliverable, nil},
		{"good.example. MX 0 .", "mx.null", "", Undeliverable, nil},
		{"good.example. MX 0 .\ngood.example. MX 10 mx1.good.example.", "mx.null_with_others", "", Arrives, nil},
		{"good.example. MX -\ngood.example. A 192.0.2.5\n" + spf("v=spf1 a -all"), "mx.implicit", "", Arrives, nil},
		{"good.example. MX -\n" + spf("v=spf1 -all"), "mx.none", "", Undeliverable, nil},
		{"good.example. MX 10 mx9.good.example.\n" + spf("v=spf1 -all"), "mx.target_nxdomain", "", Undeliverable, nil},
		{"good.example. MX -\ngood.example. A 10.0.0.5\n" + spf("v=spf1 -all"), "mx.private_address", "", Undeliverable, nil},
		{"good.example. MX -\n" + spf("v=spf1 -all"), "dns.servfail mx.target_timeout", "", Unknown, []dnstest.Fault{servfail("good.example", "A"), servfail("good.example", "AAAA")}},
		{"good.example. MX -\ngood.example. TXT -\ngood.example. CNAME nowhere.elsewhere.example.", "domain.apex_cname mx.none spf.missing", "", Undeliverable, nil},
		{"mx1.good.example. A -\nmx1.good.example. AAAA -", "mx.target_nxdomain", "spf.void", Arrives, nil},
		{"mx1.good.example. A -\nmx1.good.example. AAAA -\nmx1.good.example. TXT x", "mx.target_no_address", "spf.void", Arrives, nil},
		{"good.example. MX 10 192.0.2.1.\n" + spf("v=spf1 -all"), "mx.ip_literal", "", Undeliverable, nil},
		{"good.example. MX 10 in.good.example.\nin.good.example. A 10.0.0.1", "mx.private_address", "", Undeliverable, nil},
		{"good.example. MX 10 al.good.example.\nal.good.example. CNAME mx1.good.example.", "mx.cname", "", Arrives, nil},
		{"mx1.good.example. A -\nmx2.good.example. A -\nmx2.good.example. AAAA 2001:db8::2", "mx.ipv6_only", "", Arrives, nil},
		{"good.example. MX 10 mx.good.example.good.example.\n" + spf("v=spf1 -all"), "mx.missing_dot mx.target_nxdomain", "", Undeliverable, nil},
		{"good.example. MX 10 aspmx.l.google.com.good.example.\n" + spf("v=spf1 -all"), "mx.missing_dot mx.target_nxdomain", "", Undeliverable, nil},
		{"", "dns.servfail", "", Arrives, []dnstest.Fault{servfail("mx1.good.example", "AAAA")}},
		{"", "dns.servfail mx.target_timeout spf.temperror", "", Arrives, []dnstest.Fault{servfail("mx1.good.example", "")}},
		{"", "dns.servfail mx.target_timeout spf.temperror", "", Unknown, []dnstest.Fault{servfail("mx1.good.example", ""), servfail("mx2.good.example", "")}},
		{spf("v=spf1 -all"), "dns.servfail", "", Unknown, []dnstest.Fault{servfail("good.example", "MX")}},
		{spf("v=spf1 -all"), "dns.refused", "", Unknown, []dnstest.Fault{{Name: "good.example", Type: "MX", Do: dnstest.Refused}}},
		{spf("v=spf1 -all"), "dns.timeout", "", Unknown, []dnstest.Fault{{Name: "good.example", Type: "MX", Do: dnstest.Silent}}},
		{"", "dns.tcp_failed spf.temperror", "", Unknown, []dnstest.Fault{{Name: "good.example", Type: "MX", Do: dnstest.NoTCP}}},
		{"", "", "dns.tcp_fallback", Arrives, []dnstest.Fault{{Name: "good.example", Type: "MX", Do: dnstest.Truncated}}},
		{"", "", "dns.edns_broken", Arrives, []dnstest.Fault{{Name: "*", Do: dnstest.NoEDNS}}},
		{"", "", "dns.edns_broken", Arrives, []dnstest.Fault{{Name: "*", Do: dnstest.Lossy}}},
		{"", "dnssec.bogus spf.temperror dmarc.temperror", "", Undeliverable, []dnstest.Fault{{Name: "*good.example", Do: dnstest.Bogus}}},
		{"", "", "dnssec.signed", Arrives, []dnstest.Fault{{Name: "*good.example", Do: dnstest.Secure}}},
		{"", "domain.nxdomain", "", Undeliverable, []dnstest.Fault{{Name: "*good.example", Do: dnstest.NXDomain}}},
		{"good.example. MX -\ngood.example. TXT -\ngood.example. CNAME real.elsewhere.example.\nreal.elsewhere.example. MX 5 mx1.good.example.\nreal.elsewhere.example. TXT \"v=spf1 -all\"", "domain.apex_cname", "", Arrives, nil},

		{"good.example. TXT -", "spf.missing", "", Arrives, nil},
		{"good.example. TXT -\ngood.example. SPF \"v=spf1 mx -all\"", "spf.missing spf.type99_only", "", Arrives, nil},
		{spf("v=spf1 mx -all") + spf("v=spf1 a -all"), "spf.multiple", "", Arrives, nil},
		{spf(" v=spf1 mx -all"), "spf.leading_space spf.missing", "", Arrives, nil},
		{spf(`\"v=spf1 mx -all\"`), "spf.missing spf.quoted", "", Arrives, nil},
		{spf("v=spf1 mx -all") + spf("spf2.0/pra mx -all"), "", "spf.senderid", Arrives, nil},
		{"good.example. TXT \"v=spf1 mx\" \"ip4:192.0.2.9 -all\"", "spf.joined_strings spf.syntax", "", Arrives, nil},
		{"good.example. TXT \"v=spf1 mx\" \" ip4:192.0.2.9 -all\"", "", "", Arrives, nil},
		{spf("v=spf1 mx -all a"), "spf.after_all", "", Arrives, nil},
		{spf("v=spf1 mx ip4:300.1.1.1 -all"), "spf.syntax", "", Arrives, nil},
		{spf("v=spf1 mx exists:%{x}.example.com -all"), "spf.macro_invalid", "", Arrives, nil},
		{spf("v=spf1 mx exists:%{i}.good.example -all"), "", "spf.macro_dynamic", Arrives, nil},
		{spf("v=spf1 mx exists:%{p}.%{t}.good.example -all"), "spf.macro_invalid", "", Arrives, nil},
		{spf("v=spf1 mx exists:%{p}.%{s}%{l}%{o}%{h}%{v}.good.example a:%{d} -all"), "", "spf.macro_dynamic spf.void", Arrives, nil},
		{spf("v=spf1 mx include:good.example -all"), "spf.include_loop", "", Arrives, nil},
		{spf("v=spf1 mx include:nospf.example -all"), "spf.include_no_record", "", Arrives, nil},
		{spf("v=spf1 mx"), "spf.no_all", "", Arrives, nil},
		{spf("v=spf1 mx redirect=_spf.good.example"), "", "", Arrives, nil},
		{spf("v=spf1 mx redirect=_spf.good.example ~all"), "spf.redirect_ignored", "", Arrives, nil},
		{spf("v=spf1 mx ?all"), "spf.neutral_all", "", Arrives, nil},
		{spf("v=spf1 mx all"), "spf.plus_all", "", Arrives, nil},
		{"_spf.good.example. TXT \"v=spf1 +all\"", "spf.plus_all", "", Arrives, nil},
		{spf("v=spf1 mx ptr -all"), "spf.ptr", "", Arrives, nil},
		{spf("v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all"), "spf.too_broad", "", Arrives, nil},
		{spf("v=spf1 ip4:17.0.0.0/8 ip6:2001:db8::/32 -all"), "", "", Arrives, nil},
		{hosts + spf("v=spf1"+many(9)+" -all"), "", "", Arrives, nil},
		{hosts + spf("v=spf1"+many(10)+" -all"), "", "spf.at_lookup_limit", Arrives, nil},
		{hosts + spf("v=spf1"+many(4)+" include:_spf.good.example -all") + "_spf.good.example. TXT \"v=spf1" + many(6) + " -all\"", "spf.too_many_lookups", "", Arrives, nil},
		{spf("v=spf1 a:n1.good.example -all"), "", "spf.void", Arrives, nil},
		{spf("v=spf1 a:n1.good.example a:n2.good.example -all"), "", "spf.void spf.void_at_limit", Arrives, nil},
		{spf("v=spf1 a:n1.good.example a:n2.good.example mx:n3.good.example -all"), "spf.too_many_void", "spf.void", Arrives, nil},
		{hosts + spf("v=spf1 mx:many.example -all") + func() string {
			var b strings.Builder
			for i := range 11 {
				fmt.Fprintf(&b, "many.example. MX 1 h%d.elsewhere.example.\n", i)
			}
			return b.String()
		}(), "spf.mx_limit", "", Arrives, nil},
		{"", "dns.servfail spf.temperror", "", Arrives, []dnstest.Fault{servfail("_spf.good.example", "")}},

		{"_dmarc.good.example. TXT -", "dmarc.missing", "", Arrives, nil},
		{"_dmarc.good.example. TXT -\n" + "good.example. TXT \"v=DMARC1; p=reject\"\n" + spf("v=spf1 -all"), "dmarc.missing dmarc.wrong_location", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=dmarc1; p=reject\"", "dmarc.missing dmarc.version_case", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1 p=reject\"", "dmarc.missing dmarc.syntax", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; p=none; rua=mailto:d@good.example\"", "dmarc.policy_none", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; p=reject; pct=50\"", "", "dmarc.deprecated_tag dmarc.no_rua", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; p=reject\"\n_dmarc.good.example. TXT \"v=DMARC1; p=none\"", "dmarc.multiple", "", Arrives, nil},
		{"_dmarc.good.example. TXT -\n_dmarc.good.example. CNAME d.elsewhere.example.\nd.elsewhere.example. TXT \"v=DMARC1; p=reject; rua=mailto:d@good.example\"", "", "dmarc.cname", Arrives, nil},
		{"_dmarc.good.example. TXT -\n_dmarc.good.example. CNAME d.nowhere.example.", "dmarc.cname_dangling dmarc.missing", "", Arrives, nil},
		{"_dmarc.good.example. TXT -\n_dmarc.example. TXT \"v=DMARC1; p=reject; psd=y; rua=mailto:d@good.example\"", "", "dmarc.inherited", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; p=rejct\"", "dmarc.invalid_policy", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; adkim=s\"", "dmarc.missing_policy", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; p=reject; rua=d@good.example\"", "dmarc.rua_invalid", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; p=reject; rua=mailto:d@other.example\"", "dmarc.rua_unauthorized", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; p=reject; rua=mailto:d@other.example\"\ngood.example._report._dmarc.other.example. TXT \"v=DMARC1\"", "", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; p=reject; sp=none; rua=mailto:d@good.example\"", "dmarc.sp_weaker", "", Arrives, nil},
		{"_dmarc.good.example. TXT \"v=DMARC1; p=reject; t=y; rua=mailto:d@good.example\"", "dmarc.test_mode", "", Arrives, nil},
		{"", "dmarc.temperror dns.servfail", "", Arrives, []dnstest.Fault{servfail("_dmarc.good.example", "")}},

		{"*.good.example. TXT \"v=spf1 -all\"\n_spf.good.example. TXT \"v=spf1 -all\"", "dns.wildcard_txt", "", Arrives, nil},
		{"default._bimi.good.example. TXT \"v=BIMI1; l=http://good.example/l.svg\"", "bimi.not_https", "", Arrives, nil},
		{"default._bimi.good.example. TXT \"v=BIMI1; x\"", "bimi.syntax", "", Arrives, nil},
		{"default._bimi.good.example. TXT \"v=BIMI1; l=https://good.example/l.svg\"\n_dmarc.good.example. TXT \"v=DMARC1; p=none; rua=mailto:d@good.example\"", "bimi.no_enforcement dmarc.policy_none", "", Arrives, nil},
		{"default._bimi.good.example. TXT \"v=BIMI1; l=https://good.example/l.svg\"", "", "", Arrives, nil},
		{"_smtp._tls.good.example. TXT \"v=TLSRPTv1; rua=mailto:t@good.example\"", "", "", Arrives, nil},
		{"_smtp._tls.good.example. TXT \"v=TLSRPTv1; rua=t@good.example\"", "tlsrpt.syntax", "", Arrives, nil},
		{"_mta-sts.good.example. TXT \"v=STSv1; id=\"\n_smtp._tls.good.example. TXT \"v=TLSRPTv1; rua=mailto:t@good.example\"", "mtasts.syntax", "", Arrives, nil},
		{"_mta-sts.good.example. TXT \"v=STSv1; id=1\"\n_mta-sts.good.example. TXT \"v=STSv1; id=2\"\n_smtp._tls.good.example. TXT \"v=TLSRPTv1; rua=mailto:t@good.example\"", "mtasts.multiple", "", Arrives, nil},
		{"_mta-sts.good.example. TXT \"v=STSv1; id=1\"", "mtasts.policy_unreachable tlsrpt.missing", "", Arrives, nil},
		{"_25._tcp.mx1.good.example. TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000", "dane.unsigned", "", Arrives, nil},
		{"", "", "", Arrives, []dnstest.Fault{servfail("_25._tcp.mx1.good.example", ""), servfail("autodiscover.good.example", "")}},
		{"", "dns.servfail", "dnssec.signed", Arrives, []dnstest.Fault{servfail("_25._tcp.mx1.good.example", ""), {Name: "*good.example", Do: dnstest.Secure}}},
		{"", "", "", Arrives, []dnstest.Fault{servfail("_dmarc.example", "")}},
		{"_25._tcp.mx1.good.example. TLSA 1 1 1 0000000000000000000000000000000000000000000000000000000000000000", "dane.unusable", "dnssec.signed", Arrives, []dnstest.Fault{{Name: "*good.example", Do: dnstest.Secure}}},
		{"_25._tcp.mx1.good.example. TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000", "tlsrpt.missing", "dnssec.signed", Arrives, []dnstest.Fault{{Name: "*good.example", Do: dnstest.Secure}}},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprintf("%d %s", i, tt.want), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				report, _ := checkZone(t, zoneWith(tt.zone), Options{}, tt.faults...)
				want := strings.Fields(tt.want)
				slices.Sort(want)
				if got := said(report, StateInfo); !slices.Equal(got, want) {
					t.Errorf("found %v, want %v", got, want)
				}
				if got := said(report, StateFail, StateWarn, StateUnknown); !slices.Equal(got, strings.Fields(tt.info)) {
					t.Errorf("info %v, want %v", got, tt.info)
				}
				if report.Verdict != tt.verdict {
					t.Errorf("verdict %s (%s), want %s", report.Verdict, report.Summary, tt.verdict)
				}
			})
		})
	}
}

func TestVerdict(t *testing.T) {
	history := func(accepted, refused int) func(context.Context, string) *History {
		return func(context.Context, string) *History {
			return &History{Since: time.Unix(0, 0), Accepted: accepted, Refused: refused, LastReplies: []string{"550 5.7.1 no"}}
		}
	}
	const mimecast = "good.example. MX 10 a.mimecast.com.\na.mimecast.com. A 192.0.2.1\n"
	for _, tt := range []struct {
		name, zone    string
		options       Options
		verdict       Verdict
		who           Who
		summary, next string
	}{
		{"arrives", mimecast, Options{}, Arrives, Nobody, "Mail from us to good.example should arrive; it is received by Mimecast.", "allow our mail in Mimecast"},
		{"arrives behind", mimecast + "autodiscover.good.example. CNAME autodiscover.outlook.com.", Options{}, Arrives, Nobody, "filtered by Mimecast and kept by Microsoft 365", "Mimecast"},
		{"in Finnish", mimecast, Options{Lang: "fi"}, Arrives, Nobody, "ne vastaanottaa Mimecast", "sallia viestimme tuotteessa Mimecast"},
		{"null MX", "good.example. MX 0 .", Options{}, Undeliverable, Nobody, "cannot be delivered: The domain says that it takes no mail", "Ask for another address"},
		{"null MX in Finnish", "good.example. MX 0 .", Options{Lang: "fi"}, Undeliverable, Nobody, "ettei se ota vastaan", "Pyydä toinen osoite"},
		{"exchanger missing", "good.example. MX 10 no.good.example.", Options{}, Undeliverable, TheirIT, "no.good.example does not exist", "Their IT has to repair this: The exchanger"},
		{"exchanger missing in Finnish", "good.example. MX 10 no.good.example.", Options{Lang: "fi"}, Undeliverable, TheirIT, "palvelinta ei ole olemassa", "korjattava tämä: nimettyä"},
		{"refused lately", "", Options{History: history(1, 5)}, Held, TheirIT, "5 of our messages were refused and 1 handed over", ""},
		{"refused once", "", Options{History: history(5, 1)}, Arrives, Nobody, "should arrive", ""},
		{"their own mail is none of our business", `good.example. TXT "v=spf1 +all"` + "\n_dmarc.good.example. TXT -", Options{}, Arrives, Nobody, "should arrive", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				report, _ := checkZone(t, zoneWith(tt.zone), tt.options)
				if report.Verdict != tt.verdict || report.WhoActs != tt.who || !strings.Contains(report.Summary, tt.summary) || !strings.Contains(report.Next, tt.next) {
					t.Errorf("%s, %s: %s / %s", report.Verdict, report.WhoActs, report.Summary, report.Next)
				}
			})
		})
	}
}

// C17, and what people paste.
func TestNormalDomain(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Example.COM ": "example.com", "\u00a0example.com\u200b": "example.com", "a.b@Example.com": "example.com", "<x@example.com>": "example.com",
		"example.com.": "example.com", "bücher.example": "xn--bcher-kva.example", "BÜCHER.example": "xn--bcher-kva.example",
		"straße.example": "xn--strae-oqa.example", "例え。example": "xn--r8jz45g.example", "xn--bcher-kva.example": "xn--bcher-kva.example",
		"": "", "localhost": "", "192.0.2.1": "", "[192.0.2.1]": "", "::1": "", "a_b.example": "", "-a.example": "", "a..example": "", "xn--a.example": "",
		"a b.example": "", "http://example.com/": "", strings.Repeat("a", 64) + ".example": "", strings.Repeat("a.", 130) + "example": "",
		strings.Repeat("x", 1<<20): "", "a\x00b.example": "", "\u202eexample.com": "", "אa.example": "",
	} {
		got, err := NormalDomain(text)
		if (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%.40q: %q, %v", text, got, err)
		}
	}
}

func TestInvalidDomainIsReported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := zone(t, "")
		r := inMemory(t, ResolverOptions{}, s)
		report := r.Check(t.Context(), "not a\ndomain", Options{})
		if report.Verdict != Undeliverable || !slices.Equal(said(report), []string{"domain.invalid"}) || s.Queries() > 0 || strings.Contains(report.Summary+report.Domain, "\n") {
			t.Errorf("%+v", report)
		}
	})
}

// A domain whose servers are silent, or our resolver being dead, ends within five
// seconds and is unknown.
func TestSilence(t *testing.T) {
	for _, name := range []string{"*good.example", "*"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				report, _ := checkZone(t, zoneWith(""), Options{}, dnstest.Fault{Name: name, Do: dnstest.Silent})
				if report.Verdict != Unknown || !slices.Contains(said(report), "dns.timeout") {
					t.Errorf("%s: %v", report.Verdict, said(report))
				}
				for _, f := range report.Findings {
					if f.State != StateUnknown {
						t.Errorf("claims %s %s", f.State, f.Code)
					}
				}
			})
		})
	}
}

// C15, C16: no zone makes a check ask or say much.
func TestC16HostileZones(t *testing.T) {
	var wide, deep, texts strings.Builder
	for i := range 400 {
		fmt.Fprintf(&wide, " include:i%d.w.example", i)
		fmt.Fprintf(&deep, "d%d.example. TXT \"v=spf1 include:d%d.example include:d%d.example -all\"\n", i, i+1, i+2)
		fmt.Fprintf(&texts, "good.example. TXT \"%d %s\"\n", i, strings.Repeat("\\255", 200))
		fmt.Fprintf(&texts, "good.example. MX %d mx%d.w.example.\n", i, i)
		fmt.Fprintf(&texts, "_dmarc.good.example. TXT \"v=DMARC1; p=none; rua=mailto:a@r%d.w.example\"\n", i)
	}
	record := func(name, text string) string {
		var b strings.Builder
		b.WriteString(name + ". TXT")
		for ; text != ""; text = text[min(len(text), 250):] {
			fmt.Fprintf(&b, " \"%s\"", text[:min(len(text), 250)])
		}
		return b.String() + "\n"
	}
	for name, text := range map[string]string{
		"wide": record("good.example", "v=spf1"+wide.String()+" -all") + record("*.w.example", "v=spf1"+wide.String()+" -all"),
		"deep": record("good.example", "v=spf1 include:d0.example -all") + deep.String(),
		"many": texts.String() + "*.w.example. A 192.0.2.1\n*.w.example. AAAA 2001:db8::1\n",
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				report, s := checkZone(t, zoneWith(text), Options{})
				// A question may take UDP and TCP.
				if report.Queries > maxQuestions || s.Queries() > 2*maxQuestions+10 || len(report.Findings) > maxFindings {
					t.Errorf("%d questions, %d queries, %d findings", report.Queries, s.Queries(), len(report.Findings))
				}
				data, err := json.Marshal(report)
				if err != nil || len(data) > 200<<10 || !utf8.Valid(data) {
					t.Errorf("%d bytes, %v", len(data), err)
				}
				if name != "many" && !slices.Contains(said(report), "spf.too_many_lookups") {
					t.Errorf("found %v", said(report))
				}
			})
		})
	}
}

// The JSON is a contract with scripts.
func TestReportJSON(t *testing.T) {
	bubble(t, func(t *testing.T) {
		report, _ := checkZone(t, zoneWith("good.example. MX 10 a.mimecast.com.\na.mimecast.com. A 192.0.2.1\nautodiscover.good.example. CNAME autodiscover.outlook.com.\n_dmarc.good.example. TXT -"), Options{})
		data, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Version                         int
			Query, Domain, Verdict, Summary string
			At                              time.Time
			TookMS                          *int `json:"took_ms"`
			Queries                         int
			WhoActs                         string `json:"who_acts"`
			Provider, Behind                struct{ ID, Name string }
			Facts                           map[string]any
			Findings                        []map[string]any
			Allowlist                       []map[string]any
		}
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		if got.Version != 1 || got.Domain != "good.example" || got.Verdict != "arrives" || got.TookMS == nil || got.Provider.ID != "mimecast" || got.Behind.ID != "microsoft365" || got.WhoActs != "nobody" {
			t.Errorf("%s", data)
		}
		for _, key := range []string{"code", "state", "subject", "text", "fix", "rfc", "who_acts"} {
			if _, ok := got.Findings[0][key]; !ok {
				t.Errorf("a finding without %s: %v", key, got.Findings[0])
			}
		}
		for _, key := range []string{"product", "method", "rank", "steps", "values", "identifier", "source", "verified"} {
			if _, ok := got.Allowlist[0][key]; !ok {
				t.Errorf("advice without %s: %v", key, got.Allowlist[0])
			}
		}
	})
}
