package console

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"github.com/deliverd/deliverd/mail"
)

func invalid(field, detail string) *mail.Problem {
	return &mail.Problem{Type: mail.ProblemInvalid, Title: "The request is not valid", Status: http.StatusBadRequest, Field: field, Detail: detail}
}

// notFound is the one answer for what isn't there and for what is another tenant's.
func notFound() *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemNotFound, Title: "Not found", Status: http.StatusNotFound,
		Detail: "There is no such thing, or this token may not see it.",
	}
}

func notSignedIn() *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemNotSignedIn, Title: "Not signed in", Status: http.StatusUnauthorized,
		Detail: "Send a valid token as “Authorization: Bearer dlv_…”. “deliverd token new” makes one.",
	}
}

func notAllowed(detail string) *mail.Problem {
	return &mail.Problem{Type: mail.ProblemNotAllowed, Title: "Not allowed", Status: http.StatusForbidden, Detail: detail}
}

func crossOrigin() *mail.Problem {
	return notAllowed("The request comes from another site's page. Call this API from a program, or from its own pages.")
}

func unavailable(detail string) *mail.Problem {
	return &mail.Problem{
		Type: mail.ProblemUnavailable, Title: "Not available now", Status: http.StatusServiceUnavailable, Detail: detail, RetryAfter: 2,
	}
}

// asProblem returns what the caller is told of err. What is no problem of the
// request's own is logged and not told: its text may hold what a caller must not
// see.
func asProblem(ctx context.Context, log *slog.Logger, err error) *mail.Problem {
	if p, ok := errors.AsType[*mail.Problem](err); ok {
		return p
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return notFound()
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable("The answer took too long. Try again.")
	}
	log.ErrorContext(ctx, "a request failed", "error", err)
	return unavailable("Something on our side failed; the log tells what. Try again.")
}

// writeProblem answers with p (RFC 9457).
func writeProblem(w http.ResponseWriter, p *mail.Problem) {
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="deliverd"`)
	}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", retryAfter(p.RetryAfter))
	}
	w.WriteHeader(p.Status)
	writeIndented(w, p)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	writeIndented(w, value)
}

// writeIndented writes for people and programs alike: curl is a way to read this. A
// failed write is the client's going away, which nobody needs to hear of.
func writeIndented(w http.ResponseWriter, value any) {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.Encode(value)
}
