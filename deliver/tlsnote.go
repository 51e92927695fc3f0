package deliver

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/mail"
)

// barred is the failure of a host that must not be dialled.
func (d *Deliverer) barred(t *tries, target target) *failure {
	f := &failure{target: target, stage: mail.StageTLS, err: target.barred}
	f.tls = &mail.TLS{Policy: target.barred.By, Source: target.barred.Source, Failure: target.barred.Failure, Problem: "not tried"}
	d.report(t, target, f.tls, plain(target.barred))
	return f
}

// noteTLS takes down how TLS went on a connection that was opened, or whose opening
// failed by it: in the evidence whether it was a downgrade, and for the domain's report.
func (d *Deliverer) noteTLS(ctx context.Context, t *tries, target target, c *conn, f *failure) {
	var facts *mail.TLS
	reason := ""
	switch {
	case f == nil:
		facts = c.tls
	case f.stage == mail.StageTLS && ctx.Err() == nil:
		facts, reason = f.tls, plain(f.err)
	}
	if facts == nil {
		return // it did not come so far, and says nothing about TLS
	}
	if reason == "" {
		reason = facts.Problem
	}
	if d.options.Seen != nil {
		d.noteDowngrade(ctx, target, facts)
	}
	d.report(t, target, facts, reason)
}

// adopt makes a connection that waited this attempt's: it was opened for mail of
// another domain, perhaps, whose policy asks for the same.
func (c *conn) adopt(t target) {
	c.target = t
	if demand := t.demand(); c.tls != nil && (c.tls.Policy != demand.By || c.tls.Source != demand.Source) {
		own := *c.tls // the other one is in somebody's evidence
		own.Policy, own.Source = demand.By, demand.Source
		c.tls = &own
	}
}

// noteDowngrade compares with what the host did before. facts are the connection's,
// which no other attempt has yet.
func (d *Deliverer) noteDowngrade(ctx context.Context, target target, facts *mail.TLS) {
	if facts.Version != "" {
		d.options.Seen.Encrypted(target.host)
		return
	}
	if facts.Downgrade = d.options.Seen.Last(ctx, target.host); facts.Downgrade.IsZero() {
		return
	}
	d.log.LogAttrs(ctx, slog.LevelWarn, "tls_downgrade: a mail server that took TLS before does not now",
		slog.String("host", target.host), slog.String("ip", target.addr.Addr().String()),
		slog.String("last", facts.Downgrade.UTC().Format(time.DateOnly)), slog.String("problem", facts.Problem))
}

// report tells of a session for the domain's report. Our own floor is not the domain's
// policy, so that what fails by it alone is no failure of theirs.
func (d *Deliverer) report(t *tries, target target, facts *mail.TLS, reason string) {
	policy := target.demand().Report
	if d.options.Sessions == nil || policy == nil || facts.Failure == mail.TLSUnprovenExchange {
		return
	}
	s := tlspolicy.Session{
		Policy: *policy, Failure: facts.Failure, Reason: reason, Host: target.host, Address: target.addr.Addr(),
		Encrypted: facts.Version != "" && facts.Failure == "", Downgrade: !facts.Downgrade.IsZero(),
	}
	switch {
	case facts.Failure == mail.TLSNoRequire, facts.Policy == mail.TLSByKind, facts.Policy == mail.TLSByRequire, facts.Policy == mail.TLSByRelay:
		s.Failure = ""
	}
	if s.Failure == "" && facts.Version == "" {
		s.Failure = mail.TLSNotOffered
		if facts.Problem != "not offered" {
			s.Failure = mail.TLSHandshake
		}
	}
	if t.plan.Unfetched != nil {
		s.Fetch = t.plan.Unfetched.Failure
		s.FetchReason = cleanText(errors.Unwrap(t.plan.Unfetched).Error())
	}
	d.options.Sessions(s)
}
