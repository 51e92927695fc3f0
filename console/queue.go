package console

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Queue is the answer to GET /v1/queue: what waits.
type Queue struct {
	At      time.Time `json:"at"`
	Waiting int       `json:"waiting"` // messages that have not ended
	Sending int       `json:"sending"` // of them, those with an attempt under way
	Delayed int       `json:"delayed"` // of them, those with a failed attempt behind them
	// Expiring is how many expire within the next 5 minutes.
	Expiring int `json:"expiring"`
	// Oldest is when the oldest of them was queued.
	Oldest     time.Time `json:"oldest,omitzero"`
	ByKind     []Waiting `json:"by_kind"`
	ByDomain   []Waiting `json:"by_domain"`   // the domains with the most, at most 50
	ByProvider []Waiting `json:"by_provider"` // the providers with the most, at most 50
	// ByDestination are the destinations with the most, at most 50, and those that are
	// down.
	ByDestination []Destination `json:"by_destination"`
	Pauses        []Pause       `json:"pauses"`
	// NodesMissing is how many nodes did not answer: what waits on them is not counted.
	NodesMissing int `json:"nodes_missing"`
}

// Destination is where mail of one or more domains goes: a provider, or the set of
// their MX hosts. One of which no attempt has told yet is "@" and the domain.
type Destination struct {
	Name    string    `json:"name"`
	Domains int       `json:"domains"` // that have mail waiting for it
	Waiting int       `json:"waiting"`
	Sending int       `json:"sending"` // of them, those with an attempt under way
	Oldest  time.Time `json:"oldest,omitzero"`
	State   string    `json:"state"`  // "open", "limited": it asked for less, or "down"
	Window  int       `json:"window"` // how many attempts at once it is given
	// Gap is the time between two attempts' beginnings, where mail is paced.
	Gap float64 `json:"gap_seconds,omitempty"`
	// Since is when the present trouble began, Look when one that is down is tried next.
	Since time.Time `json:"since,omitzero"`
	Look  time.Time `json:"next_look,omitzero"`
	// Trouble is the last one, past or present.
	Trouble *Trouble `json:"trouble,omitempty"`
}

// Trouble is what a destination's servers said when they took less than was offered.
type Trouble struct {
	At    time.Time  `json:"at"`
	Cause mail.Cause `json:"cause"`
	Host  string     `json:"host,omitempty"`
	Said  string     `json:"said,omitempty"`
}

// Waiting is one part of what waits.
type Waiting struct {
	Name    string    `json:"name"`
	Waiting int       `json:"waiting"`
	Delayed int       `json:"delayed"`
	Oldest  time.Time `json:"oldest,omitzero"`
}

// Pause holds back what its selector matches.
type Pause struct {
	Selector string    `json:"selector"` // "kind:invite", "domain:…", "provider:…", "tenant:…"
	By       string    `json:"by"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
}

// QueueAct is the body of POST /v1/queue/pause, resume and retry.
type QueueAct struct {
	Selector string `json:"selector"`
	Reason   string `json:"reason"`
}

func (a *API) getQueue(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if !by.seesAll() {
		return notAllowed("The queue is every tenant's, and this token is bound to some.")
	}
	q, err := a.Backend.Queue(r.Context())
	if err != nil {
		return err
	}
	q.ByKind, q.ByDomain, q.ByProvider = orEmpty(q.ByKind), orEmpty(q.ByDomain), orEmpty(q.ByProvider)
	q.ByDestination, q.Pauses = orEmpty(q.ByDestination), orEmpty(q.Pauses)
	writeJSON(w, http.StatusOK, q)
	return nil
}

// orEmpty makes JSON's [] of nil: scripts read .pauses[].
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func (a *API) pause(w http.ResponseWriter, r *http.Request, by *Principal) error {
	act, err := a.queueAct(w, r, by)
	if err != nil {
		return err
	}
	return a.done(w, r, by, "pause", act, a.Backend.Pause(r.Context(), act.Selector, by.Name, act.Reason))
}

func (a *API) resume(w http.ResponseWriter, r *http.Request, by *Principal) error {
	act, err := a.queueAct(w, r, by)
	if err != nil {
		return err
	}
	return a.done(w, r, by, "resume", act, a.Backend.Resume(r.Context(), act.Selector, by.Name, act.Reason))
}

func (a *API) retryNow(w http.ResponseWriter, r *http.Request, by *Principal) error {
	act, err := a.queueAct(w, r, by)
	if err != nil {
		return err
	}
	return a.done(w, r, by, "retry", act, a.Backend.RetryNow(r.Context(), act.Selector, by.Name, act.Reason))
}

func (a *API) done(w http.ResponseWriter, r *http.Request, by *Principal, name string, act QueueAct, err error) error {
	if err != nil {
		return err
	}
	a.actedFor(r, by, name, act.Selector, tenantOf(act.Selector), act.Reason)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// tenantOf is the tenant whose mail a selector chooses, "" for one that chooses by
// something else.
func tenantOf(selector string) string {
	if tenant, ok := strings.CutPrefix(selector, "tenant:"); ok {
		return tenant
	}
	return ""
}

// selectors are what a selector may choose by.
var selectors = [...]string{"kind", "domain", "provider", "tenant"}

func (a *API) queueAct(w http.ResponseWriter, r *http.Request, by *Principal) (QueueAct, error) {
	var act QueueAct
	if err := decode(w, r, &act); err != nil {
		return act, err
	}
	return checkQueueAct(act, by)
}

// checkQueueAct holds an act against what a selector may be and whom by may act on.
func checkQueueAct(act QueueAct, by *Principal) (QueueAct, error) {
	sort, value, ok := strings.Cut(strings.TrimSpace(act.Selector), ":")
	if !ok || !slices.Contains(selectors[:], sort) || value == "" || len(value) > 255 || strings.ContainsFunc(value, isControl) {
		return act, invalid("selector", "Write kind:, domain:, provider: or tenant: and a name, as in “domain:example.com”.")
	}
	act.Selector = sort + ":" + value
	switch {
	case by.seesAll():
	case sort == "tenant" && by.Sees(value):
	case sort == "tenant":
		return act, notFound()
	default:
		return act, notAllowed("This token is bound to tenants: it may only choose by tenant:.")
	}
	var err error
	act.Reason, err = checkReason(act.Reason)
	return act, err
}

// Suppressions is the answer to GET /v1/suppressions.
type Suppressions struct {
	Suppressions []mail.Suppression `json:"suppressions"`
}

// SuppressionRequest is the body of POST /v1/suppressions.
type SuppressionRequest struct {
	Tenant  string    `json:"tenant"`
	Address string    `json:"address"`
	Until   time.Time `json:"until,omitzero"` // zero: until lifted
	Reason  string    `json:"reason"`
}

func (a *API) listSuppressions(w http.ResponseWriter, r *http.Request, by *Principal) error {
	all, err := a.Backend.Suppressions(r.Context(), r.URL.Query().Get("tenant"))
	if err != nil {
		return err
	}
	seen := []mail.Suppression{}
	for _, s := range all {
		if by.Sees(s.Tenant) {
			seen = append(seen, s)
		}
	}
	writeJSON(w, http.StatusOK, Suppressions{seen})
	return nil
}

func (a *API) suppress(w http.ResponseWriter, r *http.Request, by *Principal) error {
	var body SuppressionRequest
	if err := decode(w, r, &body); err != nil {
		return err
	}
	reason, err := checkReason(body.Reason)
	if err != nil {
		return err
	}
	s := mail.Suppression{
		Tenant: body.Tenant, Cause: mail.CauseSuppressed, Since: a.now().UTC(), Until: body.Until, By: by.Name, Reason: reason,
	}
	if s.Address, err = suppressible(by, body.Tenant, body.Address); err != nil {
		return err
	}
	if !s.Until.IsZero() && !s.Until.After(s.Since) {
		return invalid("until", "This time has passed.")
	}
	if err := a.Backend.Suppress(r.Context(), s); err != nil {
		return err
	}
	a.actedFor(r, by, "suppress", string(s.Address), s.Tenant, reason)
	writeJSON(w, http.StatusCreated, s)
	return nil
}

func (a *API) lift(w http.ResponseWriter, r *http.Request, by *Principal) error {
	body, err := liftRequest(w, r)
	if err != nil {
		return err
	}
	reason, err := checkReason(body.Reason)
	if err != nil {
		return err
	}
	address, err := suppressible(by, body.Tenant, body.Address)
	if err != nil {
		return err
	}
	if err := a.Backend.Lift(r.Context(), body.Tenant, address, by.Name, reason); err != nil {
		return err
	}
	a.actedFor(r, by, "lift", string(address), body.Tenant, reason)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// liftRequest reads what to lift from the query, or from a body like that of POST:
// some proxies drop a DELETE's body, which means nothing by RFC 9110 9.3.5, and some
// logs keep a query.
func liftRequest(w http.ResponseWriter, r *http.Request) (body SuppressionRequest, err error) {
	if r.ContentLength != 0 {
		err = decode(w, r, &body)
		return body, err
	}
	q := r.URL.Query()
	return SuppressionRequest{Tenant: q.Get("tenant"), Address: q.Get("address"), Reason: q.Get("reason")}, nil
}

func suppressible(by *Principal, tenant, address string) (mail.Address, error) {
	if !by.Sees(tenant) {
		return "", notFound()
	}
	a, err := mail.ParseAddress(strings.TrimSpace(address))
	if err != nil {
		return "", invalid("address", "This is no address that mail could go to: want name@example.com.")
	}
	return a, nil
}
