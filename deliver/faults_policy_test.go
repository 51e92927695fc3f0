package deliver

import (
	"compress/gzip"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
	"github.com/deliverd/deliverd/mail"
)

// TestFaultsOfTLSPolicies are the rows B05 to B20 as far as a domain's policy or a
// kind's decides them. Where FAULTS says sts-webpki-invalid of a mail server's
// certificate, RFC 8460 4.3 has it for the policy host's alone.
func TestFaultsOfTLSPolicies(t *testing.T) {
	t.Parallel()
	secure := dnstest.Fault{Name: "*", Do: dnstest.Secure}
	enforce := stsPolicy("enforce", 86400, "mx1.dest.example")
	const (
		good   = "good"
		old    = "expired"
		other  = "another name"
		alone  = "self-signed"
		inOpen = "no TLS"
	)
	const second = "dest.example. MX 20 mx2.dest.example.\n"
	ee := "_25._tcp.mx1.dest.example. TLSA 3 1 1 {key}\n"
	ta := "_25._tcp.mx1.dest.example. TLSA 2 1 1 {ca}\n"
	strange := "_25._tcp.mx1.dest.example. TLSA 3 1 1 " + strings.Repeat("ab", 32) + "\n"
	unusable := "_25._tcp.mx1.dest.example. TLSA 1 1 1 {key}\n"
	for _, row := range []struct {
		name   string
		server string // of the DNS; "": one whose word counts
		zone   string
		faults []dnstest.Fault
		policy string
		floor  mail.TLSFloor
		mx1    string
		mx2    string // "": not there

		state   mail.State
		cause   mail.Cause
		host    string // who had the last word; "": mx1
		by      mail.TLSPolicy
		failure mail.TLSFailure
		text    []string // in the error
		inClear bool
		asked   int               // TLSA questions; -1: whatever
		session []mail.TLSFailure // as reported, in order
	}{
		{name: "B05 expired, nobody asks", mx1: old, state: mail.StateAccepted, by: mail.TLSOpportunistic, session: []mail.TLSFailure{""}},
		{name: "B05 expired, enforce", zone: announcedPolicy, policy: enforce, mx1: old, state: mail.StateDelayed, cause: mail.CauseTLSRequired,
			by: mail.TLSBySTS, failure: mail.TLSExpired, text: []string{"mx1.dest.example", "expired on 20", "certificate-expired", "policy of dest.example, mode enforce, id 1"}, session: []mail.TLSFailure{mail.TLSExpired}},
		{name: "B05 another name, enforce", zone: announcedPolicy, policy: enforce, mx1: other, state: mail.StateDelayed, cause: mail.CauseTLSRequired,
			by: mail.TLSBySTS, failure: mail.TLSNameMismatch, text: []string{"made for another name: www.dest.example", "certificate-host-mismatch"}, session: []mail.TLSFailure{mail.TLSNameMismatch}},
		{name: "B05 self-signed, enforce", zone: announcedPolicy, policy: enforce, mx1: alone, state: mail.StateDelayed, cause: mail.CauseTLSRequired,
			by: mail.TLSBySTS, failure: mail.TLSNotTrusted, text: []string{"self-signed"}, session: []mail.TLSFailure{mail.TLSNotTrusted}},
		{name: "B05 good, enforce", zone: announcedPolicy, policy: enforce, mx1: good, state: mail.StateAccepted, by: mail.TLSBySTS, session: []mail.TLSFailure{""}},
		{name: "B05 everything wrong, testing: never fails mail", zone: announcedPolicy, policy: stsPolicy("testing", 86400, "mx1.dest.example"), mx1: old,
			state: mail.StateAccepted, by: mail.TLSTesting, failure: mail.TLSExpired, session: []mail.TLSFailure{mail.TLSExpired}},
		{name: "B05 no TLS, testing", zone: announcedPolicy, policy: stsPolicy("testing", 86400, "mx1.dest.example"), mx1: inOpen,
			state: mail.StateAccepted, by: mail.TLSTesting, failure: mail.TLSNotOffered, inClear: true, session: []mail.TLSFailure{mail.TLSNotOffered}},
		{name: "B05 mode none", zone: announcedPolicy, policy: "version: STSv1\nmode: none\nmax_age: 86400\n", mx1: inOpen,
			state: mail.StateAccepted, by: mail.TLSOpportunistic, inClear: true, session: []mail.TLSFailure{mail.TLSNotOffered}},
		{name: "B07 stripped, enforce: never clear", zone: announcedPolicy, policy: enforce, mx1: inOpen, state: mail.StateDelayed, cause: mail.CauseTLSRequired,
			by: mail.TLSBySTS, failure: mail.TLSNotOffered, text: []string{"mx1.dest.example offers no TLS"}, session: []mail.TLSFailure{mail.TLSNotOffered}},
		{name: "B07 stripped, TLSA: never clear", zone: ee, faults: []dnstest.Fault{secure}, mx1: inOpen, state: mail.StateDelayed, cause: mail.CauseTLSRequired,
			by: mail.TLSByDANE, failure: mail.TLSNotOffered, text: []string{"_25._tcp.mx1.dest.example TLSA 3 1 1"}, asked: 1, session: []mail.TLSFailure{mail.TLSNotOffered}},
		{name: "B09 no exchanger matches", zone: announcedPolicy, policy: stsPolicy("enforce", 86400, "mail.dest.example", "*.example"), state: mail.StateDelayed, cause: mail.CauseTLSRequired,
			by: mail.TLSBySTS, failure: mail.TLSMXMismatch, text: []string{"sts-policy-mx-mismatch", "it names mail.dest.example, *.example"}, session: []mail.TLSFailure{mail.TLSMXMismatch}},
		{name: "B09 a star is one label", zone: announcedPolicy, policy: stsPolicy("enforce", 86400, "*.dest.example"), mx1: good, state: mail.StateAccepted, by: mail.TLSBySTS, session: []mail.TLSFailure{""}},
		{name: "B09 the exchanger that matches gets it", zone: announcedPolicy + second, policy: stsPolicy("enforce", 86400, "mx2.dest.example"), mx2: good,
			state: mail.StateAccepted, host: "mx2.dest.example", by: mail.TLSBySTS, session: []mail.TLSFailure{mail.TLSMXMismatch, ""}},
		{name: "B12 TLSA SERVFAIL, zone signed: never there", zone: ee, faults: []dnstest.Fault{{Name: "*", Type: "TLSA", Do: dnstest.Servfail}, secure}, state: mail.StateDelayed, cause: mail.CauseDNSFailure,
			by: mail.TLSByDANE, failure: mail.TLSALookup, text: []string{"SERVFAIL", "its zone is signed"}, asked: -1, session: []mail.TLSFailure{mail.TLSALookup}},
		{name: "B12 TLSA bogus: the next host", zone: ee + second, faults: []dnstest.Fault{{Name: "_25._tcp.mx1.dest.example", Do: dnstest.Bogus}, secure}, mx2: old,
			state: mail.StateAccepted, host: "mx2.dest.example", by: mail.TLSOpportunistic, asked: -1, session: []mail.TLSFailure{mail.TLSALookup, ""}},
		{name: "B13 TLSA SERVFAIL, nothing signed: not asked", zone: ee, faults: []dnstest.Fault{{Name: "*", Type: "TLSA", Do: dnstest.Servfail}}, mx1: good, state: mail.StateAccepted, by: mail.TLSOpportunistic, session: []mail.TLSFailure{""}},
		{name: "B13 the host signed, the MX not: not asked", zone: strange, faults: []dnstest.Fault{{Name: "*mx1.dest.example", Do: dnstest.Secure}}, mx1: good, state: mail.StateAccepted, by: mail.TLSOpportunistic, session: []mail.TLSFailure{""}},
		{name: "B13 the MX signed, the host not: not asked", zone: strange, faults: []dnstest.Fault{{Name: "dest.example", Do: dnstest.Secure}}, mx1: good, state: mail.StateAccepted, by: mail.TLSOpportunistic, session: []mail.TLSFailure{""}},
		{name: "B14 unusable: any certificate", zone: unusable, faults: []dnstest.Fault{secure}, mx1: alone, state: mail.StateAccepted, by: mail.TLSByUnusable, asked: 1, session: []mail.TLSFailure{""}},
		{name: "B14 unusable: not in clear", zone: unusable, faults: []dnstest.Fault{secure}, mx1: inOpen, state: mail.StateDelayed, cause: mail.CauseTLSRequired, by: mail.TLSByUnusable, failure: mail.TLSNotOffered, asked: 1, session: []mail.TLSFailure{mail.TLSNotOffered}},
		{name: "B14 unusable, and enforce", zone: unusable + announcedPolicy, policy: enforce, faults: []dnstest.Fault{secure}, mx1: alone, state: mail.StateDelayed, cause: mail.CauseTLSRequired, by: mail.TLSBySTS, failure: mail.TLSNotTrusted, asked: 1, session: []mail.TLSFailure{mail.TLSNotTrusted}},
		{name: "B15 3 1 1 with an expired certificate", zone: ee, faults: []dnstest.Fault{secure}, mx1: old, state: mail.StateAccepted, by: mail.TLSByDANE, asked: 1, session: []mail.TLSFailure{""}},
		{name: "B15 3 1 1 with another name", zone: ee, faults: []dnstest.Fault{secure}, mx1: other, state: mail.StateAccepted, by: mail.TLSByDANE, asked: 1, session: []mail.TLSFailure{""}},
		{name: "B15 3 1 1 of another key", zone: strange, faults: []dnstest.Fault{secure}, mx1: good, state: mail.StateDelayed, cause: mail.CauseTLSRequired, by: mail.TLSByDANE, failure: mail.TLSAMismatch, text: []string{"not the one that its TLSA records name"}, asked: 1, session: []mail.TLSFailure{mail.TLSAMismatch}},
		{name: "B15 two records, the second matches", zone: strange + ee, faults: []dnstest.Fault{secure}, mx1: good, state: mail.StateAccepted, by: mail.TLSByDANE, asked: 1, session: []mail.TLSFailure{""}},
		{name: "B16 2 1 1 with the name", zone: ta, faults: []dnstest.Fault{secure}, mx1: good, state: mail.StateAccepted, by: mail.TLSByDANE, asked: 1, session: []mail.TLSFailure{""}},
		{name: "B16 2 1 1 with another name", zone: ta, faults: []dnstest.Fault{secure}, mx1: other, state: mail.StateDelayed, cause: mail.CauseTLSRequired, by: mail.TLSByDANE, failure: mail.TLSNameMismatch, asked: 1, session: []mail.TLSFailure{mail.TLSNameMismatch}},
		{name: "B16 2 1 1 expired", zone: ta, faults: []dnstest.Fault{secure}, mx1: old, state: mail.StateDelayed, cause: mail.CauseTLSRequired, by: mail.TLSByDANE, failure: mail.TLSExpired, asked: 1, session: []mail.TLSFailure{mail.TLSExpired}},
		{name: "B17 DANE well, MTA-STS not: DANE wins", zone: ee + announcedPolicy, policy: stsPolicy("enforce", 86400, "mail.dest.example"), faults: []dnstest.Fault{secure}, mx1: alone, state: mail.StateAccepted, by: mail.TLSByDANE, asked: 1, session: []mail.TLSFailure{""}},
		{name: "B17 MTA-STS well, DANE not: DANE wins", zone: strange + announcedPolicy, policy: enforce, faults: []dnstest.Fault{secure}, mx1: good, state: mail.StateDelayed, cause: mail.CauseTLSRequired, by: mail.TLSByDANE, failure: mail.TLSAMismatch, asked: 1, session: []mail.TLSFailure{mail.TLSAMismatch}},
		{name: "B18 the AD bit of a resolver elsewhere: DANE is off", server: "192.0.2.53:53", zone: strange, faults: []dnstest.Fault{secure}, mx1: good, state: mail.StateAccepted, by: mail.TLSOpportunistic, session: []mail.TLSFailure{""}},
		{name: "a PIN never in clear", floor: mail.TLSFloorRequired, mx1: inOpen, state: mail.StateDelayed, cause: mail.CauseTLSRequired, by: mail.TLSByKind, failure: mail.TLSNotOffered, text: []string{`kinds.invite.tls = "required"`}, session: []mail.TLSFailure{mail.TLSNotOffered}},
		{name: "a PIN never in clear, any certificate", floor: mail.TLSFloorRequired, mx1: old, state: mail.StateAccepted, by: mail.TLSByKind, session: []mail.TLSFailure{""}},
		{name: "a PIN to nobody else", floor: mail.TLSFloorVerified, mx1: old, state: mail.StateDelayed, cause: mail.CauseTLSRequired, by: mail.TLSByKind, failure: mail.TLSExpired, session: []mail.TLSFailure{""}},
		{name: "a report arrives despite all", floor: mail.TLSFloorIgnored, zone: strange + announcedPolicy, policy: stsPolicy("enforce", 86400, "mail.dest.example"), faults: []dnstest.Fault{secure}, mx1: inOpen, state: mail.StateAccepted, by: mail.TLSByDANE, inClear: true, asked: 1},
		{name: "B19 nothing proves the exchanger", floor: mail.TLSFloorRequire, mx1: good, state: mail.StateRefused, cause: mail.CauseTLSRequired, by: mail.TLSByRequire, failure: mail.TLSUnprovenExchange, text: []string{"5.7.30"}},
		{name: "B19 REQUIRETLS that nobody supports", floor: mail.TLSFloorRequire, zone: ee, faults: []dnstest.Fault{secure}, mx1: good, state: mail.StateRefused, cause: mail.CauseTLSRequired, by: mail.TLSByDANE, failure: mail.TLSNoRequire, text: []string{"5.7.30 mx1.dest.example does not support REQUIRETLS"}, asked: 1, session: []mail.TLSFailure{""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := row.server
			if server == "" {
				server = "127.0.0.1:53"
			}
			l := newPolicyLab(t, server, "")
			certs := map[string]tls.Certificate{
				good: l.issuer.issue(t, time.Hour, "mx1.dest.example", "mx2.dest.example"), old: l.issuer.issue(t, -time.Hour, "mx1.dest.example"),
				other: l.issuer.issue(t, time.Hour, "www.dest.example"),
			}
			self, err := smtptest.SelfSigned(time.Now().Add(time.Hour), "mx1.dest.example")
			if err != nil {
				t.Fatal(err)
			}
			certs[alone] = self
			zone := row.zone
			for i, kind := range []string{row.mx1, row.mx2} {
				if kind == "" {
					continue
				}
				o := smtptest.SinkOptions{NoTLS: kind == inOpen}
				if cert, ok := certs[kind]; ok {
					o.Certificate = &cert
					zone = strings.ReplaceAll(zone, "{key}", fmt.Sprintf("%x", sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)))
				}
				l.serve(fmt.Sprintf("192.0.2.%d:25", i+1), o)
			}
			zone = strings.ReplaceAll(zone, "{key}", strings.Repeat("cd", 32))
			zone = strings.ReplaceAll(zone, "{ca}", fmt.Sprintf("%x", sha256.Sum256(l.issuer.cert.RawSubjectPublicKeyInfo)))
			if err := l.dns.Load(policyZone+zone, row.faults...); err != nil {
				t.Fatal(err)
			}
			l.announce(row.policy)
			got := l.attempt(row.floor)
			host := row.host
			if host == "" {
				host = "mx1.dest.example"
			}
			if got.State != row.state || got.Cause != row.cause || got.Evidence.Host != host || got.Suppress {
				t.Errorf("got %q because of %q at %q: %s; want %q because of %q", got.State, got.Cause, got.Evidence.Host, got.Evidence.Error, row.state, row.cause)
			}
			facts := got.Evidence.TLS
			if facts == nil || facts.Policy != row.by || facts.Failure != row.failure {
				t.Fatalf("TLS: %+v", facts)
			}
			if got.State == mail.StateAccepted && (facts.Version == "") != row.inClear {
				t.Errorf("in clear: %+v", facts)
			}
			if row.by != mail.TLSOpportunistic && facts.Source == "" {
				t.Error("nobody says where the policy was found")
			}
			for _, text := range row.text {
				if !strings.Contains(got.Evidence.Error, text) {
					t.Errorf("the error is %q, want %q in it", got.Evidence.Error, text)
				}
			}
			if n := l.dns.Asked("_25._tcp.mx1.dest.example", "TLSA"); row.asked >= 0 && n != row.asked {
				t.Errorf("asked for TLSA %d times, want %d", n, row.asked)
			}
			var session []mail.TLSFailure
			for _, s := range l.sessions {
				session = append(session, s.Failure)
			}
			if !slices.Equal(session, row.session) {
				t.Errorf("reported %+v, want %v", l.sessions, row.session)
			}
		})
	}
}

// B07: a host that took TLS yesterday and takes none today is noticed.
func TestFaultB07Downgrade(t *testing.T) {
	t.Parallel()
	l := newPolicyLab(t, "127.0.0.1:53", "")
	cert := l.issuer.issue(t, time.Hour, "mx1.dest.example")
	l.serve("192.0.2.1:25", smtptest.SinkOptions{NoTLS: true})
	if got := l.attempt(""); got.State != mail.StateAccepted || !got.Evidence.TLS.Downgrade.IsZero() {
		t.Fatalf("a host that never had TLS: %+v", got.Evidence.TLS)
	}
	l.serve("192.0.2.1:25", smtptest.SinkOptions{Certificate: &cert})
	if got := l.attempt(""); got.Evidence.TLS.Version == "" || !got.Evidence.TLS.Downgrade.IsZero() {
		t.Fatalf("TLS: %+v", got.Evidence.TLS)
	}
	l.serve("192.0.2.1:25", smtptest.SinkOptions{NoTLS: true})
	got := l.attempt("")
	if facts := got.Evidence.TLS; got.State != mail.StateAccepted || time.Since(facts.Downgrade) > time.Minute || facts.Version != "" {
		t.Errorf("%s, TLS: %+v", got.State, facts)
	}
	if last := l.sessions[len(l.sessions)-1]; !last.Downgrade || last.Failure != mail.TLSNotOffered {
		t.Errorf("reported %+v", last)
	}
}

// B08, B11: whatever the policy host does, mail goes as if there were no policy, and a
// policy that was known counts on.
func TestFaultB08PolicyHosts(t *testing.T) {
	t.Parallel()
	plain := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/plain") }
	text := func(policy string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { plain(w); fmt.Fprint(w, policy) }
	}
	enforce := stsPolicy("enforce", 86400, "mx1.dest.example")
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		fetch  mail.TLSFailure
	}{
		{"B08 404", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, tlspolicy.FetchFailed},
		{"B08 redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, tlspolicy.FetchFailed},
		{"B08 text/html", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, enforce)
		}, tlspolicy.FetchInvalid},
		{"B08 10 MB", func(w http.ResponseWriter, _ *http.Request) {
			plain(w)
			fmt.Fprint(w, enforce, strings.Repeat("x: y\n", 2<<20))
		}, tlspolicy.FetchInvalid},
		{"B08 gzip bomb", func(w http.ResponseWriter, _ *http.Request) {
			plain(w)
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprint(z, enforce, strings.Repeat("x: y\n", 2<<20))
			z.Close()
		}, tlspolicy.FetchInvalid},
		{"B08 cut", func(w http.ResponseWriter, _ *http.Request) {
			plain(w)
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, enforce)
		}, tlspolicy.FetchFailed},
		{"B11 negative age", text(strings.Replace(enforce, "86400", "-1", 1)), tlspolicy.FetchInvalid},
		{"B11 NUL", text(enforce + "\x00: x\n"), tlspolicy.FetchInvalid},
		{"B11 no mx", text("version: STSv1\nmode: enforce\nmax_age: 1\n"), tlspolicy.FetchInvalid},
	} {
		for _, known := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/known=%v", row.name, known), func(t *testing.T) {
				t.Parallel()
				l := newPolicyLab(t, "127.0.0.1:53", announcedPolicy)
				l.serve("192.0.2.1:25", smtptest.SinkOptions{NoTLS: true})
				want, by := mail.StateAccepted, mail.TLSOpportunistic
				if known {
					l.announce(enforce)
					l.attempt("")
					l.sessions = nil
					if err := l.dns.Load(policyZone + "_mta-sts.dest.example. TXT \"v=STSv1; id=2\"\n"); err != nil {
						t.Fatal(err)
					}
					l.freshDNS()
					l.restart() // it is in the store
					want, by = mail.StateDelayed, mail.TLSBySTS
				}
				l.answer(row.answer)
				got := l.attempt("")
				if got.State != want || got.Evidence.TLS.Policy != by {
					t.Errorf("got %s, %+v", got.State, got.Evidence.TLS)
				}
				if len(l.sessions) != 1 || l.sessions[0].Fetch != row.fetch || l.sessions[0].FetchReason == "" {
					t.Errorf("reported %+v, want %s", l.sessions, row.fetch)
				}
				before := l.fetched
				if l.attempt(""); l.fetched != before {
					t.Error("the host is asked again at once")
				}
			})
		}
	}
}

// B08: a policy host whose certificate is not good has no policy (RFC 8461 3.3).
func TestFaultB08PolicyHostCertificate(t *testing.T) {
	t.Parallel()
	l := newPolicyLab(t, "127.0.0.1:53", announcedPolicy)
	l.announce(stsPolicy("enforce", 86400, "mx1.dest.example"))
	l.serve("192.0.2.1:25", smtptest.SinkOptions{NoTLS: true})
	l.issuer = newIssuer(t)
	l.restart()
	if got := l.attempt(""); got.State != mail.StateAccepted || len(l.sessions) != 1 || l.sessions[0].Fetch != tlspolicy.FetchWebPKI {
		t.Errorf("got %s, reported %+v", got.State, l.sessions)
	}
}

// freshDNS forgets what the resolver remembers.
func (l *policyLab) freshDNS() {
	l.t.Helper()
	var err error
	if l.resolver, err = dnscheck.NewResolver(dnscheck.ResolverOptions{Servers: []string{"127.0.0.1:53"}, Dial: l.dns.Dial}); err != nil {
		l.t.Fatal(err)
	}
	l.finder.Associations = l.resolver.Associations
}

// B10: a new id is a new policy, and until it is there the old one counts. A policy
// outlives its record, its host and a restart.
func TestFaultB10PolicyChanges(t *testing.T) {
	t.Parallel()
	l := newPolicyLab(t, "127.0.0.1:53", announcedPolicy)
	l.serve("192.0.2.1:25", smtptest.SinkOptions{NoTLS: true})
	step := func(name, record string, answer func(), want mail.State) {
		t.Helper()
		if err := l.dns.Load(policyZone + record); err != nil {
			t.Fatal(err)
		}
		l.freshDNS()
		l.restart()
		answer()
		if got := l.attempt(""); got.State != want {
			t.Errorf("%s: %s, want %s; TLS %+v", name, got.State, want, got.Evidence.TLS)
		}
	}
	testing := stsPolicy("testing", 86400, "mx1.dest.example")
	enforce := stsPolicy("enforce", 86400, "mx1.dest.example")
	gone := func() { l.answer(http.NotFound) }
	step("testing", announcedPolicy, func() { l.announce(testing) }, mail.StateAccepted)
	step("the same id: not fetched", announcedPolicy, func() { l.announce(enforce) }, mail.StateAccepted)
	step("a new id", "_mta-sts.dest.example. TXT \"v=STSv1; id=2\"\n", func() { l.announce(enforce) }, mail.StateDelayed)
	step("the record is gone", "", gone, mail.StateDelayed)
	step("a newer id, and the host is gone", "_mta-sts.dest.example. TXT \"v=STSv1; id=3\"\n", gone, mail.StateDelayed)
	step("enforce to none", "_mta-sts.dest.example. TXT \"v=STSv1; id=4\"\n", func() { l.announce("version: STSv1\nmode: none\nmax_age: 86400\n") }, mail.StateAccepted)
}

// B20: no ticket of one host is offered to another, nor to the same one under another
// policy, and nothing is sent early: what is verified is this connection.
func TestFaultB20NoSessionsAcrossHosts(t *testing.T) {
	t.Parallel()
	l := newPolicyLab(t, "127.0.0.1:53", "")
	cert := l.issuer.issue(t, time.Hour, "mx1.dest.example", "mx2.dest.example")
	var mu sync.Mutex
	offered := 0
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	config.UnwrapSession = func(identity []byte, s tls.ConnectionState) (*tls.SessionState, error) {
		mu.Lock()
		defer mu.Unlock()
		offered++
		return config.DecryptTicket(identity, s)
	}
	config.WrapSession = config.EncryptTicket
	for _, addr := range []string{"192.0.2.1:25", "192.0.2.2:25"} {
		listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		l.network[addr] = listener.Addr().String()
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(conn, "220 mx\r\n") // the tickets come before it
				conn.Close()
			}
		}()
	}
	o := testOptions(t, nil, Plan{})
	o.Dial, o.RootCAs = l.dial, l.issuer.pool
	d := newDeliverer(t, o)
	for _, to := range []struct {
		addr, host string
		level      TLSPolicy
	}{
		{"192.0.2.1:25", "mx1.dest.example", TLSVerified}, {"192.0.2.2:25", "mx2.dest.example", TLSVerified},
		{"192.0.2.1:25", "mx1.dest.example", TLSEncrypted}, {"192.0.2.1:25", "mx2.dest.example", TLSVerified},
	} {
		raw, err := l.dial(t.Context(), "tcp", to.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := &conn{raw: raw, Conn: raw, replies: newReplyReader(raw), wait: d.wait,
			target: target{host: to.host, tls: &tlspolicy.Demand{Level: to.level, By: mail.TLSBySTS, Host: to.host}}}
		if f := c.handshake(t.Context(), d, to.level); f != nil {
			t.Fatal(f.err)
		}
		if r, f := c.await(mail.StageGreeting, time.Minute); f != nil || r.code != 220 {
			t.Fatalf("%+v, %+v", r, f)
		}
		raw.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	if offered != 0 {
		t.Errorf("%d tickets were offered elsewhere than where they came from", offered)
	}
}

// B19: with everything proven, the server is told so.
func TestFaultB19RequireTLS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cert, err := smtptest.SelfSigned(time.Now().Add(time.Hour), "mx1.dest.example")
		if err != nil {
			t.Fatal(err)
		}
		network := smtptest.NewNetwork(&cert, only(offers+"C: STARTTLS\nS: 220 go\ntls\nC: EHLO out.acme.example\nS: 250-mx\nS: 250-requiretls\nS: 250 PIPELINING\n"+
			strings.Replace(envelopeOK, "MAIL FROM:<bounce@acme.example>", "MAIL FROM:<bounce@acme.example> REQUIRETLS", 1)+queued+bye))
		plan := twoHosts(nil)
		plan.Hosts[0].TLS = &tlspolicy.Demand{Host: "mx1.dest.example", By: mail.TLSOpportunistic, Secure: true}
		o := testOptions(t, network, plan)
		o.RootCAs = smtptest.Roots(cert)
		o.Floor = func(string) mail.TLSFloor { return mail.TLSFloorRequire }
		d := newDeliverer(t, o)
		got := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
		d.Close()
		if err := network.Wait(); err != nil {
			t.Error(err)
		}
		if got.State != mail.StateAccepted || got.Evidence.TLS.Policy != mail.TLSByRequire || !got.Evidence.TLS.Verified {
			t.Errorf("got %s, %s, TLS %+v", got.State, got.Evidence.Error, got.Evidence.TLS)
		}
	})
}
