package queue

import (
	"time"

	"github.com/deliverd/deliverd/mail"
)

// step is what follows from an attempt's outcome.
type step struct {
	event  mail.Event
	due    time.Time // zero when the event is terminal
	atRisk bool      // say so, if it was not said before
}

// next is the lifecycle: what an outcome of attempt number attempt makes of a
// message. It decides and does nothing; the outcome's State must not be "". chance in
// [0, 1) is the jitter's.
func next(m *mail.Message, k mail.Kind, attempt int, o mail.Outcome, now time.Time, chance float64) step {
	e := mail.NewEvent(m, o.State, attempt, now)
	e.Cause, e.Suppress, e.PossibleDuplicate = o.Cause, o.Suppress, o.PossibleDuplicate
	e.Evidence = new(o.Evidence)
	switch {
	case o.State.Terminal():
		if e.Cause == "" {
			e.Cause = causeOf(o.State)
		}
		return step{event: e}
	case o.PossibleDuplicate && k.AtMostOnce:
		// Nobody knows, and another attempt could be the second mail.
		return terminal(e, mail.StateRefused, attempt)
	case !now.Before(m.ExpiresAt):
		return terminal(e, mail.StateExpired, attempt)
	}
	e.State, e.ID = mail.StateDelayed, mail.EventID(m.ID, mail.StateDelayed, attempt)
	left := m.ExpiresAt.Sub(now)
	r := retryAfter(k, attempt, left, o.RetryAfter)
	due := now.Add(jittered(r, left, chance))
	if r.attempt {
		e.NextAttempt = due
	}
	return step{event: e, due: due, atRisk: r.atRisk}
}

func terminal(e mail.Event, s mail.State, attempt int) step {
	e.State, e.ID = s, mail.EventID(e.Message, s, attempt)
	if s != mail.StateRefused || e.Cause == "" {
		e.Cause = causeOf(s)
	}
	return step{event: e}
}

// causeOf is the cause that a state has by itself.
func causeOf(s mail.State) mail.Cause {
	switch s {
	case mail.StateExpired:
		return mail.CauseExpired
	case mail.StateSuperseded:
		return mail.CauseSuperseded
	case mail.StateCancelled:
		return mail.CauseCancelled
	case mail.StateSuppressed:
		return mail.CauseSuppressed
	case mail.StateRefused:
		return mail.CauseUnknown
	}
	return ""
}
