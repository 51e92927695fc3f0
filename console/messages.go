package console

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// Messages is the answer to GET /v1/messages.
type Messages struct {
	Messages []Summary `json:"messages"`
	// Cursor asks for the next page as ?cursor=; "" on the last one.
	Cursor string `json:"cursor,omitempty"`
}

const defaultLimit = 50

func (a *API) listMessages(w http.ResponseWriter, r *http.Request, by *Principal) error {
	q := r.URL.Query()
	n, err := limitParam(r, defaultLimit)
	if err != nil {
		return err
	}
	f := Filter{Tenants: by.visible(q.Get("tenant")), State: mail.State(q.Get("state")), Person: q.Get("person"), Limit: n}
	if s := f.State; s != "" && !knownState(s) {
		return invalid("state", "There is no such state. See /openapi.json for the list.")
	}
	f.To = mail.Address(strings.TrimSpace(q.Get("to")))
	if c := q.Get("cursor"); c != "" {
		f.Before = mail.ID(c)
		if _, err := f.Before.Bytes(); err != nil {
			return invalid("cursor", "Use the cursor of the page before, as it is.")
		}
	}
	a.fresh(r.Context())
	found, err := a.View.List(r.Context(), f)
	if err != nil {
		return err
	}
	page := Messages{Messages: found}
	if len(found) == n {
		page.Cursor = string(found[n-1].ID)
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}

// knownState: a message's recorded states; sending is shown and never recorded.
func knownState(s mail.State) bool { return rank(s) > 0 || s == StateUnknown }

// MaxWait bounds Prefer: wait.
const MaxWait = 60 * time.Second

func (a *API) getMessage(w http.ResponseWriter, r *http.Request, by *Principal) error {
	t, err := a.telling(r)
	if err != nil {
		return err
	}
	s, others, err := a.find(r, by)
	if err != nil {
		return err
	}
	if wait := preferredWait(r); wait > 0 && !s.State.Terminal() {
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + 10*time.Second))
		w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
		ctx, cancel := context.WithTimeout(r.Context(), wait)
		a.View.Wait(ctx, s.ID, ended) // whatever it comes to, the story tells
		cancel()
		t.Now = a.now()
	}
	m, err := a.tell(r.Context(), s.ID, t)
	if err != nil {
		return err
	}
	m.SameRef = others
	writeJSON(w, http.StatusOK, m)
	return nil
}

// ended: nothing more is expected, though a bounce may follow.
func ended(s mail.State) bool { return rank(s) > rank(mail.StateDelayed) }

// tell returns one message's story. A queue that can't be asked now leaves out what
// only it knows: the facts are told all the same.
func (a *API) tell(ctx context.Context, id mail.ID, t Telling) (Message, error) {
	f, err := a.View.Facts(ctx, id)
	if err != nil {
		return Message{}, err
	}
	if f.State.Open() {
		if t.Live, err = a.Backend.Live(ctx, id); err != nil {
			a.logger().WarnContext(ctx, "the queue did not tell about a message", "message", id, "error", err)
		}
	}
	if t.Incidents, err = a.View.Incidents(ctx); err != nil {
		return Message{}, err
	}
	return Tell(f, t), nil
}

// preferredWait returns the seconds of "Prefer: wait=30" (RFC 7240 2, 4.3), at most
// MaxWait; 0 for none, or for one that can't be read: a preference is no condition.
func preferredWait(r *http.Request) time.Duration {
	for preference := range strings.SplitSeq(strings.Join(r.Header.Values("Prefer"), ","), ",") {
		preference, _, _ = strings.Cut(preference, ";")
		name, value, _ := strings.Cut(preference, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		n, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 16)
		if err != nil {
			return 0
		}
		return min(time.Duration(n)*time.Second, MaxWait)
	}
	return 0
}

// Events is the answer to GET /v1/messages/{id|ref}/events.
type Events struct {
	Events []mail.Event `json:"events"`
}

func (a *API) getEvents(w http.ResponseWriter, r *http.Request, by *Principal) error {
	s, _, err := a.find(r, by)
	if err != nil {
		return err
	}
	f, err := a.View.Facts(r.Context(), s.ID)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, Events{Events: inOrder(f.Events)})
	return nil
}

// Reason is the body of an act on something that the path names.
type Reason struct {
	Reason string `json:"reason"`
}

func (a *API) cancel(w http.ResponseWriter, r *http.Request, by *Principal) error {
	t, err := a.telling(r)
	if err != nil {
		return err
	}
	var body Reason
	if err := decode(w, r, &body); err != nil {
		return err
	}
	reason, err := checkReason(body.Reason)
	if err != nil {
		return err
	}
	s, others, err := a.find(r, by)
	if err != nil {
		return err
	}
	if err := a.Backend.Cancel(r.Context(), s.ID, by.Name, reason); err != nil {
		return err
	}
	a.actedFor(r, by, "cancel", string(s.ID), s.Tenant, reason)
	a.fresh(r.Context())
	m, err := a.tell(r.Context(), s.ID, t)
	if err != nil {
		return err
	}
	m.SameRef = others
	writeJSON(w, http.StatusOK, m)
	return nil
}
