package deliver

import (
	"context"
	"errors"
	"time"

	"github.com/deliverd/deliverd/bounces"
	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// This file alone decides what a failure means: first how far it reaches (scope),
// which says whether another host is asked, and at the end what becomes of the
// message (verdict).
//
//	scope       what it was                                     what follows
//	connection  a reused connection at its end                  a fresh one, nothing counted (failure.stale)
//	host        no connection, no SMTP, no TLS where wanted,    the next address, then the next host;
//	            421, 4xx or 5xx before MAIL, 4xx to MAIL,       refused only by every best host and twice
//	            x.3.x to RCPT
//	message     5xx to MAIL, any no to DATA, body or dot,       decided: no other host is asked
//	            no reply to the dot
//	recipient   any other no to RCPT                            decided
//	ours        expired, superseded, cancelled, interrupted,    decided; where it is a fault of ours,
//	            a fault of this machine or its configuration    no attempt is counted

type scope int

const (
	scopeHost scope = iota
	scopeMessage
	scopeRecipient
	scopeOurs
)

func (f *failure) scope() scope {
	if f.ambiguous {
		return scopeMessage
	}
	if f.reply == nil {
		_, stopped := errors.AsType[*errStopped](f.err)
		_, ours := errors.AsType[*errOurs](f.err)
		if stopped || ours || ourFault(f.err) {
			return scopeOurs
		}
		return scopeHost
	}
	temporary := f.reply.Code/100 == 4
	switch f.stage {
	case mail.StageMail:
		if temporary {
			return scopeHost
		}
	case mail.StageRcpt:
		// X.3.x is the state of that host's mail system (RFC 3463 3.4), and 421 the end of
		// its service; another host may be well.
		if f.reply.Code == 421 || temporary && f.reply.Enhanced[1] == 3 {
			return scopeHost
		}
		return scopeRecipient
	case mail.StageData, mail.StageBody, mail.StageDot:
	default:
		return scopeHost
	}
	if f.reply.Code == 421 && f.stage != mail.StageDot {
		return scopeHost
	}
	return scopeMessage
}

// verdict is what a try, or all of them, come to.
func (t *tries) verdict() mail.Outcome {
	f := t.lastWord()
	o := mail.Outcome{Evidence: t.evidence(f)}
	switch {
	case f.ambiguous:
		o.State, o.Cause, o.PossibleDuplicate = mail.StateDelayed, causeOf(f), true
	case f.scope() == scopeOurs:
		ours(&o, f.err)
	case f.reply != nil:
		t.byReply(&o, f)
	default:
		t.byError(&o, f)
	}
	return o
}

// lastWord chooses the failure that the message's fate hangs on: the one that
// decided, else the first reply (support can act on a reply, and hardly on a
// timeout, and hosts are tried the best first), else the first that a policy on TLS
// forbade, else the last failure.
func (t *tries) lastWord() *failure {
	last := t.failed[len(t.failed)-1]
	if last.scope() != scopeHost {
		return last
	}
	for _, f := range t.failed {
		if f.reply != nil {
			return f
		}
	}
	for _, f := range t.failed {
		if _, ok := errors.AsType[*tlspolicy.Problem](f.err); ok {
			return f
		}
	}
	return last
}

// byReply decides by what a server said. The basic code says whether it was meant
// to be final (FAULTS A21), package bounces what it was about.
func (t *tries) byReply(o *mail.Outcome, f *failure) {
	v := bounces.Classify(bounces.Said{Reply: *f.reply, Stage: f.stage, Host: f.target.host, Provider: t.plan.Provider})
	o.Cause, o.RetryAfter = v.Cause, v.RetryAfter
	if v.Provider != "" {
		o.Evidence.Provider = v.Provider
	}
	o.State = mail.StateRefused
	if f.reply.Code/100 == 4 || t.retry5xx(f, v) {
		o.State = mail.StateDelayed
	}
	// What is said before MAIL is about us, whatever its words.
	o.Suppress = o.State == mail.StateRefused && v.Suppress && f.scope() != scopeHost
}

// retry5xx reports whether a 5xx is worth another attempt all the same.
func (t *tries) retry5xx(f *failure, v bounces.Verdict) bool {
	switch {
	case v.Cause == mail.CauseGreylisted || v.Cause == mail.CauseRateLimited:
		return true // it says itself that we are to come back
	case f.scope() == scopeHost && t.plan.Relay:
		return true // our own relay refuses us, which is nothing about the message
	case f.scope() == scopeHost && !t.everyHost(true, func(g *failure) bool { return g.reply != nil && g.reply.Code/100 == 5 }):
		return true // another host may yet take it
	case f.scope() == scopeHost, v.Retry:
		return t.attempt.Number <= 1 // FAULTS A06, A26: once
	}
	return false
}

// byError decides where no server said anything of use.
func (t *tries) byError(o *mail.Outcome, f *failure) {
	o.State, o.Cause = mail.StateDelayed, causeOf(f)
	switch {
	case errors.Is(f.err, errLoop):
		// RFC 5321 5.1: being a best MX ourselves, there is nobody else to ask.
		if t.everyHost(true, func(g *failure) bool { return errors.Is(g.err, errLoop) }) {
			o.State = mail.StateRefused
		}
	case errors.Is(f.err, errTooLarge):
		if t.everyHost(false, func(g *failure) bool { return errors.Is(g.err, errTooLarge) }) {
			o.State = mail.StateRefused // FAULTS A14
		}
	case f.requireTLS():
		// RFC 8689 4.2.1: nobody there promises it, and none of them will tomorrow.
		if t.everyHost(false, (*failure).requireTLS) {
			o.State = mail.StateRefused
		}
	}
}

// everyHost reports whether every host of the plan, or every one of the lowest
// preference, was tried, and each time with a failure that is so.
func (t *tries) everyHost(onlyBest bool, is func(*failure) bool) bool {
	best := t.plan.best()
	for _, h := range t.plan.Hosts {
		if onlyBest && h.Pref != best {
			continue
		}
		tried := false
		for _, f := range t.failed {
			if f.target.host != h.Name {
				continue
			}
			if tried = true; !is(f) {
				return false
			}
		}
		if !tried {
			return false
		}
	}
	return true
}

// requireTLS reports whether a server can't be trusted to pass protection on.
func (f *failure) requireTLS() bool {
	problem, ok := errors.AsType[*tlspolicy.Problem](f.err)
	return ok && (problem.Failure == mail.TLSNoRequire || problem.Failure == mail.TLSUnprovenExchange)
}

// causeOf names the cause of a failure without a reply.
func causeOf(f *failure) mail.Cause {
	if _, ok := errors.AsType[*errProtocol](f.err); ok {
		return mail.CauseProtocol
	}
	if errors.Is(f.err, errInjection) {
		return mail.CauseProtocol
	}
	if problem, ok := errors.AsType[*tlspolicy.Problem](f.err); ok {
		if problem.Failure == mail.TLSALookup {
			return mail.CauseDNSFailure
		}
		return mail.CauseTLSRequired
	}
	if _, ok := errors.AsType[*errHandshake](f.err); ok {
		return mail.CauseTLSRequired
	}
	switch {
	case errors.Is(f.err, errLoop):
		return mail.CauseLoop
	case errors.Is(f.err, errTooLarge):
		return mail.CauseTooLarge
	case plain(f.err) == errTimeout.Error():
		return mail.CauseTimeout
	}
	return mail.CauseNetwork
}

// ours decides where we stopped, or failed ourselves.
func ours(o *mail.Outcome, err error) {
	switch {
	case errors.Is(err, mail.ErrExpired):
		o.State, o.Cause = mail.StateExpired, mail.CauseNotUsefulInTime
	case errors.Is(err, mail.ErrSuperseded):
		o.State, o.Cause = mail.StateSuperseded, mail.CauseSuperseded
	case errors.Is(err, mail.ErrCancelled):
		o.State, o.Cause = mail.StateCancelled, mail.CauseCancelled
	default:
		o.Local = plain(err)
	}
	o.Evidence.Error = plain(err)
}

// refusedByUs decides where an address can't be put into a conversation at all.
func refusedByUs(err error) mail.Outcome {
	return mail.Outcome{State: mail.StateRefused, Cause: mail.CauseProtocol,
		Evidence: mail.Evidence{Stage: mail.StageMail, Error: err.Error()}}
}

// byPlan decides where no way to the domain was found (FAULTS C01-C08, C18).
func byPlan(ctx context.Context, a *mail.Attempt, err error) mail.Outcome {
	said := cleanText(err.Error())
	o := mail.Outcome{Evidence: mail.Evidence{Stage: mail.StageDNS, Error: said}}
	dns, ok := errors.AsType[*dnscheck.Error](err)
	switch {
	case ctx.Err() != nil:
		ours(&o, mail.ErrInterrupted)
	case !ok || dns.Kind == dnscheck.Local:
		o.Local = said
	case dns.Kind == dnscheck.NullMX:
		o.State, o.Cause, o.Suppress = mail.StateRefused, mail.CauseNullMX, true
	case dns.Kind == dnscheck.BadName:
		o.State, o.Cause, o.Suppress = mail.StateRefused, mail.CauseBadDomain, true
	case dns.Kind == dnscheck.NoDomain:
		o.State, o.Cause = mail.StateRefused, mail.CauseBadDomain
		// A zone that is gone for an hour comes back: a message that has the time asks
		// twice, and only what was confirmed suppresses the address.
		if o.Suppress = a.Number > 1; !o.Suppress && livesLong(&a.Message) {
			o.State = mail.StateDelayed
		}
	case dns.Kind == dnscheck.NoAddress || dns.Kind == dnscheck.NoData:
		// A mistake in a zone, and not the person's: FAULTS C08 wants it final (5.4.4),
		// an administrator can mend it within the life of an invite.
		o.State, o.Cause = mail.StateRefused, mail.CauseBadDomain
		if a.Number <= 1 && livesLong(&a.Message) {
			o.State = mail.StateDelayed
		}
	default:
		o.State, o.Cause = mail.StateDelayed, mail.CauseDNSFailure
	}
	return o
}

// livesLong reports whether a message has time for a second opinion (FAULTS C01).
func livesLong(m *mail.Message) bool { return m.ExpiresAt.Sub(m.QueuedAt) > time.Hour }
