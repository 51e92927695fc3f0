package console

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Backend is what the API acts through: the queue, in the program. Errors are
// *mail.Problem where the caller can do something about them, ErrNotFound, or the
// store's own.
type Backend interface {
	// LastSeq is the newest place of the event log.
	LastSeq(ctx context.Context) (uint64, error)
	// Said waits until what is known of a message, by its id or else its reference, is
	// in the event log, or ctx ends.
	Said(ctx context.Context, id mail.ID, ref mail.Ref) error
	// Live is what is known of a message that waits; the zero value for any other.
	Live(ctx context.Context, id mail.ID) (Live, error)
	Cancel(ctx context.Context, id mail.ID, by, reason string) error

	Queue(ctx context.Context) (Queue, error)
	Pause(ctx context.Context, selector, by, reason string) error
	Resume(ctx context.Context, selector, by, reason string) error
	RetryNow(ctx context.Context, selector, by, reason string) error

	Suppress(ctx context.Context, s mail.Suppression) error
	Lift(ctx context.Context, tenant string, address mail.Address, by, reason string) error
	// Suppressions returns one tenant's, or all of them for "".
	Suppressions(ctx context.Context, tenant string) ([]mail.Suppression, error)
}

// API is the JSON API for reading and acting. [API.Routes] are its doors.
type API struct {
	View    *View
	Backend Backend
	// Resender sends again.
	Resender Resender
	Tokens   *Tokens // nil where there are none: then there are no routes for them
	// ServiceLog is told of acts, by whom and why; nil means that Log alone is.
	ServiceLog *ServiceLog
	// Calendar has the maintenance windows.
	Calendar *Calendar
	// Zone is that of the times in sentences, unless a request names one; nil means
	// UTC.
	Zone *time.Location
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log is told of what failed; nil means silence.
	Log *slog.Logger
	// Heartbeat is the pause after which a silent event stream says that it is alive; 0
	// means 15 seconds, well below the minute after which proxies hang up.
	Heartbeat time.Duration
}

// Routes are the doors of the API.
func (a *API) Routes() []Route {
	routes := []Route{
		{"GET", "/v1/messages", ScopeRead, "", a.answer(a.listMessages)},
		{"GET", "/v1/messages/{message}", ScopeRead, "", a.answer(a.getMessage)},
		{"GET", "/v1/messages/{message}/events", ScopeRead, "", a.answer(a.getEvents)},
		{"POST", "/v1/messages/{message}/cancel", ScopeAct, "", a.answer(a.cancel)},
		{"POST", "/v1/messages/{message}/resend", ScopeAct, "", a.answer(a.resend)},
		{"GET", "/v1/maintenance", ScopeRead, "", a.answer(a.listWindows)},
		{"POST", "/v1/maintenance", ScopeOperate, "", a.answer(a.addWindow)},
		{"DELETE", "/v1/maintenance", ScopeOperate, "", a.answer(a.removeWindow)},
		{"GET", "/v1/people", ScopeRead, "", a.answer(a.findPeople)},
		{"GET", "/v1/people/{person}", ScopeRead, "", a.answer(a.getPerson)},
		{"GET", "/v1/people/{person}/reply", ScopeRead, "", a.answer(a.getReply)},
		{"GET", "/v1/incidents", ScopeRead, "", a.answer(a.listIncidents)},
		{"GET", "/status.json", "", "", http.HandlerFunc(a.getStatus)},
		{"GET", "/status", "", "", http.HandlerFunc(a.showStatus)},
		{"GET", "/v1/events", ScopeRead, "", a.answer(a.streamEvents)},
		{"GET", "/v1/queue", ScopeRead, "", a.answer(a.getQueue)},
		{"POST", "/v1/queue/pause", ScopeOperate, "", a.answer(a.pause)},
		{"POST", "/v1/queue/resume", ScopeOperate, "", a.answer(a.resume)},
		{"POST", "/v1/queue/retry", ScopeOperate, "", a.answer(a.retryNow)},
		{"GET", "/v1/suppressions", ScopeRead, "", a.answer(a.listSuppressions)},
		{"POST", "/v1/suppressions", ScopeAct, "", a.answer(a.suppress)},
		{"DELETE", "/v1/suppressions", ScopeAct, "", a.answer(a.lift)},
		{"GET", "/openapi.json", "", "", http.HandlerFunc(serveOpenAPI)},
	}
	if a.ServiceLog != nil {
		routes = append(routes, Route{"GET", "/v1/log", ScopeRead, "", a.answer(a.getLog)})
	}
	if a.Tokens != nil {
		routes = append(routes,
			Route{"GET", "/v1/tokens", ScopeAdmin, "", a.answer(a.listTokens)},
			Route{"POST", "/v1/tokens", ScopeAdmin, "", a.answer(a.newToken)},
			Route{"DELETE", "/v1/tokens/{token}", ScopeAdmin, "", a.answer(a.revokeToken)})
	}
	return routes
}

// answer makes a handler of a function that returns what it could not answer.
func (a *API) answer(f func(w http.ResponseWriter, r *http.Request, by *Principal) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := PrincipalFrom(r.Context())
		if p == nil {
			writeProblem(w, notSignedIn())
			return
		}
		if err := f(w, r, p); err != nil {
			writeProblem(w, asProblem(r.Context(), a.logger(), err))
		}
	})
}

func (a *API) logger() *slog.Logger {
	if a.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return a.Log
}

func (a *API) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

// acted logs who did what, and why, on what is no single tenant's.
func (a *API) acted(r *http.Request, by *Principal, act, what, reason string) {
	a.actedFor(r, by, act, what, "", reason)
}

// actedFor logs who did what, and why, on a thing of a tenant's.
func (a *API) actedFor(r *http.Request, by *Principal, act, what, tenant, reason string) {
	if a.ServiceLog == nil {
		a.logger().InfoContext(r.Context(), "somebody acted", "act", act, "on", what, "by", by.Name, "id", by.ID, "reason", reason)
		return
	}
	a.ServiceLog.Append(r.Context(), by.entry(act, what, tenant, reason))
}

// freshFor bounds the wait for the view to reach the end of the log.
const freshFor = time.Second

// fresh waits until the view has all that was in the log when the request came, and
// reports whether it has: a caller reads what it wrote. A view that is being rebuilt
// answers with what it has.
func (a *API) fresh(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, freshFor)
	defer cancel()
	seq, err := a.Backend.LastSeq(ctx)
	return err == nil && a.View.CatchUp(ctx, seq) == nil
}

// find returns the message that the request's path names by id or by reference, and
// the ids of others with that reference. What belongs to a tenant that the caller may
// not see isn't there.
func (a *API) find(r *http.Request, by *Principal) (Summary, []mail.ID, error) {
	id, ref, ok := nameOf(r.PathValue("message"))
	if !ok {
		return Summary{}, nil, ErrNotFound
	}
	fresh := a.said(r.Context(), id, ref) && a.fresh(r.Context())
	found, err := a.lookup(r.Context(), id, ref)
	if err != nil {
		return Summary{}, nil, err
	}
	var first *Summary
	var others []mail.ID
	for i := range found {
		switch {
		case !by.Sees(found[i].Tenant):
		case first == nil:
			first = &found[i]
		default:
			others = append(others, found[i].ID)
		}
	}
	if first == nil {
		// After a crash the queue finds what waits again before the log has heard of all of
		// it: what is safe is never "not found".
		if !fresh || len(found) == 0 && a.waits(r.Context(), id) {
			return Summary{}, nil, unavailable("The index of messages is being brought up to date. Try again.")
		}
		return Summary{}, nil, ErrNotFound
	}
	return *first, others, nil
}

// waits reports whether the queue has a message that the view knows nothing of.
func (a *API) waits(ctx context.Context, id mail.ID) bool {
	if id == "" {
		return false
	}
	live, err := a.Backend.Live(ctx, id)
	return err != nil || live.Attempt > 0
}

// said waits until the log has what was acknowledged of one message.
func (a *API) said(ctx context.Context, id mail.ID, ref mail.Ref) bool {
	ctx, cancel := context.WithTimeout(ctx, freshFor)
	defer cancel()
	return a.Backend.Said(ctx, id, ref) == nil
}

// nameOf reads an id, or a reference as people write it.
func nameOf(s string) (id mail.ID, ref mail.Ref, ok bool) {
	if _, err := mail.ID(s).Bytes(); err == nil {
		return mail.ID(s), "", true
	}
	ref, ok = mail.ParseRef(s)
	return "", ref, ok
}

func (a *API) lookup(ctx context.Context, id mail.ID, ref mail.Ref) ([]Summary, error) {
	if id == "" {
		return a.View.ByRef(ctx, ref)
	}
	s, err := a.View.Summary(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return []Summary{s}, err
}

// telling is how the request wants stories told.
func (a *API) telling(r *http.Request) (Telling, error) {
	t := Telling{Lang: r.URL.Query().Get("lang"), Zone: a.Zone, Now: a.now()}
	if t.Lang == "" {
		t.Lang, _, _ = strings.Cut(r.Header.Get("Accept-Language"), ",")
	}
	if name := r.URL.Query().Get("tz"); name != "" {
		zone, err := time.LoadLocation(name)
		if err != nil || len(name) > 64 {
			return t, invalid("tz", "Name a time zone as in “Europe/Helsinki”.")
		}
		t.Zone = zone
	}
	return t, nil
}

// limitParam reads ?limit=.
func limitParam(r *http.Request, otherwise int) (int, error) {
	s := r.URL.Query().Get("limit")
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxLimit {
		return 0, invalid("limit", "A number from 1 to "+strconv.Itoa(MaxLimit)+".")
	}
	return n, nil
}

// checkReason refuses an act without a reason: it is what a colleague reads in the
// log a month later.
func checkReason(reason string) (string, error) {
	reason = strings.TrimSpace(reason)
	switch {
	case reason == "":
		return "", invalid("reason", "Say why: the reason is kept in the log.")
	case len(reason) > 500 || strings.ContainsFunc(reason, isControl):
		return "", invalid("reason", "At most 500 characters on one line.")
	}
	return reason, nil
}
