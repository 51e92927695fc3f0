package dnscheck

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/dnscheck/dnstest"
)

// routeOf writes a route as one line: hosts with their addresses, "!kind" for a
// host without, in the order of the route.
func routeOf(route Route) string {
	var hosts []string
	for _, h := range route.Hosts {
		var addrs []string
		for _, a := range h.Addrs {
			addrs = append(addrs, a.String())
		}
		line := fmt.Sprintf("%d %s %s", h.Pref, h.Name, strings.Join(addrs, ","))
		if h.Err != nil {
			line += "!" + string(kindOf(h.Err))
		}
		hosts = append(hosts, line)
	}
	return strings.Join(hosts, "; ")
}

func TestRoute(t *testing.T) {
	const zones = `
$TTL 300
plain.example.      MX 10 mx1.plain.example.
plain.example.      MX 20 mx2.plain.example.
mx1.plain.example.  A 192.0.2.1
mx1.plain.example.  AAAA 2001:db8::1
mx2.plain.example.  A 192.0.2.2
null.example.       MX 0 .
oddnull.example.    MX 10 .
nullplus.example.   MX 0 .
nullplus.example.   MX 10 mx2.plain.example.
implicit.example.   A 192.0.2.3
text.example.       TXT "no mail here"
broken.example.     A 192.0.2.4
alias.example.      CNAME plain.example.
mxalias.example.    MX 10 a.alias.example.
a.alias.example.    CNAME b.alias.example.
b.alias.example.    CNAME mx1.plain.example.
mxloop.example.     MX 10 l1.example.
l1.example.         CNAME l2.example.
l2.example.         CNAME l1.example.
literal.example.    MX 10 192.0.2.1.
gone.example.       MX 10 mx.gone.example.
half.example.       MX 10 mx.half.example.
half.example.       MX 20 mx2.plain.example.
hidden.example.     MX 10 mx.hidden.example.
mx.hidden.example.  A 192.0.2.5
twice.example.      MX 20 mx2.plain.example.
twice.example.      MX 10 mx2.plain.example.
inside.example.     MX 10 localhost.
inside.example.     MX 20 in.inside.example.
localhost.          A 127.0.0.1
in.inside.example.  A 10.0.0.1
in.inside.example.  A 169.254.169.254
in.inside.example.  AAAA ::ffff:127.0.0.1
in.inside.example.  AAAA 64:ff9b::7f00:1
mixed.example.      MX 10 mx.mixed.example.
mx.mixed.example.   A 127.0.0.1
mx.mixed.example.   A 192.0.2.6
six.example.        MX 10 mx.six.example.
mx.six.example.     AAAA 2001:db8::6
`
	faults := []dnstest.Fault{
		{Name: "broken.example", Type: "MX", Do: dnstest.Servfail},
		{Name: "refused.example", Do: dnstest.Refused},
		{Name: "mx.half.example", Do: dnstest.Servfail},
		{Name: "mx.hidden.example", Type: "AAAA", Do: dnstest.Servfail},
		{Name: "silent.example", Do: dnstest.Silent},
	}
	tests := []struct {
		name, domain string
		kind         Kind
		want         string
		implicit     bool
	}{
		{"hosts by preference", "plain.example", "", "10 mx1.plain.example 2001:db8::1,192.0.2.1; 20 mx2.plain.example 192.0.2.2", false},
		{"C01", "nowhere.example", NoDomain, "", false},
		{"C02 REFUSED", "refused.example", Temporary, "", false},
		{"C02 timeout", "silent.example", Temporary, "", false},
		{"C03", "null.example", NullMX, "", false},
		{"C03 odd preference", "oddnull.example", NullMX, "", false},
		{"C04", "nullplus.example", "", "10 mx2.plain.example 192.0.2.2", false},
		{"C05", "implicit.example", "", "0 implicit.example 192.0.2.3", true},
		{"C05 without address", "text.example", NoAddress, "0 text.example !no_address", true},
		{"C06", "broken.example", Temporary, "", false},
		{"C07 the domain is an alias", "alias.example", "", "10 mx1.plain.example 2001:db8::1,192.0.2.1; 20 mx2.plain.example 192.0.2.2", false},
		{"C07 MX is an alias", "mxalias.example", "", "10 a.alias.example 2001:db8::1,192.0.2.1", false},
		{"C07 loop", "mxloop.example", Temporary, "10 l1.example !temporary", false},
		{"C08 literal", "literal.example", NoAddress, "10 192.0.2.1 !no_address", false},
		{"C08 only addresses inside", "inside.example", NoAddress, "10 localhost !no_address; 20 in.inside.example !no_address", false},
		{"C08 one address inside", "mixed.example", "", "10 mx.mixed.example 192.0.2.6", false},
		{"C11 IPv6 alone", "six.example", "", "10 mx.six.example 2001:db8::6", false},
		{"C12 AAAA broken", "hidden.example", "", "10 mx.hidden.example 192.0.2.5!temporary", false},
		{"host doesn't exist", "gone.example", NoAddress, "10 mx.gone.example !no_domain", false},
		{"one host can't be found", "half.example", "", "10 mx.half.example !temporary; 20 mx2.plain.example 192.0.2.2", false},
		{"one host named twice", "twice.example", "", "10 mx2.plain.example 192.0.2.2", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := inMemory(t, ResolverOptions{}, zone(t, zones, faults...))
				got, err := r.Route(t.Context(), tt.domain)
				if kindOf(err) != tt.kind || routeOf(got) != tt.want || got.Implicit != tt.implicit {
					t.Errorf("route %q implicit %v, %v\nwant %q", routeOf(got), got.Implicit, err, tt.want)
				}
				if err != nil && err.(*Error).Domain != tt.domain {
					t.Errorf("the error is about %q", err.(*Error).Domain)
				}
			})
		})
	}
	t.Run("C08 private hosts by choice", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := inMemory(t, ResolverOptions{Private: true}, zone(t, zones))
			got, err := r.Route(t.Context(), "inside.example")
			if err != nil || !strings.HasPrefix(routeOf(got), "10 localhost 127.0.0.1; 20 in.inside.example ") || len(got.Hosts[1].Addrs) != 4 {
				t.Errorf("%s, %v", routeOf(got), err)
			}
		})
	})
	t.Run("C18", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			r := inMemory(t, ResolverOptions{}, zone(t, zones, dnstest.Fault{Name: "*", Do: dnstest.Silent}))
			if _, err := r.Route(t.Context(), "plain.example"); kindOf(err) != Local {
				t.Errorf("err = %v", err)
			}
		})
	})
	t.Run("C18 between MX and addresses", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s := zone(t, zones)
			r := inMemory(t, ResolverOptions{}, s)
			if _, err := r.MX(t.Context(), "plain.example"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			s.Load(zones, dnstest.Fault{Name: "*", Do: dnstest.Silent})
			if _, err := r.Route(t.Context(), "plain.example"); kindOf(err) != Local {
				t.Errorf("err = %v", err)
			}
		})
	})
}

// C09: whatever the zone says, few questions are asked and few addresses kept.
func TestC09Amplification(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var text strings.Builder
		for i := range 500 {
			fmt.Fprintf(&text, "many.example. MX 10 mx%d.many.example.\n", i)
			fmt.Fprintf(&text, "*.many.example. A 192.0.%d.%d\n", i/250, i%250)
			fmt.Fprintf(&text, "*.many.example. AAAA 2001:db8::%d\n", i)
		}
		s := zone(t, text.String())
		r := inMemory(t, ResolverOptions{}, s)
		got, err := r.Route(t.Context(), "many.example")
		if err != nil || len(got.Hosts) != maxHosts || got.Dropped != 500-maxHosts {
			t.Fatalf("%d hosts, %d dropped, %v", len(got.Hosts), got.Dropped, err)
		}
		for _, h := range got.Hosts {
			if len(h.Addrs) != 2*maxAddrs || !h.Addrs[0].Is6() || !h.Addrs[1].Is4() {
				t.Errorf("addresses %v", h.Addrs)
			}
		}
		// Each question comes once by UDP and once by TCP.
		if n := s.Queries(); n > 2*(1+2*maxHosts) {
			t.Errorf("%d queries", n)
		}
	})
}

// C10: the load is spread over equals, and only over equals.
func TestC10EqualPreferenceIsShuffled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var text strings.Builder
		text.WriteString("eq.example. MX 20 last.eq.example.\n*.eq.example. A 192.0.2.1\n*.eq.example. A 192.0.2.2\n")
		for i := range 5 {
			fmt.Fprintf(&text, "eq.example. MX 10 mx%d.eq.example.\n", i)
		}
		r := inMemory(t, ResolverOptions{}, zone(t, text.String()))
		first, addr := map[string]bool{}, map[netip.Addr]bool{}
		for range 200 {
			got, err := r.Route(t.Context(), "eq.example")
			if err != nil || len(got.Hosts) != 6 || got.Hosts[5].Name != "last.eq.example" {
				t.Fatalf("%s, %v", routeOf(got), err)
			}
			first[got.Hosts[0].Name] = true
			addr[got.Hosts[0].Addrs[0]] = true
		}
		// Chance leaves one out in 200 draws of five less than once in 10^18 runs.
		if len(first) != 5 || len(addr) != 2 {
			t.Errorf("first hosts %v, first addresses %v", first, addr)
		}
	})
}

func TestRouteAD(t *testing.T) {
	const zones = "a.example. MX 10 mx.a.example.\nmx.a.example. A 192.0.2.1\nb.example. MX 10 mx.b.example.\nmx.b.example. A 192.0.2.1\n" +
		"c.example. MX 10 mx.c.example.\nmx.c.example. A 192.0.2.1\n"
	bubble(t, func(t *testing.T) {
		r := inMemory(t, ResolverOptions{}, zone(t, zones,
			dnstest.Fault{Name: "*a.example", Do: dnstest.Secure},
			dnstest.Fault{Name: "b.example", Do: dnstest.Secure},
			dnstest.Fault{Name: "mx.c.example", Type: "AAAA", Do: dnstest.Servfail},
			dnstest.Fault{Name: "*c.example", Do: dnstest.Secure},
			dnstest.Fault{Name: "mx.b.example", Type: "A", Do: dnstest.Secure}))
		for domain, host := range map[string]bool{"a.example": true, "b.example": false, "c.example": true} {
			got, err := r.Route(t.Context(), domain)
			if err != nil || !got.AD || got.Hosts[0].AD != host {
				t.Errorf("%s: %v, AD %v, host's %v", domain, err, got.AD, got.Hosts[0].AD)
			}
		}
	})
}

func TestRouteEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := inMemory(t, ResolverOptions{}, zone(t, "a.example. MX 10 mx.a.example.", dnstest.Fault{Name: "mx.a.example", Do: dnstest.Silent}))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		got, err := r.Route(ctx, "a.example")
		if kindOf(err) != Temporary || time.Since(began) != 3*time.Second || len(got.Hosts) != 1 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestRoutable(t *testing.T) {
	t.Parallel()
	inside := []string{
		"127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
		"169.254.169.254", "100.64.0.1", "100.127.255.255", "192.0.0.8", "198.18.0.1", "224.0.0.1", "240.0.0.1",
		"255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
		"2002:7f00:1::", "2001:0:1::", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "100::1",
	}
	outside := []string{
		"8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.1", "192.169.0.1", "198.17.255.255",
		"198.20.0.0", "223.255.255.255", "::ffff:8.8.8.8", "2a00:1450::1", "2606:4700::1111", "2001:4860::8888", "64:ff9c::1",
		"192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", // documentation: harmless, see special
	}
	for _, s := range inside {
		if Routable(netip.MustParseAddr(s)) {
			t.Errorf("%s counts as routable", s)
		}
	}
	for _, s := range outside {
		if !Routable(netip.MustParseAddr(s)) {
			t.Errorf("%s counts as not routable", s)
		}
	}
	if Routable(netip.Addr{}) {
		t.Error("no address counts as routable")
	}
	if !slices.IsSortedFunc(special, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) {
		t.Error("the table is not in order")
	}
}
