package console

import (
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// TestResendChoice is the table of what may be sent again.
func TestResendChoice(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	at := func(before time.Duration) mail.ID { return mail.NewID(now.Add(-before)) }
	handedOver := func(change func(*resendCase)) resendCase {
		c := resendCase{kept: true, allowed: true, message: Summary{
			ID: at(2 * time.Hour), Kind: "invite", State: mail.StateAccepted, Source: "auth",
			ChangedAt: now.Add(-time.Hour), ExpiresAt: now.Add(time.Hour),
		}}
		c.others = []Summary{c.message}
		if change != nil {
			change(&c)
		}
		return c
	}
	resent := func(n int, before time.Duration) func(*resendCase) {
		return func(c *resendCase) {
			for range n {
				c.others = append(c.others, Summary{ID: at(3 * time.Hour), Kind: "pin", ResendOf: at(4 * time.Hour), QueuedAt: now.Add(-before)})
			}
		}
	}
	for name, row := range map[string]struct {
		c     resendCase
		asked ResendMode
		want  ResendMode // "": it is refused
	}{
		"handed over and valid":         {handedOver(nil), "", ResendSame},
		"a new one is wanted":           {handedOver(nil), ResendNew, ResendNew},
		"refused, and mended since":     {handedOver(func(c *resendCase) { c.message.State = mail.StateRefused }), "", ResendSame},
		"a PIN":                         {handedOver(func(c *resendCase) { c.allowed = false }), "", ResendNew},
		"a PIN, the same":               {handedOver(func(c *resendCase) { c.allowed = false }), ResendSame, ""},
		"expired":                       {handedOver(func(c *resendCase) { c.message.ExpiresAt = now }), "", ResendNew},
		"expired, the same":             {handedOver(func(c *resendCase) { c.message.ExpiresAt = now }), ResendSame, ""},
		"still on its way":              {handedOver(func(c *resendCase) { c.message.State = mail.StateDelayed }), "", ""},
		"still on its way, a new one":   {handedOver(func(c *resendCase) { c.message.State = mail.StateDelayed }), ResendNew, ResendNew},
		"used":                          {handedOver(func(c *resendCase) { c.used = true }), ResendSame, ""},
		"a newer one was sent":          {handedOver(func(c *resendCase) { c.others = append(c.others, Summary{ID: at(0), Kind: "invite"}) }), ResendSame, ""},
		"a newer one of another kind":   {handedOver(func(c *resendCase) { c.others = append(c.others, Summary{ID: at(0), Kind: "pin"}) }), ResendSame, ResendSame},
		"superseded":                    {handedOver(func(c *resendCase) { c.message.State = mail.StateSuperseded }), ResendSame, ""},
		"cancelled":                     {handedOver(func(c *resendCase) { c.message.State = mail.StateCancelled }), "", ResendNew},
		"its content is gone":           {handedOver(func(c *resendCase) { c.kept = false }), "", ResendNew},
		"nobody knows who asked for it": {handedOver(func(c *resendCase) { c.message.Source, c.kept = "", false }), "", ""},
		"sent again 4 times":            {handedOver(resent(4, time.Minute)), "", ResendSame},
		"sent again 5 times":            {handedOver(resent(5, time.Minute)), ResendNew, ""},
		"5 times, an hour ago":          {handedOver(resent(5, time.Hour)), "", ResendSame},
		"no such mode":                  {handedOver(nil), "other", ""},
	} {
		choice := row.c.choose(now)
		got, err := choice.mode(row.asked, row.c.message.State.Open())
		if got != row.want || (err == nil) != (row.want != "") {
			t.Errorf("%s: %q, %v; want %q", name, got, err, row.want)
		}
		if !choice.Same && choice.WhyNot == "" || !choice.New && choice.NoNew == "" {
			t.Errorf("%s: no word about why not: %+v", name, choice)
		}
	}
	if c := handedOver(nil).choose(now); c.Heed != "" {
		t.Errorf("an hour later: %s", c.Heed)
	}
	if c := handedOver(func(c *resendCase) { c.message.ChangedAt = now.Add(-40 * time.Second) }).choose(now); c.Heed == "" {
		t.Error("40 s after the hand-over nobody is warned")
	}
}
