package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/client"
	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestSuppressions: what else than returned mail (TestReturns) stops mail to an
// address, in a running daemon.
func TestSuppressions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, smtptest.SinkOptions{Rules: smtptest.Newcomers()}, "")
	w.start(t)
	c := w.client(t)
	for name, test := range map[string]func(*testing.T, *world, *client.Client){
		"refused while it sends": refusedAtRcpt,
		"takes no mail":          refusedNullMX,
		"by hand":                suppressedByHand,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, w, c)
		})
	}
}

func suppressionOf(t *testing.T, c *client.Client, tenant, to string) *mail.Suppression {
	t.Helper()
	var list console.Suppressions
	if err := c.Do(t.Context(), http.MethodGet, "/v1/suppressions", url.Values{"tenant": {tenant}}, nil, &list); err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Suppressions {
		if string(s.Address) == to {
			return &s
		}
	}
	return nil
}

// followed waits until the daemon has held all that is in the log now against the
// policy: an address that is suppressed for sure is suppressed by then.
func (w *world) followed(t *testing.T, c *client.Client) {
	t.Helper()
	to := fmt.Sprintf("refuse.%d@follow.example", time.Now().UnixNano())
	if r, err := c.SendAndWait(t.Context(), invite("follow", to), client.MaxWait); err != nil || r.State != mail.StateRefused {
		t.Fatalf("%s, %v", r.State, err)
	}
	eventually(t, to+" was suppressed", func() bool { return suppressionOf(t, c, "follow", to) != nil })
}

// The policy is one: what is said at RCPT suppresses as what is mailed back.
func refusedAtRcpt(t *testing.T, w *world, c *client.Client) {
	const to = "refuse@nordlys.example"
	r, err := c.SendAndWait(t.Context(), invite("4711", to), client.MaxWait)
	if err != nil || r.State != mail.StateRefused {
		t.Fatalf("%s, %v", r.State, err)
	}
	eventually(t, "the address was suppressed", func() bool { return suppressionOf(t, c, "4711", to) != nil })
	if s := suppressionOf(t, c, "4711", to); s.Message != r.ID || s.Until.Sub(s.Since) != 24*time.Hour {
		t.Errorf("suppressed %+v", s)
	}
	if _, err := c.Send(t.Context(), invite("4711", to)); err == nil {
		t.Error("the next one was taken")
	}
	// Spam is a policy (law 10).
	const spam = "spam@nordlys.example"
	if r, err := c.SendAndWait(t.Context(), invite("4711", spam), client.MaxWait); err != nil || r.State != mail.StateRefused {
		t.Fatalf("%s, %v", r.State, err)
	}
	w.followed(t, c)
	if s := suppressionOf(t, c, "4711", spam); s != nil {
		t.Errorf("suppressed for a policy: %+v", s)
	}
}

func refusedNullMX(t *testing.T, w *world, c *client.Client) {
	const to = "kari@nomail.example"
	if r, err := c.SendAndWait(t.Context(), invite("4711", to), client.MaxWait); err != nil || r.State != mail.StateRefused {
		t.Fatalf("%s, %v", r.State, err)
	}
	eventually(t, "the address was suppressed", func() bool { return suppressionOf(t, c, "4711", to) != nil })
	if s := suppressionOf(t, c, "4711", to); s.Cause != mail.CauseNullMX || !s.Until.IsZero() {
		t.Errorf("suppressed %+v", s)
	}
}

// Somebody may stop mail to an address, with a reason and for a time; a daemon of one
// company has no tenants.
func suppressedByHand(t *testing.T, w *world, c *client.Client) {
	const to = "left@nordlys.example"
	for _, tenant := range []string{"", "4711"} {
		of := func(args ...string) []string {
			if tenant != "" {
				args = append(args, "--tenant", tenant)
			}
			return args
		}
		if _, _, status := w.deliverd(t, of("suppress", "add", to)...); status == 0 {
			t.Error("suppressed without a reason")
		}
		if _, stderr, status := w.deliverd(t, of("suppress", "add", to, "--reason", "has left the company", "--for", "7d")...); status != 0 {
			t.Fatalf("suppress add: %d\n%s", status, stderr)
		}
		if out, _, _ := w.deliverd(t, of("suppress", "ls")...); !strings.Contains(out, to) || !strings.Contains(out, "has left the company") {
			t.Errorf("suppress ls:\n%s", out)
		}
		if s := suppressionOf(t, c, tenant, to); s == nil || s.By != "local" || s.Until.Sub(s.Since).Round(time.Hour) != 7*24*time.Hour {
			t.Errorf("suppressed %+v", s)
		}
		_, err := c.Send(t.Context(), invite(tenant, to))
		if p, ok := errors.AsType[*client.Problem](err); !ok || p.Type != mail.ProblemSuppressed {
			t.Errorf("to a suppressed address: %v", err)
		}
		if _, err := c.Send(t.Context(), invite("4712", to)); err != nil {
			t.Errorf("another tenant's: %v", err)
		}
		if _, stderr, status := w.deliverd(t, of("suppress", "rm", to, "--reason", "is back")...); status != 0 {
			t.Fatalf("suppress rm: %d\n%s", status, stderr)
		}
		if _, _, status := w.deliverd(t, of("suppress", "rm", to, "--reason", "is back")...); status != exitNotFound {
			t.Errorf("suppress rm again: %d", status)
		}
		if _, err := c.SendAndWait(t.Context(), invite(tenant, to), client.MaxWait); err != nil {
			t.Errorf("after it was lifted: %v", err)
		}
	}
}
