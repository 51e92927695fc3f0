package dnscheck

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

func chainOf(t *testing.T, a *authority, name string, until time.Time) []*x509.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(a.issue(t, name, until).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{leaf, a.cert}
}

// B14, B15, B16 and the matching rules of RFC 7672 3.1.
func TestMatchTLSA(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	later := time.Unix(forever, 0)
	good := chainOf(t, a, "mx.example.com", later)
	expired := chainOf(t, a, "mx.example.com", time.Unix(1000, 0))
	leafKey := sha256.Sum256(good[0].RawSubjectPublicKeyInfo)
	leafCert := sha512.Sum512(good[0].Raw)
	caKey := sha256.Sum256(a.cert.RawSubjectPublicKeyInfo)
	expiredKey := sha256.Sum256(expired[0].RawSubjectPublicKeyInfo)
	names := []string{"mx.example.com", "example.com"}
	for _, tt := range []struct {
		name    string
		records []TLSA
		names   []string
		chain   []*x509.Certificate
		ok      bool
	}{
		{"3 1 1", []TLSA{{3, 1, 1, leafKey[:]}}, names, good, true},
		{"3 0 2", []TLSA{{3, 0, 2, leafCert[:]}}, names, good, true},
		{"3 1 0", []TLSA{{3, 1, 0, good[0].RawSubjectPublicKeyInfo}}, names, good, true},
		{"B15 3 1 1 expired and for another name", []TLSA{{3, 1, 1, expiredKey[:]}}, []string{"other.example"}, expired, true},
		{"3 1 1 of another key", []TLSA{{3, 1, 1, expiredKey[:]}}, names, good, false},
		{"3 1 1 of the authority", []TLSA{{3, 1, 1, caKey[:]}}, names, good, false},
		{"the second record matches", []TLSA{{3, 1, 1, expiredKey[:]}, {3, 1, 1, leafKey[:]}}, names, good, true},
		{"2 1 1", []TLSA{{2, 1, 1, caKey[:]}}, names, good, true},
		{"B16 2 1 1 for another name", []TLSA{{2, 1, 1, caKey[:]}}, []string{"other.example"}, good, false},
		{"2 1 1 expired", []TLSA{{2, 1, 1, caKey[:]}}, names, expired, false},
		{"2 1 1 of an authority not in the chain", []TLSA{{2, 1, 1, leafKey[:]}}, names, good[:1:1], false},
		{"B14 usage 1", []TLSA{{1, 1, 1, leafKey[:]}}, names, good, false},
		{"unknown matching type", []TLSA{{3, 1, 9, leafKey[:]}}, names, good, false},
		{"short digest", []TLSA{{3, 1, 1, leafKey[:8]}}, names, good, false},
		{"no certificate", []TLSA{{3, 1, 1, leafKey[:]}}, names, nil, false},
	} {
		if tt.name == "2 1 1 of an authority not in the chain" {
			other := sha256.Sum256([]byte("another"))
			tt.records[0].Data = other[:]
		}
		if err := MatchTLSA(tt.records, tt.names, tt.chain); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// What talking to the exchangers adds to the report.
func TestConversation(t *testing.T) {
	a := newAuthority(t)
	chain := chainOf(t, a, "mx1.good.example", time.Unix(forever, 0))
	digest := sha256.Sum256(chain[0].RawSubjectPublicKeyInfo)
	tlsa := fmt.Sprintf("_25._tcp.mx1.good.example. TLSA 3 1 1 %x\n_smtp._tls.good.example. TXT \"v=TLSRPTv1; rua=mailto:t@good.example\"\n", digest)
	well := Conversation{Reached: true, STARTTLS: true, TLS: "TLS 1.3", Chain: chain}
	for _, tt := range []struct {
		name       string
		first      Conversation
		second     Conversation
		want, info string
		verdict    Verdict
	}{
		{"well", well, well, "", "dane.ok", Arrives},
		{"no encryption", Conversation{Reached: true}, well, "smtp.no_starttls", "", Arrives},
		{"one is down", Conversation{Err: "timeout"}, well, "smtp.unreachable", "", Arrives},
		{"all are down", Conversation{Err: "timeout"}, Conversation{Err: "timeout"}, "smtp.unreachable", "", Undeliverable},
		{"refused", Conversation{Reached: true, STARTTLS: true, Refused: "550 5.7.1 not you"}, well, "smtp.refused", "", Held},
		{"another certificate", Conversation{Reached: true, STARTTLS: true, Chain: chain[1:]}, well, "dane.mismatch", "", Held},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				o := Options{Converse: func(_ context.Context, domain string, h Host) Conversation {
					if domain != "good.example" || len(h.Addrs) == 0 {
						t.Errorf("asked to talk to %+v for %s", h, domain)
					}
					c := tt.first
					if h.Name == "mx2.good.example" {
						c = tt.second
					}
					c.Host = h.Name
					return c
				}}
				report, _ := checkZone(t, zoneWith(tlsa), o, dnstest.Fault{Name: "*good.example", Do: dnstest.Secure})
				if got := said(report, StateInfo); !slices.Equal(got, strings.Fields(tt.want)) {
					t.Errorf("found %v, want %v", got, tt.want)
				}
				if slices.Contains(said(report), "dane.ok") != (tt.info == "dane.ok") {
					t.Errorf("info %v", said(report))
				}
				if report.Verdict != tt.verdict || len(report.SMTP) != 2 {
					t.Errorf("%s: %s", report.Verdict, report.Summary)
				}
			})
		})
	}
}
