package deliver

import (
	"errors"

	"github.com/deliverd/deliverd/deliver/tlspolicy"
	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// contact says how the destination fared in an attempt, for those who choose how many
// attempts go there at once. Only the connection counts, never what was said of a
// message or a recipient; of several hosts' contacts the one that asks for most care,
// except that a host that could not be reached is forgiven where another took the
// conversation to its end.
func (t *tries) contact(o *mail.Outcome) mail.Contact {
	ok, busy, down := o.State == mail.StateAccepted, false, false
	for _, f := range t.failed {
		switch f.contact() {
		case mail.ContactOK:
			ok = true
		case mail.ContactBusy:
			busy = true
		case mail.ContactDown:
			down = true
		}
	}
	switch {
	case busy:
		return mail.ContactBusy
	case ok:
		return mail.ContactOK
	case down:
		return mail.ContactDown
	}
	return ""
}

func (f *failure) contact() mail.Contact {
	if f.reply != nil {
		return f.saidContact()
	}
	if f.scope() == scopeOurs || errors.Is(f.err, errLoop) || errors.Is(f.err, errTooLarge) {
		return ""
	}
	// A policy or a certificate, which waiting does not mend, and which may be one
	// domain's.
	if _, policy := errors.AsType[*tlspolicy.Problem](f.err); policy {
		return ""
	}
	if _, handshake := errors.AsType[*errHandshake](f.err); handshake && !f.timedOut() {
		return ""
	}
	return mail.ContactDown
}

// saidContact: 421 is the end of service at any stage (RFC 5321 4.2.3); before MAIL a
// refusal is of the connection; a 4xx to MAIL with X.4.5 is congestion (RFC 3463 3.5).
func (f *failure) saidContact() mail.Contact {
	switch {
	case f.reply.Code == 421:
		return mail.ContactBusy
	case f.stage == mail.StageMail && f.reply.Code/100 == 4 && f.reply.Enhanced[1] == 4 && f.reply.Enhanced[2] == 5:
		return mail.ContactBusy
	case f.stage == mail.StageConnect, f.stage == mail.StageGreeting, f.stage == mail.StageHello, f.stage == mail.StageAuth:
		return mail.ContactBusy
	case f.stage == mail.StageTLS:
		return ""
	}
	return mail.ContactOK
}

// planContact is the contact of an attempt that found no way: a zone that does not
// answer holds up its own domain.
func planContact(err error) mail.Contact {
	if lookup, ok := errors.AsType[*dnscheck.Error](err); ok && lookup.Kind == dnscheck.Temporary {
		return mail.ContactDown
	}
	return ""
}
