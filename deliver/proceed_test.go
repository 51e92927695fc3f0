package deliver

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// after makes a Proceed that says yes n times, and then err.
func after(n int, err error) func(*Options, *Plan, *mail.Attempt) {
	return func(_ *Options, _ *Plan, a *mail.Attempt) {
		a.Proceed = func() error {
			if n--; n >= 0 {
				return nil
			}
			return err
		}
	}
}

// Laws 3 and 4: asked before anything, before dialling, before MAIL and before the
// dot. One connection: the questions come in that order.
func TestProceed(t *testing.T) {
	t.Parallel()
	noDot := hi + commands + ok + ok + goOn + "hang"
	stopped := func(t *testing.T, n *smtptest.Network, _ mail.Outcome) {
		for _, line := range n.Lines() {
			if line == "." {
				t.Error("the final dot was sent")
			}
		}
	}
	for _, f := range []fault{
		{name: "expired at first", change: after(0, mail.ErrExpired), unsigned: true, state: mail.StateExpired, cause: mail.CauseNotUsefulInTime},
		{name: "superseded at first", change: after(0, mail.ErrSuperseded), unsigned: true, state: mail.StateSuperseded, cause: mail.CauseSuperseded},
		{name: "cancelled at first", change: after(0, mail.ErrCancelled), unsigned: true, state: mail.StateCancelled, cause: mail.CauseCancelled},
		{name: "lease lost at first", change: after(0, mail.ErrInterrupted), unsigned: true, state: "", text: "interrupted"},
		{name: "expired before dialling", change: after(1, mail.ErrExpired), state: mail.StateExpired, cause: mail.CauseNotUsefulInTime},
		{name: "expired before the second host", scripts: map[string][]string{mx1: {"refuse"}, mx2: nil}, change: after(2, mail.ErrExpired),
			state: mail.StateExpired, cause: mail.CauseNotUsefulInTime,
			check: func(t *testing.T, _ *smtptest.Network, o mail.Outcome) {
				if o.Evidence.Host != "" || len(o.Evidence.Tries) != 1 || o.Evidence.Tries[0].Host != "mx1.dest.example" {
					t.Errorf("tries: %+v", o.Evidence.Tries)
				}
			}},
		{name: "superseded before MAIL", scripts: only(hi + bye), change: after(2, mail.ErrSuperseded), state: mail.StateSuperseded, cause: mail.CauseSuperseded},
		{name: "expired before the dot", scripts: only(noDot), change: after(3, mail.ErrExpired), state: mail.StateExpired, cause: mail.CauseNotUsefulInTime, check: stopped},
		{name: "cancelled before the dot", scripts: only(noDot), change: after(3, mail.ErrCancelled), state: mail.StateCancelled, cause: mail.CauseCancelled, check: stopped},
		{name: "F10 lease lost before the dot", scripts: only(noDot), change: after(3, mail.ErrInterrupted), state: "", text: "interrupted", check: stopped},
		{name: "expired before the dot of a larger message", cut: true, scripts: only(hi + commands + ok + ok + goOn + "C.\n" + queued),
			change: func(o *Options, p *Plan, a *mail.Attempt) {
				a.Signed = []byte(strings.Repeat("x: y\r\n", 40<<10/6))
				after(3, mail.ErrExpired)(o, p, a)
			},
			state: mail.StateExpired, cause: mail.CauseNotUsefulInTime, check: stopped},
		{name: "superseded in DATA finishes", scripts: only(accepting), change: after(3, mail.ErrSuperseded), state: mail.StateAccepted},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}

// Law 3 where the write of the dot itself stands still: it is given up at the expiry.
func TestNoDotAfterTheExpiry(t *testing.T) {
	t.Parallel()
	f := fault{scripts: only(hi + commands + ok + ok + goOn + "deaf"),
		change: func(_ *Options, _ *Plan, a *mail.Attempt) {
			a.Message.ExpiresAt = time.Now().Add(20 * time.Second)
			a.Proceed = func() error {
				if time.Now().After(a.Message.ExpiresAt) {
					return mail.ErrExpired
				}
				return nil
			}
		},
		state: mail.StateExpired, cause: mail.CauseNotUsefulInTime, within: 26 * time.Second}
	f.run(t)
}

// The end of the context closes the connection: before the dot nothing has
// happened, after it nobody knows.
func TestContext(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, script string
		state        mail.State
		ambig        bool
	}{
		{"in the connect", "drop", "", false},
		{"in the greeting", "hang", "", false},
		{"at EHLO", "S: 220 mx\nhang", "", false},
		{"in the TLS handshake", offers + "C: STARTTLS\nS: 220 go\nhang", "", false},
		{"at RCPT", hiPlain + mailCmd + "hang", "", false},
		{"in the body", hi + commands + ok + ok + goOn + "deaf", "", false},
		{"after the dot", hi + envelopeOK + "hang", mail.StateDelayed, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				network := smtptest.NewNetwork(nil, only(row.script))
				d := newDeliverer(t, testOptions(t, network, twoHosts(nil)))
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				began := time.Now()
				o := d.Attempt(ctx, &mail.Attempt{Message: testMessage(), Number: 1})
				if took := time.Since(began); took > 16*time.Second {
					t.Errorf("took %v", took)
				}
				if o.State != row.state || o.PossibleDuplicate != row.ambig || row.state == "" && !strings.Contains(o.Local, "interrupted") {
					t.Errorf("got %+v", o)
				}
				if d.memory.tlsIsBroken(netip.MustParseAddr("192.0.2.1")) {
					t.Error("its TLS is remembered as broken, and it was us who went away")
				}
				d.Close()
				network.Close()
			})
		})
	}
}

// A PIN that has a quarter of an hour doesn't spend a third of it on one greeting.
func TestPatience(t *testing.T) {
	t.Parallel()
	f := fault{scripts: then("hang"), state: mail.StateAccepted, host: "mx2.dest.example", within: 90 * time.Second,
		change: func(_ *Options, _ *Plan, a *mail.Attempt) { a.Message.ExpiresAt = time.Now().Add(15 * time.Minute) }}
	f.run(t)
	if got := (Timeouts{}).withDefaults().within(time.Minute); got.Dot != 10*time.Minute || got.Greeting != 30*time.Second {
		t.Errorf("got %+v", got)
	}
}

// Faults of this machine and of its configuration count no attempt.
func TestLocalFaults(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{
		{name: "rendering fails", unsigned: true, state: "", stage: mail.StageRender, text: "no such template",
			change: func(o *Options, _ *Plan, _ *mail.Attempt) {
				o.Render = func(*mail.Message) ([]byte, error) { return nil, errors.New("no such template") }
			}},
		{name: "a return path that ends its command", unsigned: true, state: "",
			change: func(o *Options, _ *Plan, _ *mail.Attempt) {
				o.ReturnPath = func(mail.ID) string { return "a@b> SIZE=1 <" }
			}},
		{name: "rendering makes 8-bit", unsigned: true, state: "", stage: mail.StageSign, text: "7-bit",
			change: func(o *Options, _ *Plan, _ *mail.Attempt) {
				o.Render = func(*mail.Message) ([]byte, error) { return []byte("From: a@b.example\r\n\r\nhé\r\n"), nil }
			}},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}
