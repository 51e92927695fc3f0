package deliver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// Part C of the fault suite, as far as it is decided here: what a failed lookup does
// to a message.
func TestFaultsOfDNS(t *testing.T) {
	t.Parallel()
	dns := func(k dnscheck.Kind) error { return &dnscheck.Error{Kind: k, Domain: "dest.example", Type: "MX"} }
	hour := func(a *mail.Attempt) { a.Message.ExpiresAt = a.Message.QueuedAt.Add(time.Hour) }
	for _, row := range []struct {
		name     string
		err      error
		number   int
		change   func(*mail.Attempt)
		state    mail.State
		cause    mail.Cause
		suppress bool
	}{
		{"C01 no such domain, and a week to ask again", dns(dnscheck.NoDomain), 1, nil, mail.StateDelayed, mail.CauseBadDomain, false},
		{"C01 no such domain, confirmed", dns(dnscheck.NoDomain), 2, nil, mail.StateRefused, mail.CauseBadDomain, true},
		{"C01 no such domain, and no time to ask again", dns(dnscheck.NoDomain), 1, hour, mail.StateRefused, mail.CauseBadDomain, false},
		{"C02 SERVFAIL", dns(dnscheck.Temporary), 7, nil, mail.StateDelayed, mail.CauseDNSFailure, false},
		{"C03 null MX", dns(dnscheck.NullMX), 1, nil, mail.StateRefused, mail.CauseNullMX, true},
		{"C08 no usable address, once", dns(dnscheck.NoAddress), 1, nil, mail.StateDelayed, mail.CauseBadDomain, false},
		{"C08 no usable address, again", dns(dnscheck.NoAddress), 2, nil, mail.StateRefused, mail.CauseBadDomain, false},
		{"C08 no usable address, and no time", dns(dnscheck.NoAddress), 1, hour, mail.StateRefused, mail.CauseBadDomain, false},
		{"a name that can't be asked for", dns(dnscheck.BadName), 1, nil, mail.StateRefused, mail.CauseBadDomain, true},
		{"C18 our resolver is down", dns(dnscheck.Local), 1, nil, "", "", false},
		{"an error that nobody knows", errors.New("out of cheese"), 1, nil, "", "", false},
		{"wrapped", fmt.Errorf("plan: %w", dns(dnscheck.NullMX)), 1, nil, mail.StateRefused, mail.CauseNullMX, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
			o.Plan = func(context.Context, string) (Plan, error) { return Plan{}, row.err }
			a := &mail.Attempt{Message: testMessage(), Number: row.number}
			if row.change != nil {
				row.change(a)
			}
			got := newDeliverer(t, o).Attempt(t.Context(), a)
			if got.State != row.state || got.Cause != row.cause || got.Suppress != row.suppress {
				t.Errorf("got %+v", got)
			}
			if got.Evidence.Error == "" || got.Evidence.Stage != mail.StageDNS || got.Signed == nil || (got.Local != "") != (row.state == "") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// A plan without hosts is a domain without usable addresses.
func TestEmptyPlan(t *testing.T) {
	t.Parallel()
	o := testOptions(t, smtptest.NewNetwork(nil, nil), Plan{})
	got := newDeliverer(t, o).Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 2})
	if got.State != mail.StateRefused || got.Cause != mail.CauseBadDomain {
		t.Errorf("got %+v", got)
	}
}

func addrs(ss ...string) (out []netip.Addr) {
	for _, s := range ss {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestTargets(t *testing.T) {
	t.Parallel()
	var many []Host
	for i := range 500 {
		many = append(many, Host{Name: fmt.Sprintf("mx%d.dest.example", i), Pref: 10, Addrs: addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1")})
	}
	for _, row := range []struct {
		name  string
		hosts []Host
		want  []string
	}{
		{"none", nil, nil},
		{"a family each", []Host{{Name: "mx", Addrs: addrs("2001:db8::1", "2001:db8::2", "192.0.2.1")}}, []string{"[2001:db8::1]:25", "192.0.2.1:25"}},
		{"C12 IPv6 can't use up the tries", []Host{{Name: "mx", Addrs: addrs("192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.3")}}, []string{"192.0.2.1:25", "[2001:db8::1]:25"}},
		{"C11 one family alone", []Host{{Name: "mx", Addrs: addrs("2001:db8::1", "2001:db8::2", "2001:db8::3")}}, []string{"[2001:db8::1]:25", "[2001:db8::2]:25"}},
		{"a mapped address is IPv4", []Host{{Name: "mx", Addrs: addrs("::ffff:192.0.2.1")}}, []string{"192.0.2.1:25"}},
		{"C09 500 hosts", many, slices.Repeat([]string{"192.0.2.1:25", "[2001:db8::1]:25"}, 5)},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := Plan{Hosts: row.hosts}
			var got []string
			for _, x := range p.targets() {
				got = append(got, x.addr.String())
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestByMX(t *testing.T) {
	t.Parallel()
	route := func(r dnscheck.Route, err error) func(context.Context, string) (dnscheck.Route, error) {
		return func(context.Context, string) (dnscheck.Route, error) { return r, err }
	}
	temporary := &dnscheck.Error{Kind: dnscheck.Temporary}
	t.Run("a host without addresses stays only if it may have some tomorrow", func(t *testing.T) {
		t.Parallel()
		p, err := ByMX(route(dnscheck.Route{Hosts: []dnscheck.Host{
			{Name: "a.example", Pref: 5, Err: temporary},
			{Name: "never.example", Pref: 5, Err: &dnscheck.Error{Kind: dnscheck.NoDomain}},
			{Name: "b.example", Pref: 10, Addrs: addrs("192.0.2.1")},
		}}, nil), nil)(t.Context(), "dest.example")
		if err != nil || len(p.Hosts) != 2 || p.Hosts[1].Name != "b.example" || p.Hosts[1].Pref != 10 || p.Destination != "a.example,b.example,never.example" || p.best() != 5 {
			t.Errorf("got %+v, %v", p, err)
		}
		if ts := p.targets(); len(ts) != 1 || ts[0].host != "b.example" {
			t.Errorf("targets: %+v", ts)
		}
	})
	t.Run("the lookup fails", func(t *testing.T) {
		t.Parallel()
		_, err := ByMX(route(dnscheck.Route{}, temporary), nil)(t.Context(), "dest.example")
		if !errors.Is(err, temporary) {
			t.Errorf("got %v", err)
		}
	})
}

func TestByRelay(t *testing.T) {
	t.Parallel()
	login := &Login{User: "u", Password: "secret words"}
	plan := ByRelay(Plan{Port: 587, TLS: TLSVerified, Login: login}, "smart.example", func(context.Context, string) ([]netip.Addr, error) {
		return addrs("192.0.2.7", "192.0.2.8"), nil
	})
	p, err := plan(t.Context(), "dest.example")
	if err != nil || len(p.targets()) != 2 || p.targets()[0].addr.Port() != 587 || !p.Relay || p.Destination != "smart.example" {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, s := range []string{fmt.Sprint(login), fmt.Sprintf("%+v", p), fmt.Sprintf("%#v", *login)} {
		if strings.Contains(s, "secret words") {
			t.Errorf("the password is in %q", s)
		}
	}
	for _, lookupErr := range []error{nil, &dnscheck.Error{Kind: dnscheck.NoDomain}} {
		down := ByRelay(Plan{}, "smart.example", func(context.Context, string) ([]netip.Addr, error) { return nil, lookupErr })
		_, err = down(t.Context(), "dest.example")
		o := byPlan(t.Context(), &mail.Attempt{Message: testMessage(), Number: 5}, err)
		if o.State != "" || !strings.Contains(o.Local, "smart.example") {
			t.Errorf("a relay without an address refuses mail: %+v", o)
		}
	}
}

// C12: a broken IPv6 costs its part of an attempt and not the attempt.
func TestFaultC12BrokenIPv6(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := smtptest.NewNetwork(nil, map[string][]string{"[2001:db8::1]:25": {"drop"}, "192.0.2.1:25": {accepting}})
		plan := Plan{Hosts: []Host{{Name: "mx.dest.example", Addrs: addrs("2001:db8::1", "2001:db8::2", "192.0.2.1")}}}
		d := newDeliverer(t, testOptions(t, network, plan))
		o := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1})
		d.Close()
		if err := network.Wait(); err != nil {
			t.Error(err)
		}
		if o.State != mail.StateAccepted || o.Evidence.IP != "192.0.2.1" {
			t.Errorf("got %+v", o)
		}
	})
}
