package client

import (
	"errors"

	"github.com/deliverd/deliverd/mail"
)

// IsSuppressed reports whether a message was refused because its recipient's address
// is known not to take mail. Problem.Suppression says since when, why, and how to lift
// it. Trying again is of no use; another address is.
func IsSuppressed(err error) bool { return is(err, mail.ProblemSuppressed) }

// IsAddressInvalid reports whether a message was refused because of its address.
func IsAddressInvalid(err error) bool { return is(err, mail.ProblemAddressInvalid) }

// IsConflict reports whether the idempotency key was used before for another message.
// Problem.Message is that message.
func IsConflict(err error) bool { return is(err, mail.ProblemConflict) }

// IsRateLimited reports whether this tenant or this recipient gets too much mail.
// Problem.RetryAfter says for how many seconds.
func IsRateLimited(err error) bool { return is(err, mail.ProblemRateLimited) }

// IsExpired reports whether a message was refused because its time was over before it
// came.
func IsExpired(err error) bool { return is(err, mail.ProblemExpired) }

// IsNotFound reports whether there is no such message, or none that your token may
// see.
func IsNotFound(err error) bool { return is(err, mail.ProblemNotFound) }

// IsEnded reports whether a message could not be cancelled because it had ended.
func IsEnded(err error) bool { return is(err, mail.ProblemAlreadyEnded) }

// IsUnavailable reports whether deliverd could not take the message now, after all
// attempts.
func IsUnavailable(err error) bool { return is(err, mail.ProblemUnavailable) }

func is(err error, kind string) bool {
	p, ok := errors.AsType[*Problem](err)
	return ok && p.Type == kind
}
