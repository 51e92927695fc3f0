package dnscheck

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// ourSide is a sender with nothing wrong, and the zone that goes with it.
func ourSide(t *testing.T) (*Sender, string) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u := &Sender{
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.33")}, Hello: "out.good.example", ReturnPath: "bounce.good.example",
		From: "good.example", Keys: []SigningKey{{Domain: "good.example", Selector: "d1", Public: public}},
	}
	return u, `
33.2.0.192.in-addr.arpa. PTR out.good.example.
out.good.example. A 192.0.2.33
bounce.good.example. TXT "v=spf1 ip4:192.0.2.33 -all"
d1._domainkey.good.example. TXT "` + u.Keys[0].record() + `"
`
}

func TestOurSide(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&rsaKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public := base64.StdEncoding.EncodeToString(der)
	txt := func(name, text string) string {
		var b strings.Builder
		b.WriteString(name + ". TXT")
		for text != "" {
			n := min(len(text), 255)
			b.WriteString(` "` + text[:n] + `"`)
			text = text[n:]
		}
		return b.String() + "\n"
	}
	dkim := func(text string) string { return txt("d1._domainkey.good.example", text) }
	useRSA := func(u *Sender) { u.Keys[0].Public = &rsaKey.PublicKey }
	tests := []struct {
		name, zone, want string
		change           func(*Sender)
		verdict          Verdict
		faults           []dnstest.Fault
	}{
		{"all well", "", "", nil, Arrives, nil},
		{"no PTR", "33.2.0.192.in-addr.arpa. PTR -", "ptr.missing", nil, Held, nil},
		{"PTR of another", "33.2.0.192.in-addr.arpa. PTR elsewhere.example.", "ptr.mismatch", nil, Held, nil},
		{"PTR not known", "", "dns.servfail", nil, Unknown, []dnstest.Fault{{Name: "33.2.0.192.in-addr.arpa", Do: dnstest.Servfail}}},
		{"HELO doesn't exist", "", "helo.unresolvable", func(u *Sender) { u.Hello = "nowhere.good.example" }, Held, nil},
		{"HELO of another", "", "helo.mismatch", func(u *Sender) { u.Hello = "mx1.good.example" }, Arrives, nil},
		{"SPF without us", txt("bounce.good.example", "v=spf1 ip4:192.0.2.34 -all"), "sender.spf_ip_missing", nil, Held, nil},
		{"SPF of another domain", "", "sender.spf_ip_missing spf.missing", func(u *Sender) { u.ReturnPath = "mx1.good.example" }, Held, nil},
		{"SPF not known", "", "dns.servfail spf.temperror", nil, Unknown, []dnstest.Fault{{Name: "bounce.good.example", Type: "TXT", Do: dnstest.Servfail}}},
		{"envelope not aligned", txt("bounce.other.example", "v=spf1 ip4:192.0.2.33 -all"), "dmarc.spf_not_aligned", func(u *Sender) { u.ReturnPath = "bounce.other.example" }, Arrives, nil},
		{"envelope not aligned strictly", txt("_dmarc.good.example", "v=DMARC1; p=reject; aspf=s; rua=mailto:d@good.example"), "dmarc.spf_not_aligned", nil, Arrives, nil},
		{"nothing aligned", txt("bounce.other.example", "v=spf1 ip4:192.0.2.33 -all"), "dmarc.not_aligned",
			func(u *Sender) { u.ReturnPath, u.Keys = "bounce.other.example", nil }, Held, nil},
		{"nothing aligned, and no DMARC", "_dmarc.good.example. TXT -\n" + txt("bounce.other.example", "v=spf1 ip4:192.0.2.33 -all"), "dmarc.missing",
			func(u *Sender) { u.ReturnPath, u.Keys = "bounce.other.example", nil }, Arrives, nil},
		{"key missing", "d1._domainkey.good.example. TXT -", "dkim.missing", nil, Held, nil},
		{"key twice", dkim("v=DKIM1; k=ed25519; p=AA==") + dkim("v=DKIM1; k=rsa; p=AA=="), "dkim.multiple", nil, Held, nil},
		{"key revoked", dkim("v=DKIM1; k=ed25519; p="), "dkim.revoked", nil, Held, nil},
		{"key cut off", dkim("v=DKIM1; k=ed25519; p=AAA"), "dkim.syntax", nil, Held, nil},
		{"key too short", dkim("v=DKIM1; k=ed25519; p=AAAA"), "dkim.syntax", nil, Held, nil},
		{"record of another kind", dkim("v=DKIM2; k=ed25519; p=AAAA"), "dkim.syntax", nil, Held, nil},
		{"other key", dkim("v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(make([]byte, 32))), "dkim.mismatch", nil, Held, nil},
		{"key of another type", dkim("v=DKIM1; k=rsa; p=" + public), "dkim.key_type", nil, Held, nil},
		{"key not known", "", "dns.servfail", nil, Unknown, []dnstest.Fault{{Name: "d1._domainkey.good.example", Do: dnstest.Servfail}}},
		{"RSA", dkim("v=DKIM1; k=rsa; p=" + public), "", useRSA, Arrives, nil},
		{"RSA without v and k", dkim("p=" + public[:100] + " " + public[100:]), "", useRSA, Arrives, nil},
		{"RSA cut off", dkim("v=DKIM1; k=rsa; p=" + public[:100]), "dkim.syntax", useRSA, Held, nil},
		{"RSA other key, short", dkim("v=DKIM1; k=rsa; p=" + shortRSA(t, 1024)), "dkim.mismatch dkim.short_key", useRSA, Held, nil},
		{"no SHA-256", dkim("v=DKIM1; h=sha1; k=rsa; p=" + public), "dkim.hash_not_allowed", useRSA, Held, nil},
		{"SHA-256 among others", dkim("v=DKIM1; h=sha1 : sha256; s=email; k=rsa; p=" + public), "", useRSA, Arrives, nil},
		{"not for mail", dkim("v=DKIM1; s=other; k=rsa; p=" + public), "dkim.service_type", useRSA, Held, nil},
		{"testing", dkim("v=DKIM1; t=y:s; k=rsa; p=" + public), "dkim.testing", useRSA, Arrives, nil},
		{"listed", "33.2.0.192.bl.example. A 127.0.0.2\n33.2.0.192.bl.example. TXT \"spam seen\"", "dnsbl.listed", nil, Held, nil},
		{"list refuses", "33.2.0.192.bl.example. A 127.255.255.254", "dnsbl.query_refused", nil, Unknown, nil},
		{"list was sold", "33.2.0.192.bl.example. A 203.0.113.9", "dnsbl.query_refused", nil, Unknown, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				u, zones := ourSide(t)
				if tt.change != nil {
					tt.change(u)
				}
				r := inMemory(t, ResolverOptions{}, zone(t, overlay(append(strings.Split(zones, "\n"), good...), tt.zone), tt.faults...))
				o := Options{Sender: u, Blocklists: []string{"bl.example"}}
				report := r.Identity(t.Context(), o)
				if got := said(report, StateInfo); !slices.Equal(withoutInfo(tt.want), got) {
					t.Errorf("found %v, want %s: %+v", got, tt.want, report.Findings)
				}
				if report.Verdict != tt.verdict || report.Summary == "" {
					t.Errorf("%s: %s", report.Verdict, report.Summary)
				}
				for _, f := range report.Findings {
					if f.Concerns != OurMail || f.State == StateFail && f.WhoActs != Us {
						t.Errorf("%+v", f)
					}
				}
				// A check of someone else's domain says the same about us.
				theirs := r.Check(t.Context(), "good.example", o)
				for _, code := range withoutInfo(tt.want) {
					if !strings.HasPrefix(code, "spf.") && !slices.Contains(said(theirs), code) {
						t.Errorf("the check leaves out %s", code)
					}
				}
				if tt.verdict == Held && (theirs.Verdict != Held || theirs.WhoActs != Us) {
					t.Errorf("the check says %s, %s", theirs.Verdict, theirs.WhoActs)
				}
			})
		})
	}
}

// withoutInfo are the codes of want that aren't merely informative.
func withoutInfo(want string) []string {
	return slices.DeleteFunc(strings.Fields(want), func(code string) bool { return codes[code].state == StateInfo })
}

func shortRSA(t *testing.T, bits int) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}
