package dnscheck

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

func TestParseDMARC(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text             string
		own, below, none string // the policy for the domain, for a name below it, for one that doesn't exist
		faults           string
		old              bool // RFC 7489 receivers apply it
	}{
		{"v=DMARC1; p=reject", "reject", "reject", "reject", "", true},
		{"v=DMARC1; p=none; sp=quarantine; np=reject", "none", "quarantine", "reject", "", true},
		{"v=DMARC1; p=reject; sp=none", "reject", "none", "none", "dmarc.sp_weaker", true},
		{"v=DMARC1; p=reject; np=none", "reject", "reject", "none", "dmarc.sp_weaker", true},
		{"v=DMARC1; p=reject; t=y", "quarantine", "quarantine", "quarantine", "dmarc.test_mode", true},
		{"v=DMARC1; p=quarantine; t=y; np=reject", "none", "none", "quarantine", "dmarc.test_mode", true},
		{"v=DMARC1; sp=reject; p=reject", "reject", "reject", "reject", "", false},
		{"v=DMARC1;p=reject;pct=50;ri=3600;rf=afrf", "reject", "reject", "reject", "dmarc.deprecated_tag", true},
		{"v=DMARC1; rua=mailto:a@b.example", "none", "none", "none", "dmarc.missing_policy", false},
		{"v=DMARC1", "", "", "", "dmarc.missing_policy", false},
		{"v=DMARC1; p=rejekt; rua=mailto:a@b.example", "none", "none", "none", "dmarc.invalid_policy", true},
		{"v=DMARC1; p=reject; p=none", "", "", "", "dmarc.syntax", true},
		{"v=DMARC1; p=reject; =x; y", "reject", "reject", "reject", "dmarc.syntax dmarc.syntax", false},
		{"v=DMARC1; p=reject; t=maybe; fo=x; psd=1; aspf=z", "reject", "reject", "reject", "dmarc.syntax dmarc.syntax dmarc.syntax dmarc.syntax", false},
		{"v=DMARC1; p=reject; rua=mailto:a@b@c.example,mailto:,ftp://x,mailto:@x,mailto:a%0d@x.example!1m", "reject", "reject", "reject", "dmarc.rua_invalid dmarc.rua_invalid dmarc.rua_invalid dmarc.rua_invalid", false},
	} {
		if !isDMARC(tt.text) {
			t.Errorf("%q is not taken for DMARC", tt.text)
			continue
		}
		d := parseDMARC(tt.text)
		var faults []string
		for _, f := range d.faults {
			faults = append(faults, f.code)
		}
		got := fmt.Sprint(d.policy(false, true), "/", d.policy(true, true), "/", d.policy(true, false), "/", strings.Join(faults, " "), "/", valid7489(tt.text))
		if want := fmt.Sprint(tt.own, "/", tt.below, "/", tt.none, "/", tt.faults, "/", tt.old); got != want {
			t.Errorf("%q: %s, want %s", tt.text, got, want)
		}
	}
	for _, text := range []string{"", "v=DMARC1x", "v=dmarc1; p=none", "p=none; v=DMARC1", "v=DMARC1 p=none", "v DMARC1"} {
		if isDMARC(text) || valid7489(text) {
			t.Errorf("%q is taken for DMARC", text)
		}
	}
}

// The walk of RFC 9989 4.10, seen from outside: which policy, whose, how many
// questions.
func TestDMARCWalk(t *testing.T) {
	for _, tt := range []struct {
		name, author, zone    string
		location, org, policy string
		err                   bool
		questions             int
		faults                []dnstest.Fault
	}{
		{"own record", "a.example", "a.example p=reject", "a.example", "a.example", "reject", false, 2, nil},
		{"the organization's", "x.a.example", "a.example p=reject", "a.example", "a.example", "reject", false, 3, nil},
		{"the topmost is the organization", "x.y.a.example", "y.a.example p=none,a.example p=reject", "a.example", "a.example", "reject", false, 4, nil},
		{"psd=n ends it", "x.y.a.example", "y.a.example p=none; psd=n,a.example p=reject", "y.a.example", "y.a.example", "none", false, 2, nil},
		{"below a public suffix", "x.a.co.example", "co.example p=reject; psd=y", "co.example", "a.co.example", "reject", false, 3, nil},
		{"a public suffix itself", "co.example", "co.example p=reject; psd=y", "co.example", "co.example", "reject", false, 2, nil},
		{"nothing", "x.a.example", "", "", "x.a.example", "", false, 3, nil},
		{"nine labels", "a.b.c.d.e.f.g.h.example", "d.e.f.g.h.example p=none", "d.e.f.g.h.example", "d.e.f.g.h.example", "none", false, 8, nil},
		{"own name not answered", "a.example", "a.example p=reject", "", "a.example", "", true, 1, []dnstest.Fault{{Name: "_dmarc.a.example", Do: dnstest.Servfail}}},
		{"parent not answered", "x.a.example", "a.example p=reject", "", "x.a.example", "", true, 2, []dnstest.Fault{{Name: "_dmarc.a.example", Do: dnstest.Servfail}}},
		{"what is found stands", "a.example", "a.example p=reject", "a.example", "a.example", "reject", false, 2, []dnstest.Fault{{Name: "_dmarc.example", Do: dnstest.Servfail}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var text strings.Builder
				for record := range strings.SplitSeq(tt.zone, ",") {
					if domain, tags, ok := strings.Cut(record, " "); ok {
						fmt.Fprintf(&text, "_dmarc.%s. TXT \"v=DMARC1; %s\"\n", domain, tags)
					}
				}
				s := zone(t, text.String(), tt.faults...)
				p := discoverDMARC(t.Context(), inMemory(t, ResolverOptions{}, s), tt.author, true, true)
				if p.location != tt.location || p.org != tt.org || p.policy != tt.policy || (p.err != nil) != tt.err || s.Queries() != tt.questions {
					t.Errorf("location %q, organization %q, policy %q, %v, %d questions", p.location, p.org, p.policy, p.err, s.Queries())
				}
			})
		})
	}
}

// Where receivers that follow RFC 7489 do something else, the report says so.
func TestDMARCOldView(t *testing.T) {
	for _, tt := range []struct {
		name, zone, now string
		old             any
	}{
		{"the same", `_dmarc.good.example. TXT "v=DMARC1; p=reject; rua=mailto:d@good.example"`, "reject", nil},
		{"order of tags", `_dmarc.good.example. TXT "v=DMARC1; sp=none; p=reject"`, "reject", ""},
		{"test mode", `_dmarc.good.example. TXT "v=DMARC1; p=reject; t=y"`, "quarantine", "reject"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				report, _ := checkZone(t, zoneWith(tt.zone), Options{})
				if report.Facts["dmarc.policy"] != tt.now || report.Facts["dmarc.policy_rfc7489"] != tt.old {
					t.Errorf("%v", report.Facts)
				}
			})
		})
	}
}

// A report's address never smuggles anything into a name that is looked up or
// shown, and a record that applies has a policy that exists.
func FuzzParseDMARC(f *testing.F) {
	f.Add("v=DMARC1; p=reject; sp=none; np=quarantine; rua=mailto:a%2Cb@example.com!10m,mailto:c@d.example; t=y; psd=n; fo=1:d")
	f.Fuzz(func(t *testing.T, text string) {
		valid7489(text)
		if !isDMARC(text) {
			return
		}
		d := parseDMARC(text)
		policies := []string{"none", "quarantine", "reject"}
		for _, p := range []string{d.policy(false, true), d.policy(true, true), d.policy(true, false)} {
			if slices.Contains(policies, p) != d.applies {
				t.Errorf("policy %q, applies %v", p, d.applies)
			}
		}
		for _, domain := range d.reporters("example.com") {
			if domain == "" || strings.Contains(domain, "@") {
				t.Errorf("reports go to %q", domain)
			}
		}
	})
}
