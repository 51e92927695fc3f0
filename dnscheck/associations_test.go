package dnscheck

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// Which name the associations are looked up at, and when not at all (RFC 7672 2.2).
func TestAssociations(t *testing.T) {
	t.Parallel()
	const zones = `
mx.a.example.          A     192.0.2.1
_25._tcp.mx.a.example. TLSA  3 1 1 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
alias.a.example.       CNAME mx.a.example.
_25._tcp.alias.a.example. TLSA 3 1 1 ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
lone.a.example.        CNAME mx.b.example.
_25._tcp.lone.a.example. TLSA 2 1 1 ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
mx.b.example.          A     192.0.2.2
`
	secure := []dnstest.Fault{{Name: "*a.example", Do: dnstest.Secure}}
	for _, row := range []struct {
		name, host, base string
		usage            uint8
		faults           []dnstest.Fault
		silent           bool // whether there are any could not be learned
		asked            int  // TLSA questions about the base, -1: not looked at
	}{
		{name: "secure", host: "mx.a.example", base: "mx.a.example", usage: 3, faults: secure, asked: 1},
		{name: "insecure addresses: not asked", host: "mx.a.example", asked: 0},
		{name: "B13 insecure addresses, and TLSA fails: not asked", host: "mx.a.example", faults: []dnstest.Fault{{Type: "TLSA", Name: "*", Do: dnstest.Servfail}}, asked: 0},
		{name: "insecure TLSA under secure addresses counts for nothing", host: "mx.a.example", asked: 1,
			faults: []dnstest.Fault{{Name: "mx.a.example", Do: dnstest.Secure}}},
		{name: "an alias: the name that it leads to first", host: "alias.a.example", base: "mx.a.example", usage: 3, faults: secure, asked: 1},
		{name: "an alias out of the signed zone: its own name alone", host: "lone.a.example", base: "lone.a.example", usage: 2, asked: 1,
			faults: []dnstest.Fault{{Name: "lone.a.example", Type: "CNAME", Do: dnstest.Secure}, {Name: "_25._tcp.lone.a.example", Do: dnstest.Secure}}},
		{name: "none", host: "mx.b.example", faults: []dnstest.Fault{{Name: "*", Do: dnstest.Secure}}, asked: 1},
		{name: "B12 SERVFAIL", host: "mx.a.example", faults: append([]dnstest.Fault{{Type: "TLSA", Name: "*", Do: dnstest.Servfail}}, secure...), silent: true, asked: -1},
		{name: "B12 bogus", host: "mx.a.example", faults: append([]dnstest.Fault{{Type: "TLSA", Name: "*", Do: dnstest.Bogus}}, secure...), silent: true, asked: -1},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			dns, err := dnstest.New(zones, row.faults...)
			if err != nil {
				t.Fatal(err)
			}
			defer dns.Close()
			r, err := NewResolver(ResolverOptions{Servers: []string{"127.0.0.1:53"}, Dial: dns.Dial})
			if err != nil {
				t.Fatal(err)
			}
			h := Host{Name: row.host}
			locate(t.Context(), r, &h, false)
			got, err := r.Associations(t.Context(), h, 25)
			if (err != nil) != row.silent || got.Base != row.base || len(got.Records) > 1 || row.base != "" && got.Records[0].Usage != row.usage {
				t.Errorf("got %+v, %v", got, err)
			}
			base := row.base
			if base == "" {
				base = row.host
			}
			if n := dns.Asked("_25._tcp."+base, "TLSA"); row.asked >= 0 && n != row.asked {
				t.Errorf("asked %d times, want %d", n, row.asked)
			}
		})
	}
}

func TestSTSRecord(t *testing.T) {
	t.Parallel()
	const zones = `
_mta-sts.one.example. TXT "v=STSv1; id=20261121;"
_mta-sts.two.example. TXT "v=STSv1; id=1"
_mta-sts.two.example. TXT "v=STSv1; id=2"
_mta-sts.other.example. TXT "v=spf1 -all"
_mta-sts.bad.example. TXT "v=STSv1; id=with-hyphen"
_smtp._tls.one.example. TXT "v=TLSRPTv1; rua=mailto:tls@one.example, https://r.one.example/tls , ftp://x, http://r.one.example, https://u:p@r.one.example/"
_smtp._tls.two.example. TXT "v=TLSRPTv1; rua=https://1.example,https://2.example,https://3.example,https://4.example,https://5.example"
`
	dns, err := dnstest.New(zones, dnstest.Fault{Name: "_mta-sts.down.example", Do: dnstest.Servfail})
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	r, err := NewResolver(ResolverOptions{Servers: []string{"127.0.0.1:53"}, Dial: dns.Dial})
	if err != nil {
		t.Fatal(err)
	}
	for domain, want := range map[string]string{"one.example": "20261121", "two.example": "", "other.example": "", "bad.example": "", "none.example": ""} {
		if id, err := r.STSRecord(t.Context(), domain); id != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", domain, id, err, want)
		}
	}
	if id, err := r.STSRecord(t.Context(), "down.example"); id != "" || kindOf(err) != Temporary {
		t.Errorf("silence: %q, %v", id, err)
	}
	for domain, want := range map[string]string{
		"one.example":  "mailto:tls@one.example https://r.one.example/tls",
		"two.example":  "https://1.example https://2.example https://3.example https://4.example",
		"none.example": "",
	} {
		uris, err := r.TLSReportURIs(t.Context(), domain)
		var got []string
		for _, u := range uris {
			got = append(got, u.String())
		}
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("%s: %v, %v", domain, got, err)
		}
	}
}

// A report goes to the host that the zone names and to no other.
func TestPost(t *testing.T) {
	t.Parallel()
	issuer := newAuthority(t)
	cert := issuer.issue(t, "r.one.example", time.Now().Add(time.Hour))
	status := http.StatusAccepted
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Content-Type") != "application/tlsrpt+gzip" || r.Method != http.MethodPost {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		w.Header().Set("Location", "https://other.example/")
		w.WriteHeader(status)
		fmt.Fprint(w, strings.Repeat("x", 1<<20))
	}))
	web.TLS = serverTLS(cert)
	web.StartTLS()
	defer web.Close()
	dns, err := dnstest.New("r.one.example. A 192.0.2.80\nprivate.one.example. A 10.0.0.1\n")
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	r, err := NewResolver(ResolverOptions{Servers: []string{"127.0.0.1:53"}, Dial: dns.Dial})
	if err != nil {
		t.Fatal(err)
	}
	lab := Web{Roots: issuer.pool, Dial: toward(web.Listener.Addr().String())}
	for _, row := range []struct {
		to     string
		status int
		web    Web
		want   string // part of the error, "" for none
	}{
		{"https://r.one.example/tls", http.StatusAccepted, lab, ""},
		{"https://r.one.example/tls", http.StatusFound, lab, "302"},
		{"https://r.one.example/tls", http.StatusInternalServerError, lab, "500"},
		{"https://r.one.example:25/tls", http.StatusOK, lab, "443 only"},
		{"http://r.one.example/tls", http.StatusOK, lab, "443 only"},
		{"https://private.one.example/tls", http.StatusOK, lab, "not on the public Internet"},
		{"https://127.0.0.1/tls", http.StatusOK, lab, "not an address"},
	} {
		status = row.status
		to, err := url.Parse(row.to)
		if err != nil {
			t.Fatal(err)
		}
		err = r.Post(t.Context(), to, "application/tlsrpt+gzip", []byte("report"), row.web)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.to, err, row.want)
		}
	}
}

func serverTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// toward dials one address, whatever is asked for.
func toward(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
}
