package dnscheck

import (
	"crypto/ed25519"
	"encoding/json"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var placeholder = regexp.MustCompile(`\{[a-z_]+\}`)

// Every file can be read, is complete in both languages, and names nothing that
// isn't there.
func TestProductFiles(t *testing.T) {
	t.Parallel()
	all, clients := catalogue()
	if len(all) < 41 || len(clients) < 9 {
		t.Fatalf("%d products, %d clients", len(all), len(clients))
	}
	complete := func(where string, words map[string]*steps) {
		if len(words) != len(languages) {
			t.Errorf("%s: languages %v", where, len(words))
			return
		}
		for lang, w := range words {
			if len(w.Steps) == 0 || len(w.Steps) != len(words["en"].Steps) || len(w.Caveats) != len(words["en"].Caveats) ||
				(w.Skips == "") != (words["en"].Skips == "") || (w.Applies == "") != (words["en"].Applies == "") {
				t.Errorf("%s: %s says other things than en", where, lang)
			}
			text := strings.Join(append(w.Steps, w.Caveats...), " ")
			for _, p := range placeholder.FindAllString(text, -1) {
				if _, ok := unnamed[lang][strings.Trim(p, "{}")]; !ok {
					t.Errorf("%s: %s names %s", where, lang, p)
				}
			}
		}
	}
	files, err := productFiles.ReadDir("products")
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range all {
		if path.Base(files[i].Name()) != p.ID+".json" {
			t.Errorf("%s is in %s", p.ID, files[i].Name())
		}
		if !slices.Contains([]string{"gateway", "mailbox", "hosting", "forwarder", "self_hosted", "api_overlay"}, p.Kind) || !slices.Contains([]string{"official", "third_party", "unverified"}, p.Verified) {
			t.Errorf("%s: kind %q, verified %q", p.ID, p.Kind, p.Verified)
		}
		if (p.Verified == "unverified") != (p.Source == "") || p.Name == "" || len(p.Methods) == 0 {
			t.Errorf("%s: source %q", p.ID, p.Source)
		}
		recommended := 0
		for _, m := range p.Methods {
			complete(p.ID, m.Words)
			if m.Recommended {
				recommended++
			}
			if m.Words["en"].Method == "" || m.Rank < 1 || m.Recommended && m.Rank != 1 {
				t.Errorf("%s: rank %d", p.ID, m.Rank)
			}
			for _, key := range m.Identifier {
				if unnamed["en"][key] == "" {
					t.Errorf("%s: identifier %s", p.ID, key)
				}
			}
		}
		if recommended > 1 {
			t.Errorf("%s recommends %d methods", p.ID, recommended)
		}
		if p.Behind != nil {
			complete(p.ID+" behind", p.Behind)
		}
	}
	for _, c := range clients {
		complete(c.ID, c.Words)
	}
}

func TestConformanceProducts(t *testing.T) {
	t.Parallel()
	var providers struct {
		Providers []struct {
			ID, Verified string
			Suffixes     []string `json:"mx_suffix"`
		}
		Clients map[string]any
	}
	if err := json.Unmarshal(shared(t, "providers.json"), &providers); err != nil {
		t.Fatal(err)
	}
	all, clients := catalogue()
	for _, want := range providers.Providers {
		i := slices.IndexFunc(all, func(p *product) bool { return p.ID == want.ID })
		if i < 0 {
			t.Errorf("no product %s", want.ID)
			continue
		}
		if all[i].Verified != want.Verified {
			t.Errorf("%s: verified %q, want %q", want.ID, all[i].Verified, want.Verified)
		}
		for _, suffix := range want.Suffixes {
			host := "mx1-a." + suffix
			if suffix == "amazonaws.com" {
				host = "inbound-smtp.eu-west-1." + suffix
			}
			if p := longest(all, host, func(p *product) []string { return p.MX }); p == nil || p.ID != want.ID {
				t.Errorf("%s is taken for %+v", host, p)
			}
			covered := slices.ContainsFunc(all[i].MX, func(other string) bool { return other != suffix && belongs(suffix, other) })
			if p := longest(all, "not"+suffix, func(p *product) []string { return p.MX }); p != nil && !covered {
				t.Errorf("not%s is taken for %s", suffix, p.ID)
			}
		}
	}
	for id := range providers.Clients {
		if !slices.ContainsFunc(clients, func(c *client) bool { return c.ID == id }) {
			t.Errorf("no client %s", id)
		}
	}
	var wanted map[string]string
	if err := json.Unmarshal(shared(t, "finding-codes.json"), &wanted); err != nil {
		t.Fatal(err)
	}
	for code := range wanted {
		if _, ok := codes[code]; !ok {
			t.Errorf("no finding %s", code)
		}
	}
}

func TestDetection(t *testing.T) {
	const auto = "autodiscover.good.example. CNAME autodiscover.outlook.com.\n"
	spf := func(include string) string {
		return "good.example. TXT \"v=spf1 include:" + include + " -all\"\n" + include + ". TXT \"v=spf1 ip4:192.0.2.0/24 -all\"\n"
	}
	mx := func(host string) string { return "good.example. MX 10 " + host + ".\n" + host + ". A 192.0.2.1\n" }
	for _, tt := range []struct {
		name, zone, front, behind string
	}{
		{"mailbox product", mx("good-example.mail.protection.outlook.com") + auto, "microsoft365", ""},
		{"new MX of Microsoft", mx("good-example.a-v1.mx.microsoft"), "microsoft365", ""},
		{"gateway, autodiscover", mx("eu-smtp-inbound-1.mimecast.com") + auto, "mimecast", "microsoft365"},
		{"gateway, SPF", mx("mxa-00000001.gslb.pphosted.com") + spf("_spf.google.com"), "proofpoint-enterprise", "google-workspace"},
		{"gateway, verification", mx("mx1.hc1-1.iphmx.com") + "good.example. TXT \"v=spf1 -all\"\ngood.example. TXT \"MS=ms12345678\"", "cisco-secure-email", "microsoft365"},
		{"own host, autodiscover", auto, "", "microsoft365"},
		{"own host, verification proves nothing", "good.example. TXT \"v=spf1 -all\"\ngood.example. TXT \"MS=ms12345678\"", "", ""},
		{"own host that is an alias", "good.example. MX 10 mx.good.example.\nmx.good.example. CNAME x.mx.microsoft.\nx.mx.microsoft. A 192.0.2.1", "microsoft365", ""},
		{"name that only looks alike", mx("mx.notpphosted.com"), "", ""},
		{"the best preference decides", "good.example. MX 10 a.ppe-hosted.com.\ngood.example. MX 20 a.mimecast.com.\na.ppe-hosted.com. A 192.0.2.1\na.mimecast.com. A 192.0.2.1", "proofpoint-essentials", ""},
		{"forwarder", mx("route1.mx.cloudflare.net"), "cloudflare-email-routing", ""},
		{"nothing known", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				report, _ := checkZone(t, zoneWith(tt.zone), Options{})
				id := func(p *Product) string {
					if p == nil {
						return ""
					}
					return p.ID
				}
				if id(report.Provider) != tt.front || id(report.Behind) != tt.behind {
					t.Errorf("%q before %q", id(report.Provider), id(report.Behind))
				}
				if mixed := tt.name == "the best preference decides"; mixed != slices.Contains(said(report), "mx.mixed_providers") {
					t.Errorf("findings %v", said(report))
				}
				if (len(report.Allowlist) > 0) != (tt.front != "" || tt.behind != "") {
					t.Errorf("%d methods", len(report.Allowlist))
				}
			})
		})
	}
}

// An administrator can copy the steps as they are.
func TestAdvice(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	u := &Sender{
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.33"), netip.MustParseAddr("2001:db8::33")}, Hello: "out.acme.example",
		ReturnPath: "bounce.acme.example", From: "acme.example", Keys: []SigningKey{{"acme.example", "a", public}, {"acme.example", "b", public}},
	}
	const zones = "good.example. MX 10 a.mimecast.com.\na.mimecast.com. A 192.0.2.1\nautodiscover.good.example. CNAME autodiscover.outlook.com."
	for _, lang := range []string{"en", "fi", "xx"} {
		t.Run(lang, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				report, _ := checkZone(t, zoneWith(zones), Options{Sender: u, Lang: lang, Clients: true})
				if len(report.Allowlist) != 4 || len(report.Clients) < 9 {
					t.Fatalf("%d methods, %d clients", len(report.Allowlist), len(report.Clients))
				}
				first, last := report.Allowlist[0], report.Allowlist[3]
				if first.Product != "mimecast" || first.Rank != 1 || !first.Recommended || !first.Verified || first.Source == "" {
					t.Errorf("first: %+v", first)
				}
				if !slices.Equal(first.Values["ip"], []string{"192.0.2.33", "2001:db8::33"}) || !slices.Equal(first.Values["from"], []string{"acme.example"}) {
					t.Errorf("values %v", first.Values)
				}
				text := strings.Join(first.Steps, "\n")
				if !strings.Contains(text, "192.0.2.33, 2001:db8::33") || strings.ContainsAny(text, "{}<>") {
					t.Errorf("steps:\n%s", text)
				}
				if last.Product != "microsoft365" || strings.Contains(strings.Join(last.Steps, " "), "192.0.2.33") {
					t.Errorf("behind the gateway our address means nothing: %+v", last)
				}
				if finnish := strings.Contains(text, "Tallenna"); finnish != (lang == "fi") {
					t.Errorf("steps in the wrong language: %s", text)
				}
			})
		})
	}
	t.Run("product by name, nothing configured", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			report, _ := checkZone(t, zoneWith(""), Options{Product: "zimbra"})
			if len(report.Allowlist) != 1 || !strings.Contains(report.Allowlist[0].Steps[0], "<our From domain>") {
				t.Errorf("%+v", report.Allowlist)
			}
		})
	})
}
