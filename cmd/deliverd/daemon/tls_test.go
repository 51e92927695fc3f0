package daemon

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/dnscheck/dnstest"
	"github.com/deliverd/deliverd/mail"
)

const reportingZone = `
dest.example.           MX  10 mx.dest.example.
mx.dest.example.        A   192.0.2.1
_smtp._tls.dest.example. TXT "v=TLSRPTv1; rua=mailto:tls@dest.example"
`

// toExchangers changes a rehearsal into a daemon that finds its way by the DNS.
func toExchangers(t *testing.T, sink *smtptest.Sink, faults ...dnstest.Fault) func(*Config) {
	t.Helper()
	dns, err := dnstest.Start(reportingZone, faults...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dns.Close() })
	return func(c *Config) {
		c.Send.Relay = ""
		c.DNS.Servers = []string{dns.Addr}
		_, port, _ := net.SplitHostPort(sink.Addr().String())
		c.Lab.Dial = map[string]string{":25": net.JoinHostPort("127.0.0.1", port)}
	}
}

// What happened under a domain's policies is shown, and told to the domain by a signed
// mail through our own queue, once, whatever is wrong with its TLS.
func TestTLSReports(t *testing.T) {
	t.Parallel()
	sink, err := smtptest.Listen(smtptest.SinkOptions{NoTLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	d := rehearsal(t, sink, toExchangers(t, sink))
	d.run(t)
	admin := d.admin(t)
	d.sent(t, admin, aPIN("kari@dest.example", "111111"), mail.StateAccepted)

	status, text := d.call(t, admin, "GET", "/v1/tls", "")
	var known tlsAnswer
	if err := json.Unmarshal([]byte(text), &known); err != nil || status != http.StatusOK || len(known.Sessions) != 1 {
		t.Fatalf("%d %s, %v", status, text, err)
	}
	if p := known.Sessions[0].Policies[0]; p.Type != tlspolicy.NoPolicy || p.Failed != 1 || p.Failures[0].What != mail.TLSNotOffered {
		t.Errorf("counted %+v", p)
	}
	if status, _ := d.call(t, "", "GET", "/v1/tls", ""); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d", status)
	}

	now := time.Now()
	d.sessions.Save(t.Context(), now)
	store, err := d.queue.Shared(t.Context(), "tlsrpt")
	if err != nil {
		t.Fatal(err)
	}
	r := d.reporter(store, "node")
	enqueue := r.Enqueue
	r.Enqueue = func(ctx context.Context, m *mail.Message) error {
		m.QueuedAt, m.ExpiresAt = now, now.Add(time.Hour) // or it would wait for tomorrow
		return enqueue(ctx, m)
	}
	for range 2 {
		if err := r.Due(t.Context(), now.AddDate(0, 0, 1).Add(5*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	report := waitForMail(t, sink, "tls@dest.example")
	for _, part := range []string{"DKIM-Signature:", "report-type=\"tlsrpt\"", "TLS-Report-Domain: dest.example", "TLS-Report-Submitter: acme.example", "application/tlsrpt+gzip"} {
		if !strings.Contains(report, part) {
			t.Errorf("%q is not in the report: %s", part, report)
		}
	}
	if sessions := d.sessions.Tallies(); sessions[0].Policies[0].Failed != 1 {
		t.Errorf("the report's own session is counted: %+v", sessions)
	}
	if n := sink.Stats().Accepted; n != 2 {
		t.Errorf("%d mails, want the PIN and one report", n)
	}
}

// waitForMail waits until the sink has a mail to an address.
func waitForMail(t *testing.T, sink *smtptest.Sink, to string) string {
	t.Helper()
	for t.Context().Err() == nil {
		for m := range sink.Mails() {
			if m.To == to {
				return string(m.Raw)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("it never came")
	return ""
}

// No request can ask for the kind that reports have.
func TestReportKindIsOurs(t *testing.T) {
	t.Parallel()
	sink, err := smtptest.Listen(smtptest.SinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	d := rehearsal(t, sink, nil)
	defer d.Close(context.Background())
	status, text := d.call(t, d.admin(t), "POST", "/v1/messages", `{"kind": "tls-report", "to": "kari@dest.example", "data": {"report": "x"}}`)
	if status != http.StatusUnprocessableEntity && status != http.StatusBadRequest || !strings.Contains(text, "unknown-kind") {
		t.Errorf("%d %s", status, text)
	}
	c := Defaults()
	c.Kinds = map[string]KindConfig{"tls-report": {}}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "deliverd's own") {
		t.Errorf("got %v", err)
	}
	bad := "sometimes"
	c.Kinds = map[string]KindConfig{"pin": {TLS: &bad}}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "kinds.pin.tls") {
		t.Errorf("got %v", err)
	}
}

// A PIN never in clear is one line of configuration, and so says the story.
func TestFloorOfAKind(t *testing.T) {
	t.Parallel()
	sink, err := smtptest.Listen(smtptest.SinkOptions{NoTLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	route := toExchangers(t, sink)
	required := "required"
	d := rehearsal(t, sink, func(c *Config) {
		route(c)
		c.Kinds = map[string]KindConfig{"pin": {TLS: &required}}
	})
	d.run(t)
	admin := d.admin(t)
	id := d.sent(t, admin, aPIN("kari@dest.example", "111111"), mail.StateDelayed)
	for lang, want := range map[string]string{
		"en": `mx.dest.example offers no encryption (STARTTLS), and our own rule for this kind of mail demands it (kinds.pin.tls = \"required\")`,
		"fi": `mx.dest.example ei tarjoa salausta (STARTTLS), ja oma sääntömme tälle viestilajille vaatii sen (kinds.pin.tls = \"required\")`,
	} {
		if _, text := d.call(t, admin, "GET", "/v1/messages/"+string(id)+"?lang="+lang, ""); !strings.Contains(text, want) {
			t.Errorf("%s: %s", lang, text)
		}
	}
	if n := sink.Stats().Accepted; n != 0 {
		t.Errorf("%d mails went in clear", n)
	}
}

// B18: a resolver that does not validate is said by the doctor.
func TestFaultB18DoctorTells(t *testing.T) {
	t.Parallel()
	sink, err := smtptest.Listen(smtptest.SinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	for _, row := range []struct {
		zone   string
		faults []dnstest.Fault
		state  string
	}{
		{". NS a.root.example.", nil, FindingWarn},
		{". NS a.root.example.", []dnstest.Fault{{Name: "*", Do: dnstest.Secure}}, FindingOK},
		{"", []dnstest.Fault{{Name: ".", Do: dnstest.Servfail}}, FindingWarn},
	} {
		dns, err := dnstest.Start(row.zone, row.faults...)
		if err != nil {
			t.Fatal(err)
		}
		c := Defaults()
		c.DNS.Servers = []string{dns.Addr}
		x := examination{config: c}
		x.dns(t.Context())
		dns.Close()
		found := false
		for _, f := range x.findings {
			if f.Check == "dnssec" {
				found = true
				if f.State != row.state {
					t.Errorf("%+v", f)
				}
			}
		}
		if !found {
			t.Errorf("nothing is said: %+v", x.findings)
		}
	}
}
