package daemon

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/mail"
)

// The bounds of traces, which open connections to wherever an address points.
const (
	maxTraces = 4 // at once
	traceTime = 2 * time.Minute
)

// traceRoutes run the conversation of an attempt up to RCPT, with this daemon's own
// configuration and resolvers, and from its own addresses.
func (d *Daemon) traceRoutes() []console.Route {
	slots := make(chan struct{}, maxTraces)
	return []console.Route{{
		Method: "POST", Pattern: "/v1/trace", Scope: console.ScopeAdmin,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			default:
				writeProblem(w, &mail.Problem{Type: mail.ProblemRateLimited, Title: "Enough traces are under way",
					Status: http.StatusTooManyRequests, Detail: "Try again in a moment.", RetryAfter: 10})
				return
			}
			traced, problem := d.trace(w, r)
			if problem != nil {
				writeProblem(w, problem)
				return
			}
			writeJSON(w, http.StatusOK, traced)
		}),
	}}
}

func (d *Daemon) trace(w http.ResponseWriter, r *http.Request) (*deliver.Trace, *mail.Problem) {
	var wanted struct {
		To   string `json:"to"`
		Kind string `json:"kind"`
	}
	decode := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	decode.DisallowUnknownFields()
	if decode.Decode(&wanted) != nil {
		return nil, &mail.Problem{Type: mail.ProblemInvalid, Title: "The request is not understood", Status: http.StatusBadRequest,
			Detail: "Send one JSON object with an address, to, and perhaps a kind."}
	}
	to, err := mail.ParseAddress(wanted.To)
	if err != nil {
		return nil, &mail.Problem{Type: mail.ProblemAddressInvalid, Title: "The address can't be right", Status: http.StatusUnprocessableEntity,
			Detail: err.Error(), Field: "to"}
	}
	if _, ok := d.config.kinds()[wanted.Kind]; wanted.Kind != "" && !ok {
		return nil, &mail.Problem{Type: mail.ProblemUnknownKind, Title: "There is no such kind", Status: http.StatusUnprocessableEntity, Field: "kind"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), traceTime)
	defer cancel()
	traced := d.settings.Load().deliverer.Trace(ctx, to, wanted.Kind)
	d.log.Info("a conversation was traced", "to", to, "state", traced.State, "by", console.PrincipalFrom(r.Context()).Name)
	return &traced, nil
}
