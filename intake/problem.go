package intake

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// The problems that intake itself finds. None has a value of the request in it.

func invalid(field, detail string) *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemInvalid, Title: "The request is not valid", Status: http.StatusBadRequest,
		Field: field, Detail: detail,
	}
}

func unsupportedMedia(detail string) *mail.Problem {
	p := invalid("", detail)
	p.Status = http.StatusUnsupportedMediaType
	return p
}

func tooLarge() *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemTooLarge, Title: "The request is too large", Status: http.StatusRequestEntityTooLarge,
		Detail: "A request may have 64 KiB. Put a link in the mail rather than a document.",
	}
}

func notFound(field, detail string) *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemNotFound, Title: "Not found", Status: http.StatusNotFound,
		Field: field, Detail: detail,
	}
}

func notSignedIn() *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemNotSignedIn, Title: "Not signed in", Status: http.StatusUnauthorized,
		Detail: "Send a token that is known here as Authorization: Bearer dlv_…; one is made with deliverd token new.",
	}
}

func unknownSource() *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemNotAllowed, Title: "Not allowed", Status: http.StatusForbidden,
		Detail: "The source in the subject is not one that may hand mail over here.",
	}
}

func unavailable(detail string) *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemUnavailable, Title: "Not now", Status: http.StatusServiceUnavailable,
		Detail: detail, RetryAfter: 1,
	}
}

func rateLimited(field, what string, wait time.Duration) *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemRateLimited, Title: "Too much at once", Status: http.StatusTooManyRequests,
		Field: field, Detail: what + " Try again after the time in retry_after.", RetryAfter: seconds(wait),
	}
}

// seconds rounds up: who waits for as long as the answer says must not be refused
// again.
func seconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }

func suppressed(s *mail.Suppression, why string) *mail.Problem {
	const lift = "When the address works again: deliverd suppress rm, DELETE /v1/suppressions, or the console."
	return &mail.Problem{
		Type: mail.ProblemSuppressed, Title: "The recipient is suppressed", Status: http.StatusUnprocessableEntity,
		Field:  "to",
		Detail: "No mail is sent to this address since " + s.Since.UTC().Format("2006-01-02 15:04 UTC") + ": " + why,
		Suppression: &mail.SuppressionNotice{
			Cause: s.Cause, Since: s.Since.UTC(), Until: s.Until.UTC(), Lift: lift,
		},
	}
}

// problem passes on a *mail.Problem and makes one of any other error. What that
// error says is the operator's to read, not the caller's.
func (in *Intake) problem(ctx context.Context, step string, err error) *mail.Problem {
	if p, ok := errors.AsType[*mail.Problem](err); ok {
		return p
	}
	if ctx.Err() == nil {
		in.log.LogAttrs(ctx, slog.LevelError, "intake failed", slog.String("step", step), slog.Any("error", err))
	}
	return unavailable("The message was not taken. Send it again with the same idempotency key.")
}
