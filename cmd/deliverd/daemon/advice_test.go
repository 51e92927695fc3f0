package daemon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
	"github.com/deliverd/deliverd/mail"
)

// byMX makes a daemon deliver where a zone's MX records say, which all lead to the sink.
func byMX(t *testing.T, zone string) func(*Config) {
	t.Helper()
	dns, err := dnstest.Start(zone)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	return func(c *Config) {
		c.Lab.Dial = map[string]string{":25": c.Send.Relay}
		c.Send.Relay = ""
		c.DNS.Servers = []string{dns.Addr}
	}
}

const adviceZone = `
*.example.            MX 10 mx.provider.example.
mx.provider.example.  A  192.0.2.25
nomail.example.       MX 0 .
`

// warned submits an invite, which has to be taken, and returns the warning with the
// code, nil if there is none.
func (d *Daemon) warned(t *testing.T, code, tenant, to string) *mail.Warning {
	t.Helper()
	r, err := d.submit(t.Context(), anInvite(tenant, to))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range r.Warnings {
		if w.Code == code {
			return &w
		}
	}
	return nil
}

// forget lets the time pass for which a tenant's domains are remembered.
func (d *Daemon) forget(tenant string) (kept time.Duration) {
	d.tenants.mu.Lock()
	defer d.tenants.mu.Unlock()
	kept = time.Until(d.tenants.by[tenant].until)
	delete(d.tenants.by, tenant)
	return kept
}

// TestAdviceOnASlip: the domains that a tenant's mail is handed over to are what a
// mistyped one most likely means; the slip is told, and the mail goes where it says.
func TestAdviceOnASlip(t *testing.T) {
	t.Parallel()
	d, sink := open(t, smtptest.SinkOptions{}, nil)
	const slip = "kari@nordyls.example"
	if w := d.warned(t, mail.WarnAddressTypo, "4711", slip); w != nil {
		t.Errorf("before anything is known: %+v", w)
	}
	for i := range 3 {
		r, err := d.submit(t.Context(), anInvite("4711", fmt.Sprintf("kari%d@nordlys.example", i)))
		if err != nil {
			t.Fatal(err)
		}
		if s := d.waitEnded(t.Context(), r.ID); s != mail.StateAccepted {
			t.Fatal(s)
		}
	}
	if kept := d.forget("4711"); kept > tenantNoneFor {
		t.Errorf("that nothing is known is kept for %v", kept)
	}
	w := d.warned(t, mail.WarnAddressTypo, "4711", slip)
	if w == nil || w.Suggestion != "kari@nordlys.example" {
		t.Errorf("warned %+v", w)
	}
	if kept := d.forget("4711"); kept <= tenantNoneFor {
		t.Errorf("the domains are kept for %v", kept)
	}
	for _, not := range []struct{ tenant, to string }{
		{"4712", slip}, {"", slip}, {"4711", "kari@nordlys.example"}, {"4711", "kari@mail.nordlys.example"}, {"4711", "kari@sydlys.example"},
	} {
		if w := d.warned(t, mail.WarnAddressTypo, not.tenant, not.to); w != nil {
			t.Errorf("%s to %s: %+v", not.tenant, not.to, w)
		}
	}
	waitFor(t, "the mail went where it was told to", func() bool {
		for m := range sink.Mails() {
			if m.To == slip {
				return true
			}
		}
		return false
	})
}

func TestAdviceOnTheDomain(t *testing.T) {
	t.Parallel()
	d, sink := open(t, smtptest.SinkOptions{Rules: []smtptest.Rule{
		{Pattern: "*@late.example", Behaviour: smtptest.Behaviour{Reply: "451 4.7.1 Greylisted, please try again later"}},
	}}, byMX(t, adviceZone))

	// What DNS says is waited for only an instant; a lookup that takes longer is there
	// for the next one.
	waitFor(t, "a domain without mail was warned of", func() bool {
		return d.warned(t, mail.WarnDomainNoMail, "4711", fmt.Sprintf("kari%d@nomail.example", time.Now().UnixNano())) != nil
	})
	if w := d.warned(t, mail.WarnDomainNoMail, "4711", "kari@nordlys.example"); w != nil {
		t.Errorf("a domain with mail: %+v", w)
	}

	inARow := func(n int) {
		t.Helper()
		waitFor(t, fmt.Sprint(n, " were put off"), func() bool {
			d.delays.mu.Lock()
			defer d.delays.mu.Unlock()
			return d.delays.by["late.example"].row == n
		})
	}
	for n := range 3 {
		if w := d.warned(t, mail.WarnDestinationDelayed, "4711", fmt.Sprintf("kari%d@late.example", n)); w != nil {
			t.Errorf("after %d attempts: %+v", n, w)
		}
		inARow(n + 1)
	}
	w := d.warned(t, mail.WarnDestinationDelayed, "4711", "lars@late.example")
	if w == nil || !strings.Contains(w.Detail, string(mail.CauseGreylisted)) {
		t.Errorf("warned %+v", w)
	}
	if w := d.warned(t, mail.WarnDestinationDelayed, "4711", "lars@nordlys.example"); w != nil {
		t.Errorf("another domain: %+v", w)
	}
	inARow(4)
	if err := sink.Tell("*@late.example", smtptest.Behaviour{}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.submit(t.Context(), anInvite("4711", "liv@late.example")); err != nil {
		t.Fatal(err)
	}
	inARow(0)
	if w := d.warned(t, mail.WarnDestinationDelayed, "4711", "lise@late.example"); w != nil {
		t.Errorf("after it took one: %+v", w)
	}
}
