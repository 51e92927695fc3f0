package deliver

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// A trace has the conversation of an attempt, and sends nothing.
func TestTrace(t *testing.T) {
	t.Parallel()
	ask := mailCmd + "S: 250 2.1.0 ok\n" + rcptCmd
	for _, row := range []struct {
		name    string
		scripts map[string][]string
		err     error // of the plan
		state   mail.State
		cause   mail.Cause
		text    string
		calls   int
	}{
		{"taken", only(hi + ask + "S: 250 2.1.5 ok\n" + bye), nil, mail.StateAccepted, "", "", 1},
		{"refused", only(hi + ask + "S: 550 5.1.1 no such user\n" + bye), nil, mail.StateRefused, mail.CauseBadMailbox, "550 5.1.1 no such user", 1},
		{"greylisted", only(hi + ask + "S: 451 4.7.1 Greylisted, come back\n" + bye), nil, mail.StateDelayed, mail.CauseGreylisted, "451 4.7.1 Greylisted, come back", 1},
		{"taken by the second", map[string][]string{mx1: {"S: 421 busy\nclose"}, mx2: {hi + ask + "S: 250 2.1.5 ok\n" + bye}}, nil, mail.StateAccepted, "", "", 2},
		{"silent", only("hang"), nil, mail.StateDelayed, mail.CauseTimeout, "no answer in time", 1},
		{"no way", nil, &dnscheck.Error{Kind: dnscheck.NullMX, Domain: "dest.example", Type: "MX"}, mail.StateRefused, mail.CauseNullMX, "*", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				network := smtptest.NewNetwork(nil, row.scripts)
				o := testOptions(t, network, twoHosts(row.scripts))
				if row.err != nil {
					o.Plan = func(context.Context, string) (Plan, error) { return Plan{}, row.err }
				}
				d := newDeliverer(t, o)
				began := time.Now()
				got := d.Trace(t.Context(), "kari@dest.example", "")
				if took := time.Since(began); took > time.Minute {
					t.Errorf("took %v", took)
				}
				if got.State != row.state || got.Cause != row.cause || got.Error != row.text && row.text != "*" || len(got.Calls) != row.calls {
					t.Errorf("got %+v", got)
				}
				for _, c := range got.Calls {
					if c.Host == "" || c.IP == "" || len(c.Conversation) == 0 {
						t.Errorf("call %+v", c)
					}
				}
				d.Close()
				network.Close()
				if err := network.Wait(); err != nil {
					t.Error(err)
				}
				if slices.Contains(network.Lines(), "DATA") {
					t.Error("said DATA")
				}
			})
		})
	}
}
