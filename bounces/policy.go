package bounces

import (
	"time"

	"github.com/deliverd/deliverd/mail"
)

// suppressFor is how long a final failure about the address itself stops mail to it:
// long enough that a login form does not hammer a server with a mistyped address,
// short enough that the person who mistyped gets in tomorrow without asking anybody.
const suppressFor = 24 * time.Hour

// Suppress is the one policy for what stops mail to an address, whether it was said
// during delivery or mailed back later. It is a pure function of the event: it returns
// the suppression that follows from it, or false.
//
//	refused or returned, final and about the address   24 hours
//	refused: the domain says that it takes no mail      until lifted
//	complained                                          until lifted
//
// Everything else, a policy above all, never suppresses (law 10). Nor does a full mailbox,
// for however many days: it is full for everybody's mail, its owner learns of it in no
// other way, and empties it to get ours. Bulk mailers give up on one after some days
// since they would try for ever; our mail ends with its expiry. A suppression holds
// for one tenant and can always be lifted.
func Suppress(e mail.Event) (mail.Suppression, bool) {
	s := mail.Suppression{
		Tenant: e.Tenant, Address: e.To, Cause: e.Cause, Since: e.At, By: "deliverd", Message: e.Message,
	}
	if e.Evidence != nil && e.Evidence.Reply != nil {
		s.Reply = e.Evidence.Reply.String()
	}
	switch {
	case e.To == "":
		return mail.Suppression{}, false
	case e.State == mail.StateComplained:
		s.Cause = mail.CauseComplaint
	case e.State == mail.StateRefused && e.Cause == mail.CauseNullMX:
	case (e.State == mail.StateRefused || e.State == mail.StateReturned) && e.Suppress && aboutAddress(e.Cause):
		s.Until = e.At.Add(suppressFor)
	default:
		return mail.Suppression{}, false
	}
	return s, true
}

// Standing is what is known of one tenant's address: whether mail to it is stopped.
// The zero value knows nothing. Applying the same events in any order leads to the
// same Standing.
type Standing struct {
	Suppression mail.Suppression // the newest one; its Since is zero if there was none
	LiftedAt    time.Time        // when a person last lifted one, zero if nobody did
}

// Apply takes an event about the address into account.
func (s *Standing) Apply(e mail.Event) {
	if e.State == mail.EventLifted {
		if e.At.After(s.LiftedAt) {
			s.LiftedAt = e.At
		}
		return
	}
	n, ok := Suppress(e)
	if !ok || n.Since.Before(s.Suppression.Since) {
		return
	}
	if n.Since.Equal(s.Suppression.Since) && !lasts(n, s.Suppression) {
		return
	}
	s.Suppression = n
}

// lasts reports whether a lasts longer than b, so that two of the same instant have
// an order.
func lasts(a, b mail.Suppression) bool {
	if a.Until.IsZero() || b.Until.IsZero() {
		return a.Until.IsZero() && !b.Until.IsZero()
	}
	return a.Until.After(b.Until)
}

// At returns the suppression that holds at now, nil if none does. One that was lifted
// at the instant at which it began is lifted: the person saw it.
func (s *Standing) At(now time.Time) *mail.Suppression {
	n := s.Suppression
	if n.Since.IsZero() || !s.LiftedAt.Before(n.Since) || now.Before(n.Since) || !n.Until.IsZero() && !now.Before(n.Until) {
		return nil
	}
	return &n
}
