package deliver

import (
	"fmt"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/dnscheck"
)

func TestADestinationIsWhereMailGoes(t *testing.T) {
	t.Parallel()
	hosts := func(names ...string) dnscheck.Route {
		var r dnscheck.Route
		for _, n := range names {
			r.Hosts = append(r.Hosts, dnscheck.Host{Name: n, Pref: 10})
		}
		return r
	}
	backup := hosts("mx.nordlys.example", "backup.isp.example")
	backup.Hosts[1].Pref = 20
	gateway := hosts("eu-smtp-inbound-1.mimecast.com", "nordlys-fi.mail.protection.outlook.com")
	gateway.Hosts[1].Pref = 20
	chance := hosts("a.example", "b.example")
	chance.Dropped = 3
	for _, c := range []struct {
		route    dnscheck.Route
		name     string
		provider string
	}{
		{hosts("nordlys-fi.mail.protection.outlook.com"), "microsoft365", "microsoft365"},
		{hosts("acme-com.mail.protection.outlook.com"), "microsoft365", "microsoft365"},
		{hosts("aspmx.l.google.com"), "google", ""},
		{hosts("mta7.am0.yahoodns.net", "mta5.am0.yahoodns.net"), "yahoo", "yahoo-aol"},
		{hosts("eu-smtp-inbound-2.mimecast.com", "eu-smtp-inbound-1.mimecast.com"),
			"eu-smtp-inbound-1.mimecast.com,eu-smtp-inbound-2.mimecast.com", "mimecast"},
		{gateway, "eu-smtp-inbound-1.mimecast.com,nordlys-fi.mail.protection.outlook.com", "mimecast"},
		{hosts("mx2.nordlys.example", "mx1.nordlys.example"), "mx1.nordlys.example,mx2.nordlys.example", ""},
		{hosts("mx1.nordlys.example", "mx2.nordlys.example"), "mx1.nordlys.example,mx2.nordlys.example", ""},
		{backup, "backup.isp.example,mx.nordlys.example", ""},
		{chance, "", ""},
		{dnscheck.Route{}, "", ""},
	} {
		name, provider := destinationOf(&c.route)
		if name != c.name || c.provider != "" && provider != c.provider {
			t.Errorf("%+v: %q of %q, want %q of %q", c.route.Hosts, name, provider, c.name, c.provider)
		}
	}
	var many, others []string
	for i := range 10 {
		many = append(many, fmt.Sprintf("mx%d.%s.example", i, strings.Repeat("long", 20)))
		others = append(others, fmt.Sprintf("mx%d.%s.example", i*i, strings.Repeat("long", 20)))
	}
	a, b := hosts(many...), hosts(others...)
	first, _ := destinationOf(&a)
	second, _ := destinationOf(&b)
	if first == second || len(first) > 260 {
		t.Errorf("sets of many hosts: %q and %q", first, second)
	}
}

func TestTheDestinationsFile(t *testing.T) {
	t.Parallel()
	all, err := parseDestinations(destinationFile)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, d := range all {
		if names[d.name] || len(d.providers) == 0 {
			t.Errorf("%s stands there twice, or for nobody", d.name)
		}
		names[d.name] = true
	}
	for host, provider := range map[string]string{"aspmx.l.google.com": "google", "x.mail.protection.outlook.com": "microsoft365", "smtp-in.orange.fr": "orange"} {
		if d := destinations()[bounces.Provider(host)]; d == nil || d.name != provider {
			t.Errorf("%s is not %s: %+v", host, provider, d)
		}
	}
	if l := KnownLimits("yahoo"); l.Messages != 20 {
		t.Errorf("yahoo: %+v", l)
	}
	if l := KnownLimits("eu-smtp-inbound-1.mimecast.com,eu-smtp-inbound-2.mimecast.com"); l.Connections != 10 {
		t.Errorf("a region of mimecast: %+v", l)
	}
	if l := KnownLimits("mx.nordlys.example"); l != (DestinationLimits{}) {
		t.Errorf("of a host that nobody knows: %+v", l)
	}
	for _, text := range []string{"connections 5", "destination a\n  color blue", "destination a\n  connections many", "destination a\n  connections 0", "destination a\n  messages 5"} {
		if _, err := parseDestinations(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
