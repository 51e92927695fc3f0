package console

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// shared makes a link and returns its path.
func (s *domainSite) shared(token, domain, body string) string {
	s.t.Helper()
	resp, text := s.do(token, "POST", "/v1/domains/"+domain+"/share", body)
	if resp.StatusCode != 201 {
		s.t.Fatalf("%d %s", resp.StatusCode, text)
	}
	path, ok := strings.CutPrefix(into[Share](s.t, text).URL, "https://mail.acme.example")
	if !ok || !strings.HasPrefix(path, "/d/") {
		s.t.Fatalf("%s", text)
	}
	return path
}

func TestDomainPage(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t, dnstest.Fault{Name: "*dead.example", Do: dnstest.Servfail})
	token := s.token(AllTenants, ScopeDomains)
	for name, c := range map[string]struct{ domain, body string }{
		"domain.en": {"nordlys.example", ""}, "domain.fi": {"nordlys.example", `{"lang":"fi","days":90}`},
		"domain_null": {"null.example", `{}`}, "domain_unknown": {"dead.example", ""}, "domain_hostile": {"hostile.example", ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := s.do("", "GET", s.shared(token, c.domain, c.body), "", "Accept-Language", "sv")
			if resp.StatusCode != 200 {
				t.Fatalf("%d %s", resp.StatusCode, body)
			}
			for header, want := range map[string]string{
				"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": domainPolicy, "Cache-Control": "no-store",
				"X-Robots-Tag": "noindex, nofollow", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
			} {
				if got := resp.Header.Get(header); got != want {
					t.Errorf("%s: %q, want %q", header, got, want)
				}
			}
			golden(t, "pages/"+name+".html", []byte(body))
			checkHTML(t, strings.ReplaceAll(body, `<a href="https://`, `<a href="`)) // makers' own instructions
			if strings.Contains(body, s.dns.Addr) || strings.Contains(body, "127.0.0.1") {
				t.Error("the page tells where our resolver is")
			}
		})
	}
	if resp, body := s.do("", "GET", "/domain.css", ""); resp.Header.Get("Content-Type") != "text/css; charset=utf-8" || !strings.Contains(body, "@media print") {
		t.Error("no style sheet")
	}
}

// What a server says of our mail may name people, and what a tenant's token shared
// must not tell of other tenants.
func TestDomainPageNamesNobody(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	s.domains.Evidence = func(_ context.Context, _ string, tenants []string) (*dnscheck.History, error) {
		if tenants != nil {
			t.Errorf("asked for the history of %v", tenants)
		}
		return &dnscheck.History{Since: monday, Accepted: 1, Refused: 7, LastReplies: []string{"550 5.7.1 CANARY-9731 refused"}}, nil
	}
	_, body := s.do("", "GET", s.shared(s.token(AllTenants, ScopeDomains), "nordlys.example", ""), "")
	if strings.Contains(body, "CANARY") || !strings.Contains(body, "7 refused") {
		t.Errorf("%s", body)
	}
	_, body = s.do("", "GET", s.shared(s.token("04711", ScopeDomains), "nordlys.example", ""), "")
	if strings.Contains(body, "CANARY") || strings.Contains(body, "7 refused") || strings.Contains(body, "history.refused") {
		t.Errorf("%s", body)
	}
}

func TestShareLinks(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	token := s.token(AllTenants, ScopeDomains)
	resp, body := s.do(token, "POST", "/v1/domains/Nordlys.example/share", `{"days":2}`, "Host", "evil.example")
	share := into[Share](t, body)
	if resp.StatusCode != 201 || share.Domain != "nordlys.example" || share.Lang != "en" || !share.ExpiresAt.Equal(s.time().AddDate(0, 0, 2)) {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	if !strings.HasPrefix(share.URL, "https://mail.acme.example/d/") {
		t.Errorf("URL %s", share.URL)
	}
	text := strings.TrimPrefix(share.URL, "https://mail.acme.example/d/")
	if len(text) > 80 {
		t.Errorf("%d characters", len(text))
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for bit := range 8 {
			forged := append([]byte(nil), raw...)
			forged[i] ^= 1 << bit
			if _, ok := s.domains.open(base64.RawURLEncoding.EncodeToString(forged)); ok {
				t.Errorf("bit %d of byte %d can be changed", bit, i)
			}
		}
	}
	other := &Domains{Key: []byte("another key, of the same length.")}
	for name, path := range map[string]string{
		"cut off": text[:len(text)-1], "longer": text + "A", "of another key": other.seal(sharedDomain{domain: "nordlys.example", lang: "en", expires: s.time().Add(time.Hour)}),
		"empty": "x", "no base64": "!!!", "very long": strings.Repeat("A", 4000), "not normal": s.domains.seal(sharedDomain{domain: "127.0.0.1", lang: "en", expires: s.time().Add(time.Hour)}),
	} {
		resp, body := s.do("", "GET", "/d/"+path, "")
		if resp.StatusCode != 404 || !strings.Contains(body, "There is no such page") || resp.Header.Get("X-Robots-Tag") == "" {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
	if _, body := s.do("", "GET", "/d/x", "", "Accept-Language", "fi-FI,fi;q=0.9"); !strings.Contains(body, "Sivua ei ole") {
		t.Errorf("%s", body)
	}
	s.now.Store(2*24*3600 - 1)
	if resp, _ := s.do("", "GET", "/d/"+text, ""); resp.StatusCode != 200 {
		t.Errorf("a second before: %d", resp.StatusCode)
	}
	s.now.Store(2 * 24 * 3600)
	resp, body = s.do("", "GET", "/d/"+text, "")
	if resp.StatusCode != 410 || !strings.Contains(body, "expired") {
		t.Errorf("after: %d %s", resp.StatusCode, body)
	}
	golden(t, "pages/domain_expired.html", []byte(body))
}

// Whoever has links can make us ask the DNS no faster than one caller can.
func TestDomainPageIsNoScanner(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	s.domains.Check = func(_ context.Context, domain string, _ dnscheck.Options, _ bool) dnscheck.Report {
		return dnscheck.Report{Domain: domain, At: s.time(), Verdict: dnscheck.Arrives}
	}
	expires := s.time().Add(time.Hour)
	open := func(domain string) int {
		resp, _ := s.do("", "GET", "/d/"+s.domains.seal(sharedDomain{domain: domain, lang: "en", expires: expires}), "")
		return resp.StatusCode
	}
	for i := range callerBurst {
		if status := open("d" + strconv.Itoa(i) + ".example"); status != 200 {
			t.Fatalf("%d", status)
		}
	}
	if status := open("more.example"); status != 503 {
		t.Errorf("one more: %d", status)
	}
	if status := open("d0.example"); status != 200 {
		t.Errorf("again: %d", status)
	}
	if resp, body := s.do(s.token(AllTenants, ScopeDomains), "GET", "/v1/domains/more.example", ""); resp.StatusCode != 200 {
		t.Errorf("a caller of the API: %d %s", resp.StatusCode, body)
	}
}

func FuzzShareLink(f *testing.F) {
	d := &Domains{Key: []byte("0123456789abcdef0123456789abcdef")}
	good := d.seal(sharedDomain{domain: "nordlys.example", lang: "fi", expires: monday, history: true})
	f.Add(good)
	f.Add("")
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := d.open(text)
		if ok && d.seal(s) != text {
			t.Errorf("%q opens as %+v", text, s)
		}
		if ok && text != good {
			t.Errorf("%q is forged", text)
		}
	})
}
