package deliver

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// What an attempt tells of the destination, as its window follows it: connections
// count, recipients don't.
func TestContact(t *testing.T) {
	t.Parallel()
	rcpt := func(reply string) string {
		return hi + "C: MAIL FROM:<bounce@acme.example>\nC: RCPT TO:<kari@dest.example>\nC: DATA\nS: 250 ok\nS: " + reply + "\nS: 554 no valid recipients\n" + bye
	}
	for _, row := range []struct {
		name    string
		scripts map[string][]string
		contact mail.Contact
	}{
		{"accepted", only(accepting), mail.ContactOK},
		{"no such user", only(rcpt("550 5.1.1 no such user")), mail.ContactOK},
		{"A24 greylisted", only(rcpt("450 4.7.1 greylisted")), mail.ContactOK},
		{"A41 spam", only(hi + envelopeOK + "S: 554 5.7.1 spam\n" + bye), mail.ContactOK},
		{"A23 421 to MAIL", only(hi + "C: MAIL\nC: RCPT\nC: DATA\nS: 421 4.7.0 too many messages\nclose"), mail.ContactBusy},
		{"A07 421 in the greeting", only("S: 421 4.3.2 too many connections\nclose"), mail.ContactBusy},
		{"A07 421 in the greeting, made good by a backup", then("S: 421 4.3.2 too many connections\nclose"), mail.ContactBusy},
		{"A06 554 in the greeting", only("S: 554 no\n" + bye), mail.ContactBusy},
		{"A01 no answer", only("drop"), mail.ContactDown},
		{"A01 no answer, made good by a backup", then("drop"), mail.ContactOK},
		{"A02 refused", only("refuse"), mail.ContactDown},
		{"A32 no answer to DATA", only(hiPlain + "C: MAIL\nS: 250 ok\nC: RCPT\nS: 250 ok\nC: DATA\nhang"), mail.ContactDown},
		{"A55 ourselves", only("S: 220 out.acme.example\n" + bye), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				network := smtptest.NewNetwork(nil, row.scripts)
				entered := ""
				plan := twoHosts(row.scripts)
				plan.Destination = "dest"
				d := newDeliverer(t, testOptions(t, network, plan))
				got := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1, Enter: func(name string) error {
					entered += name
					return nil
				}})
				d.Close()
				network.Close()
				if got.Contact != row.contact || entered != "dest" {
					t.Errorf("contact %q, entered %q; want %q, once (%+v)", got.Contact, entered, row.contact, got.Evidence)
				}
			})
		})
	}
}

// Where there is no room, nothing is dialled and no attempt counted.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	network := smtptest.NewNetwork(nil, only(accepting))
	d := newDeliverer(t, testOptions(t, network, twoHosts(only())))
	got := d.Attempt(t.Context(), &mail.Attempt{Message: testMessage(), Number: 1, Enter: func(string) error { return mail.ErrNoRoom }})
	if got.State != "" || got.Contact != "" || !strings.Contains(got.Local, "takes no more") {
		t.Errorf("got %+v", got)
	}
	if lines := network.Lines(); len(lines) > 0 {
		t.Errorf("the server was spoken to: %q", lines)
	}
}

// A provider's known number of messages ends a connection before the provider does.
func TestA46AKnownNumberOfMessagesIsNotExceeded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		two := hi + envelopeOK + queued + envelopeOK + queued + bye
		outcomes, _ := sequence(t, only(two, two), func(o *Options, p *Plan) {
			p.Messages = 2
			plan := *p
			o.Plan = fixedPlan(plan)
		}, 0, 0, 0, 0)
		allAccepted(t, outcomes, false, true, false, true)
	})
}

func fixedPlan(p Plan) Planner {
	return func(context.Context, string) (Plan, error) { return p, nil }
}
