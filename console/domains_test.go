package console

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"maps"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
	"github.com/deliverd/deliverd/mail"
)

// nordlysZone is a customer behind a gateway, and our own side in order.
const nordlysZone = `
nordlys.example.  MX  10 eu-smtp-inbound-1.mimecast.com.
nordlys.example.  MX  10 eu-smtp-inbound-2.mimecast.com.
nordlys.example.  TXT "v=spf1 include:_netblocks.mimecast.com include:gone.nordlys.example ~all"
_netblocks.mimecast.com. TXT "v=spf1 ip4:203.0.113.0/24 -all"
eu-smtp-inbound-1.mimecast.com. A 192.0.2.1
eu-smtp-inbound-2.mimecast.com. A 192.0.2.2
_dmarc.nordlys.example. TXT "v=DMARC1; p=none; rua=mailto:d@nordlys.example"
autodiscover.nordlys.example. CNAME autodiscover.outlook.com.
autodiscover.outlook.com. A 198.51.100.1
hostile.example. MX 10 mx.hostile.example.
mx.hostile.example. A 10.0.0.1
hostile.example. TXT "v=spf1 <script>alert(1)</script> -all"
null.example. MX 0 .
acme.example. MX 10 mail.acme.example.
mail.acme.example. A 192.0.2.33
33.2.0.192.in-addr.arpa. PTR mail.acme.example.
bounce.acme.example. TXT "v=spf1 ip4:192.0.2.33 -all"
d1._domainkey.acme.example. TXT "v=DKIM1; k=ed25519; p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
_dmarc.acme.example. TXT "v=DMARC1; p=reject; rua=mailto:d@acme.example"
`

// domainSite is a site with domain reports: a real resolver asks a server on
// loopback.
type domainSite struct {
	*site
	domains *Domains
	dns     *dnstest.Server
	now     atomic.Int64 // of the reports' clock, seconds after monday
	checked atomic.Int64 // runs
	kept    *memoryStore
}

// domainTime is when the first report of a test is made: after the site's mails.
func (s *domainSite) time() time.Time {
	return monday.Add(10*time.Minute + time.Duration(s.now.Load())*time.Second)
}

func newDomainSite(t *testing.T, faults ...dnstest.Fault) *domainSite {
	t.Helper()
	s := &domainSite{site: newSite(t), kept: newMemoryStore()}
	var err error
	if s.dns, err = dnstest.Start(nordlysZone, faults...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.dns.Close() })
	view, err := OpenView(t.Context(), ViewOptions{Now: s.time})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { view.Close() })
	follow(t, view, s.log)
	_, last, err := s.log.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := view.CatchUp(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	// A key of all zeros signs for nobody, and is the same in every run.
	key := dnscheck.SigningKey{Domain: "acme.example", Selector: "d1", Public: ed25519.PublicKey(make([]byte, ed25519.PublicKeySize))}
	options := dnscheck.Options{Sender: &dnscheck.Sender{
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.33")}, Hello: "mail.acme.example", ReturnPath: "bounce.acme.example", From: "acme.example", Keys: []dnscheck.SigningKey{key},
	}}
	check := func(ctx context.Context, domain string, o dnscheck.Options, _ bool) dnscheck.Report {
		s.checked.Add(1)
		r, err := dnscheck.NewResolver(dnscheck.ResolverOptions{Servers: []string{s.dns.Addr}, Now: s.time})
		if err != nil {
			panic(err)
		}
		return r.Check(ctx, domain, o)
	}
	s.domains = &Domains{
		Check: check, Options: func() dnscheck.Options { return options }, Evidence: view.DomainHistory,
		Store: s.kept, Key: []byte("0123456789abcdef0123456789abcdef"), BaseURL: "https://mail.acme.example", Now: s.time,
	}
	s.server.Close()
	s.server = httptest.NewServer(Handler(s.auth, s.api.logger(), append(s.api.Routes(), s.domains.Routes()...)...))
	t.Cleanup(s.server.Close)
	return s
}

func TestDomainReport(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	token := s.token(AllTenants, ScopeDomains)
	resp, body := s.do(token, "GET", "/v1/domains/%20Kari%40Nordlys.Example.", "")
	if resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v %s", resp.StatusCode, resp.Header, body)
	}
	r := into[DomainReport](t, body)
	if r.Query != " Kari@Nordlys.Example." || r.Domain != "nordlys.example" || r.Verdict != dnscheck.Arrives || r.Provider.ID != "mimecast" || r.Behind.ID != "microsoft365" {
		t.Errorf("%s", body)
	}
	if len(r.Allowlist) == 0 || r.Allowlist[0].Values["ip"][0] != "192.0.2.33" || len(r.SMTP) != 0 {
		t.Errorf("%+v", r.Allowlist)
	}
	if h := r.History; h == nil || h.Accepted != 1 || h.Delayed != 1 || h.TLS["TLS 1.3"] != 1 || h.Causes["greylisted"] != 1 || h.TypicalDelayMS != 64_000 {
		t.Errorf("history %+v", r.History)
	}
	if r.Changes == nil || len(r.Changes) > 0 || !r.PreviousAt.IsZero() {
		t.Errorf("changes %+v", r.Changes)
	}
	_, fi := s.do(token, "GET", "/v1/domains/nordlys.example?lang=fi", "")
	if f := into[DomainReport](t, fi); !strings.HasPrefix(f.Summary, "Viestimme") || !strings.Contains(f.Allowlist[0].Steps[0], "Hallintakonsolissa") {
		t.Errorf("%s", f.Summary)
	}
}

// A run is compared with the one before, which outlives the process.
func TestDomainChanges(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	token := s.token(AllTenants, ScopeDomains)
	get := func() DomainReport {
		_, body := s.do(token, "GET", "/v1/domains/nordlys.example", "")
		return into[DomainReport](t, body)
	}
	get()
	if err := s.dns.Load(strings.NewReplacer("include:gone.nordlys.example ", "", "eu-smtp-inbound-1.mimecast.com", "nordlys-example.mail.protection.outlook.com",
		"eu-smtp-inbound-2.mimecast.com", "nordlys-example.mail.protection.outlook.com").Replace(nordlysZone)); err != nil {
		t.Fatal(err)
	}
	if r := get(); s.checked.Load() != 1 || len(r.Changes) != 0 {
		t.Errorf("%d runs, %+v", s.checked.Load(), r.Changes)
	}
	s.now.Store(601)
	s.domains.runs = domainRuns{} // another process
	r := get()
	var told []string
	for _, c := range r.Changes {
		told = append(told, c.What+" "+c.Code+c.Now)
	}
	if got := strings.Join(told, ", "); got != "provider Microsoft 365, behind , gone spf.include_no_record" || !r.PreviousAt.Equal(monday.Add(10*time.Minute)) {
		t.Errorf("changes %s since %v", got, r.PreviousAt)
	}
	if err := s.dns.Load(nordlysZone, dnstest.Fault{Name: "*nordlys.example", Do: dnstest.Servfail}); err != nil {
		t.Fatal(err)
	}
	s.now.Store(1300)
	if r := get(); r.Verdict != dnscheck.Unknown {
		t.Errorf("%s", r.Summary)
	}
	if err := s.dns.Load(nordlysZone); err != nil {
		t.Fatal(err)
	}
	s.now.Store(1300 + 61) // what is not known is asked again soon, and compared with nothing
	if r := get(); r.Verdict != dnscheck.Arrives || !r.PreviousAt.Equal(monday.Add(10*time.Minute+601*time.Second)) {
		t.Errorf("%s, previous %v", r.Summary, r.PreviousAt)
	}
}

// However many ask at once, others' servers are asked once.
func TestDomainsAskOnce(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	token := s.token(AllTenants, ScopeDomains)
	began, goOn := make(chan struct{}), make(chan struct{})
	check := s.domains.Check
	s.domains.Check = func(ctx context.Context, domain string, o dnscheck.Options, fresh bool) dnscheck.Report {
		close(began) // a second run would panic
		<-goOn
		return check(ctx, domain, o, fresh)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if resp, body := s.do(token, "GET", "/v1/domains/nordlys.example", ""); resp.StatusCode != 200 {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
		})
	}
	<-began
	close(goOn)
	wg.Wait()
	asked := s.dns.Asked("nordlys.example", "MX")
	s.domains.Check = check
	for _, c := range []struct {
		after int64
		path  string
		runs  int64
	}{
		{9, "?fresh=1", 1}, {11, "", 1}, {11, "?fresh=1", 2}, {12, "?fresh=1", 2}, {700, "", 3},
	} {
		s.now.Store(c.after)
		s.do(token, "GET", "/v1/domains/nordlys.example"+c.path, "")
		if s.checked.Load() != c.runs {
			t.Errorf("%d s, %q: %d runs, want %d", c.after, c.path, s.checked.Load(), c.runs)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// A caller has so many runs, one tenant's tokens together; what is remembered is
// free, and others are not held up.
func TestDomainsAreNoScanner(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	s.domains.Check = func(_ context.Context, domain string, o dnscheck.Options, _ bool) dnscheck.Report {
		if o.Converse != nil {
			t.Error("a request makes us talk to a mail server")
		}
		return dnscheck.Report{Domain: domain, At: s.time(), Verdict: dnscheck.Arrives}
	}
	options := s.domains.Options()
	options.Converse = func(context.Context, string, dnscheck.Host) dnscheck.Conversation { return dnscheck.Conversation{} }
	s.domains.Options = func() dnscheck.Options { return options }
	one, other, free := s.token("04711", ScopeDomains), s.token("04711", ScopeDomains), s.token(AllTenants, ScopeDomains)
	for i := range callerBurst {
		token := []string{one, other}[i%2]
		if resp, body := s.do(token, "GET", "/v1/domains/d"+strconv.Itoa(i)+".example", ""); resp.StatusCode != 200 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	resp, body := s.do(one, "GET", "/v1/domains/more.example", "")
	problem(t, resp, body, mail.ProblemRateLimited, 429)
	if resp.Header.Get("Retry-After") != "4" {
		t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
	}
	for _, c := range []struct{ token, domain string }{{one, "d0.example"}, {free, "more.example"}, {free, "d1.example"}} {
		if resp, body := s.do(c.token, "GET", "/v1/domains/"+c.domain, ""); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", c.domain, resp.StatusCode, body)
		}
	}
	s.now.Store(4)
	if resp, _ := s.do(other, "GET", "/v1/domains/more.example", ""); resp.StatusCode != 200 {
		t.Errorf("later: %d", resp.StatusCode)
	}
}

// A tenant's token sees what happened to its own mail; another's history is not even
// in the verdict.
func TestDomainHistoryIsTheTenants(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	for _, c := range []struct {
		tenant, domain string
		accepted       int
	}{
		{"04711", "nordlys.example", 1}, {"other", "nordlys.example", 0}, {"other", "other.example", 1}, {AllTenants, "other.example", 1}, {"04711", "other.example", 0},
	} {
		_, body := s.do(s.token(c.tenant, ScopeDomains), "GET", "/v1/domains/"+c.domain, "")
		r := into[DomainReport](t, body)
		if got := r.History; (got == nil) != (c.accepted == 0) || got != nil && got.Accepted != c.accepted {
			t.Errorf("%s at %s: %+v", c.tenant, c.domain, got)
		}
	}
	if len(s.kept.m) != 5 {
		t.Errorf("kept %v", maps.Keys(s.kept.m))
	}
}

func TestDomainRefusals(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	token := s.token(AllTenants, ScopeDomains)
	for _, c := range []struct {
		token, method, path, body, typ string
		status                         int
	}{
		{"", "GET", "/v1/domains/nordlys.example", "", mail.ProblemNotSignedIn, 401},
		{s.token(AllTenants, ScopeRead), "GET", "/v1/domains/nordlys.example", "", mail.ProblemNotAllowed, 403},
		{s.token(AllTenants, ScopeRead), "POST", "/v1/domains/nordlys.example/share", "", mail.ProblemNotAllowed, 403},
		{token, "GET", "/v1/domains/localhost", "", mail.ProblemInvalid, 400},
		{token, "GET", "/v1/domains/127.0.0.1", "", mail.ProblemInvalid, 400},
		{token, "GET", "/v1/domains/a%0d%0ab.example", "", mail.ProblemInvalid, 400},
		{token, "GET", "/v1/domains/xn--a.example", "", mail.ProblemInvalid, 400},
		{token, "GET", "/v1/domains/" + strings.Repeat("a", 300) + ".example", "", mail.ProblemInvalid, 400},
		{token, "GET", "/v1/domains/nordlys.example?lang=sv", "", mail.ProblemInvalid, 400},
		{token, "POST", "/v1/domains/nordlys.example/share", `{"lang":"sv"}`, mail.ProblemInvalid, 400},
		{token, "POST", "/v1/domains/nordlys.example/share", `{"days":91}`, mail.ProblemInvalid, 400},
		{token, "POST", "/v1/domains/nordlys.example/share", `{"days":-1}`, mail.ProblemInvalid, 400},
		{token, "POST", "/v1/domains/localhost/share", `{}`, mail.ProblemInvalid, 400},
		{token, "DELETE", "/v1/domains/nordlys.example", "", mail.ProblemMethodNotAllowed, 405},
	} {
		resp, body := s.do(c.token, c.method, c.path, c.body)
		problem(t, resp, body, c.typ, c.status)
	}
	if s.checked.Load() != 0 || s.dns.Queries() != 0 {
		t.Errorf("%d runs", s.checked.Load())
	}
}

// A store that fails costs the comparison and not the report.
func TestDomainReportWithoutStore(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	s.kept.fail = errSecretDetail
	s.domains.Evidence = func(context.Context, string, []string) (*dnscheck.History, error) { return nil, errSecretDetail }
	resp, body := s.do(s.token(AllTenants, ScopeDomains), "GET", "/v1/domains/nordlys.example", "")
	if resp.StatusCode != 200 || strings.Contains(body, "CANARY") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// A run that panics holds up nobody for ever.
func TestDomainRunThatPanics(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	check := s.domains.Check
	s.domains.Check = func(context.Context, string, dnscheck.Options, bool) dnscheck.Report { panic("no") }
	q := domainQuery{domain: "nordlys.example", lang: "en"}
	yes := func() error { return nil }
	func() {
		defer func() {
			if recover() == nil {
				t.Error("it is hidden")
			}
		}()
		s.domains.report(t.Context(), q, yes)
	}()
	s.domains.Check = check
	if r, err := s.domains.report(t.Context(), q, yes); err != nil || r.Verdict != dnscheck.Arrives {
		t.Errorf("%v %+v", err, r)
	}
}

// Whoever has gone, those who wait get the report, or one of their own.
func TestDomainWaitersGetTheirs(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	q := domainQuery{domain: "nordlys.example", lang: "en"}
	run, first := s.domains.runs.begin(&q, s.time())
	if !first {
		t.Fatal("not first")
	}
	got := make(chan error, 1)
	go func() {
		_, err := s.domains.report(t.Context(), q, func() error { return nil })
		got <- err
	}()
	s.domains.runs.end(&q, run, DomainReport{}, errors.New("another caller asked too much"), s.time())
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestDomainsForget(t *testing.T) {
	t.Parallel()
	s := newDomainSite(t)
	m := &s.domains.runs
	for i := range runsKnown + 10 {
		q := domainQuery{domain: "d" + strconv.Itoa(i) + ".example", lang: "en"}
		run, _ := m.begin(&q, s.time())
		m.end(&q, run, DomainReport{}, nil, s.time().Add(time.Duration(i)*time.Millisecond))
	}
	if len(m.known) != runsKnown {
		t.Errorf("%d are remembered", len(m.known))
	}
	for i := range keptMost + 10 {
		value, err := json.Marshal(dnscheck.Report{At: s.time().Add(time.Duration(i) * time.Second)})
		if err != nil {
			t.Fatal(err)
		}
		s.kept.m["d"+strconv.Itoa(i)+".example"] = value
	}
	s.kept.m["old.example"] = []byte(`{"at":"2020-01-01T00:00:00Z"}`)
	s.kept.m["broken.example"] = []byte(`{`)
	if err := s.domains.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.kept.m["d9.example"]; ok || len(s.kept.m) != keptMost || s.kept.m["d10.example"] == nil {
		t.Errorf("%d are kept", len(s.kept.m))
	}
}
